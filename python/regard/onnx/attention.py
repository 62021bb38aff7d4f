"""ONNX's `Attention`, opsets 23, 24 and 25.

    Y = softmax(softcap(√scale · Q (√scale · K)ᵀ) + bias) V      bias: attn_mask, and −∞ outside of causality, window and padding

Causality and windows count from the first query's position: the length of `past_key`, or `nonpad_kv_seqlen − q_len` where the cache is kept
outside, or 0. A query that sees no key has output 0. What the opsets add: 24 `nonpad_kv_seqlen` and masks that are shorter than the keys, 25
windows. Source: the schemas' texts and function bodies in onnx 1.23, `onnx/defs/nn/defs.cc` and `old.cc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from regard import _regard
from regard.onnx.heads import check_heads, merge_heads, split_heads
from regard.onnx.node import Array, Call
from regard.onnx.stages import check_scale, float_type, fused, stages, weighted
from regard.onnx.visibility import Visibility, visible_run, widened

# The stage that each `qk_matmul_output_mode` shows.
_MODES = {0: "product", 1: "capped", 2: "biased", 3: "probabilities"}


@dataclass(frozen=True)
class _Options:
    """Attributes, checked."""

    scale: float
    softcap: float
    softmax_type: np.dtype[Any]
    causal: bool
    window: tuple[int, int]
    stage: str


def attention(call: Call) -> Mapping[str, Array]:
    """`Y`, the joined caches `present_key` and `present_value`, and one stage of the scores where `qk_matmul_output` is wanted."""
    packed = call.inputs["Q"].ndim == 3
    q, k, v = (_heads_first(call, name) for name in ("Q", "K", "V"))
    past, k, v = _joined(call, k, v)
    check_heads(q, k, v)
    options = _options(call, q)
    seen = _visibility(call, options, q, k, past)
    results = {"present_key": k, "present_value": v}
    kernels = fused(q, v, options.softmax_type)
    whole = None
    if "qk_matmul_output" in call.outputs or not kernels:
        bias = seen.written_out(k.shape[2], q.dtype)
        whole = stages(q, k, bias, options.scale, options.softcap, options.softmax_type)
        results["qk_matmul_output"] = getattr(whole, options.stage)
    y = _fused(q, k, v, seen, options, packed) if kernels or whole is None else weighted(whole.probabilities, v)
    results["Y"] = merge_heads(y) if packed else y
    return results


def _fused(q: Array, k: Array, v: Array, seen: Visibility, options: _Options, packed: bool) -> Array:
    """regard's kernels; where the heads of the result are merged later, they lie as that needs."""
    batch, heads, q_len, _ = q.shape
    shape = (batch, q_len, heads, v.shape[3]) if packed else (batch, heads, q_len, v.shape[3])
    y = np.empty(shape, q.dtype)
    out = y.transpose(0, 2, 1, 3) if packed else y
    v = v.astype(q.dtype, copy=False)
    _regard.attention(q, k, v, mask=seen.masks(), bias=seen.bias, softcap=options.softcap or None, scale=options.scale, out=out)
    return out


def _heads_first(call: Call, name: str) -> Array:
    """Q, K or V as `[batch, heads, length, dim]`."""
    x = call.inputs[name]
    attribute = "q_num_heads" if name == "Q" else "kv_num_heads"
    heads = call.attributes.get(attribute)
    if call.inputs["Q"].ndim == 3:
        if heads is None:
            raise ValueError(f"Q, K and V have 3 dimensions and need the attribute {attribute}")
        return split_heads(x, heads, name, attribute)
    if x.ndim != 4:
        raise ValueError(f"{name} has shape {list(x.shape)} and must be [batch, heads, length, dim]")
    if heads is not None and call.version >= 25:
        raise ValueError(f"{attribute} is for inputs of 3 dimensions, and {name} has 4")
    if heads not in (None, x.shape[1]):
        raise ValueError(f"{attribute} is {heads} and {name} has {x.shape[1]} heads")
    return x


def _joined(call: Call, k: Array, v: Array) -> tuple[int, Array, Array]:
    """The length of the past, and keys and values with their past before them."""
    past_k, past_v = call.inputs.get("past_key"), call.inputs.get("past_value")
    if (past_k is None) != (past_v is None):
        raise ValueError("past_key and past_value are there together or not at all")
    outside = "nonpad_kv_seqlen" in call.inputs
    if outside and (past_k is not None or (call.version >= 25 and call.outputs & {"present_key", "present_value"})):
        raise ValueError(
            "nonpad_kv_seqlen says that the cache is kept outside: past_key, past_value and their presents are not for it"
        )
    if past_k is None or past_v is None:
        return 0, k, v
    for name, past, new in (("past_key", past_k, k), ("past_value", past_v, v)):
        if past.ndim != 4 or (*past.shape[:2], past.shape[3]) != (*new.shape[:2], new.shape[3]):
            raise ValueError(f"{name} has shape {list(past.shape)} and must be {list(new.shape)} but for its length, the third")
    return past_k.shape[2], np.concatenate([past_k, k], axis=2), np.concatenate([past_v, v], axis=2)


def _options(call: Call, q: Array) -> _Options:
    attributes = call.attributes
    if attributes["is_causal"] not in (0, 1):
        raise ValueError(f"is_causal is {attributes['is_causal']} and must be 0 or 1")
    softcap = attributes["softcap"]
    if not (np.isfinite(softcap) and softcap >= 0):
        raise ValueError(f"softcap is {softcap} and must be finite and positive, or 0 for none")
    scale = attributes.get("scale", 1.0 / np.sqrt(q.shape[3]))
    check_scale(scale)
    window = (attributes.get("left_window_size", -1), attributes.get("right_window_size", -1))
    for name, size in zip(("left_window_size", "right_window_size"), window):
        if size < -1:
            raise ValueError(f"{name} is {size} and must be 0 or more, or -1 for no bound")
    mode = attributes["qk_matmul_output_mode"]
    if mode not in _MODES:
        raise ValueError(f"qk_matmul_output_mode is {mode} and must be 0, 1, 2 or 3")
    precision = attributes.get("softmax_precision")
    softmax_type = q.dtype if precision is None else float_type("softmax_precision", precision)
    return _Options(scale, softcap, softmax_type, bool(attributes["is_causal"]), window, _MODES[mode])


def _visibility(call: Call, options: _Options, q: Array, k: Array, past: int) -> Visibility:
    batch, heads, q_len, _ = q.shape
    kv_len = k.shape[2]
    lengths = call.inputs.get("nonpad_kv_seqlen")
    if lengths is not None and lengths.shape != (batch,):
        raise ValueError(f"nonpad_kv_seqlen has shape {list(lengths.shape)} and must be [{batch}], one for each batch")
    offset = [past] if lengths is None else lengths - q_len
    run = visible_run(q_len, kv_len, offset, options.window, options.causal, lengths)
    mask = call.inputs.get("attn_mask")
    if mask is None:
        return Visibility(run, None, None)
    bools = mask.dtype == np.bool_
    mask = widened(mask if bools else mask.astype(q.dtype), (batch, heads, q_len, kv_len), pads=call.version >= 24)
    return Visibility(run, mask, None) if bools else Visibility(run, None, mask)
