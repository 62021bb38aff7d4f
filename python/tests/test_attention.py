"""`attention` against the float64 oracle: every type, library, layout and option, and what memory is read and written."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import oracle
import pytest
from arrays import DTYPES, KINDS, kind_of, normal, numpy_type, of_kind

import regard

B, HQ, HKV, LQ, LKV, D, DV = 2, 4, 2, 7, 19, 24, 16


def draw(seed: int = 0, *, dtype: str = "float32", q_len: int = LQ, kv_len: int = LKV) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((B, HQ, q_len, D), (B, HKV, kv_len, D), (B, HKV, kv_len, DV))
    return tuple(normal(rng, *shape, dtype=dtype) for shape in shapes)  # type: ignore[return-value]


def agrees(got, truth: oracle.Truth, *, lse=None) -> None:
    oracle.assert_close(got, truth.out, truth.out_tolerance)
    if lse is not None:
        oracle.assert_close(lse, truth.lse, truth.lse_tolerance, "lse")


def alibi(slopes, q_len: int = LQ, kv_len: int = LKV):
    distance = abs(np.arange(q_len)[:, None] + kv_len - q_len - np.arange(kv_len)[None])
    return lambda s: s - np.asarray(slopes, np.float64).reshape(-1, 1, 1) * distance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_of_the_kind_and_type_of_the_queries(dtype: str, kind: str) -> None:
    q, k, v = (of_kind(kind, x) for x in draw(dtype=dtype))
    out, lse = regard.attention(q, k, v, causal="lower_right", return_lse=True)
    assert (kind_of(out), out.dtype) == (kind, q.dtype)
    assert kind_of(lse) == kind and "float32" in str(lse.dtype)
    agrees(out, oracle.attention(q, k, v, visible=oracle.lower_right(LQ, LKV), dtype=dtype), lse=lse)


@pytest.mark.parametrize("kernel", regard.available_kernels())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1, 1, 1, 1), (1, 3, 1, 33, 65, 5, 7), (2, 8, 2, 130, 257, 64, 64), (1, 2, 2, 16, 16, 128, 256)]
)
def test_every_kernel_at_odd_sizes(sizes: tuple[int, ...], dtype: str, kernel: str) -> None:
    b, hq, hkv, lq, lkv, d, dv = sizes
    rng = np.random.default_rng(lq)
    q, k, v = (normal(rng, *shape, dtype=dtype) for shape in ((b, hq, lq, d), (b, hkv, lkv, d), (b, hkv, lkv, dv)))
    with regard.kernel(kernel):
        out, lse = regard.attention(q, k, v, return_lse=True)
    agrees(out, oracle.attention(q, k, v, dtype=dtype, kernel=kernel), lse=lse)


OPTIONS = {
    "nothing": ({}, {}),
    "upper left": ({"causal": "upper_left"}, {"visible": oracle.upper_left(LQ, LKV)}),
    "lower right": ({"causal": "lower_right"}, {"visible": oracle.lower_right(LQ, LKV)}),
    "window": ({"window": (3, 1)}, {"visible": oracle.window(LQ, LKV, 3, 1)}),
    "window without a left bound": ({"window": (None, 0)}, {"visible": oracle.lower_right(LQ, LKV)}),
    "causal in a window": (
        {"causal": "upper_left", "window": (15, None)},
        {"visible": oracle.upper_left(LQ, LKV) & oracle.window(LQ, LKV, 15, None)},
    ),
    "softcap": ({"softcap": 1.5}, {"score": lambda s: 1.5 * np.tanh(s / 1.5)}),
    "scale": ({"scale": 0.7}, {"scale": 0.7}),
    "scale below zero": ({"scale": -0.3}, {"scale": -0.3}),
    "alibi of the paper": ({"alibi": True}, {"score": alibi([2**-2, 2**-4, 2**-6, 2**-8])}),
    "alibi's slopes": ({"alibi": [0.5, 0.1, 1.0, 0.0]}, {"score": alibi([0.5, np.float32(0.1), 1.0, 0.0])}),
    "sinks": ({"sinks": np.array([0.5, -1, 3, 0], np.float32)}, {"sinks": np.array([0.5, -1, 3, 0])}),
    "sinks of −∞": ({"sinks": [-np.inf] * HQ}, {}),
    "a mask object": ({"mask": regard.Window(4, 0)}, {"visible": oracle.window(LQ, LKV, 4, 0)}),
    "a score object": ({"score": regard.Softcap(2.0)}, {"score": lambda s: 2 * np.tanh(s / 2)}),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, dtype: str) -> None:
    options, meaning = OPTIONS[name]
    q, k, v = draw(1, dtype=dtype)
    out, lse = regard.attention(q, k, v, return_lse=True, **options)
    agrees(out, oracle.attention(q, k, v, dtype=dtype, **meaning), lse=lse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(B, HQ, LQ, LKV), (1, HQ, LQ, LKV), (B, 1, 1, LKV), (LQ, LKV), (LKV,), (HQ, 1, 1), (1,), (B, 1, LQ, 1), ()]
)
def test_a_bias_broadcasts(shape: tuple[int, ...], dtype: str) -> None:
    q, k, v = draw(2)
    bias = normal(np.random.default_rng(3), *shape, dtype=dtype)
    out, lse = regard.attention(q, k, v, bias=bias, return_lse=True)
    wide = oracle.widened(bias)
    agrees(out, oracle.attention(q, k, v, score=lambda s: s + wide), lse=lse)


def test_a_bias_of_minus_infinity_hides() -> None:
    q, k, v = draw(4)
    hidden = np.random.default_rng(5).random((B, 1, LQ, LKV)) < 0.4
    hidden[0, 0, 0] = True
    bias = np.where(hidden, -np.inf, 0).astype(np.float32)
    out, lse = regard.attention(q, k, v, bias=bias, return_lse=True)
    agrees(out, oracle.attention(q, k, v, visible=~hidden), lse=lse)
    assert not out[0, :, 0].any() and np.isneginf(lse[0, :, 0]).all()


def test_scores_come_in_their_order_and_before_masks() -> None:
    q, k, v = draw(6)
    bias = normal(np.random.default_rng(7), HQ, LQ, LKV)
    options = {"score": regard.Alibi(HQ), "softcap": 2.0, "alibi": [0.1] * HQ, "bias": bias, "causal": "upper_left"}
    first, later = alibi([2**-2, 2**-4, 2**-6, 2**-8]), alibi([np.float32(0.1)] * HQ)
    truth = oracle.attention(
        q, k, v, visible=oracle.upper_left(LQ, LKV), score=lambda s: later(2 * np.tanh(first(s) / 2)) + bias.astype(np.float64)
    )
    agrees(regard.attention(q, k, v, **options), truth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["bhld", "blhd"])
def test_layouts(layout: str, kind: str) -> None:
    q, k, v = draw(8)
    truth = oracle.attention(q, k, v, visible=oracle.lower_right(LQ, LKV))
    arrays = (x if layout == "bhld" else np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    out, lse = regard.attention(*(of_kind(kind, x) for x in arrays), layout=layout, causal="lower_right", return_lse=True)
    out = oracle.widened(out)
    agrees(out if layout == "bhld" else out.swapaxes(1, 2), truth, lse=lse)


@pytest.mark.parametrize("ndim", [2, 3])
def test_missing_leading_axes(ndim: int) -> None:
    q, k, v = (x[:1, :1] for x in draw(9))
    axes = (0,) * (4 - ndim)
    out, lse = regard.attention(q[axes], k[axes], v[axes], return_lse=True)
    assert (out.ndim, lse.ndim) == (ndim, ndim - 1)
    agrees(out.reshape(1, 1, LQ, DV), oracle.attention(q, k, v), lse=lse.reshape(1, 1, LQ))


@pytest.mark.parametrize("causal", [None, "upper_left", "lower_right"])
@pytest.mark.parametrize("pair", [False, True])
def test_packed_documents(causal: str | None, pair: bool) -> None:
    ends_q, ends_kv = [0, 3, 3, 10, 16], [0, 5, 6, 14, 20] if pair else [0, 3, 3, 10, 16]
    rng = np.random.default_rng(10)
    q, k, v = normal(rng, ends_q[-1], HQ, D), normal(rng, ends_kv[-1], HKV, D), normal(rng, ends_kv[-1], HKV, DV)
    documents = (np.array(ends_q), np.array(ends_kv)) if pair else ends_q
    out, lse = regard.attention(q, k, v, layout="packed", documents=documents, causal=causal, return_lse=True)
    assert (out.shape, lse.shape) == ((ends_q[-1], HQ, DV), (HQ, ends_q[-1]))
    shape = {None: lambda a, b: np.ones((a, b), bool), "upper_left": oracle.upper_left, "lower_right": oracle.lower_right}[causal]
    for i in range(len(ends_q) - 1):
        a, b = slice(*ends_q[i : i + 2]), slice(*ends_kv[i : i + 2])
        q_len, kv_len = ends_q[i + 1] - ends_q[i], ends_kv[i + 1] - ends_kv[i]
        truth = oracle.attention(*(x.swapaxes(0, 1)[None] for x in (q[a], k[b], v[b])), visible=shape(q_len, kv_len))
        agrees(out[a].swapaxes(0, 1)[None], truth, lse=lse[None, :, a])


def test_blocks() -> None:
    q, k, v = draw(11, q_len=12, kv_len=18)
    chosen = np.random.default_rng(12).random((1, HQ, 3, 3)) < 0.6
    visible = np.repeat(np.repeat(chosen, 4, axis=2), 6, axis=3)
    agrees(regard.attention(q, k, v, blocks=(chosen, 4, 6)), oracle.attention(q, k, v, visible=visible))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_any_strides(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(13)
    wide = normal(rng, B, LKV, HKV, 2, D, dtype=dtype)
    q = normal(rng, D, LQ, HQ, B, dtype=dtype).T.swapaxes(1, 2)  # [B, LQ, HQ, D] with the dim outermost
    k, v = wide[:, :, :, 0], wide[:, :, :, 1]
    truth = oracle.attention(*(x.swapaxes(1, 2) for x in (q, k, v)), dtype=dtype)
    arrays = [q, k, v] if kind == "numpy" else [_torch_view(x) for x in (q, k, v)]
    out = regard.attention(*(x.swapaxes(1, 2) for x in arrays))
    agrees(out, truth)


def _torch_view(x: np.ndarray):
    """The same memory and strides as a tensor."""
    torch = pytest.importorskip("torch")

    base = x
    while base.base is not None:
        base = base.base
    flat = of_kind("torch", base)
    offset = (x.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // x.itemsize
    return torch.as_strided(flat, x.shape, [step // x.itemsize for step in x.strides], offset)


def test_negative_and_zero_strides() -> None:
    q, k, v = draw(14)
    backwards = (q[:, ::-1, ::-1], k[:, :, ::-1, ::-1], v[:, :, ::-1])
    agrees(regard.attention(q[:, ::-1, ::-1, ::-1], *backwards[1:]), oracle.attention(q[:, ::-1, ::-1, ::-1], *backwards[1:]))
    same = np.broadcast_to(k[:1, :1], k.shape)
    agrees(regard.attention(q, same, v), oracle.attention(q, same, v))


def test_what_a_mask_hides_is_never_observed() -> None:
    q, k, v = draw(15)
    clean = regard.attention(q, k, v, causal="upper_left")
    k[:, :, LQ:], v[:, :, LQ:] = np.nan, np.inf
    np.testing.assert_array_equal(regard.attention(q, k, v, causal="upper_left"), clean)


@pytest.mark.parametrize("lengths", [(0, 3), (3, 0), (0, 0)])
def test_empty_lengths(lengths: tuple[int, int]) -> None:
    q, k, v = draw(16, q_len=lengths[0], kv_len=lengths[1])
    out, lse = regard.attention(q, k, v, return_lse=True)
    assert out.shape == (B, HQ, lengths[0], DV) and not out.any() and np.isneginf(lse).all()


class TestOut:
    @pytest.mark.parametrize("kind", ["numpy", "torch"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_result_is_written_there(self, dtype: str, kind: str) -> None:
        q, k, v = (of_kind(kind, x) for x in draw(17, dtype=dtype))
        out = of_kind(kind, np.full((B, HQ, LQ, DV), np.nan, numpy_type(dtype)))
        got = regard.attention(q, k, v, out=out)
        assert got is out
        agrees(out, oracle.attention(q, k, v, dtype=dtype))

    def test_in_any_strides(self) -> None:
        q, k, v = draw(18)
        memory = np.full((LQ, 2, B, DV, HQ), 7, np.float32)
        out = memory[:, 1].transpose(1, 3, 0, 2)
        regard.attention(q, k, v, out=out)
        agrees(out, oracle.attention(q, k, v))
        assert (memory[:, 0] == 7).all()

    def test_of_another_library(self) -> None:
        q, k, v = draw(19)
        out = of_kind("torch", np.zeros((B, HQ, LQ, DV), np.float32))
        assert regard.attention(q, k, v, out=out) is out
        agrees(out, oracle.attention(q, k, v))


class TestDropout:
    def weights(self, p: float, seed: int) -> np.ndarray:
        q, k, _ = draw(20)
        return regard.attention(q, k, np.broadcast_to(np.eye(LKV, dtype=np.float32), (B, HKV, LKV, LKV)), dropout=(p, seed))

    def test_a_weight_is_dropped_or_scaled(self) -> None:
        q, k, _ = draw(20)
        truth = oracle.attention(q, k, np.zeros((B, HKV, LKV, 1)))
        got = self.weights(0.25, 3)
        # The factor 1/(1 − p) is rounded once, and so is its product.
        tolerance = np.where(got == 0, 0.0, (truth.weights_tolerance + 2 * oracle.U * truth.weights) / 0.75)
        oracle.assert_close(got, np.where(got == 0, 0.0, truth.weights / 0.75), tolerance, "weights")

    def test_the_share_of_dropped_weights_is_p(self) -> None:
        dropped = np.mean([self.weights(0.25, seed) == 0 for seed in range(20)])
        count = 20 * B * HQ * LQ * LKV
        assert abs(dropped - 0.25) < 5 * np.sqrt(0.25 * 0.75 / count)  # five standard deviations

    def test_the_seed_decides(self) -> None:
        np.testing.assert_array_equal(self.weights(0.5, 1), self.weights(0.5, 1))
        assert (self.weights(0.5, 1) != self.weights(0.5, 2)).any()

    def test_a_chance_of_zero_changes_nothing(self) -> None:
        q, k, v = draw(21)
        np.testing.assert_array_equal(regard.attention(q, k, v, dropout=(0.0, 1)), regard.attention(q, k, v))


class TestSameBits:
    """A row's bits depend on its query and its visible keys only."""

    def test_with_any_number_of_threads(self) -> None:
        q, k, v = draw(22, q_len=70, kv_len=300)
        before = regard.get_num_threads()
        try:
            regard.set_num_threads(1)
            one = regard.attention(q, k, v)
            regard.set_num_threads(3)
            assert regard.get_num_threads() == 3
            np.testing.assert_array_equal(regard.attention(q, k, v), one)
        finally:
            regard.set_num_threads(before)

    def test_in_any_library_and_layout(self) -> None:
        q, k, v = draw(23)
        one = regard.attention(q, k, v)
        for kind in KINDS:
            np.testing.assert_array_equal(np.asarray(regard.attention(*(of_kind(kind, x) for x in (q, k, v)))), one)
        np.testing.assert_array_equal(regard.attention(*(x.swapaxes(1, 2) for x in (q, k, v)), layout="blhd").swapaxes(1, 2), one)


