"""Forced kernels, and the number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from arrays import normal

import regard

KERNELS = regard.available_kernels()


def draw() -> np.ndarray:
    return normal(np.random.default_rng(0), 1, 2, 33, 16)


def chosen() -> str:
    q = draw()
    return regard.explain(q, q, q).kernel


def test_the_best_comes_first() -> None:
    assert KERNELS[0] == chosen() and KERNELS[-1] == "scalar" and len(set(KERNELS)) == len(KERNELS)
    assert set(KERNELS) <= {"amx", "avx512bf16", "avx512", "avx2", "scalar"}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_forced_in_the_block(name: str) -> None:
    with regard.kernel(name):
        assert chosen() == name
    assert chosen() == KERNELS[0]


def test_blocks_nest() -> None:
    with regard.kernel("scalar"):
        with regard.kernel(KERNELS[0]):
            assert chosen() == KERNELS[0]
        assert chosen() == "scalar"


def test_the_block_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), regard.kernel("scalar"):
        raise ZeroDivisionError
    assert chosen() == KERNELS[0]


def test_a_function_can_be_decorated() -> None:
    assert regard.kernel("scalar")(chosen)() == "scalar"


def test_other_threads_choose_themselves() -> None:
    names = []
    with regard.kernel("scalar"):
        thread = threading.Thread(target=lambda: names.append(chosen()))
        thread.start()
        thread.join()
    assert names == [KERNELS[0]]


def test_it_reaches_every_function() -> None:
    """A kernel's sums have their own order, so their last bits differ; one without would have the bits of the default."""
    if len(KERNELS) == 1:
        pytest.skip("this machine has one kernel")
    q = draw()
    sequence = regard.KVCache(pages=8, kv_heads=2, head_dim=16).sequence()
    sequence.append(q, q)
    out, lse = regard.attention(q, q, q, return_lse=True)
    calls = {
        "attention": lambda: regard.attention(q, q, q),
        "attention_backward": lambda: regard.attention_backward(q, q, q, out, lse, q)[0],
        "scaled_dot_product_attention": lambda: regard.scaled_dot_product_attention(q, q, q),
        "attend": lambda: sequence.attend(q),
        "linear_attention": lambda: regard.linear_attention(q, q, q),
    }
    for name, call in calls.items():
        best = call()
        with regard.kernel("scalar"):
            other = call()
        assert (best != other).any(), name
        np.testing.assert_allclose(best, other, rtol=0, atol=1e-5 * abs(best).max(), err_msg=name)


@pytest.mark.parametrize(("name", "error"), [("fast", ValueError), ("", ValueError), (None, TypeError), (3, TypeError)])
def test_kernels_that_are_not_there(name: object, error: type[Exception]) -> None:
    with pytest.raises(error), regard.kernel(name):  # type: ignore[arg-type]
        pass
    assert chosen() == KERNELS[0]


def test_threads() -> None:
    before = regard.get_num_threads()
    try:
        for n in (1, 3):
            regard.set_num_threads(n)
            assert regard.get_num_threads() == n
    finally:
        regard.set_num_threads(before)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (10**9, ValueError), (2**70, OverflowError), (1.5, TypeError)]
)
def test_numbers_of_threads_that_are_none(n: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        regard.set_num_threads(n)  # type: ignore[arg-type]
