"""`regard.torch.scaled_dot_product_attention`: PyTorch's function, with its arguments, its meaning and its kinds of errors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .attention import attend
from .checks import ArgumentError, ArgumentTypeError, check_device, check_tensors, under_autocast
from .options import draw_dropout

_broadcast: Any = torch.broadcast_shapes


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`softmax(query keyᵀ · scale + attn_mask) value`, with gradients of all four.

    query `[.., heads, q_len, head_dim]`, key `[.., heads, kv_len, head_dim]`, value `[.., heads, kv_len, value_dim]`: at least two
    dimensions, float32, float16 or bfloat16 on the CPU; leading dimensions broadcast. `attn_mask` broadcasts to `[.., q_len, kv_len]`:
    bools (True takes part), or numbers that are added, in query's type or float32. `is_causal` is upper left: query i sees keys up to i.
    With `enable_gqa`, heads of key and value may divide those of query. Dropout draws its seed from PyTorch's default generator; which
    probabilities it drops are not those that PyTorch's own drops. Jagged nested tensors are sequences of their own.

    A query that sees nothing gives zeros. Unlike PyTorch's, what a mask hides is never observed, not even NaN.

    Errors are `ValueError` or `TypeError`, and `RuntimeError` too, which PyTorch raises; for what is no tensor or no number, `TypeError`.

    Source: the documentation of `torch.nn.functional.scaled_dot_product_attention`, 2.15.
    """
    _check_numbers(dropout_p, is_causal, scale)
    options = _options(attn_mask, dropout_p, is_causal, scale)
    query, key, value, attn_mask = under_autocast(query, key, value, attn_mask)
    check_tensors(query=query, key=key, value=value)
    if query.is_nested or key.is_nested or value.is_nested:
        from . import nested

        out = nested.scaled_dot_product_attention(query, key, value, attn_mask, options, enable_gqa)
    else:
        lead = _leading(query, key, value, enable_gqa)
        options["mask"], bias = _mask(attn_mask, (*lead, query.shape[-2], key.shape[-2]), query.dtype)
        q, k, v = _four_dimensions(query, key, value, lead)
        out = attend(q, k, v, bias, None, options)[0]
        out = out if len(lead) == 2 else out.reshape(*lead, *out.shape[-2:])
    return out * 0 if dropout_p == 1 else out


def _check_numbers(dropout_p: Any, is_causal: Any, scale: Any) -> None:
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, (int, float)):
        raise TypeError(f"dropout_p is of type {type(dropout_p).__name__} and must be a number")
    if not 0 <= dropout_p <= 1:
        raise ArgumentError(f"dropout_p is {dropout_p} and must be from 0 to 1")
    if not isinstance(is_causal, bool):
        raise TypeError(f"is_causal is of type {type(is_causal).__name__} and must be True or False")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float))):
        raise TypeError(f"scale is of type {type(scale).__name__} and must be a number")
    if scale is not None and not math.isfinite(scale):
        raise ArgumentError(f"scale is {scale} and must be finite")


def _options(attn_mask: Any, dropout_p: float, is_causal: bool, scale: float | None) -> dict[str, Any]:
    """The options of `attention`; a mask of numbers is none of them."""
    if attn_mask is not None and not isinstance(attn_mask, Tensor):
        raise TypeError(f"attn_mask is of type {type(attn_mask).__name__} and must be a torch.Tensor")
    if is_causal and attn_mask is not None:
        raise ArgumentError("attn_mask is given and is_causal is True: give one of the two")
    causal = "upper_left" if is_causal else None
    # With chance 1 everything is dropped, which the caller sees to.
    dropout = draw_dropout(dropout_p if dropout_p < 1 else None)
    none = dict.fromkeys(("mask", "score", "window", "documents", "blocks", "softcap", "alibi"))
    return {**none, "causal": causal, "scale": scale, "layout": "bhld", "dropout": dropout}


