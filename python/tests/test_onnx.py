"""`regard.onnx`: ONNX's Attention in all its options, against the function body of its schema, which is its definition.

ONNX 1.23's other description, the Python reference implementation, differs from the definition in four places: with a softcap, mode 0 of
`qk_matmul_output` returns the capped scores; opset 23 fills up short masks; `is_causal` takes the number of queries from the mask's second
last dimension, also where that is 1; and its evaluator hands softcaps over as float32, so that halves are not rounded there.
"""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto
from onnx_models import feeds, function_body, node_model

import regard.onnx

OUTPUTS = ["Y", "present_key", "present_value", "qk_matmul_output"]
# ONNX's rtol. Sums of products of up to 9 unit normals in float32, in another order than the definition's, cancel to 1e-6 at most.
TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-6}


class Case:
    """An Attention node, drawn at random."""

    def __init__(self, seed: int, dtype: Any = np.float32) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = self.pick(23, 24, 25)
        self.batch, self.kv_heads, self.group = self.pick(1, 2), self.pick(1, 2), self.pick(1, 3)
        self.q_len, self.new, self.dim, self.value_dim = self.pick(1, 4), self.pick(1, 5), self.pick(2, 8), self.pick(3, 8)
        self.dtype = dtype
        packed = self.pick(False, True)
        heads = (self.kv_heads * self.group, self.kv_heads)
        self.cache = self.pick("none", "inside", "outside" if self.opset >= 24 else "none")
        self.past = 3 if self.cache == "inside" else 0
        self.attributes: dict[str, Any] = {
            "is_causal": self.pick(0, 1),
            "scale": self.pick(None, 0.3),
            "softcap": self.pick(0.0, 1.5),
            "qk_matmul_output_mode": self.pick(0, 1, 2, 3),
            "softmax_precision": self.pick(None, TensorProto.FLOAT, TensorProto.DOUBLE),
        }
        if packed:
            self.attributes.update(q_num_heads=heads[0], kv_num_heads=heads[1])
        if self.opset >= 25:
            self.attributes.update(left_window_size=self.pick(-1, 0, 2), right_window_size=self.pick(-1, 0, 1))
        self.inputs: dict[str, Any] = {
            "Q": self.heads(heads[0], self.q_len, self.dim, packed),
            "K": self.heads(heads[1], self.new, self.dim, packed),
            "V": self.heads(heads[1], self.new, self.value_dim, packed),
            "attn_mask": self.mask(),
            "past_key": self.heads(heads[1], self.past, self.dim, False) if self.past else None,
            "past_value": self.heads(heads[1], self.past, self.value_dim, False) if self.past else None,
        }
        if self.opset >= 24:
            lengths = self.random.integers(0, self.new + 1, self.batch)
            self.inputs["nonpad_kv_seqlen"] = lengths if self.cache == "outside" else None
        self.outputs = ["Y", "", "", "qk_matmul_output"] if self.cache == "outside" else OUTPUTS

    def pick(self, *choices: Any) -> Any:
        return choices[self.random.integers(len(choices))]

    def heads(self, heads: int, length: int, dim: int, packed: bool) -> np.ndarray[Any, Any]:
        shape = (self.batch, length, heads * dim) if packed else (self.batch, heads, length, dim)
        return self.random.standard_normal(shape).astype(self.dtype)

    def mask(self) -> np.ndarray[Any, Any] | None:
        """Of no to four dimensions, any of them 1; from opset 24 on perhaps shorter than the keys."""
        kind = self.pick("none", "bool", "float", "infinite")
        whole = [self.batch, self.kv_heads * self.group, self.q_len, self.past + self.new]
        shape = [self.pick(1, n) for n in whole[:3]] + [self.pick(whole[3], max(1, whole[3] - 1)) if self.opset >= 24 else whole[3]]
        shape = shape[4 - self.pick(2, 3, 4) :]
        seen = self.random.random(shape) < 0.6
        if kind in ("none", "bool"):
            return seen if kind == "bool" else None
        added = self.random.standard_normal(shape).astype(self.dtype)
        return added if kind == "float" else np.where(seen, added, self.dtype(-np.inf))

    def model(self) -> Any:
        return node_model("Attention", self.opset, self.inputs, self.outputs, **self.attributes)

    def __str__(self) -> str:
        shapes = {name: (str(x.dtype), x.shape) for name, x in feeds(self.inputs).items()}
        return f"opset {self.opset} {self.attributes} {shapes}"


