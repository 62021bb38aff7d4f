"""`regard.onnx.Backend` as an ONNX backend: graphs, what it takes and refuses, and ONNX's interface."""

from __future__ import annotations

import unittest
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper
from onnx.backend.base import Backend as Base
from onnx.backend.base import BackendRep
from onnx_models import PREVIEW, graph_model, node_model, reference

import regard.onnx
from regard.onnx import Backend

# ONNX's rtol; sums of up to 8 products of unit normals in float32, in another order, cancel to 1e-6 at most.
TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-6}


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


QKV = {name: normal(1, 2, 3, 4, seed=i) for i, name in enumerate("QKV")}


def test_attention_then_normalization() -> None:
    inputs = {"Q": normal(2, 3, 16), "K": normal(2, 5, 8), "V": normal(2, 5, 8, seed=1)}
    nodes = [
        helper.make_node("Attention", ["Q", "K", "V"], ["a"], q_num_heads=4, kv_num_heads=2, is_causal=1),
        helper.make_node("RMSNormalization", ["a", "scale"], ["y"]),
    ]
    model = graph_model(nodes, inputs, ["y", "a"], 24, constants={"scale": normal(16)})
    for ours, theirs in zip(Backend.run_model(model, inputs), reference(model, inputs), strict=True):
        assert_allclose(ours, theirs, **TOLERANCE)


def test_a_step_of_decoding() -> None:
    """RoPE, two caches of fixed length, attention over their valid part, and a norm: one token of a transformer's layer."""
    inputs: dict[str, Any] = {
        "q": normal(2, 4, 1, 8),
        "k": normal(2, 2, 1, 8),
        "v": normal(2, 2, 1, 8, seed=1),
        "k_cache": normal(2, 2, 6, 8),
        "v_cache": normal(2, 2, 6, 8, seed=1),
        "at": np.array([2, 4]),
        "positions": np.array([[2], [4]]),
        "lengths": np.array([3, 5]),
    }
    turned = {"cos": np.cos(normal(6, 4)), "sin": np.sin(normal(6, 4))}
    nodes = [
        helper.make_node("RotaryEmbedding", ["q", "cos", "sin", "positions"], ["q_turned"]),
        helper.make_node("RotaryEmbedding", ["k", "cos", "sin", "positions"], ["k_turned"]),
        helper.make_node("TensorScatter", ["k_cache", "k_turned", "at"], ["keys"]),
        helper.make_node("TensorScatter", ["v_cache", "v", "at"], ["values"]),
        helper.make_node("Attention", ["q_turned", "keys", "values", "", "", "", "lengths"], ["a"], is_causal=1),
        helper.make_node("RMSNormalization", ["a", "scale"], ["y"]),
    ]
    model = graph_model(nodes, inputs, ["y", "keys", "values"], 25, constants={**turned, "scale": normal(8)})
    for ours, theirs in zip(Backend.run_model(model, inputs), reference(model, inputs), strict=True):
        assert_allclose(ours, theirs, **TOLERANCE)


def test_a_prepared_model_runs_again() -> None:
    model = node_model("Attention", 25, QKV, ["Y"])
    assert Backend.is_compatible(model)
    prepared = Backend.prepare(model, "CPU:0")
    assert isinstance(prepared, BackendRep)
    first = prepared.run(list(QKV.values()))
    assert isinstance(first, tuple)
    assert_array_equal(prepared.run(tuple(QKV.values()))[0], first[0])
    assert_array_equal(prepared.run({name: QKV[name] for name in "VKQ"})[0], first[0])


def test_initializers_that_are_inputs_may_be_replaced() -> None:
    nodes = [helper.make_node("RMSNormalization", ["x", "scale"], ["y"])]
    inputs = {"x": normal(2, 4), "scale": normal(4)}
    model = graph_model(nodes, inputs, ["y"], 23, constants={"scale": np.ones(4, np.float32)})
    (kept,), (replaced,) = Backend.run_model(model, inputs["x"]), Backend.run_model(model, inputs)
    assert_allclose(kept * inputs["scale"], replaced, rtol=1e-6)


