"""Dialects: each row of docs/dialects.md, against the library itself where it can be imported and its documented rule where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from arrays import normal, of_kind

import regard

B, HQ, HKV, D = 2, 4, 2, 16
SHAPES = [(9, 9), (5, 12), (12, 5)]
BLHD = ("jax", "flash-attn-2")


def draw(q_len: int, kv_len: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [normal(rng, B, heads, length, D) for heads, length in ((HQ, q_len), (HKV, kv_len), (HKV, kv_len))]


def attend(dialect: str, q: Any, k: Any, v: Any, **options: Any) -> np.ndarray:
    """The dialect's output for `[batch, heads, length, dim]`, in the layout that it has by default."""
    if dialect not in BLHD:
        return np.asarray(regard.attention(q, k, v, dialect=dialect, **options))
    arrays = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    return regard.attention(*arrays, dialect=dialect, **options).swapaxes(1, 2)


def with_means(truth: oracle.Truth, v: np.ndarray) -> np.ndarray:
    """The oracle's output, with the mean of all values where a query sees none."""
    mean = np.repeat(v.astype(np.float64).mean(2, keepdims=True), HQ // HKV, axis=1)
    return np.where(np.isneginf(truth.lse)[..., None], mean, truth.out)


def agrees(got: np.ndarray, truth: oracle.Truth, v: np.ndarray | None = None) -> None:
    """`v` where rows that see nothing have the mean: a sum of n float32, divided once."""
    expected = truth.out if v is None else with_means(truth, v)
    slack = 0.0 if v is None else (v.shape[2] + 2) * oracle.U * np.repeat(abs(v).mean(2, keepdims=True), HQ // HKV, axis=1)
    oracle.assert_close(got, expected, truth.out_tolerance + slack)


# --- causal=True: which diagonal


@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
@pytest.mark.parametrize("dialect", list(regard.dialects.DIALECTS))
def test_causal_alignment(dialect: str, q_len: int, kv_len: int) -> None:
    q, k, v = draw(q_len, kv_len)
    upper = dialect not in ("mlx", "flash-attn-2")
    truth = oracle.attention(q, k, v, visible=(oracle.upper_left if upper else oracle.lower_right)(q_len, kv_len))
    mean = dialect in ("jax", "mlx")
    agrees(attend(dialect, q, k, v, causal=True), truth, v if mean else None)


@pytest.mark.parametrize("dialect", list(regard.dialects.DIALECTS))
def test_causal_that_is_named_or_false(dialect: str) -> None:
    q, k, v = draw(5, 12)
    agrees(attend(dialect, q, k, v, causal="lower_right"), oracle.attention(q, k, v, visible=oracle.lower_right(5, 12)))
    agrees(attend(dialect, q, k, v, causal="upper_left"), oracle.attention(q, k, v, visible=oracle.upper_left(5, 12)))
    agrees(attend(dialect, q, k, v, causal=False), oracle.attention(q, k, v))


@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
def test_causal_as_torch(q_len: int, kv_len: int) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (of_kind("torch", x) for x in draw(q_len, kv_len))
    theirs = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
    truth = oracle.attention(q, k, v, visible=oracle.upper_left(q_len, kv_len))
    np.testing.assert_allclose(theirs, truth.out, rtol=0, atol=1e-12)  # both float64
    agrees(attend("torch", q, k, v, causal=True), truth)


# --- JAX: the function itself


@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 2}, {"window": (3, 1)}, {"causal": True, "window": (2, 0)}])
def test_jax(options: dict[str, Any], q_len: int, kv_len: int) -> None:
    jax = pytest.importorskip("jax")
    q, k, v = (x.swapaxes(1, 2) for x in draw(q_len, kv_len))
    theirs = jax.nn.dot_product_attention(
        *map(jax.numpy.asarray, (q, k, v)), is_causal=options.get("causal", False), local_window_size=options.get("window")
    )
    ours = regard.attention(q, k, v, dialect="jax", **options)
    # Both are float32 kernels of one formula: each may be off by the oracle's tolerance.
    visible = np.ones((q_len, kv_len), bool)
    if options.get("causal"):
        visible &= oracle.upper_left(q_len, kv_len)
    if "window" in options:
        left, right = options["window"] if isinstance(options["window"], tuple) else (options["window"],) * 2
        visible &= oracle.window(q_len, kv_len, left, right, offset=0)
    truth = oracle.attention(*(x.swapaxes(1, 2) for x in (q, k, v)), visible=visible)
    agrees(np.asarray(theirs).swapaxes(1, 2), truth, v.swapaxes(1, 2))
    agrees(ours.swapaxes(1, 2), truth, v.swapaxes(1, 2))


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_masked_rows_have_the_mean_of_all_values(dtype: str, kind: str) -> None:
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(1)
    q, k, v = (normal(rng, B, length, heads, D, dtype=dtype) for length, heads in ((5, HQ), (7, HKV), (7, HKV)))
    mask = rng.random((B, 1, 5, 7)) < 0.5
    mask[0, 0, 2] = False
    theirs = jax.nn.dot_product_attention(*map(jax.numpy.asarray, (q, k, v)), mask=jax.numpy.asarray(mask))
    mine, lse = regard.attention(*(of_kind(kind, x) for x in (q, k, v)), dialect="jax", mask=of_kind(kind, mask), return_lse=True)
    assert np.isneginf(oracle.widened(lse)[0, :, 2]).all()
    # JAX rounds probabilities to bfloat16 as well as the output: two units of the largest value.
    atol = 2 * oracle.UNIT[dtype] * float(abs(oracle.widened(v)).max()) if dtype == "bfloat16" else 2e-6
    np.testing.assert_allclose(oracle.widened(mine), oracle.widened(theirs), rtol=0, atol=atol)