def test_the_interpreter_runs_on() -> None:
    rng = np.random.default_rng(24)
    q = normal(rng, 1, 8, 1024, 64)
    ticks, done = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with regard.kernel("scalar"):  # long enough to see
            before, start = ticks, time.perf_counter()
            regard.attention(q, q, q)
            during, seconds = ticks - before, time.perf_counter() - start
    finally:
        done.set()
        thread.join()
    # Without the lock's release the other thread gets a turn before and after, not every few milliseconds in between.
    assert during > 100 * seconds, f"{during} turns in {seconds:.2f} s"


def test_inputs_are_not_copied() -> None:
    """Two million keys that are one row of memory: a copy would be 512 MB, and a second one for the values."""
    script = """
        import resource
        import numpy as np
        import regard

        q = np.ones((1, 1, 1, 64), np.float32)
        key = np.random.default_rng(0).standard_normal((1, 1, 1, 64)).astype(np.float32)
        keys = np.broadcast_to(key, (1, 1, 2_000_000, 64))
        regard.attention(q, key, key)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out = regard.attention(q, keys, keys)
        assert np.allclose(out, key, atol=2e-3)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout)
    assert kilobytes < 100_000, f"{kilobytes} kB more than before"


class TestMergeStates:
    def test_disjoint_keys(self) -> None:
        q, k, v = draw(25)
        parts = [regard.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 4), (4, 5), (5, LKV))]
        out, lse = regard.merge_states([out for out, _ in parts], [lse for _, lse in parts])
        truth = oracle.attention(q, k, v)
        # Parts round on their own, and once more when they are joined.
        oracle.assert_close(out, truth.out, 3 * truth.out_tolerance)
        oracle.assert_close(lse, truth.lse, 3 * truth.lse_tolerance, "lse")

    def test_states_without_keys_change_nothing(self) -> None:
        q, k, v = draw(26)
        out, lse = regard.attention(q, k, v, return_lse=True)
        none = regard.attention(q, k[:, :, :0], v[:, :, :0], return_lse=True)
        merged = regard.merge_states([none[0], out], [none[1], lse])
        np.testing.assert_array_equal(merged[0], out)
        np.testing.assert_array_equal(merged[1], lse)


class TestExplain:
    def test_counts(self) -> None:
        q, k, v = draw(27)
        plain = regard.explain(q, k, v)
        assert plain.kernel == regard.available_kernels()[0] and plain.why
        assert plain.pairs == B * HQ * LQ * LKV and plain.hidden_share == 0
        # 2 operations for each product and sum: of q·k, and of weight·value
        assert plain.forward_flops == 2 * B * HQ * LQ * LKV * (D + DV)
        assert plain.bytes == sum(x.nbytes for x in (q, k, v)) + B * HQ * LQ * DV * 4 + (B * HQ * LQ * 4)
        assert plain.kernel in repr(plain)

    def test_hidden_tiles(self) -> None:
        q = normal(np.random.default_rng(28), 1, 1, 2048, 8)
        half = regard.explain(q, q, q, causal="lower_right")
        assert 0.4 < half.hidden_share < 0.5
        assert half.hidden_tiles + half.clear_tiles + half.mixed_tiles == regard.explain(q, q, q).clear_tiles
        assert half.pairs < 0.6 * 2048 * 2048
