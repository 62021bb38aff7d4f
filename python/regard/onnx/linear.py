"""ONNX's `LinearAttention` and `CausalConvWithState` (opset 27), by `regard.linear_attention` and `regard.causal_conv`.

    S_t = exp(g_t) S_{t−1} + k_t ⊗ v'_t      v'_t = v_t, or β_t (v_t − exp(g_t) S_{t−1}ᵀ k_t)      o_t = scale · q_tᵀ S_t

Both compute in float32 whatever the inputs, and round once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regard import _regard
from regard.onnx.heads import merge_heads, split_heads
from regard.onnx.node import Array, Call

# Rules, and the inputs that each needs; no rule takes one that it does not need.
_RULES = {"linear": (), "gated": ("decay",), "delta": ("beta",), "gated_delta": ("decay", "beta")}
_LONGEST_CHUNK = 256


def linear_attention(call: Call) -> Mapping[str, Array]:
    """`output`, `[batch, length, q_heads · value_dim]`, and `present_state`, `[batch, kv_heads, head_dim, value_dim]`."""
    attributes = call.attributes
    q, k, v = (_heads_first(call, name) for name in ("query", "key", "value"))
    _check_rule(call)
    if attributes["chunk_size"] < 1:
        raise ValueError(f"chunk_size is {attributes['chunk_size']} and must be positive")
    past = call.inputs.get("past_state")
    output, state = _regard.linear_attention(
        q,
        k,
        v,
        rule=attributes["update_rule"],
        decay=_decay(call, k),
        beta=_beta(call, k),
        state=None if past is None else past.astype(np.float32),
        scale=attributes["scale"] or None,
        chunk=min(attributes["chunk_size"], _LONGEST_CHUNK),
        return_state=True,
    )
    return {"output": merge_heads(output), "present_state": state.astype(q.dtype if past is None else past.dtype)}


def causal_conv_with_state(call: Call) -> Mapping[str, Array]:
    """`output`, `[batch, channels, length]`, and `present_state`, the last `width − 1` inputs `[batch, channels, width − 1]`."""
    x, weight, bias = call.inputs["input"], call.inputs["weight"], call.inputs.get("bias")
    activation = call.attributes["activation"]
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"activation is {activation!r} and must be 'none', 'silu' or 'swish'")
    silu = activation != "none"
    # ONNX rounds the convolution to the type of its inputs before the activation: silu has a condition of |1 + x (1 − σ(x))|, 4 at −5, so
    # that half an ulp there is two in the result.
    in_one = silu and x.dtype == np.float32
    output, state = _regard.causal_conv(x, weight, bias, state=call.inputs.get("past_state"), silu=in_one, return_state=True)
    if silu and not in_one:
        wide = output.astype(np.float32)
        output = (wide / (1 + np.exp(-wide))).astype(x.dtype)
    return {"output": output, "present_state": state}


def _heads_first(call: Call, name: str) -> Array:
    """`[batch, length, heads · dim]` as `[batch, heads, length, dim]`."""
    attribute = "q_num_heads" if name == "query" else "kv_num_heads"
    if attribute not in call.attributes:
        raise ValueError(f"LinearAttention needs the attribute {attribute}")
    return split_heads(call.inputs[name], call.attributes[attribute], name, attribute)


def _check_rule(call: Call) -> None:
    rule = call.attributes["update_rule"]
    if rule not in _RULES:
        raise ValueError(f"update_rule is {rule!r} and must be one of {', '.join(map(repr, _RULES))}")
    for name in ("decay", "beta"):
        if (name in call.inputs) != (name in _RULES[rule]):
            raise ValueError(f"update_rule {rule!r} {'needs' if name in _RULES[rule] else 'has no use for'} the input {name}")


def _decay(call: Call, k: Array) -> Array | None:
    """`[batch, length, kv_heads]` or `[batch, length, kv_heads · head_dim]`, as `[batch, kv_heads, length, 1 or head_dim]`."""
    if "decay" not in call.inputs:
        return None
    decay = split_heads(call.inputs["decay"], k.shape[1], "decay", "kv_num_heads")
    if decay.shape[3] not in (1, k.shape[3]):
        raise ValueError(f"decay has {decay.shape[3]} elements for each head of keys and must have 1 or {k.shape[3]}")
    return decay


def _beta(call: Call, k: Array) -> Array | None:
    """`[batch, length, kv_heads or 1]` as `[batch, kv_heads, length, 1]`."""
    if "beta" not in call.inputs:
        return None
    beta = call.inputs["beta"]
    batch, heads, length, _ = k.shape
    if beta.shape not in ((batch, length, heads), (batch, length, 1)):
        raise ValueError(f"beta has shape {list(beta.shape)} and must be {[batch, length, heads]} or {[batch, length, 1]}")
    return np.ascontiguousarray(np.broadcast_to(beta.transpose(0, 2, 1)[..., None], (batch, heads, length, 1)))