def test_jax_bias_comes_before_the_mask() -> None:
    jax = pytest.importorskip("jax")
    q, k, v = (x.swapaxes(1, 2) for x in draw(5, 7))
    rng = np.random.default_rng(2)
    bias, mask = normal(rng, B, HQ, 5, 7), rng.random((B, HQ, 5, 7)) < 0.7
    mask[0, 0, 0] = False
    theirs = jax.nn.dot_product_attention(*map(jax.numpy.asarray, (q, k, v)), bias=bias, mask=mask)
    np.testing.assert_allclose(regard.attention(q, k, v, dialect="jax", bias=bias, mask=mask), theirs, rtol=0, atol=2e-6)


# --- masked rows


@pytest.mark.parametrize("dialect", list(regard.dialects.DIALECTS))
def test_masked_rows(dialect: str) -> None:
    q, k, v = draw(5, 7)
    mask = np.ones((B, 1, 5, 7), bool)
    mask[1, 0, 3] = False
    truth = oracle.attention(q, k, v, visible=mask)
    agrees(attend(dialect, q, k, v, mask=mask), truth, v if dialect in ("jax", "mlx") else None)


@pytest.mark.parametrize("dialect", list(regard.dialects.DIALECTS))
def test_a_hidden_nan_is_never_seen(dialect: str) -> None:
    q, k, v = draw(5, 7)
    mask = np.ones((5, 7), bool)
    mask[:, 6] = False
    clean = attend(dialect, q, k, v, mask=mask)
    k[:, :, 6], v[:, :, 6] = np.inf, np.nan
    np.testing.assert_array_equal(attend(dialect, q, k, v, mask=mask), clean)


def test_masked_rows_as_torch() -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (of_kind("torch", x) for x in draw(5, 7))
    mask = torch.ones(B, 1, 5, 7, dtype=torch.bool)
    mask[1, 0, 3] = False
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert not theirs[1, :, 3].any()
    assert not regard.attention(q, k, v, dialect="torch", mask=mask)[1, :, 3].any()