def _leading(query: Tensor, key: Tensor, value: Tensor, gqa: bool) -> tuple[int, ...]:
    """The leading dimensions that query, key and value have together: `(.., heads)`."""
    shapes = {"query": query.shape, "key": key.shape, "value": value.shape}
    for name, shape in shapes.items():
        if len(shape) < (3 if gqa else 2):
            needed = "3, [.., heads, length, dim], with enable_gqa" if gqa else "2, [.., length, dim]"
            raise ArgumentError(f"{name} has {len(shape)} dimensions and needs at least {needed}")
    if query.shape[-1] != key.shape[-1]:
        raise ArgumentError(f"query has head dimension {query.shape[-1]} and key {key.shape[-1]}: they must be equal")
    if key.shape[-2] != value.shape[-2]:
        raise ArgumentError(f"key has length {key.shape[-2]} and value {value.shape[-2]}: they must be equal")
    leading = [tuple(shape[:-2]) for shape in shapes.values()]
    if gqa:
        heads = [lead[-1] for lead in leading]
        if any(of == 0 or heads[0] % of for of in heads[1:]):
            raise ArgumentError(
                f"query has {heads[0]} heads, key {heads[1]} and value {heads[2]}: those of key and value must divide it"
            )
        leading = [(*lead[:-1], heads[0]) for lead in leading]
    if leading[0] == leading[1] == leading[2]:
        return leading[0]
    try:
        return tuple(_broadcast(*leading))
    except RuntimeError:
        given = ", ".join(f"{name} has shape {tuple(shape)}" for name, shape in shapes.items())
        fewer = "; for fewer heads of key and value set enable_gqa" if not gqa else ""
        raise ArgumentError(f"{given}: leading dimensions must be equal or 1{fewer}") from None


def _four_dimensions(query: Tensor, key: Tensor, value: Tensor, lead: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The three as `[batch, heads, length, dim]`, where key and value may have fewer heads than query, both as many."""
    heads = lead[-1] if lead else 1
    kv_heads = [tensor.shape[-3] if tensor.ndim > 2 else 1 for tensor in (key, value)]
    if kv_heads[0] != kv_heads[1]:
        pairs = zip((key, value), kv_heads, strict=True)
        key, value = (tensor if of in (1, heads) else tensor.repeat_interleave(heads // of, -3) for tensor, of in pairs)
        kv_heads = [heads, heads]
    q, k, v = (_flat(tensor, (*lead[:-1], of)) for tensor, of in zip((query, key, value), (heads, *kv_heads), strict=True))
    return q, k, v


def _flat(tensor: Tensor, lead: tuple[int, ...]) -> Tensor:
    """The tensor with these leading dimensions, `(.., heads)`, as four dimensions of which the first counts all batches."""
    shape = (*lead, *tensor.shape[-2:])
    tensor = tensor if tensor.shape == shape else tensor.expand(shape)
    return tensor if tensor.ndim == 4 else tensor.reshape(math.prod(lead[:-1]), *shape[-3:])


def _mask(attn_mask: Tensor | None, scores: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """The mask in four dimensions, where it is of bools, or where it is of numbers."""
    if attn_mask is None:
        return None, None
    check_device("attn_mask", attn_mask)
    if attn_mask.dtype not in (torch.bool, torch.float32, dtype):
        raise ArgumentTypeError(f"attn_mask is {attn_mask.dtype} and must be bool, float32, or {dtype} as query is")
    shape = (1,) * (len(scores) - attn_mask.ndim) + tuple(attn_mask.shape)
    if len(shape) > len(scores) or any(given not in (1, size) for given, size in zip(shape, scores, strict=True)):
        raise ArgumentError(f"attn_mask has shape {tuple(attn_mask.shape)} and must broadcast to the scores' shape {scores}")
    batch = scores[:-3] if any(size != 1 for size in shape[:-3]) else (1,)
    heads = shape[-3] if len(shape) > 2 else 1
    mask = attn_mask.reshape(shape)
    mask = mask.reshape(1, heads, *shape[-2:]) if math.prod(batch) == 1 else _flat(mask, (*batch, heads))
    return (mask, None) if mask.dtype == torch.bool else (None, mask)
