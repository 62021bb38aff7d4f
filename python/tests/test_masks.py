"""Masks and scores as objects: each against its definition in numpy, what they compose to, and attention with them."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from arrays import normal, of_kind

import regard

B, H, LQ, LKV = 2, 4, 37, 70
Q, KV = np.arange(LQ)[:, None], np.arange(LKV)[None]
AT = Q + LKV - LQ  # the query's position among the keys
RNG = np.random.default_rng(0)
BOOLS = RNG.random((B, 1, LQ, LKV)) < 0.5
MAP = RNG.random((1, H, 5, 7)) < 0.5
FIRST = RNG.integers(0, LKV, (B, H, LQ))
END = FIRST + RNG.integers(0, 20, (B, H, LQ))
CENTRES = RNG.uniform(0, LKV, (B, 1, LQ)).astype(np.float32)


def documents(ends: list[int], kv_ends: list[int]) -> np.ndarray:
    of_q, of_kv = np.searchsorted(ends[1:], Q, side="right"), np.searchsorted(kv_ends[1:], KV, side="right")
    return of_q == of_kv


def causal_documents(ends: list[int], kv_ends: list[int]) -> np.ndarray:
    of_q = np.searchsorted(ends[1:], Q, side="right")
    starts, lengths = np.array(ends[:-1])[of_q], np.diff(ends)[of_q]
    kv_starts, kv_lengths = np.array(kv_ends[:-1])[of_q], np.diff(kv_ends)[of_q]
    return documents(ends, kv_ends) & (KV - kv_starts <= Q - starts + kv_lengths - lengths)


def blockwise(size: int, left: int, right: int) -> np.ndarray:
    return (KV // size >= AT // size - left) & (KV // size <= AT // size + right)


MASKS = {
    "upper left": (regard.Causal.UPPER_LEFT, KV <= Q),
    "lower right": (regard.Causal.LOWER_RIGHT, KV <= AT),
    "window": (regard.Window(5, 2), (KV >= AT - 5) & (KV <= AT + 2)),
    "window without a left bound": (regard.Window(None, 3), KV <= AT + 3),
    "window without bounds": (regard.Window(None, None), KV >= 0),
    "prefix": (regard.PrefixLm(9), (KV < 9) | (KV <= AT)),
    "prefixes": (regard.PrefixLm([3, 60]), (KV < np.array([3, 60]).reshape(2, 1, 1, 1)) | (KV <= AT)),
    "documents": (regard.Documents([0, 10, 20, 37], [0, 5, 41, 70]), documents([0, 10, 20, 37], [0, 5, 41, 70])),
    "causal documents": (
        regard.Documents(np.array([0, 10, 20, 37]), np.array([0, 15, 41, 70]), regard.Causal.LOWER_RIGHT),
        causal_documents([0, 10, 20, 37], [0, 15, 41, 70]),
    ),
    "blocks": (regard.Blocks(MAP, 8, 10), np.repeat(np.repeat(MAP, 8, 2), 10, 3)[:, :, :LQ]),
    "bools": (regard.Bools(BOOLS), BOOLS),
    "bools of a row": (regard.Bools(BOOLS[0, 0, 0]), BOOLS[0, 0, 0]),
    "padding": (regard.Padding([70, 13]), KV < np.array([70, 13]).reshape(2, 1, 1, 1)),
    "padding for all": (regard.Padding(20), KV < 20),
    "spans": (regard.Spans(FIRST, END), (KV >= FIRST[..., None]) & (KV < END[..., None])),
    "spans of one row": (
        regard.Spans(FIRST[0, 0], END[0, 0].astype(np.int32)),
        (KV >= FIRST[0, 0, :, None]) & (KV < END[0, 0, :, None]),
    ),
    "dilated": (regard.Dilated(4, 1, 3), ((AT - KV) % 3 == 0) & (AT - KV <= 12) & (AT - KV >= -3)),
    "strided": (regard.Strided(6), (abs(AT - KV) <= 6) | ((AT - KV) % 6 == 0)),
    "fixed": (regard.Fixed(8, 2), (KV // 8 == AT // 8) | (KV % 8 >= 6)),
    "first are global": (regard.Global(3), (KV < 3) | (AT < 3)),
    "some are global": (regard.Global([40, 1]), np.isin(KV, [1, 40]) | np.isin(AT, [1, 40])),
    "blockwise": (regard.Blockwise(8, regard.Window(1, 0)), blockwise(8, 1, 0)),
    "around": (regard.Around(CENTRES, 4.5), abs(KV - CENTRES[..., None].astype(np.float64)) <= 4.5),
    "both": (regard.Causal.LOWER_RIGHT & regard.Window(9, 0) & regard.Bools(BOOLS), (KV <= AT) & (KV >= AT - 9) & BOOLS),
    "either": (regard.Window(2, 2) | regard.Global(1), ((KV >= AT - 2) & (KV <= AT + 2)) | (KV < 1) | (AT < 1)),
    "both of either": (
        (regard.Window(2, 2) | regard.Padding(5)) & regard.Causal.UPPER_LEFT,
        (((KV >= AT - 2) & (KV <= AT + 2)) | (KV < 5)) & (KV <= Q),
    ),
}


def draw(dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [normal(rng, B, H, length, 16, dtype=dtype) for length in (LQ, LKV, LKV)]


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_their_definitions(name: str) -> None:
    mask, visible = MASKS[name]
    np.testing.assert_array_equal(mask.visible((B, H, LQ, LKV)), np.broadcast_to(visible, (B, H, LQ, LKV)))


@pytest.mark.parametrize("name", MASKS)
def test_attention_with_masks(name: str) -> None:
    mask, visible = MASKS[name]
    q, k, v = draw()
    out, lse = regard.attention(q, k, v, mask=mask, return_lse=True)
    truth = oracle.attention(q, k, v, visible=visible)
    oracle.assert_close(out, truth.out, truth.out_tolerance)
    oracle.assert_close(lse, truth.lse, truth.lse_tolerance, "lse")


def test_random_keys() -> None:
    mask = regard.RandomKeys(3, H, LKV, 7)
    seen = mask.visible((B, H, LQ, LKV))
    assert (seen.sum(-1) == 3).all() and (seen[0] == seen[1]).all() and (seen[0, 0] != seen[0, 1]).any()
    np.testing.assert_array_equal(seen, regard.RandomKeys(3, H, LKV, 7).visible((B, H, LQ, LKV)))
    assert (seen != regard.RandomKeys(3, H, LKV, 8).visible((B, H, LQ, LKV))).any()
    # The same key is drawn by about 3 in 70 of many queries: a draw that favours some would show.
    counts = regard.RandomKeys(3, 64, LKV, 1).visible((1, 64, LKV, LKV)).sum((0, 1, 2))
    expected, deviation = 64 * 3, np.sqrt(64 * 3 * (1 - 3 / LKV))
    assert (abs(counts - expected) < 5 * deviation).all()


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
def test_lists_of_masks_and_arrays_agree_all(kind: str) -> None:
    q, k, v = (of_kind(kind, x) for x in draw())
    masks = [regard.Causal.LOWER_RIGHT, of_kind(kind, BOOLS), regard.Padding([60, 70])]
    visible = (KV <= AT) & BOOLS & (KV < np.array([60, 70]).reshape(2, 1, 1, 1))
    truth = oracle.attention(q, k, v, visible=visible)
    for given in (masks, tuple(masks), (masks[0] & masks[2] & regard.Bools(BOOLS))):
        oracle.assert_close(regard.attention(q, k, v, mask=given), truth.out, truth.out_tolerance)


@pytest.mark.parametrize("view", ["broadcast", "transposed", "backwards", "slices"])
def test_bools_in_any_strides(view: str) -> None:
    rng = np.random.default_rng(2)
    mask = {
        "broadcast": np.broadcast_to(rng.random((1, 1, 1, LKV)) < 0.5, (B, H, LQ, LKV)),
        "transposed": (rng.random((LKV, LQ, H, B)) < 0.5).T,
        "backwards": (rng.random((B, H, LQ, LKV)) < 0.5)[:, ::-1, ::-1, ::-1],
        "slices": (rng.random((B, H, 2 * LQ, 3 * LKV)) < 0.5)[:, :, ::2, 1::3],
    }[view]
    q, k, v = draw()
    truth = oracle.attention(q, k, v, visible=mask)
    oracle.assert_close(regard.attention(q, k, v, mask=mask), truth.out, truth.out_tolerance)


def test_masks_hold_their_own_memory() -> None:
    bools, first, end = BOOLS.copy(), FIRST.copy(), END.copy()
    masks = [regard.Bools(bools), regard.Spans(first, end), regard.Blocks(bools, 1, 1)]
    before = [mask.visible((B, H, LQ, LKV)) for mask in masks]
    bools[:], first[:], end[:] = False, 0, 0
    for mask, seen in zip(masks, before):
        np.testing.assert_array_equal(mask.visible((B, H, LQ, LKV)), seen)


def test_masks_say_what_they_are() -> None:
    mask = regard.Causal.LOWER_RIGHT & (regard.Window(128, 0) | regard.Global(4))
    assert repr(mask) == "(Causal.LOWER_RIGHT & (Window(128, 0) | Global(4)))"
    assert repr(regard.Softcap(30.0) >> regard.Alibi(8)) == "Softcap(30) >> Alibi(8 heads)"


class TestScores:
    BIAS = normal(np.random.default_rng(3), H, LQ, LKV)
    SLOPES = np.array([0.5, 0.25, 0.125, 1.0])

    def test_in_the_order_given(self) -> None:
        q, k, v = draw()
        bias, distance = self.BIAS.astype(np.float64), abs(AT - KV) * self.SLOPES.reshape(-1, 1, 1)
        first = regard.Alibi(self.SLOPES.astype(np.float32)) >> regard.Softcap(3.0)
        truth = oracle.attention(q, k, v, score=lambda s: 3 * np.tanh((s - distance) / 3) + bias)
        for score in (first >> regard.Bias(self.BIAS), [first, regard.Bias(self.BIAS)]):
            oracle.assert_close(regard.attention(q, k, v, score=score), truth.out, truth.out_tolerance)

    def test_before_every_mask(self) -> None:
        q, k, v = draw()
        truth = oracle.attention(q, k, v, visible=KV <= AT, score=lambda s: 2 * np.tanh(s / 2))
        out = regard.attention(q, k, v, score=regard.Softcap(2.0), mask=regard.Causal.LOWER_RIGHT)
        oracle.assert_close(out, truth.out, truth.out_tolerance)

    def test_gaussian(self) -> None:
        q, k, v = draw()
        penalty = (KV - CENTRES[..., None].astype(np.float64)) ** 2 / (2 * 2.5**2)
        truth = oracle.attention(q, k, v, score=lambda s: s - penalty)
        oracle.assert_close(regard.attention(q, k, v, score=regard.Gaussian(CENTRES, 2.5)), truth.out, truth.out_tolerance)

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_relative_bias_has_the_buckets_of_t5(self, bidirectional: bool) -> None:
        torch = pytest.importorskip("torch")
        models = pytest.importorskip("transformers.models.t5.modeling_t5")
        buckets = models.T5Attention._relative_position_bucket(torch.from_numpy(KV - AT), bidirectional, 32, 50).numpy()
        table = normal(np.random.default_rng(4), H, 32)
        bias = table.astype(np.float64)[:, buckets]
        q, k, v = draw()
        truth = oracle.attention(q, k, v, score=lambda s: s + bias)
        out = regard.attention(q, k, v, score=regard.RelativeBias(table, 50, bidirectional))
        oracle.assert_close(out, truth.out, truth.out_tolerance)

    @pytest.mark.parametrize(
        ("heads", "slopes"),
        [
            (8, [2.0**-i for i in range(1, 9)]),
            # The paper's code for 6 heads: those of 4, then every other one of 8.
            (6, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]),
        ],
    )
    def test_alibi_of_the_paper(self, heads: int, slopes: list[float]) -> None:
        rng = np.random.default_rng(5)
        q, k, v = (normal(rng, 1, heads, length, 8) for length in (LQ, LKV, LKV))
        penalty = abs(AT - KV) * np.array(slopes).reshape(-1, 1, 1)
        truth = oracle.attention(q, k, v, score=lambda s: s - penalty)
        for options in ({"alibi": True}, {"score": regard.Alibi(heads)}):
            oracle.assert_close(regard.attention(q, k, v, **options), truth.out, truth.out_tolerance)

    def test_a_hidden_key_stays_hidden(self) -> None:
        """A softcap would make −∞ finite, so a bias of −∞ ahead of one is refused."""
        q, k, v = draw()
        bias = np.where(KV <= AT, 0, -np.inf).astype(np.float32)
        with pytest.raises(ValueError, match="softcap"):
            regard.attention(q, k, v, score=regard.Bias(bias) >> regard.Softcap(2.0))
        truth = oracle.attention(q, k, v, visible=KV <= AT, score=lambda s: 2 * np.tanh(s / 2))
        out = regard.attention(q, k, v, score=regard.Softcap(2.0) >> regard.Bias(bias))
        oracle.assert_close(out, truth.out, truth.out_tolerance)
