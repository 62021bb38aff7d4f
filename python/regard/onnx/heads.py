"""Heads: arrays `[batch, length, heads · dim]` as `[batch, heads, length, dim]` and back, and what queries, keys and values share."""

from __future__ import annotations

from regard.onnx.node import Array


def split_heads(x: Array, heads: int, name: str, attribute: str) -> Array:
    """`[batch, length, heads · dim]` as `[batch, heads, length, dim]`, a view."""
    if x.ndim != 3:
        raise ValueError(f"{name} has shape {list(x.shape)} and must be [batch, length, heads * dim]")
    batch, length, width = x.shape
    if heads <= 0 or width % heads:
        raise ValueError(f"{attribute} is {heads} and must be positive and divide the last dimension of {name}, {width}")
    return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """`[batch, heads, length, dim]` as `[batch, length, heads · dim]`, in place where memory allows."""
    batch, heads, length, dim = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * dim)


def check_heads(q: Array, k: Array, v: Array) -> None:
    """q `[B, Hq, Lq, D]`, k `[B, Hkv, Lkv, D]`, v `[B, Hkv, Lkv, Dv]`, `Hq` a multiple of `Hkv`."""
    for name, x in (("Q", q), ("K", k), ("V", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {list(x.shape)} and must be [batch, heads, length, dim]")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(f"Q, K and V have {q.shape[0]}, {k.shape[0]} and {v.shape[0]} batches and must have the same")
    if k.shape[1:3] != v.shape[1:3]:
        raise ValueError(f"K has heads and length {list(k.shape[1:3])} and V has {list(v.shape[1:3])}: they must be the same")
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"Q has head size {q.shape[3]} and K has {k.shape[3]}: they must be the same")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ValueError(f"Q has {q.shape[1]} heads and K has {k.shape[1]}: the heads of Q must be a multiple of those of K")
