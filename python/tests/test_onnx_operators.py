"""`regard.onnx`: the operators beside attention, in options that ONNX's node tests leave out, against ONNX's own evaluation."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto
from onnx_models import feeds, function_body, node_model, reference

import regard.onnx

HALVES = (np.float16, ml_dtypes.bfloat16)
# Of one rounding to each type; results that were rounded once from nearly the same number differ by one unit, twice that.
EPS = {np.float32: 2**-24, np.float16: 2**-11, ml_dtypes.bfloat16: 2**-8}
STATES = ["output", "present_state"]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def check(op: str, opset: int, inputs: Any, outputs: list[str], tolerance: float, by: Any = reference, **attributes: Any) -> None:
    """Our answer is within `tolerance` of the largest element of ONNX's, in all outputs."""
    model = node_model(op, opset, inputs, outputs, **attributes)
    for ours, theirs in zip(regard.onnx.Backend.run_model(model, feeds(inputs)), by(model, inputs), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max(initial=0))


def refuse(op: str, opset: int, inputs: Any, outputs: list[str], message: str, **attributes: Any) -> None:
    with pytest.raises(ValueError, match=message):
        regard.onnx.Backend.run_model(node_model(op, opset, inputs, outputs, **attributes), feeds(inputs))


def linear_inputs(
    rule: str, width: int = 4, beta_heads: int = 2, dtype: Any = np.float32, past: Any = None, length: int = 9
) -> dict[str, Any]:
    """2 heads of keys, 4 of queries; keys of norm about 1, as delta rules need to be stable."""
    decay, beta = -np.abs(normal(2, length, 2 * width, dtype=dtype)), np.abs(normal(2, length, beta_heads, dtype=dtype)) / 2
    return {
        "query": normal(2, length, 16, dtype=dtype),
        "key": (normal(2, length, 8) / 2).astype(dtype),
        "value": normal(2, length, 6, dtype=dtype),
        "past_state": None if past is None else normal(2, 2, 4, 3, dtype=past),
        "decay": decay if "gated" in rule else None,
        "beta": beta if "delta" in rule else None,
    }


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("dtype", EPS)
def test_linear_attention(rule: str, dtype: Any) -> None:
    # Sums of 9 steps of 4 products in float32, and one rounding to the type.
    tolerance = 64 * EPS[np.float32] + 2 * EPS[dtype]
    for width, beta_heads, past, scale in itertools.product((1, 4), (1, 2), (None, np.float32, dtype), (0.0, 0.25)):
        inputs = linear_inputs(rule, width, beta_heads, dtype, past)
        shared = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule, "scale": scale}
        check("LinearAttention", 27, inputs, STATES, tolerance, **shared)


def test_chunks_are_a_hint() -> None:
    for chunk_size, length in itertools.product((1, 7, 64, 1000), (0, 1, 70)):
        inputs = linear_inputs("gated_delta", past=np.float32, length=length)
        shared = {"q_num_heads": 4, "kv_num_heads": 2, "chunk_size": chunk_size}
        check("LinearAttention", 27, inputs, STATES, 256 * EPS[np.float32], **shared)


def test_linear_attention_refuses() -> None:
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    gated = linear_inputs("gated")
    refuse("LinearAttention", 27, gated, STATES, "'linear' has no use for the input decay", update_rule="linear", **heads)
    refuse("LinearAttention", 27, gated, STATES, "'gated_delta' needs the input beta", **heads)
    refuse("LinearAttention", 27, gated, STATES, "update_rule is 'other'", update_rule="other", **heads)
    refuse("LinearAttention", 27, gated, STATES, "chunk_size is 0", update_rule="gated", chunk_size=0, **heads)
    refuse("LinearAttention", 27, gated, STATES, "q_num_heads is 3", update_rule="gated", q_num_heads=3, kv_num_heads=2)
    wide = {**gated, "decay": normal(2, 9, 6)}
    refuse("LinearAttention", 27, wide, STATES, "decay has 3 elements", update_rule="gated", **heads)
    odd = {**linear_inputs("delta"), "beta": normal(2, 9, 3)}
    refuse("LinearAttention", 27, odd, STATES, "beta has shape", update_rule="delta", **heads)


@pytest.mark.parametrize("dtype", EPS)
def test_causal_conv_with_state(dtype: Any) -> None:
    """Halves are rounded before the activation, and ONNX's reference also before the bias: one unit more."""
    for width, bias, past, activation in itertools.product((1, 2, 4), (False, True), (False, True), ("none", "silu", "swish")):
        inputs = {
            "input": normal(2, 3, 5, dtype=dtype),
            "weight": normal(3, 1, width, dtype=dtype),
            "bias": normal(3, dtype=dtype) if bias else None,
            "past_state": normal(2, 3, width - 1, dtype=dtype) if past else None,
        }
        check("CausalConvWithState", 27, inputs, STATES, 8 * EPS[np.float32] + 4 * EPS[dtype], activation=activation)