def test_run_node() -> None:
    node = helper.make_node("Attention", ["Q", "K", "V"], ["Y", "", "", "scores"], is_causal=1)
    info = [(np.dtype(np.float32), (1, 2, 3, 4)), (np.dtype(np.float32), (1, 2, 3, 3))]
    y, scores = Backend.run_node(node, list(QKV.values()), outputs_info=info, opset_version=23)
    model = node_model("Attention", 23, QKV, ["Y", "", "", "scores"], is_causal=1)
    assert_allclose(y, reference(model, QKV)[0], **TOLERANCE)
    assert scores.shape == (1, 2, 3, 3)
    flex = helper.make_node("FlexAttention", ["Q", "K", "V"], ["Y"], domain=PREVIEW)
    assert_allclose(
        Backend.run_node(flex, list(QKV.values()))[0],
        reference(node_model("FlexAttention", 26, QKV, ["Y"]), QKV)[0],
        **TOLERANCE,
    )
    with pytest.raises(ValueError, match="outputs_info"):
        Backend.run_node(node, list(QKV.values()), outputs_info=info[:1])
    with pytest.raises(ValueError, match="inputs has 1 arrays and the node names 3"):
        Backend.run_node(node, QKV["Q"])


def test_other_operators_are_refused_by_name() -> None:
    node = helper.make_node("MatMul", ["Q", "K"], ["y"])
    model = graph_model([node], QKV, ["y"], 25)
    assert not Backend.is_compatible(model)
    with pytest.raises(NotImplementedError, match="MatMul of domain ai.onnx is not an operator that regard.onnx runs"):
        Backend.prepare(model)
    with pytest.raises(regard.onnx.UnsupportedOperator, match="MatMul"):
        Backend.run_node(node, list(QKV.values())[:2])
    mixed = graph_model(
        [helper.make_node("Attention", ["Q", "K", "V"], ["a"]), helper.make_node("Relu", ["a"], ["y"])], QKV, ["y"], 25
    )
    with pytest.raises(NotImplementedError, match="Relu"):
        Backend.prepare(mixed)


def test_other_domains_and_opsets_are_refused_by_name() -> None:
    foreign = graph_model([helper.make_node("Attention", ["Q"], ["y"], domain="com.microsoft")], QKV, ["y"], 25)
    with pytest.raises(NotImplementedError, match="Attention of domain com.microsoft"):
        Backend.prepare(foreign)
    with pytest.raises(NotImplementedError, match="opsets from 23, and the model has 22"):
        Backend.prepare(graph_model([helper.make_node("Attention", ["Q", "K", "V"], ["y"])], QKV, ["y"], 22))
    model = node_model("FlexAttention", 26, QKV, ["Y"])
    del model.opset_import[1]
    with pytest.raises(ValueError, match="imports no opset of domain ai.onnx.preview"):
        Backend.prepare(model)


def test_onnx_runners_skip_what_is_refused() -> None:
    assert issubclass(regard.onnx.UnsupportedOperator, unittest.SkipTest)


def test_devices_and_options() -> None:
    assert issubclass(Backend, Base)
    assert Backend.supports_device("CPU") and not Backend.supports_device("CUDA") and not Backend.supports_device("TPU:1")
    model = node_model("Attention", 25, QKV, ["Y"])
    with pytest.raises(ValueError, match="device is 'CUDA'"):
        Backend.prepare(model, "CUDA")
    with pytest.raises(TypeError, match="option 'threads'"):
        Backend.prepare(model, threads=2)
    Backend.prepare(model, rtol=1e-2, atol=0.0)  # ONNX's runner passes its own


def test_inputs_are_checked() -> None:
    prepared = Backend.prepare(node_model("Attention", 25, QKV, ["Y"]))
    with pytest.raises(ValueError, match="inputs has 2 arrays and the model needs 3"):
        prepared.run([QKV["Q"], QKV["K"]])
    with pytest.raises(ValueError, match="'V'. are missing"):
        prepared.run({"Q": QKV["Q"], "K": QKV["K"]})
    with pytest.raises(ValueError, match="'W'. are not the model's"):
        prepared.run({**QKV, "W": QKV["Q"]})
    with pytest.raises(TypeError, match="input 'K' is tensor.double. and the model declares tensor.float."):
        prepared.run({**QKV, "K": QKV["K"].astype(np.float64)})


def test_attributes_of_the_wrong_type_are_refused() -> None:
    model = node_model("Attention", 25, QKV, ["Y"], is_causal=1.0)
    with pytest.raises(TypeError, match="'is_causal' of Attention must be of type INT"):
        Backend.prepare(model)


def test_models_that_are_not_onnx_are_refused() -> None:
    model = node_model("Attention", 25, QKV, ["Y"])
    model.graph.node[0].input[2] = "W"
    with pytest.raises(onnx.checker.ValidationError):
        Backend.prepare(model)
    sparse = node_model("Attention", 25, QKV, ["Y"])
    values = helper.make_tensor("S", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("I", TensorProto.INT64, [1], [0])
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    with pytest.raises(NotImplementedError, match="sparse initializer 'S'"):
        Backend.prepare(sparse)
