"""Options of attention: dropout's seed, and how options of any kind become the numbers and tensors that an operator takes."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from regard import _regard as native

from .function import Tensors

# What a trace sees beside the inputs: tensors, then what is constant in it.
TENSORS = "Tensor? mask=None, Tensor? slopes=None, Tensor? documents=None, Tensor? kv_documents=None, Tensor? block_map=None, Tensor? seed=None"
CONSTANTS = (
    "str? causal=None, SymInt? left=None, SymInt? right=None, SymInt q_block=0, SymInt kv_block=0, float? softcap=None, "
    'bool alibi=False, float? scale=None, float dropout=0.0, str layout="bhld"'
)


def draw_dropout(dropout: Any) -> tuple[float, Tensor] | None:
    """Dropout `(p, seed)` of `p`, whose seed is then drawn from PyTorch's default generator, of `(p, seed)`, or of None.

    The seed is a tensor (int64, one element), so that a trace draws it anew at every call.

    Raises `TypeError` or `ValueError` when it is none of these, or `p` is outside `[0, 1)`.
    """
    if dropout is None:
        return None
    p, seed = dropout if isinstance(dropout, (tuple, list)) and len(dropout) == 2 else (dropout, None)
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise TypeError(f"dropout is {dropout!r} and must be a probability p, or a pair (p, seed)")
    if not 0 <= p < 1:
        raise ValueError(f"dropout is {p} and must be at least 0 and below 1")
    return (float(p), _seed(seed)) if p > 0 else None


def _seed(seed: Any) -> Tensor:
    if seed is None:
        return torch.randint(2**63 - 1, ())
    if isinstance(seed, Tensor):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"the seed of dropout is of type {type(seed).__name__} and must be an integer")
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed of dropout is {seed} and must be at least 0 and below 2^64")
    return torch.tensor(seed if seed < 2**63 else seed - 2**64)


def native_dropout(dropout: tuple[float, Tensor] | None) -> tuple[float, int] | None:
    """Dropout as `regard.attention` takes it."""
    return None if dropout is None else (dropout[0], int(dropout[1].item()) % 2**64)


def has_objects(options: dict[str, Any]) -> bool:
    """Whether a mask or a score is an object, which no compiler sees inside of."""
    mask = options["mask"]
    masks = mask if isinstance(mask, (list, tuple)) else [mask]
    return any(isinstance(one, native.Mask) for one in masks) or options["score"] not in (None, [])


def pack(options: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """The operator's tensors and constants for options of `regard.torch.attention`.

    Raises `NotImplementedError` for masks and scores that are objects.
    """
    if has_objects(options):
        raise NotImplementedError(
            "mask or score is an object, which is for plain tensors only: give causal, window, bools, a bias ..."
        )
    documents, kv_documents = _documents(options["documents"])
    block_map, q_block, kv_block = options["blocks"] or (None, 0, 0)
    left, right = options["window"] or (None, None)
    alibi, slopes = _alibi(options["alibi"])
    p, seed = options["dropout"] or (0.0, None)
    tensors = (_mask(options["mask"]), slopes, documents, kv_documents, _tensor(block_map), seed)
    constants = {"left": left, "right": right, "q_block": q_block, "kv_block": kv_block, "alibi": alibi, "dropout": p}
    return tensors, constants | {name: options[name] for name in ("causal", "softcap", "scale", "layout")}


def unpack(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    mask: Tensor | None = None,
    slopes: Tensor | None = None,
    documents: Tensor | None = None,
    kv_documents: Tensor | None = None,
    block_map: Tensor | None = None,
    seed: Tensor | None = None,
    *,
    left: int | None = None,
    right: int | None = None,
    q_block: int = 0,
    kv_block: int = 0,
    alibi: bool = False,
    dropout: float = 0.0,
    **same: Any,
) -> tuple[Tensors, dict[str, Any]]:
    """What `pack` packed: inputs, and options. The dispatcher leaves out arguments that are defaults."""
    options = {
        "mask": mask,
        "window": None if left is None and right is None else (left, right),
        "documents": documents if kv_documents is None else (documents, kv_documents),
        "blocks": None if block_map is None else (block_map, q_block, kv_block),
        "alibi": alibi if slopes is None else slopes,
        "dropout": None if seed is None else (dropout, seed),
    }
    return (q, k, v, bias, sinks), options | same


def _mask(mask: Any) -> Tensor | None:
    """One array of bools that is true where all of them are."""
    masks = mask if isinstance(mask, (list, tuple)) else [] if mask is None else [mask]
    return functools.reduce(torch.logical_and, map(torch.as_tensor, masks)) if masks else None


def _documents(documents: Any) -> tuple[Tensor | None, Tensor | None]:
    """The boundaries of the queries' documents, and of the keys' where they have their own."""
    if isinstance(documents, (list, tuple)) and len(documents) == 2 and not isinstance(documents[0], int):
        return _tensor(documents[0]), _tensor(documents[1])
    return _tensor(documents), None


def _alibi(alibi: Any) -> tuple[bool, Tensor | None]:
    """Whether the slopes are the paper's, and those that were given."""
    if alibi is None or isinstance(alibi, bool):
        return bool(alibi), None
    if isinstance(alibi, int):
        raise NotImplementedError("alibi is a number of heads, which cannot be traced: give True, or the slopes")
    return False, _tensor(alibi)


def _tensor(array: Any) -> Tensor | None:
    return None if array is None else torch.as_tensor(array)
