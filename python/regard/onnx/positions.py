"""ONNX's `RotaryEmbedding` (opset 23), by `regard.rotate`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regard import _regard
from regard.onnx.heads import merge_heads, split_heads
from regard.onnx.node import Array, Call


def rotary_embedding(call: Call) -> Mapping[str, Array]:
    """`Y`, X turned: `[batch, heads, length, dim]`, or `[batch, length, heads · dim]` with `num_heads`.

    Halves are turned in float32 and rounded once.
    """
    x = call.inputs["X"]
    packed = x.ndim == 3
    if packed:
        if "num_heads" not in call.attributes:
            raise ValueError("X has 3 dimensions and needs the attribute num_heads")
        x = split_heads(x, call.attributes["num_heads"], "X", "num_heads")
    elif x.ndim != 4:
        raise ValueError(f"X has shape {list(x.shape)} and must be [batch, heads, length, dim] or [batch, length, heads * dim]")
    dim = call.attributes["rotary_embedding_dim"] or x.shape[3]
    if dim % 2 or not 0 < dim <= x.shape[3]:
        raise ValueError(f"rotary_embedding_dim is {dim} and must be even and at most the head size, {x.shape[3]}")
    cos, sin = (_angles(call, name, x, dim // 2) for name in ("cos_cache", "sin_cache"))
    y = _regard.rotate(x, cos, sin, style="interleaved" if call.attributes["interleaved"] else "half")
    return {"Y": merge_heads(y) if packed else y}


def _angles(call: Call, name: str, x: Array, pairs: int) -> Array:
    """The cosines or sines of each position, float32 `[batch, length, pairs]`."""
    cache, positions = call.inputs[name], call.inputs.get("position_ids")
    expected = [x.shape[0], x.shape[2]]
    if positions is not None:
        if list(positions.shape) != expected:
            raise ValueError(f"position_ids has shape {list(positions.shape)} and must be {expected}")
        if cache.ndim != 2 or cache.shape[1] != pairs:
            raise ValueError(f"{name} has shape {list(cache.shape)} and must be [positions, {pairs}]")
        if positions.size and not 0 <= positions.min() <= positions.max() < cache.shape[0]:
            raise ValueError(
                f"position_ids has {positions.min()} to {positions.max()}, and {name} has positions 0 to {cache.shape[0] - 1}"
            )
        cache = cache[positions]
    if list(cache.shape) != [*expected, pairs]:
        raise ValueError(f"{name} has shape {list(cache.shape)} and must be {[*expected, pairs]}, or have position_ids")
    return cache.astype(np.float32)
