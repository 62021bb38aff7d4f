"""Attention of jagged nested tensors: each element of the batch is a document of one packed call, so no padding is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .attention import attend
from .checks import ArgumentError, ArgumentTypeError

# Options whose arrays have an axis for positions, which ragged sequences do not share.
DENSE = ("mask", "score", "documents", "blocks")


def attention(
    q: Any,
    k: Any,
    v: Any,
    bias: Tensor | None,
    sinks: Tensor | None,
    options: dict[str, Any],
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of jagged q, k and v: `[batch, heads, ragged, dim]`, or `[batch, ragged, heads, dim]` in layout "blhd".

    The log-sum-exp is packed, `[heads, total length]`. Raises `ValueError` for an option that has no meaning for ragged sequences.
    """
    given = {**{name: options[name] for name in DENSE}, "bias": bias, "out": out}
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                f"{name} is given, which nested tensors have no place for: use causal, window, softcap, alibi or sinks"
            )
    if options["layout"] == "packed":
        raise ArgumentError("layout is 'packed', and q is nested: give its values, and its offsets as documents")
    if options["alibi"] is not None and q.offsets() is not k.offsets():
        raise ArgumentError("alibi is given, and q and k are not of one structure: distances are within one sequence")
    ragged = 1 if options["layout"] == "blhd" else 2
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _check(name, tensor, ragged)
    q_values, k_values, v_values = (_packed(tensor, ragged) for tensor in (q, k, v))
    documents = (q.offsets(), k.offsets())
    packed = {**options, "layout": "packed", "documents": documents}
    result, lse = attend(q_values, k_values, v_values, None, sinks, packed)
    return _nested(result, q, ragged), lse


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, options: dict[str, Any], enable_gqa: bool
) -> Tensor:
    """PyTorch's function of jagged tensors `[batch, heads, ragged, dim]`."""
    if attn_mask is not None:
        raise ArgumentError("attn_mask is given, and query is nested: masks of ragged sequences are not supported")
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        _check(name, tensor, 2)
    heads = [tensor.shape[1] for tensor in (query, key, value)]
    if not enable_gqa and len(set(heads)) != 1:
        raise ArgumentError(
            f"query has {heads[0]} heads, key {heads[1]} and value {heads[2]}: for fewer in key and value set enable_gqa"
        )
    return attention(query, key, value, None, None, options, None)[0]


def _check(name: str, tensor: Any, ragged: int) -> None:
    """Refuses what is not jagged in four dimensions, at that axis, without holes."""
    if not isinstance(tensor, Tensor) or not tensor.is_nested:
        raise ArgumentTypeError(f"{name} is not nested, and others are: q, k and v must all be nested tensors")
    if tensor.layout != torch.jagged:
        raise ArgumentError(f"{name} has the layout {tensor.layout} and must be torch.jagged")
    jagged: Any = tensor
    axis = jagged._ragged_idx
    if tensor.ndim != 4 or axis != ragged:
        shape = "[batch, heads, ragged, dim]" if ragged == 2 else "[batch, ragged, heads, dim]"
        raise ArgumentError(f"{name} has {tensor.ndim} dimensions and is ragged at {axis}: it must be {shape}")
    if jagged.lengths() is not None:
        raise ArgumentError(f"{name} has lengths beside offsets, which leaves holes between its sequences: make it contiguous")


def _packed(tensor: Tensor, ragged: int) -> Tensor:
    """`[total length, heads, dim]`."""
    values = tensor.values()
    return values if ragged == 1 else values.transpose(0, 1)


def _nested(values: Tensor, like: Any, ragged: int) -> Tensor:
    """Packed values as a jagged tensor of the same structure as `like`."""
    bounds = {"min_seqlen": like._maybe_min_seqlen, "max_seqlen": like._maybe_max_seqlen}
    jagged = torch.nested.nested_tensor_from_jagged(values, like.offsets(), **bounds)
    return jagged if ragged == 1 else jagged.transpose(1, 2)