def run(model: Any, inputs: Any) -> tuple[np.ndarray[Any, Any], ...]:
    return regard.onnx.Backend.run_model(model, feeds(inputs))


# ONNX's reference Softmax subtracts −∞ from −∞ in rows that the body then replaces.
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("block", range(5))
def test_every_option_is_as_the_function_body_says(block: int, dtype: Any) -> None:
    """Halves to the last bit: their roundings are the definition's."""
    for seed in range(40 * block, 40 * block + 40):
        case = Case(seed, dtype)
        expected = function_body(case.model(), case.inputs)
        for ours, theirs in zip(run(case.model(), case.inputs), expected, strict=True):
            assert ours.dtype == theirs.dtype
            if np.dtype(dtype).itemsize == 2:
                assert_array_equal(ours, theirs, err_msg=f"seed {seed}: {case}")
            else:
                assert_allclose(ours, theirs, **TOLERANCE, err_msg=f"seed {seed}: {case}")


def test_float32_runs_in_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_here(*_: Any, **__: Any) -> Any:
        raise AssertionError("the scores are written out")

    monkeypatch.setattr("regard.onnx.attention.stages", not_here)
    for seed in range(20):
        case = Case(seed)
        case.outputs = ["Y"]
        run(case.model(), case.inputs)


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")
@pytest.mark.parametrize("precision", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_softmax_in_half_precision_rounds_there(precision: int) -> None:
    for seed in range(20):
        case = Case(seed)
        case.attributes.update(softmax_precision=precision)
        for ours, theirs in zip(run(case.model(), case.inputs), function_body(case.model(), case.inputs), strict=True):
            assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7, err_msg=f"seed {seed}: {case}")


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of the body's −∞ to integers, for padding of no width
def test_numbers_of_any_type_are_added_to_the_scores() -> None:
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((1, 2, 3, 4)).astype(np.float32) for _ in range(3))
    for dtype in (np.int32, np.float16, np.float64):
        inputs = {"Q": q, "K": k, "V": v, "attn_mask": random.integers(-2, 3, (3, 3)).astype(dtype)}
        model = node_model("Attention", 25, inputs, ["Y"])
        assert_allclose(run(model, inputs)[0], function_body(model, inputs)[0], **TOLERANCE)


def test_hidden_values_are_never_observed() -> None:
    random = np.random.default_rng(1)
    q, k, v = (random.standard_normal((1, 1, 4, 8)).astype(np.float32) for _ in range(3))
    inputs = {"Q": q, "K": k, "V": v, "attn_mask": np.array([True, True, False, True])}
    model = node_model("Attention", 25, inputs, ["Y"], is_causal=1)
    clean = run(model, inputs)[0]
    k[:, :, 2], v[:, :, 2] = np.nan, np.inf
    assert_array_equal(run(model, inputs)[0], clean)


def test_more_queries_than_keys_that_are_no_padding() -> None:
    """The offset is negative: the leading queries see no key, and are zeros."""
    random = np.random.default_rng(2)
    q, k, v = (random.standard_normal((2, 1, 4, 4)).astype(np.float32) for _ in range(3))
    inputs = {"Q": q, "K": k, "V": v, "m": None, "pk": None, "pv": None, "nonpad_kv_seqlen": np.array([1, 3])}
    (y,) = run(node_model("Attention", 24, inputs, ["Y"], is_causal=1), inputs)
    assert [np.count_nonzero(y[b].any(axis=(0, 2))) for b in (0, 1)] == [1, 3]
    assert not y[0, :, :3].any() and not y[1, :, :1].any()