@pytest.mark.parametrize("dialect", ["jax", "mlx"])
def test_sinks_take_all_of_a_masked_row(dialect: str) -> None:
    """As in MLX, whose sinks join the softmax beside scores that are the least number."""
    q, k, v = draw(5, 7)
    mask = np.zeros((5, 7), bool)
    assert not attend(dialect, q, k, v, mask=mask, sinks=np.zeros(HQ, np.float32)).any()


@pytest.mark.parametrize("dialect", ["jax", "mlx"])
def test_the_mean_goes_to_an_output_of_the_callers(dialect: str) -> None:
    q, k, v = draw(5, 7)
    arrays = [x.swapaxes(1, 2) if dialect == "jax" else x for x in (q, k, v)]
    out = np.full_like(arrays[0], np.nan)
    assert regard.attention(*arrays, dialect=dialect, mask=np.zeros((5, 7), bool), out=out) is out
    agrees(out.swapaxes(1, 2) if dialect == "jax" else out, oracle.attention(q, k, v, visible=False), v)


def test_the_mean_of_values_of_another_library() -> None:
    q, k, v = draw(5, 7)
    given = (q, of_kind("torch", k), of_kind("jax", v))
    out = regard.attention(*given, dialect="mlx", mask=np.zeros((5, 7), bool))
    agrees(out, oracle.attention(q, k, v, visible=False), v)


def test_the_mean_has_gradients() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("regard.torch")
    q, k, v = (of_kind("torch", x).requires_grad_() for x in draw(3, 4))
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    regard.attention(q, k, v, dialect="mlx", mask=mask)[:, :, 1].sum().backward()
    assert not q.grad.any() and not k.grad.any()
    # Each of 4 keys has a quarter of each of the 2 query heads that share it: exact in float32.
    np.testing.assert_array_equal(v.grad, np.full(v.shape, 0.5, np.float32))


# --- ONNX: its reference implementation


