"""`regard.onnx`: FlexAttention, whose modifiers run in the kernels where they are regard's masks and scores, and are evaluated elsewhere."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper
from onnx_models import PREVIEW, feeds, function_body, graph_model, modifier, node_model, reference

import regard.onnx

# ONNX's rtol; float32 sums of 6 products of unit normals, in another order, cancel to 1e-6 at most.
TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-6}
INFINITE = -np.inf
SEEN = np.tril(np.ones((4, 6), bool), 2)
HALF = TensorProto.FLOAT16


def node(op: str, *names: str, **attributes: Any) -> Any:
    """A node whose last name is its output."""
    return helper.make_node(op, list(names[:-1]), [names[-1]], **attributes)


def qkv(dtype: Any = np.float32, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = {"Q": (2, 4, 4, 8), "K": (2, 2, 6, 8), "V": (2, 2, 6, 5)}
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def positions() -> list[Any]:
    """`rows` `[L, 1]` and `keys` `[1, S]`, as integers, from the shape of the scores."""
    return [
        node("Shape", "x", "q_len", start=2, end=3),
        node("Shape", "x", "kv_len", start=3, end=4),
        node("Squeeze", "q_len", "q_end"),
        node("Squeeze", "kv_len", "kv_end"),
        node("Range", "zero", "q_end", "one", "row"),
        node("Range", "zero", "kv_end", "one", "keys"),
        node("Unsqueeze", "row", "axis", "rows"),
    ]


COUNTS = {"zero": np.array(0), "one": np.array(1), "axis": np.array([1])}

READ = {
    "nothing": modifier([node("Identity", "x", "y")]),
    "a bias": modifier([node("Add", "b", "x", "y")], b=np.linspace(-1, 1, 6, dtype=np.float32)),
    "a bias that hides": modifier([node("Add", "x", "b", "y")], b=np.where(SEEN, 0, INFINITE).astype(np.float32)),
    "what is taken off": modifier([node("Sub", "x", "b", "y")], b=np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)),
    "a factor": modifier([node("Mul", "x", "f", "y")], f=0.5),
    "a softcap": modifier([node("Div", "x", "c", "d"), node("Tanh", "d", "t"), node("Mul", "c", "t", "y")], c=0.7),
    "a tanh alone": modifier([node("Tanh", "x", "y")]),
    "a tanh of other factors": modifier(
        [node("Mul", "x", "a", "d"), node("Tanh", "d", "t"), node("Mul", "t", "c", "y")], a=2.0, c=3.0
    ),
    "a mask": modifier([node("Where", "m", "x", "i", "y")], m=SEEN, i=INFINITE),
    "its opposite": modifier([node("Where", "m", "i", "x", "y")], m=~SEEN, i=np.full((4, 6), INFINITE, np.float32)),
    "a bias, a softcap, another bias, a mask": modifier(
        [
            node("Add", "x", "b", "with_b"),
            node("Div", "with_b", "c", "d"),
            node("Tanh", "d", "t"),
            node("Mul", "t", "c", "capped"),
            node("Cast", "capped", "same", to=TensorProto.FLOAT),
            node("Add", "same", "b", "twice"),
            node("Where", "m", "twice", "i", "y"),
        ],
        b=np.linspace(-1, 1, 6, dtype=np.float32),
        c=2.0,
        m=SEEN,
        i=INFINITE,
    ),
    "causality and ALiBi from positions": modifier(
        [
            *positions(),
            node("Sub", "keys", "rows", "distance"),
            node("CastLike", "distance", "x", "far"),
            node("Mul", "far", "slopes", "alibi"),
            node("Add", "x", "alibi", "added"),
            node("GreaterOrEqual", "rows", "keys", "past"),
            node("Where", "past", "added", "i", "y"),
        ],
        **COUNTS,
        slopes=np.array([0.5, 0.25, 0.125, 0.0625], np.float32).reshape(4, 1, 1),
        i=INFINITE,
    ),
}

EVALUATED = {
    "a large negative number for hidden scores": modifier([node("Where", "m", "x", "i", "y")], m=SEEN, i=-1e9),
    "a mask ahead of a softcap": modifier(
        [node("Where", "m", "x", "i", "h"), node("Div", "h", "c", "d"), node("Tanh", "d", "t"), node("Mul", "t", "c", "y")],
        m=SEEN,
        i=INFINITE,
        c=2.0,
    ),
    "a factor after a bias": modifier([node("Add", "x", "f", "b"), node("Mul", "b", "f", "y")], f=0.5),
    "a factor for each key": modifier([node("Mul", "x", "f", "y")], f=np.linspace(0, 1, 6, dtype=np.float32)),
    "a softcap upside down": modifier([node("Tanh", "x", "t"), node("Mul", "t", "c", "y")], c=-2.0),
    "scores added to themselves": modifier([node("Add", "x", "x", "y")]),
    "another function": modifier([node("Sigmoid", "x", "y")]),
    "scores that are forgotten": modifier([node("Shape", "x", "s"), node("ConstantOfShape", "s", "y")]),
}


def run(inputs: Any, **attributes: Any) -> tuple[Any, Any]:
    model = node_model("FlexAttention", 26, inputs, ["Y"], **attributes)
    return regard.onnx.Backend.run_model(model, feeds(inputs))[0], model


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def not_here(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{name} is called")

    monkeypatch.setattr(name, not_here)


@pytest.mark.parametrize("what", READ)
def test_masks_and_scores_run_in_the_kernels(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "regard.onnx.flex.product")
    inputs = qkv()
    y, model = run(inputs, score_mod=READ[what], scale=0.3)
    assert_allclose(y, reference(model, inputs)[0], **TOLERANCE)


@pytest.mark.parametrize("what", EVALUATED)
def test_other_modifiers_are_evaluated(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "regard._regard.attention")
    inputs = qkv()
    y, model = run(inputs, score_mod=EVALUATED[what])
    assert_allclose(y, reference(model, inputs)[0], **TOLERANCE)


def test_rows_of_probabilities_may_be_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "regard.onnx.flex.product")
    inputs = qkv()
    gate = np.linspace(0, 1, 4, dtype=np.float32).reshape(4, 1)
    y, model = run(inputs, prob_mod=modifier([node("Mul", "x", "g", "h"), node("Div", "h", "f", "y")], g=gate, f=4.0))
    assert_allclose(y, reference(model, inputs)[0], **TOLERANCE)


def test_probabilities_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "regard._regard.attention")
    inputs = qkv()
    graphs = [
        modifier([node("Mul", "x", "f", "y")], f=np.linspace(0, 1, 6, dtype=np.float32)),
        modifier([node("Add", "x", "f", "y")], f=0.1),
        modifier([node("Relu", "x", "y")]),
    ]
    for graph in graphs:
        y, model = run(inputs, prob_mod=graph, score_mod=READ["a softcap"])
        assert_allclose(y, reference(model, inputs)[0], **TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("precision", [None, HALF, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_other_types(dtype: Any, precision: int | None) -> None:
    """Halves to the last bit: their roundings are the reference's."""
    default = TensorProto.DOUBLE if dtype is np.float64 else TensorProto.FLOAT
    inputs = qkv(dtype)
    graph = modifier([node("Add", "x", "b", "y")], precision or default, b=0.5)
    y, model = run(inputs, score_mod=graph, softmax_precision=precision)
    expected = function_body(model, inputs)[0]
    assert y.dtype == dtype
    if np.dtype(dtype).itemsize == 2:
        assert_array_equal(y, expected)
    else:
        assert_allclose(y, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("last", [node("Identity", "h", "y"), node("Max", "h", "i", "y")], ids=["read", "evaluated"])
def test_a_query_that_sees_no_key_is_zeros(last: Any) -> None:
    """Which ONNX leaves open: its reference implementation divides 0 by 0."""
    seen = SEEN.copy()
    seen[1] = False
    y, _ = run(qkv(), score_mod=modifier([node("Where", "m", "x", "i", "h"), last], m=seen, i=INFINITE))
    assert not y[:, :, 1].any() and y[:, :, [0, 2, 3]].all()


def test_a_modifier_takes_values_from_around_it() -> None:
    """The bias is an input of the outer graph."""
    inputs = {**qkv(), "bias": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)}
    for tail in ("Identity", "Sigmoid"):
        graph = modifier([node("Add", "x", "bias", "added"), node(tail, "added", "y")])
        outer = helper.make_node("FlexAttention", ["Q", "K", "V"], ["Y"], domain=PREVIEW, score_mod=graph)
        (y,) = regard.onnx.Backend.run_model(graph_model([outer], inputs, ["Y"], 26), inputs)
        own = modifier([node("Add", "x", "b", "added"), node(tail, "added", "y")], b=inputs["bias"])
        assert_allclose(y, reference(node_model("FlexAttention", 26, qkv(), ["Y"], score_mod=own), qkv())[0], **TOLERANCE)


def test_modifiers_that_change_more_than_values_are_refused() -> None:
    with pytest.raises(ValueError, match="score_mod returns float32 .* and must return"):
        run(qkv(), score_mod=modifier([node("ReduceSum", "x", "y", keepdims=1)]))
    with pytest.raises(ValueError, match="prob_mod returns float64"):
        run(qkv(), prob_mod=modifier([node("Cast", "x", "y", to=TensorProto.DOUBLE)]))


def test_shapes_and_precisions_are_checked() -> None:
    inputs = qkv()
    with pytest.raises(ValueError, match="softmax_precision is 7"):
        run(inputs, softmax_precision=7)
    with pytest.raises(ValueError, match="scale is -1.0"):
        run(inputs, scale=-1.0)
    with pytest.raises(ValueError, match="Q has shape"):
        run({**inputs, "Q": inputs["Q"][0]})
