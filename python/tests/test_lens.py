"""`regard.lens`: facts and maps of arrays against weights written out in float64, for every type, library, mask and score."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from arrays import DTYPES, KINDS, kind_of, normal, of_kind

import regard
from regard import lens

B, HQ, HKV, LQ, LKV, D, DV = 2, 4, 2, 7, 70, 24, 16
CLASSES = [range(0, 1), range(1, 2), range(2, 4), range(4, 8), range(8, 16), range(16, 32), range(32, 64), range(64, 128)]
RANGES = {"question": (2, 9), "answer": (60, 70), "nothing": (5, 5)}


def draw(seed: int = 0, *, dtype: str = "float32", q_len: int = LQ, kv_len: int = LKV) -> list[Any]:
    rng = np.random.default_rng(seed)
    shapes = ((B, HQ, q_len, D), (B, HKV, kv_len, D), (B, HKV, kv_len, DV))
    return [normal(rng, *shape, dtype=dtype) for shape in shapes]


def distances(q_len: int, kv_len: int) -> np.ndarray:
    """|own position − key|, counted from the lower right."""
    return abs(np.arange(q_len)[:, None] + kv_len - q_len - np.arange(kv_len)[None])


def check_facts(
    facts: lens.Facts, truth: oracle.Truth, *, first: int = 4, recent: int = 32, top: int = 8, sinks: Any = None
) -> None:
    """Every fact from the weights of the oracle; a sum of weights may be as far off as its terms may be."""
    p, slack = truth.weights, truth.weights_tolerance
    b, h, q_len, kv_len = p.shape
    far, before = distances(q_len, kv_len), np.arange(q_len)[:, None] + kv_len - q_len - np.arange(kv_len)[None]

    def mass(of_row: np.ndarray, got: np.ndarray, what: str) -> None:
        oracle.assert_close(got, (p * of_row).sum(-1), (slack * of_row).sum(-1) + 2.0**-20 * (p * of_row).sum(-1) + 1e-30, what)

    mass((np.arange(kv_len) < first) & (before >= -kv_len), facts.first, "first")
    mass((before >= 0) & (before < recent), facts.recent, "recent")
    assert facts.distances.shape[-1] == (max(q_len, kv_len) - 1).bit_length() + 1
    for i in range(facts.distances.shape[-1]):
        mass((far >= CLASSES[i].start) & (far < CLASSES[i].stop), facts.distances[..., i], f"distances {CLASSES[i]}")
    for name, keys in facts.ranges.items():
        start, end = RANGES[name]
        mass((np.arange(kv_len) >= start) & (np.arange(kv_len) < end) & (before >= -kv_len), keys, name)
    total = p.sum(-1)
    seen = total > 0
    mean = (p * far).sum(-1) / np.where(seen, total, 1)
    relative = (slack * far).sum(-1) / np.where(seen, total, 1) + mean * slack.sum(-1) / np.where(seen, total, 1)
    oracle.assert_close(facts.distance, mean, relative + 2.0**-18 * (1 + mean), "distance")
    oracle.assert_close(facts.lse, truth.lse, truth.lse_tolerance, "lse")
    sink = np.zeros((1, h, 1)) if sinks is None else np.exp(oracle.widened(sinks).reshape(1, -1, 1) - np.where(seen, truth.lse, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(-1) - np.where(sink > 0, sink * np.log(sink), 0) * seen
        steep = (slack * (1 + abs(np.where(p > 0, np.log(p), 0)))).sum(-1)
    oracle.assert_close(facts.entropy, entropy, steep + truth.lse_tolerance + 1e-5, "entropy")
    largest = -np.sort(-p, axis=-1)[..., :top]
    largest = np.pad(largest, [(0, 0)] * 3 + [(0, top - largest.shape[-1])])
    oracle.assert_close(facts.top_weights, largest, largest * slack.max() / max(p.max(), 1e-30) + slack.max(), "top_weights")
    at = np.take_along_axis(p, np.maximum(facts.top_keys, 0), -1)
    oracle.assert_close(np.where(facts.top_keys >= 0, at, 0), largest, 2 * slack.max() + 0 * largest, "weights of top_keys")
    assert ((facts.top_keys >= 0) == (largest > 0)).all()
    assert (facts.max_weight == facts.top_weights[..., 0]).all() and (facts.own == facts.distances[..., 0]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_facts_of_every_type_and_library(dtype: str, kind: str) -> None:
    q, k, v = (of_kind(kind, x) for x in draw(dtype=dtype))
    facts = lens.inspect(q, k, v, ranges=RANGES, return_output=True, causal="lower_right")
    truth = oracle.attention(q, k, v, visible=oracle.lower_right(LQ, LKV), dtype=dtype)
    check_facts(facts, truth)
    out, lse = regard.attention(q, k, v, causal="lower_right", return_lse=True)
    assert kind_of(facts.output) == kind and facts.output.dtype == q.dtype
    assert np.array_equal(oracle.widened(facts.output), oracle.widened(out))  # bit for bit
    assert np.array_equal(facts.lse, oracle.widened(lse).astype(np.float32))
    assert all(type(fact) is np.ndarray for fact in (facts.entropy, facts.top_keys, facts.ranges["answer"]))
    assert facts.entropy.dtype == np.float32 and facts.top_keys.dtype == np.int64


HIDDEN = np.random.default_rng(5).random((B, 1, LQ, LKV)) < 0.3
HIDDEN[0, 0, 2] = True  # a row that sees nothing
SINKS = np.array([0.5, -1, 3, 0], np.float32)
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "upper left": ({"causal": "upper_left"}, {"visible": oracle.upper_left(LQ, LKV)}),
    "window": ({"window": (3, 1)}, {"visible": oracle.window(LQ, LKV, 3, 1)}),
    "bools": ({"mask": ~HIDDEN}, {"visible": ~HIDDEN}),
    "a mask": ({"mask": regard.Padding([40, 0])}, {"visible": np.arange(LKV) < np.array([40, 0]).reshape(2, 1, 1, 1)}),
    "softcap": ({"softcap": 1.5}, {"score": lambda s: 1.5 * np.tanh(s / 1.5)}),
    "scale": ({"scale": 0.7}, {"scale": 0.7}),
    "sinks": ({"sinks": SINKS, "causal": "upper_left"}, {"sinks": SINKS, "visible": oracle.upper_left(LQ, LKV)}),
    "bias": ({"bias": np.float32(np.arange(LKV) % 3)}, {"score": lambda s: s + np.arange(LKV) % 3}),
    "dropout": ({"dropout": (0.5, 1)}, {}),
}


@pytest.mark.parametrize("kernel", regard.available_kernels())
@pytest.mark.parametrize("name", OPTIONS)
def test_facts_under_every_option(name: str, kernel: str) -> None:
    options, meaning = OPTIONS[name]
    q, k, v = draw(1)
    with regard.kernel(kernel):
        facts = lens.inspect(q, k, v, first=3, recent=5, top=12, ranges=RANGES, **options)
    truth = oracle.attention(q, k, v, kernel=kernel, **meaning)
    check_facts(facts, truth, first=3, recent=5, top=12, sinks=options.get("sinks"))
    assert facts.output is None


def test_a_row_that_sees_nothing_has_no_facts() -> None:
    facts = lens.inspect(*draw(2), mask=~HIDDEN, ranges=RANGES)
    row = (0, slice(None), 2)
    assert np.isneginf(facts.max_logit[row]).all() and np.isneginf(facts.lse[row]).all() and (facts.top_keys[row] == -1).all()
    for fact in (
        facts.entropy,
        facts.distance,
        facts.first,
        facts.recent,
        facts.distances,
        facts.top_weights,
        *facts.ranges.values(),
    ):
        assert not fact[row].any()


def test_the_largest_logit() -> None:
    q, k, v = draw(3)
    facts = lens.inspect(q, k, v, causal="lower_right", softcap=2.0)
    wide = np.repeat(k.astype(np.float64), HQ // HKV, axis=1)
    s = 2 * np.tanh(np.einsum("bhid,bhjd->bhij", q.astype(np.float64), wide) / np.sqrt(D) / 2)
    np.testing.assert_allclose(facts.max_logit, np.where(oracle.lower_right(LQ, LKV), s, -np.inf).max(-1), rtol=1e-5)


def test_layouts_and_missing_axes() -> None:
    q, k, v = draw(4)
    whole = lens.inspect(q, k, v, causal="upper_left", ranges=RANGES)
    swapped = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    other = lens.inspect(*swapped, causal="upper_left", layout="blhd", ranges=RANGES)
    one = lens.inspect(q[1, :1], k[1, :1], v[1, :1], causal="upper_left", ranges=RANGES)
    for name in ("entropy", "lse", "top_keys", "distances"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(other, name))
        np.testing.assert_array_equal(getattr(whole, name)[1, :1], getattr(one, name))
    packed = lens.inspect(*(x[0] for x in swapped), layout="packed", documents=([0, LQ], [0, LKV]), causal="upper_left")
    np.testing.assert_allclose(packed.entropy, whole.entropy[0], rtol=1e-6)


# --- weights and maps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_rows(dtype: str, kind: str) -> None:
    q, k, v = (of_kind(kind, x) for x in draw(5, dtype=dtype))
    options: Any = {"causal": "lower_right", "sinks": SINKS}
    truth = oracle.attention(q, k, v, visible=oracle.lower_right(LQ, LKV), sinks=SINKS, dtype=dtype)
    got = lens.weights(q, k, rows=[6, 0, 6], **options)
    oracle.assert_close(got, truth.weights[:, :, [6, 0, 6]], truth.weights_tolerance[:, :, [6, 0, 6]], "weights")
    lse = lens.inspect(q, k, v, **options).lse
    for row in (6, np.int64(6), np.array([6])):
        np.testing.assert_array_equal(lens.weights(q, k, rows=row, lse=lse, **options), got[:, :, :1])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_need_no_log_sum_exp(kind: str) -> None:
    """What computes it makes an output of the caller's library, and drops it before it returns."""
    q, k, v = (of_kind(kind, x) for x in draw(8))
    lse = lens.inspect(q, k, v).lse
    for _ in range(100):
        np.testing.assert_array_equal(lens.map(q, k, block=3), lens.map(q, k, block=3, lse=lse))