def onnx_reference(opset: int, q: Any, k: Any, v: Any, mask: Any = None, **attributes: Any) -> np.ndarray:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    names = ["Q", "K", "V"] + (["attn_mask"] if mask is not None else [])
    node = onnx.helper.make_node("Attention", names, ["Y"], **attributes)
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names[:3]]
    if mask is not None:
        kind = onnx.TensorProto.BOOL if mask.dtype == bool else onnx.TensorProto.FLOAT
        inputs.append(onnx.helper.make_tensor_value_info("attn_mask", kind, None))
    outputs = [onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph([node], "attention", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = dict(zip(names, (q, k, v, mask)))
    return reference.ReferenceEvaluator(model).run(None, feeds)[0]


def close_to_onnx(got: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(got, theirs, rtol=0, atol=3e-6)  # both float32: their scale is rounded twice more


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
def test_causal_as_onnx(opset: int, q_len: int, kv_len: int) -> None:
    q, k, v = draw(q_len, kv_len)
    close_to_onnx(attend(f"onnx-{opset}", q, k, v, causal=True), onnx_reference(opset, q, k, v, is_causal=1))


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_onnx_with_a_cache_is_lower_right(opset: int) -> None:
    """`past_key` holds the first 7 of 12 keys: their causal attention is then the lower right over all of them."""
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    q, k, v = draw(5, 12)
    names = ["Q", "K", "V", "", "past_key", "past_value"]
    node = onnx.helper.make_node("Attention", names, ["Y", "present_key", "present_value"], is_causal=1)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output]
    graph = onnx.helper.make_graph([node], "attention", values, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {"Q": q, "K": k[:, :, 7:], "V": v[:, :, 7:], "past_key": k[:, :, :7], "past_value": v[:, :, :7]}
    theirs = reference.ReferenceEvaluator(model).run(None, feeds)[0]
    close_to_onnx(attend(f"onnx-{opset}", q, k, v, causal="lower_right"), theirs)


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_masked_rows_as_onnx(opset: int) -> None:
    q, k, v = draw(5, 7)
    mask = np.random.default_rng(3).random((B, 1, 5, 7)) < 0.6
    mask[0, 0, 1] = False
    theirs = onnx_reference(opset, q, k, v, mask)
    assert not theirs[0, :, 1].any()
    close_to_onnx(attend(f"onnx-{opset}", q, k, v, mask=mask), theirs)


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_softcap_comes_before_the_bias_as_onnx(opset: int) -> None:
    q, k, v = draw(5, 7)
    bias = 2 * normal(np.random.default_rng(4), B, HQ, 5, 7)
    theirs = onnx_reference(opset, q, k, v, bias, softcap=1.0)
    close_to_onnx(attend(f"onnx-{opset}", q, k, v, bias=bias, softcap=1.0), theirs)
    plain = onnx_reference(opset, q, k, v, bias, softcap=0.0)
    close_to_onnx(attend(f"onnx-{opset}", q, k, v, bias=bias, softcap=0.0), plain)


@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
@pytest.mark.parametrize("window", [(2, -1), (-1, 1), (0, 0), (3, 1), (-1, -1), (20, 20), (10**9, -1)])
@pytest.mark.parametrize("causal", [False, True])
def test_windows_as_onnx(causal: bool, window: tuple[int, int], q_len: int, kv_len: int) -> None:
    q, k, v = draw(q_len, kv_len)
    left, right = window
    theirs = onnx_reference(25, q, k, v, is_causal=int(causal), left_window_size=left, right_window_size=right)
    close_to_onnx(attend("onnx-25", q, k, v, causal=causal, window=window), theirs)


# --- windows by their documented rules


@pytest.mark.parametrize(("q_len", "kv_len"), SHAPES)
@pytest.mark.parametrize("window", [(-1, -1), (2, -1), (-1, 0), (3, 1)])
def test_windows_of_flash_attention(window: tuple[int, int], q_len: int, kv_len: int) -> None:
    """`[i + seqlen_k − seqlen_q − left, i + seqlen_k − seqlen_q + right]`, −1 is no bound; rows without keys are zero."""
    q, k, v = draw(q_len, kv_len)
    left, right = (None if bound == -1 else bound for bound in window)
    truth = oracle.attention(q, k, v, visible=oracle.window(q_len, kv_len, left, right))
    agrees(attend("flash-attn-2", q, k, v, window=window), truth)
    truth = oracle.attention(q, k, v, visible=oracle.window(q_len, kv_len, left, 0))
    agrees(attend("flash-attn-2", q, k, v, window=window, causal=True), truth)


def test_scores_of_flash_attention() -> None:
    """Its kernels cap the score, then add `−slope · |i + seqlen_k − seqlen_q − j|`; a softcap of 0 is none."""
    q, k, v = draw(5, 12)
    slopes = np.array([0.5, 0.25, 1.0, 0.125], np.float32)
    distance = abs(np.arange(5)[:, None] + 7 - np.arange(12)) * slopes.reshape(-1, 1, 1).astype(np.float64)
    truth = oracle.attention(q, k, v, score=lambda s: 2 * np.tanh(s / 2) - distance)
    agrees(attend("flash-attn-2", q, k, v, softcap=2.0, alibi=slopes), truth)
    agrees(attend("flash-attn-2", q, k, v, softcap=0.0), oracle.attention(q, k, v))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_windows_of_mlx(size: int) -> None:
    """`window_size` of its causal masks: keys `q − size < kv ≤ q`, the query's own among them."""
    q, k, v = draw(5, 12)
    at, key = np.arange(5)[:, None] + 7, np.arange(12)[None]
    truth = oracle.attention(q, k, v, visible=(key <= at) & (at < key + size))
    agrees(attend("mlx", q, k, v, window=size), truth)


def test_windows_where_a_dialect_has_none() -> None:
    for dialect in ("torch", "mlx", "onnx-23", "onnx-24"):
        for q_len, kv_len in ((9, 9), (5, 12)):
            q, k, v = draw(q_len, kv_len)
            visible = oracle.window(q_len, kv_len, 2, 1, offset=None if dialect == "mlx" else 0)
            agrees(attend(dialect, q, k, v, window=(2, 1)), oracle.attention(q, k, v, visible=visible))
        with pytest.raises(ValueError, match="window"):
            attend(dialect, q, k, v, window=(-1, 0))
        if dialect != "mlx":
            with pytest.raises(TypeError, match="window"):
                attend(dialect, q, k, v, window=3)


def test_windows_join_other_masks() -> None:
    q, k, v = draw(5, 12)
    bools = np.random.default_rng(5).random((B, 1, 5, 12)) < 0.7
    visible = oracle.window(5, 12, 4, 4, offset=0) & bools & oracle.upper_left(5, 12)
    truth = oracle.attention(q, k, v, visible=visible)
    for mask in (bools, regard.Bools(bools), [bools], (regard.Bools(bools), bools)):
        agrees(attend("onnx-25", q, k, v, mask=mask, window=(4, 4), causal=True), truth)


def test_windows_in_documents() -> None:
    rng = np.random.default_rng(6)
    q = normal(rng, 14, HQ, D)
    k, v = normal(rng, 14, HKV, D), normal(rng, 14, HKV, D)
    options = {"dialect": "onnx-25", "layout": "packed", "window": (2, -1), "causal": True}
    out = regard.attention(q, k, v, documents=[0, 6, 14], **options)
    for documents in ((0, 6, 14), ([0, 6, 14], [0, 6, 14])):
        np.testing.assert_array_equal(regard.attention(q, k, v, documents=documents, **options), out)
    for a, b in ((0, 6), (6, 14)):
        visible = oracle.window(b - a, b - a, 2, 0)
        agrees(out[a:b].swapaxes(0, 1)[None], oracle.attention(*(x[a:b].swapaxes(0, 1)[None] for x in (q, k, v)), visible=visible))
    with pytest.raises(ValueError, match="window"):
        regard.attention(q, k, v, documents=([0, 6, 14], [0, 5, 14]), **options)


# --- names and refusals


def test_explain_has_dialects() -> None:
    q = np.zeros((1, 1, 512, 8), np.float32)
    named = regard.explain(q, q, q, causal="upper_left")
    assert regard.explain(q, q, q, dialect="torch", causal=True).hidden_share == named.hidden_share > 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dialect": "pytorch"}, ValueError, "dialect"),
        ({"dialect": 3}, TypeError, "dialect"),
        ({"causal": True}, TypeError, "causal"),
        ({"dialect": "torch", "causal": "left"}, ValueError, "causal"),
        ({"dialect": "torch", "causal": 1.5}, TypeError, "causal"),
        ({"dialect": "torch", "causal": np.ones((3, 5), bool)}, TypeError, "causal"),
        ({"dialect": "jax", "window": -2}, ValueError, "window"),
        ({"dialect": "jax", "window": (1, -2)}, ValueError, "window"),
        ({"dialect": "mlx", "window": 0}, ValueError, "window"),
        ({"dialect": "onnx-25", "window": (-2, 0)}, ValueError, "window"),
        ({"dialect": "onnx-25", "window": (1, 2, 3)}, TypeError, "window"),
        ({"dialect": "onnx-25", "window": "wide"}, TypeError, "window"),
        ({"dialect": "jax", "window": (1.5, 0)}, TypeError, "window"),
        ({"dialect": "jax", "layout": "packed", "documents": [0, 2]}, ValueError, "layout"),
        ({"dialect": "torch", "hat": 1}, TypeError, "hat"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], text: str) -> None:
    q, k = np.zeros((2, 1, 3, 4), np.float32), np.zeros((2, 1, 5, 4), np.float32)
    arrays = (q[0],) * 3 if options.get("layout") == "packed" else (q, k, k)
    if options.get("dialect") in BLHD and options.get("layout") is None:
        arrays = tuple(x.swapaxes(1, 2) for x in arrays)
    with pytest.raises(error, match=text):
        regard.attention(*arrays, **options)


def test_every_dialect_is_in_the_documentation() -> None:
    for name in regard.dialects.DIALECTS:
        assert f"`{name}`" in (regard.dialects.__doc__ or "")
        assert regard.dialects.get(name).name == name
