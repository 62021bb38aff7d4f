"""The masks of PyTorch's multi-head attention, where True hides, as options of `attention`, where True is seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from regard._projections import is_tensor, joined, zeros
from regard._regard import Causal, Mask, Spans


def options(
    key_padding_mask: Any, attn_mask: Any, is_causal: bool, heads: int, q: Any, k: Any, added: int, *, batched: bool
) -> dict[str, Any]:
    """`mask` and `bias` for queries and keys `[batch, length, heads, dim]`, of which the last `added` keys are seen by all."""
    (batch, q_len), kv_len = q.shape[:2], k.shape[1] - added
    masks: list[Any] = []
    biases: list[Any] = []
    if key_padding_mask is not None:
        padding = _checked("key_padding_mask", key_padding_mask, q, [(batch, kv_len) if batched else (kv_len,)])
        _sort(padding.reshape((batch, 1, 1, kv_len)), added, masks, biases)
    if attn_mask is not None:
        rows = _checked("attn_mask", attn_mask, q, [(q_len, kv_len), (batch * heads, q_len, kv_len)])
        _sort(rows.reshape((batch, heads, q_len, kv_len) if rows.ndim == 3 else (1, 1, q_len, kv_len)), added, masks, biases)
    if is_causal:
        masks.append(_causal(kv_len, added))
    return {"mask": masks or None, "bias": sum(biases[1:], start=biases[0]) if biases else None}


def _checked(name: str, mask: Any, like: Any, shapes: list[tuple[int, ...]]) -> Any:
    """A mask of bools or floats, of the library and in a shape that it may have."""
    if is_tensor(mask) != is_tensor(like) or not (is_tensor(mask) or isinstance(mask, np.ndarray)):
        needed = "a tensor of PyTorch" if is_tensor(like) else "a numpy array"
        raise TypeError(f"{name} is of type {type(mask).__name__} and must be {needed}, as query is")
    if not _is_bool(mask) and not (mask.is_floating_point() if is_tensor(mask) else mask.dtype.kind == "f"):
        raise TypeError(f"{name} is {mask.dtype} and must be bool (True hides) or floats (which are added)")
    if tuple(mask.shape) not in shapes:
        raise ValueError(f"{name} has shape {list(mask.shape)} and needs {' or '.join(str(list(shape)) for shape in shapes)}")
    return mask


def _sort(hides: Any, added: int, masks: list[Any], biases: list[Any]) -> None:
    """Puts `[.., kv_len]` among the masks or the biases; added keys are not hidden."""
    if added:
        hides = joined([hides, zeros((*hides.shape[:3], added), hides)], 3)
    if _is_bool(hides):
        masks.append(~hides)
    else:
        biases.append(hides if is_tensor(hides) else hides.astype(np.float32, copy=False))


def _causal(kv_len: int, added: int) -> Mask:
    if not added:
        return Causal.UPPER_LEFT
    return Causal.UPPER_LEFT | Spans(np.array([kv_len]), np.array([kv_len + added]))


def _is_bool(mask: Any) -> bool:
    return str(mask.dtype).endswith("bool")
