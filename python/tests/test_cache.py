"""The paged cache: what it holds is what dense attention over the same keys sees, through appends, forks, truncation, sharing."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import oracle
import pytest
from arrays import DTYPES, normal, of_kind

import regard

HQ, HKV, D, DV = 4, 2, 16, 24


def tokens(count: int, seed: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return normal(rng, HKV, count, D, dtype=dtype), normal(rng, HKV, count, DV, dtype=dtype)


def queries(batch: int, count: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return normal(np.random.default_rng(seed), batch, HQ, count, D, dtype=dtype)


def cache(**options: Any) -> regard.KVCache:
    return regard.KVCache(**{"pages": 32, "kv_heads": HKV, "head_dim": D, "value_dim": DV, "page_size": 8, **options})


def filled(of: regard.KVCache, count: int, seed: int, dtype: str = "float32") -> tuple[regard.Sequence, np.ndarray, np.ndarray]:
    sequence, (k, v) = of.sequence(), tokens(count, seed, dtype)
    sequence.append(k, v)
    return sequence, k, v


def agrees(got: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, dtype: str = "float32", **meaning: Any) -> None:
    truth = oracle.attention(q, k[None], v[None], dtype=dtype, **meaning)
    oracle.assert_close(got, truth.out, truth.out_tolerance)


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sequence_is_dense_attention(dtype: str, kind: str) -> None:
    pool = cache(dtype=dtype)
    sequence, (k, v), q = pool.sequence(), tokens(37, 1, dtype), queries(1, 5, dtype=dtype)
    for a, b in ((0, 1), (1, 20), (20, 20), (20, 37)):
        sequence.append(of_kind(kind, k[:, a:b]), of_kind(kind, v[None, :, a:b]))
    assert len(sequence) == 37 and len(sequence.block_table) == 5 and sequence.cache is pool
    out, lse = sequence.attend(of_kind(kind, q), causal="lower_right", return_lse=True)
    assert type(out) is type(of_kind(kind, q))
    agrees(out, q, k, v, dtype, visible=oracle.lower_right(5, 37))
    assert np.asarray(lse).shape == (1, HQ, 5)


def test_sequences_of_other_lengths_in_one_call() -> None:
    pool = cache()
    filled_ones = [filled(pool, count, seed) for seed, count in enumerate((1, 8, 30))]
    q = queries(3, 4)
    out = pool.attend(q, [sequence for sequence, _, _ in filled_ones], causal="lower_right", window=(9, 0))
    for i, (_, k, v) in enumerate(filled_ones):
        visible = oracle.window(4, k.shape[1], 9, 0)
        agrees(out[i : i + 1], q[i : i + 1], k, v, visible=visible)


def test_layouts_and_outputs() -> None:
    pool = cache()
    sequence, k, v = filled(pool, 12, 3)
    q = queries(1, 3)
    out = np.empty((1, 3, HQ, DV), np.float32)
    assert pool.attend(np.ascontiguousarray(q.swapaxes(1, 2)), [sequence], layout="blhd", out=out) is out
    agrees(out.swapaxes(1, 2), q, k, v)


def test_options() -> None:
    pool = cache()
    sequence, k, v = filled(pool, 12, 4)
    q, bias = queries(1, 3), normal(np.random.default_rng(5), HQ, 3, 12)
    sinks = np.array([0.5, -1, 2, 0], np.float32)
    out = sequence.attend(q, softcap=2.0, bias=bias, sinks=sinks, scale=0.5, mask=regard.Window(6, 0))
    agrees(
        out,
        q,
        k,
        v,
        visible=oracle.window(3, 12, 6, 0),
        score=lambda s: 2 * np.tanh(s / 2) + bias.astype(np.float64),
        sinks=sinks,
        scale=0.5,
    )


def test_a_fork_shares_pages_until_one_grows() -> None:
    pool = cache()
    sequence, k, v = filled(pool, 20, 6)
    before = pool.free_pages
    fork = sequence.fork()
    assert pool.free_pages == before and fork.block_table == sequence.block_table
    more, other = tokens(3, 7), tokens(5, 8)
    sequence.append(*more)
    fork.append(*other)
    assert pool.free_pages == before - 2  # the page that both held half full, and one more for the fork's 25 tokens
    assert fork.block_table[:2] == sequence.block_table[:2]
    q = queries(1, 2)
    agrees(sequence.attend(q), q, np.concatenate([k, more[0]], 1), np.concatenate([v, more[1]], 1))
    agrees(fork.attend(q), q, np.concatenate([k, other[0]], 1), np.concatenate([v, other[1]], 1))


def test_truncate_free_and_forget() -> None:
    pool = cache()
    everything = pool.free_pages
    assert everything == pool.pages == 32
    sequence, k, v = filled(pool, 30, 9)
    fork = sequence.fork()
    sequence.truncate(9)
    q = queries(1, 2)
    agrees(sequence.attend(q), q, k[:, :9], v[:, :9])
    agrees(fork.attend(q), q, k, v)
    fork.free()
    assert pool.free_pages == everything - 2
    with pytest.raises(ValueError, match="freed"):
        fork.attend(q)
    with pytest.raises(ValueError, match="freed"):
        fork.free()
    del sequence
    gc.collect()
    assert pool.free_pages == everything


def test_a_prefix_is_adopted() -> None:
    pool = cache()
    sequence, k, v = filled(pool, 24, 10)
    child = pool.adopt(sequence.block_table[:2], 16)
    sequence.free()
    more = tokens(4, 11)
    child.append(*more)
    q = queries(1, 2)
    agrees(child.attend(q), q, np.concatenate([k[:, :16], more[0]], 1), np.concatenate([v[:, :16], more[1]], 1))


def test_layers() -> None:
    pool = cache(layers=3)
    sequence = pool.sequence()
    sequence.grow(11)
    held = [tokens(11, 20 + layer) for layer in range(3)]
    for layer, (k, v) in enumerate(held):
        sequence.write(layer, 0, k[:, :4], v[:, :4])
        sequence.write(layer, 4, k[:, 4:], v[:, 4:])
    q = queries(1, 2)
    for layer, (k, v) in enumerate(held):
        agrees(sequence.attend(q, layer=layer), q, k, v)
    with pytest.raises(ValueError, match="layer 3"):
        sequence.attend(q, layer=3)


def test_decoding_has_the_bits_of_any_page_size() -> None:
    q, (k, v) = queries(1, 1), tokens(100, 12)
    outs = []
    for page_size in (1, 8, 16, 128):
        sequence = cache(pages=128, page_size=page_size).sequence()
        sequence.append(k, v)
        outs.append(sequence.attend(q))
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


def test_numbers_of_the_pool() -> None:
    pool = cache(layers=2, dtype="bfloat16")
    assert (pool.pages, pool.page_size, pool.layers, pool.kv_heads, pool.head_dim, pool.value_dim) == (32, 8, 2, HKV, D, DV)
    assert pool.dtype == "bfloat16"
    assert pool.nbytes == 32 * 8 * 2 * HKV * (D + DV) * 2
    assert "KVCache" in repr(pool) and "0 tokens" in repr(pool.sequence())
    assert cache(value_dim=None).value_dim == D


def test_a_full_pool_changes_nothing() -> None:
    pool = cache(pages=3)
    sequence, k, v = filled(pool, 20, 13)
    with pytest.raises(ValueError, match="pages"):
        sequence.append(*tokens(5, 14))
    assert len(sequence) == 20
    q = queries(1, 2)
    agrees(sequence.attend(q), q, k, v)


def test_threads_share_a_pool() -> None:
    pool = cache(pages=256)
    q, failures = queries(1, 2), []

    def work(seed: int) -> None:
        try:
            for turn in range(10):
                sequence, k, v = filled(pool, 5 + seed + turn, 100 * seed + turn)
                fork = sequence.fork()
                fork.append(*tokens(1, turn))
                agrees(sequence.attend(q), q, k, v)
                sequence.free()
                fork.free()
        except BaseException as error:  # the main thread fails with it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert pool.free_pages == 256
