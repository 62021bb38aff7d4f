"""Runs of keys: the mask functions of transformers that let each query see one run of keys, as its first key and its end.

transformers describes a mask by a function of four indices and writes it out for every pair of query and key. Those below need two
numbers for each query instead. They are recognised by name, after this module has checked once that the installed transformers still
means the same by these names; every other function keeps its own meaning and is written out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import masking_utils

MaskFunction: TypeAlias = Callable[..., Any]
Run: TypeAlias = tuple[Tensor, Tensor]  # first key, and end: one past the last

FAR = 2**40  # no bound: beyond every position, and far from overflowing when positions are added


def runs(function: MaskFunction, q: Tensor) -> Run | None:
    """The keys that the queries at positions `q`, int64 `[length]` or `[batch, length]`, see under `function`.

    Returns the first key and the end for each query, int64, of the shape of `q` or with a batch; None if `function` is not known to let
    every query see one run of keys.
    """
    if not trusted():
        return None
    return _runs(function, q)


def _runs(function: MaskFunction, q: Tensor) -> Run | None:
    if getattr(function, "__module__", None) != masking_utils.__name__:
        return None
    rule = RULES.get(function.__qualname__)
    return rule(q, **_enclosed(function)) if rule is not None else None


def _enclosed(function: MaskFunction) -> dict[str, Any]:
    """The variables that an inner function has of the function around it."""
    cells = function.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}


def _causal(q: Tensor) -> Run:
    return torch.full_like(q, -FAR), q + 1


def _everything(q: Tensor) -> Run:
    return torch.full_like(q, -FAR), torch.full_like(q, FAR)


def _window(q: Tensor, sliding_window: int) -> Run:
    return q - sliding_window + 1, torch.full_like(q, FAR)


def _window_on_both_sides(q: Tensor, sliding_window: int) -> Run:
    return q - sliding_window, q + sliding_window + 1


def _chunk(q: Tensor, chunk_size: int, left_padding: Tensor) -> Run:
    """Chunks are counted from the first token that is no padding: first = q − (q − padding) mod size."""
    first = q - torch.remainder(q - left_padding[:, None], chunk_size)
    return first, first + chunk_size


def _intersection(q: Tensor, mask_functions: tuple[MaskFunction, ...]) -> Run | None:
    names = [getattr(function, "__qualname__", "") for function in mask_functions]
    if names == [REMAPPED, PACKED]:
        return _packed(q, **_enclosed(mask_functions[0]), **_enclosed(mask_functions[1]))
    parts = [_runs(function, q) for function in mask_functions]
    if any(part is None for part in parts):
        return None
    firsts, ends = zip(*(part for part in parts if part is not None), strict=True)
    return functools.reduce(torch.maximum, firsts), functools.reduce(torch.minimum, ends)


def _packed(q: Tensor, mask_function: MaskFunction, position_ids: Tensor, packed_sequence_mask: Tensor) -> Run | None:
    """Documents in one row: inside a document positions count up by one, so a run of positions is a run of keys, moved by q − position."""
    position = position_ids[:, q]
    run = _runs(mask_function, position)
    if run is None:
        return None
    documents = packed_sequence_mask.contiguous()
    own = documents[:, q]
    first = torch.maximum(run[0] - position + q, torch.searchsorted(documents, own))
    end = torch.minimum(run[1] - position + q, torch.searchsorted(documents, own, right=True))
    return first, end


REMAPPED = "remap_positions_for_packed_sequence.<locals>.inner_mask"
PACKED = "packed_sequence_mask_function.<locals>.inner_mask"
RULES: dict[str, Callable[..., Run | None]] = {
    "causal_mask_function": _causal,
    "bidirectional_mask_function": _everything,
    "sliding_window_overlay.<locals>.inner_mask": _window,
    "sliding_window_bidirectional_overlay.<locals>.inner_mask": _window_on_both_sides,
    "chunked_overlay.<locals>.inner_mask": _chunk,
    "and_masks.<locals>.and_mask": _intersection,
}


@functools.cache
def trusted() -> bool:
    """Whether the runs agree with transformers' own masks in a case of every kind: what a name means may change between versions."""
    try:
        return all(_agrees(function) for function in _samples())
    except (AttributeError, TypeError, ValueError):  # a function has gone, or takes or encloses something else
        return False


def _samples() -> list[MaskFunction]:
    known = masking_utils
    padding = torch.tensor([0, 3])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 0, 0, 1, 2]])
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 2, 2, 2]])
    simple = [
        known.causal_mask_function,
        known.bidirectional_mask_function,
        known.sliding_window_causal_mask_function(3),
        known.sliding_window_bidirectional_mask_function(2),
        known.chunked_causal_mask_function(4, padding),
    ]
    same = known.packed_sequence_mask_function(documents)
    return simple + [known.and_masks(known.remap_positions_for_packed_sequence(each, positions), same) for each in simple]


def _agrees(function: MaskFunction) -> bool:
    length = torch.arange(9)
    run = _runs(function, length)
    if run is None:
        return False
    written = function(torch.arange(2)[:, None, None], torch.zeros(1, dtype=torch.int64), length[:, None], length)
    seen = (length >= run[0][..., None]) & (length < run[1][..., None])
    return bool((written.expand(2, 9, 9) == seen).all())
