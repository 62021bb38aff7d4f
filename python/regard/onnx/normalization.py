"""ONNX's `RMSNormalization` (opset 23).

Y = X / √(mean(X²) + epsilon) · scale      the mean over the dimensions from `axis` on
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regard.onnx.node import Array, Call
from regard.onnx.stages import float_type


def rms_normalization(call: Call) -> Mapping[str, Array]:
    """`Y`, of the shape of `X` and the type of `scale`; computed in the type that `stash_type` names, and rounded to X's before `scale`."""
    x, scale = call.inputs["X"], call.inputs["scale"]
    axis = call.attributes["axis"]
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis} and must be from {-x.ndim} to {x.ndim - 1}, as X has {x.ndim} dimensions")
    stash = float_type("stash_type", call.attributes["stash_type"])
    if scale.ndim > x.ndim or any(n not in (1, m) for n, m in zip(scale.shape[::-1], x.shape[::-1])):
        raise ValueError(f"scale has shape {list(scale.shape)}, which does not broadcast to that of X, {list(x.shape)}")
    wide = x.astype(stash, copy=False)
    mean = np.mean(wide * wide, axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    normalized = wide / np.sqrt(mean + stash.type(call.attributes["epsilon"]))
    return {"Y": (normalized.astype(x.dtype) * scale).astype(scale.dtype)}