def test_maps_of_any_part() -> None:
    q, k, v = draw(6)
    truth = oracle.attention(q, k, v, visible=oracle.upper_left(LQ, LKV))
    lse = regard.attention(q, k, v, causal="upper_left", return_lse=True)[1]
    part = {"batch": (1, 2), "heads": (1, 4), "rows": (1, 6), "keys": (3, 44)}
    got = lens.map(q, k, **part, block=(2, 10), lse=lse, causal="upper_left")
    p, slack = (x[1:2, 1:4, 1:6, 3:44] for x in (truth.weights, truth.weights_tolerance))
    rows, keys = np.arange(0, 5, 2), np.arange(0, 41, 10)
    means = lambda x: np.add.reduceat(np.add.reduceat(x, keys, -1), rows, -2) / np.array([2, 2, 1])[:, None]
    assert got.shape == (1, 3, 3, 5)
    oracle.assert_close(got, means(p), means(slack) + 1e-7, "map")
    whole = lens.map(q, k, causal="upper_left")
    oracle.assert_close(whole, truth.weights, truth.weights_tolerance, "map of everything")
    np.testing.assert_allclose(lens.map(q[0], k[0], block=100, lse=None), np.ones((HQ, 1, 1)), rtol=1e-5)
    np.testing.assert_allclose(lens.received(q, k, causal="upper_left"), truth.weights.sum(-2), rtol=1e-4, atol=1e-6)


