"""Who sees whom in ONNX's Attention: causality, window, padding and `attn_mask`, for the kernels and written out.

Query `i` of a block stands at position `p = offset + i`. It sees keys `p − left ≤ j ≤ p + right`, and `j ≤ p` where it is causal, and those
that are no padding: one run of keys, `first ≤ j < end`. `attn_mask` hides more (bools), or is added to the scores (numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regard import _regard
from regard.onnx.node import Array

Run = tuple[Array, Array]


@dataclass(frozen=True)
class Visibility:
    """The keys that each query sees, and what is added to its scores."""

    run: Run | None
    """First key and end, `[batch or 1, 1, q_len]` each; None: all keys."""
    bools: Array | None
    bias: Array | None
    """Both broadcast to `[batch, q_heads, q_len, kv_len]`."""

    def masks(self) -> list[_regard.Mask]:
        """For the kernels; `bias` goes beside them."""
        masks = [] if self.run is None else [_regard.Spans(*self.run)]
        return masks if self.bools is None else [*masks, _regard.Bools(self.bools)]

    def written_out(self, kv_len: int, dtype: np.dtype[Any]) -> Array:
        """What is added to the scores, −∞ where a key is hidden; broadcasts to `[batch, q_heads, q_len, kv_len]`."""
        added = np.zeros((1, 1, 1, 1), dtype) if self.bias is None else self.bias
        hidden = dtype.type(-np.inf)
        if self.run is not None:
            first, end = (x[..., None] for x in self.run)
            keys = np.arange(kv_len)
            added = np.where((first <= keys) & (keys < end), added, hidden)
        return added if self.bools is None else np.where(self.bools, added, hidden)


def visible_run(
    q_len: int, kv_len: int, offset: Sequence[int] | Array, window: tuple[int, int], causal: bool, lengths: Array | None
) -> Run | None:
    """The run of keys that each query sees; None where that is all of them.

    `offset`: keys before the queries, one for all batches or one each. `window`: `(left, right)`, −1 is no bound. `lengths`: keys of each
    batch that are no padding.
    """
    left, right = window
    if left < 0 and right < 0 and not causal and lengths is None:
        return None
    position = np.asarray(offset)[:, None, None] + np.arange(q_len)
    first = position - left if left >= 0 else np.zeros_like(position)
    ends = [np.full_like(position, kv_len)]
    if right >= 0:
        ends.append(position + right + 1)
    if causal:
        ends.append(position + 1)
    if lengths is not None:
        ends.append(np.broadcast_to(lengths[:, None, None], position.shape))
    return np.clip(first, 0, kv_len), np.clip(np.minimum.reduce(ends), 0, kv_len)


def widened(mask: Array, scores: tuple[int, int, int, int], pads: bool) -> Array:
    """`attn_mask`, bools or floats, as four dimensions that broadcast to `scores`, `[batch, q_heads, q_len, kv_len]`.

    `pads`: a last dimension that is short of `kv_len` is filled up with hidden keys, as opsets from 24 on say; opset 23 broadcasts it.
    """
    short = scores[-1] - mask.shape[-1] if mask.ndim and pads else 0
    if short > 0:
        hidden = mask.dtype.type(0 if mask.dtype == np.bool_ else -np.inf)
        mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, short)], constant_values=hidden)
    try:
        broadcasts = np.broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        broadcasts = False
    if not broadcasts:
        raise ValueError(f"attn_mask has shape {list(mask.shape)}, which does not broadcast to {list(scores)}")
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
