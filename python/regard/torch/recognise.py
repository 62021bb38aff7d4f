"""Masks of bools that come as numbers to add, 0 and −∞: recognised, so that what they hide is skipped and not computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard import _regard as native

# Reading a number of the mask costs about as much as a score: it pays where each stands for at least this many scores.
PAYS = 4
# Fewer scores are computed sooner than a mask is read.
LEAST = 1 << 15

# The bits of 0 and −∞, in integers of the types' sizes.
BITS = {
    torch.float32: (torch.int32, np.int32(-0x0080_0000)),
    torch.float16: (torch.int16, np.int16(-0x0400)),
    torch.bfloat16: (torch.int16, np.int16(-0x0080)),
}


def recognise(attn_mask: Tensor, scores: int) -> Any:
    """The mask that these added numbers are, for an attention with so many scores; None where they are more, or it would not pay.

    Rows that see one run of keys, as under causal, window and padding masks, become `Spans`, from which a tile's kind is known at once;
    others become `Bools`.
    """
    if scores < LEAST:
        return None
    mask = _without_repeats(attn_mask)
    if mask.numel() * PAYS > scores or mask.numel() == 0 or mask.requires_grad or mask.dtype not in BITS:
        return None
    integer, hides = BITS[mask.dtype]
    bits = mask.view(integer).numpy()
    if not _all_bools(bits[..., :1, :], hides) or not _all_bools(bits[..., -1:, :], hides):
        return None
    seen = bits == 0
    counts = np.count_nonzero(seen, axis=-1)
    if int(counts.sum()) + int(np.count_nonzero(bits == hides)) != bits.size:
        return None
    if seen.shape[-1] == 1:
        return native.Bools(seen)
    first = seen.argmax(axis=-1)
    behind = seen.shape[-1] - seen[..., ::-1].argmax(axis=-1)
    if bool(((behind - first == counts) | (counts == 0)).all()):
        return native.Spans(first, first + counts)
    return native.Bools(seen)


def _without_repeats(mask: Tensor) -> Tensor:
    """The mask with axes of stride 0, along which it repeats itself, cut to one entry."""
    for axis in range(mask.ndim):
        if mask.stride(axis) == 0 and mask.shape[axis] > 1:
            mask = mask.narrow(axis, 0, 1)
    return mask


def _all_bools(bits: Any, hides: Any) -> bool:
    return bool(((bits == 0) | (bits == hides)).all())