def test_causal_conv_with_state_refuses() -> None:
    inputs = {"input": normal(2, 3, 5), "weight": normal(3, 1, 4), "bias": None, "past_state": normal(2, 3, 2)}
    refuse("CausalConvWithState", 27, {**inputs, "past_state": None}, STATES, "activation is 'relu'", activation="relu")
    refuse("CausalConvWithState", 27, inputs, STATES, "state")


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("packed", [False, True])
def test_rotary_embedding(dtype: Any, packed: bool) -> None:
    """Halves are rounded once here and three times in the reference: by half a unit of each product and of their sum."""
    for interleaved, dim, by_position in itertools.product((0, 1), (0, 4), (False, True)):
        pairs = (dim or 8) // 2
        caches = (50, pairs) if by_position else (2, 3, pairs)
        inputs = {
            "X": normal(2, 3, 32, dtype=dtype) if packed else normal(2, 4, 3, 8, dtype=dtype),
            "cos_cache": np.cos(normal(*caches)).astype(dtype),
            "sin_cache": np.sin(normal(*caches)).astype(dtype),
            "position_ids": np.array([[0, 1, 2], [49, 7, 7]]) if by_position else None,
        }
        attributes = {"interleaved": interleaved, "rotary_embedding_dim": dim, "num_heads": 4 if packed else None}
        check("RotaryEmbedding", 23, inputs, ["Y"], 4 * EPS[dtype], **attributes)


def test_rotary_embedding_refuses() -> None:
    inputs = {"X": normal(2, 4, 3, 8), "c": normal(50, 4), "s": normal(50, 4), "position_ids": np.full((2, 3), 50)}
    refuse("RotaryEmbedding", 23, inputs, ["Y"], "position_ids has 50 to 50")
    refuse("RotaryEmbedding", 23, {**inputs, "position_ids": -np.ones((2, 3), int)}, ["Y"], "position_ids has -1 to -1")
    refuse("RotaryEmbedding", 23, {**inputs, "position_ids": None}, ["Y"], "cos_cache has shape")
    refuse("RotaryEmbedding", 23, inputs, ["Y"], "rotary_embedding_dim is 3", rotary_embedding_dim=3)
    refuse("RotaryEmbedding", 23, inputs, ["Y"], "cos_cache has shape", rotary_embedding_dim=4)
    refuse("RotaryEmbedding", 23, {**inputs, "X": normal(2, 3, 32)}, ["Y"], "needs the attribute num_heads")


@pytest.mark.parametrize("dtype", [*EPS, np.float64])
@pytest.mark.parametrize("stash", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_rms_normalization(dtype: Any, stash: int) -> None:
    """Against the function body: the reference implementation computes in the type of X, whatever `stash_type` says."""
    tolerance = 8 * max(EPS.get(dtype, 0), EPS[np.float16 if stash == TensorProto.FLOAT16 else np.float32])
    for axis, scale in [(-1, (5,)), (1, (3, 5)), (-3, (2, 3, 5)), (0, (1,)), (2, (3, 1))]:
        inputs = {"X": normal(2, 3, 5, dtype=dtype), "scale": normal(*scale, dtype=dtype)}
        check("RMSNormalization", 23, inputs, ["Y"], tolerance, by=function_body, axis=axis, epsilon=0.1, stash_type=stash)


def test_rms_normalization_takes_the_type_of_its_scale() -> None:
    inputs = {"X": normal(2, 3, dtype=np.float16), "scale": normal(3)}
    (y,) = regard.onnx.Backend.run_model(node_model("RMSNormalization", 23, inputs, ["Y"]), inputs)
    assert y.dtype == np.float32


def test_rms_normalization_refuses() -> None:
    refuse("RMSNormalization", 23, {"X": normal(2, 3), "scale": normal(3)}, ["Y"], "axis is 2", axis=2)
    refuse("RMSNormalization", 23, {"X": normal(2, 3), "scale": normal(3)}, ["Y"], "stash_type is 7", stash_type=7)
    refuse("RMSNormalization", 23, {"X": normal(2, 3), "scale": normal(2)}, ["Y"], "scale has shape")


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.bool_, np.complex64, ml_dtypes.bfloat16])
def test_tensor_scatter(mode: str, dtype: Any) -> None:
    for axis, tokens, start in itertools.product((1, 2, -1), (1, 3), (None, [0, 1], [4, 2])):
        past, update = normal(2, 7, 7, 7).astype(dtype), normal(2, 7, 7, 7, seed=1).astype(dtype)
        update = np.take(update, range(tokens), axis)
        inputs = {"past_cache": past, "update": update, "write_indices": None if start is None else np.array(start)}
        model = node_model("TensorScatter", 24, inputs, ["present_cache"], mode=mode, axis=axis)
        (ours,) = regard.onnx.Backend.run_model(model, feeds(inputs))
        assert_array_equal(ours, reference(model, inputs)[0])


def test_tensor_scatter_wraps_around() -> None:
    inputs = {"past_cache": normal(2, 1, 4, 3), "update": normal(2, 1, 3, 3), "write_indices": np.array([3, 6])}
    model = node_model("TensorScatter", 24, inputs, ["present_cache"], mode="circular")
    assert_array_equal(regard.onnx.Backend.run_model(model, inputs)[0], reference(model, inputs)[0])


def test_tensor_scatter_refuses() -> None:
    inputs = {"past_cache": normal(2, 1, 4, 3), "update": normal(2, 1, 3, 3), "write_indices": np.array([0, 2])}
    refuse("TensorScatter", 24, inputs, ["Y"], "positions 0 to 4, and the cache has 0 to 3")
    refuse("TensorScatter", 24, {**inputs, "write_indices": np.array([-1, 0])}, ["Y"], "positions -1 to 2")
    refuse("TensorScatter", 24, {**inputs, "write_indices": np.array([0])}, ["Y"], "write_indices has shape")
    refuse("TensorScatter", 24, {**inputs, "update": normal(2, 1, 5, 3)}, ["Y"], "update has shape")
    refuse("TensorScatter", 24, inputs, ["Y"], "axis is 0", axis=0)
    refuse("TensorScatter", 24, inputs, ["Y"], "mode is 'other'", mode="other")
