"""Attention in stages: the steps of ONNX's definition one by one, each rounded to the type that the definition gives it.

    S = (√scale · Q)(√scale · K)ᵀ      C = cap · tanh(S / cap)      B = C + bias      P = softmax(B)      Y = P V

numpy rounds after every operation to the type of its operands, and so do ONNX's reference implementation and function bodies. In float16
and bfloat16 those roundings decide: an exact answer, rounded once, misses ONNX's tolerance (rtol 1e-3, atol 1e-7; bfloat16 rtol 2⁻⁶) in all
of 60 normal draws at `[2, 3, 4, 8]` by a factor of hundreds, and in 5 of 60 uniform ones in float16. So halves run here, and float64, which
the kernels do not have; float32 runs in the kernels (`fused`). All of the scores are in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper

from regard.onnx.node import Array

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


class Stages(NamedTuple):
    """`[batch, q_heads, q_len, kv_len]` after each step, of the queries' type."""

    product: Array
    capped: Array
    biased: Array
    probabilities: Array


def stages(q: Array, k: Array, bias: Array, scale: float, softcap: float, softmax_type: np.dtype[Any]) -> Stages:
    """Every step before `P V`; `bias` broadcasts to the scores and is −∞ where a key is hidden. A row of only −∞ has probabilities 0."""
    scores = product(q, k, scale)
    cap = q.dtype.type(softcap)
    capped = np.tanh(scores / cap) * cap if softcap else scores
    biased = capped + bias
    probabilities = softmax(biased.astype(softmax_type))
    hidden = np.isneginf(bias).all(axis=-1, keepdims=True)
    probabilities = np.where(hidden, softmax_type.type(0), probabilities)
    return Stages(scores, capped, biased, probabilities.astype(q.dtype))


def product(q: Array, k: Array, scale: float) -> Array:
    """`(√scale · Q)(√scale · K)ᵀ`, as ONNX scales so that halves do not overflow."""
    root = q.dtype.type(np.sqrt(scale))
    return matmul(q * root, _for_each_query_head(k * root, q).swapaxes(-1, -2))


def weighted(probabilities: Array, v: Array) -> Array:
    """`P V`, of the probabilities' type."""
    return matmul(probabilities, _for_each_query_head(v, probabilities))


def softmax(x: Array) -> Array:
    """Over the last axis, in the type of `x`; 0 in rows of only −∞."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(x - np.where(np.isneginf(top), zero, top))
    total = exponentials.sum(axis=-1, keepdims=True)
    return np.asarray(exponentials / np.where(total == zero, one, total))


def matmul(a: Array, b: Array) -> Array:
    """`a @ b`, of the type of `a` also where numpy widens (bfloat16)."""
    return np.asarray(np.matmul(a, b)).astype(a.dtype, copy=False)


def fused(q: Array, v: Array, softmax_type: np.dtype[Any]) -> bool:
    """Whether float32 throughout is as good as the definition's own types: then the kernels answer."""
    return q.dtype == np.float32 and v.dtype.itemsize <= 4 and softmax_type.itemsize >= 4


def float_type(attribute: str, number: int) -> np.dtype[Any]:
    """The type that `softmax_precision` or `stash_type` names."""
    if number not in _FLOATS:
        raise ValueError(f"{attribute} is {number} and must be 1 (float), 10 (float16), 11 (double) or 16 (bfloat16)")
    return helper.tensor_dtype_to_np_dtype(number)


def check_scale(scale: float) -> None:
    """ONNX takes its square root."""
    if not (np.isfinite(scale) and scale >= 0):
        raise ValueError(
            f"scale is {scale} and must be finite and not negative: queries and keys are each scaled by its square root"
        )


def _for_each_query_head(x: Array, like: Array) -> Array:
    """Each head of `x` as often as query heads share it."""
    return np.repeat(x, like.shape[1] // x.shape[1], axis=1)
