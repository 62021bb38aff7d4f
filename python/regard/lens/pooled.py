"""A map of a text that grows: its weights pooled in square cells, as many as a report shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from regard._regard import _cell

from .facts import F32


class Pooled:
    """Sums over rows of the mass on keys, `[heads, rows of cells, columns of cells]`, in cells of `block` by `block` tokens."""

    def __init__(self, heads: int) -> None:
        self.block, self.tokens = 1, 0
        self._sums: F32 = np.zeros((heads, 1, 1), np.float32)  # with room for more

    def grow(self, tokens: int) -> None:
        """Makes room for a text of so many tokens: cells become larger where they would be more than 256."""
        self.tokens = max(self.tokens, tokens)
        while self.block < _cell(self.tokens):
            heads, edge, _ = self._sums.shape
            even = np.pad(self._sums, ((0, 0), (0, edge % 2), (0, edge % 2)))
            self._sums = even.reshape(heads, -(-edge // 2), 2, -(-edge // 2), 2).sum((2, 4))
            self.block *= 2
        missing = -(-self.tokens // self.block) - self._sums.shape[1]
        if missing > 0:
            room = max(missing, self._sums.shape[1])  # twice as large: a text that grows token by token is copied seldom
            self._sums = np.pad(self._sums, ((0, 0), (0, room), (0, room)))

    def cell(self, row: int, key: int) -> tuple[int, int]:
        """The rows and keys of a cell of a part that begins there: whole cells where they are level with those of this map."""
        return self.block if row % self.block == 0 else 1, self.block if key % self.block == 0 else 1

    def add(self, means: F32, rows: range, keys: range) -> None:
        """Adds a part: `means` `[heads, rows of cells, columns of cells]`, and the first tokens of its rows and columns of cells."""
        in_cell = np.minimum(rows.step, rows.stop - np.arange(rows.start, rows.stop, rows.step)).astype(np.float32)
        at = (np.arange(rows.start, rows.stop, rows.step) // self.block)[:, None]
        columns = np.arange(keys.start, keys.stop, keys.step) // self.block
        every: Any = slice(None)
        np.add.at(self._sums, (every, at, columns[None]), means * in_cell[:, None])

    def means(self) -> F32:
        """The mean over the rows of each cell of the mass on its keys."""
        edge = -(-self.tokens // self.block)
        rows = np.minimum(self.block, self.tokens - self.block * np.arange(edge)).astype(np.float32)
        means: F32 = self._sums[:, :edge, :edge] / rows[:, None]
        return means