def test_no_keys_and_no_queries() -> None:
    for q_len, kv_len in itertools.product((0, 2), (0, 3)):
        for dtype in (np.float32, np.float16):
            shapes = {"Q": (1, 2, q_len, 4), "K": (1, 2, kv_len, 4), "V": (1, 2, kv_len, 5)}
            inputs = {name: np.ones(shape, dtype) for name, shape in shapes.items()}
            (y,) = run(node_model("Attention", 25, inputs, ["Y"], is_causal=1), inputs)
            assert_array_equal(y, np.full((1, 2, q_len, 5), 1 if kv_len else 0, dtype))


REFUSED = [
    (25, {"softcap": -1.0}, "softcap is -1.0"),
    (25, {"scale": -1.0}, "scale is -1.0"),
    (25, {"is_causal": 2}, "is_causal is 2"),
    (25, {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode is 4"),
    (25, {"softmax_precision": 7}, "softmax_precision is 7"),
    (25, {"left_window_size": -2}, "left_window_size is -2"),
    (24, {"left_window_size": 1}, "no attribute 'left_window_size'"),
    (25, {"q_num_heads": 2}, "q_num_heads is for inputs of 3 dimensions"),
    (23, {"kv_num_heads": 3}, "kv_num_heads is 3 and K has 2 heads"),
]


@pytest.mark.parametrize(("opset", "attributes", "message"), REFUSED)
def test_attributes_that_mean_nothing_are_refused(opset: int, attributes: dict[str, Any], message: str) -> None:
    inputs = {name: np.ones((1, 2, 3, 4), np.float32) for name in "QKV"}
    with pytest.raises(ValueError, match=message):
        run(node_model("Attention", opset, inputs, ["Y"], **attributes), inputs)


ONES = np.ones((1, 2, 3, 4), np.float32)
LENGTHS = np.array([2])
WRONG = [
    ({"K": ONES[:, :, :, :3]}, "Q has head size 4 and K has 3"),
    ({"K": ONES[:, :, :2]}, "K has heads and length"),
    ({"Q": np.ones((1, 3, 3, 4), np.float32)}, "must be a multiple"),
    ({"Q": np.ones((2, 2, 3, 4), np.float32)}, "batches"),
    ({"Q": np.ones((1, 3, 8), np.float32)}, "need the attribute q_num_heads"),
    ({"attn_mask": np.ones((5, 3), bool)}, "attn_mask has shape"),
    ({"attn_mask": np.ones((3, 4), bool)}, "attn_mask has shape"),
    ({"past_key": ONES}, "past_key and past_value"),
    ({"past_key": ONES[..., :2], "past_value": ONES}, "past_key has shape"),
    ({"past_key": ONES, "past_value": ONES, "nonpad_kv_seqlen": LENGTHS}, "nonpad_kv_seqlen says"),
    ({"nonpad_kv_seqlen": np.array([1, 2])}, "nonpad_kv_seqlen has shape"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    inputs = {**dict.fromkeys(["Q", "K", "V"], ONES), **dict.fromkeys(["attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"])}
    inputs.update(changes)
    with pytest.raises(ValueError, match=message):
        run(node_model("Attention", 25, inputs, ["Y"]), inputs)


def test_opset_23_has_no_short_masks() -> None:
    inputs = {"Q": ONES, "K": ONES, "V": ONES, "attn_mask": np.ones((3, 2), bool)}
    with pytest.raises(ValueError, match="does not broadcast"):
        run(node_model("Attention", 23, inputs, ["Y"]), inputs)


def test_types_that_do_not_fit_are_refused() -> None:
    inputs = {"Q": ONES, "K": ONES.astype(np.float16), "V": ONES}
    with pytest.raises(TypeError, match="'K' of Attention is tensor.float16. and must be tensor.float."):
        run(node_model("Attention", 25, inputs, ["Y"]), inputs)
