"""ONNX's `TensorScatter` (opset 24): new tokens written into a cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regard.onnx.node import Array, Call


def tensor_scatter(call: Call) -> Mapping[str, Array]:
    """`present_cache`: `past_cache` with `update` along `axis`, from `write_indices[batch]` on; circular writes wrap around."""
    past, update = call.inputs["past_cache"], call.inputs["update"]
    axis, mode = call.attributes["axis"], call.attributes["mode"]
    if mode not in ("linear", "circular"):
        raise ValueError(f"mode is {mode!r} and must be 'linear' or 'circular'")
    if not -past.ndim <= axis < past.ndim or axis % past.ndim == 0:
        raise ValueError(f"axis is {axis} and must be a dimension of past_cache, which has {past.ndim}, but not the batch's, 0")
    axis %= past.ndim
    length, tokens = past.shape[axis], update.shape[axis] if update.ndim == past.ndim else -1
    if update.shape != (*past.shape[:axis], tokens, *past.shape[axis + 1 :]) or tokens > length:
        raise ValueError(
            f"update has shape {list(update.shape)} and must be as past_cache, {list(past.shape)}, or shorter along {axis}"
        )
    positions = _first(call, past.shape[0])[:, None] + np.arange(tokens)
    if mode == "circular":
        positions %= length
    elif positions.size and not 0 <= positions.min() <= positions.max() < length:
        raise ValueError(
            f"write_indices lead to positions {positions.min()} to {positions.max()}, and the cache has 0 to {length - 1}"
        )
    present = past.copy()
    by_position = np.moveaxis(present, axis, 1)
    by_position[np.arange(past.shape[0])[:, None], positions] = np.moveaxis(update, axis, 1)
    return {"present_cache": present}


def _first(call: Call, batch: int) -> Array:
    """The position of the first new token in each batch."""
    first = call.inputs.get("write_indices", np.zeros(batch, np.int64))
    if first.shape != (batch,):
        raise ValueError(f"write_indices has shape {list(first.shape)} and must be [{batch}], one for each batch")
    return first