# --- what cannot be


def none(**options: Any) -> Any:
    return lens.inspect(*draw(), **options)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "top 0": (lambda: none(top=0), ValueError, "top is 0 and must be from 1 to 1024"),
    "top below 0": (lambda: none(top=-1), ValueError, "top is -1 and must be from 0"),
    "top too large": (lambda: none(top=1025), ValueError, "top is 1025 and must be from 1 to 1024"),
    "top 1.5": (lambda: none(top=1.5), TypeError, "top is of type float and must be an integer"),
    "first below 0": (lambda: none(first=-2), ValueError, "first is -2"),
    "recent None": (lambda: none(recent=None), TypeError, "recent is of type NoneType"),
    "a range beyond the keys": (
        lambda: none(ranges={"a": (3, 71)}),
        ValueError,
        'ranges["a"] is (3, 71) and must be (start, end) with 0 <= start <= end <= 70',
    ),
    "a range backwards": (lambda: none(ranges={"a": (5, 3)}), ValueError, "ranges['a'] is (5, 3) and must begin before it ends"),
    "a range below 0": (lambda: none(ranges={"a": (-5, 3)}), ValueError, "ranges['a'] is -5"),
    "a range that is none": (lambda: none(ranges={"a": 5}), TypeError, "ranges['a'] is 5 and must be a pair (start, end)"),
    "ranges that are no mapping": (lambda: none(ranges=[(0, 1)]), TypeError, "ranges is of type list"),
    "ranges by number": (lambda: none(ranges={1: (0, 1)}), TypeError, "ranges has a name of type int"),
    "an option of attention's output": (lambda: none(return_lse=True), TypeError, '"return_lse" is no option of this call'),
    "another option": (lambda: none(shape=3), TypeError, '"shape" is no option of this call'),
    "other arrays": (lambda: lens.inspect(*(x.astype(np.float64) for x in draw())), TypeError, "q"),
    "rows that are no numbers": (lambda: lens.weights(*draw()[:2], rows=None), TypeError, "rows is of type NoneType"),
    "no rows": (lambda: lens.weights(*draw()[:2], rows=[]), ValueError, "rows is empty"),
    "a row beyond the queries": (lambda: lens.weights(*draw()[:2], rows=7), ValueError, "rows is (7, 8) and must be"),
    "a row below 0": (lambda: lens.weights(*draw()[:2], rows=-1), ValueError, "rows is -1"),
    "a part beyond the keys": (lambda: lens.map(*draw()[:2], keys=(0, 71)), ValueError, "keys is (0, 71) and must be"),
    "heads beyond the last": (lambda: lens.map(*draw()[:2], heads=(0, 5)), ValueError, "heads is (0, 5) and must be"),
    "block 0": (lambda: lens.map(*draw()[:2], block=0), ValueError, "block is (0, 0) and must be at least 1"),
    "three blocks": (lambda: lens.map(*draw()[:2], block=(1, 2, 3)), ValueError, "block is (1, 2, 3) and must be"),
    "an lse of another shape": (
        lambda: lens.map(*draw()[:2], lse=np.zeros((B, HQ), np.float32)),
        ValueError,
        "lse has shape [2, 4]",
    ),
    "an lse of another type": (lambda: lens.map(*draw()[:2], lse=np.zeros((B, HQ, LQ))), TypeError, "lse"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name: str) -> None:
    call, exception, text = BAD[name]
    with pytest.raises(exception) as caught:
        call()
    assert text in str(caught.value)
