"""`regard.lens.precision` against attention written out in float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from regard import attention, lens

TYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def exact(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Every query sees the keys up to its own."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    p = np.exp(s - s.max(-1, keepdims=True)) * np.tri(s.shape[-2])
    return p @ v / p.sum(-1, keepdims=True)


def test_errors_are_those_of_attention_in_each_type() -> None:
    q, k, v = draw(2, 3, 50, 16), draw(2, 3, 50, 16), draw(2, 3, 50, 8)
    rows = [49, 7, 20]
    truth = exact(q, k, v)[:, :, rows]
    errors = lens.precision(q, k, v, rows=rows, causal="upper_left")
    assert list(errors) == list(TYPES)
    for name, dtype in TYPES.items():
        out = np.asarray(attention(*(x.astype(dtype) for x in (q, k, v)), causal="upper_left"))[:, :, rows].astype(np.float64)
        expected = np.sqrt(((out - truth) ** 2).sum((-1, -2)) / (truth**2).sum((-1, -2)))
        assert errors[name].shape == (2, 3) and errors[name].dtype == np.float64
        np.testing.assert_allclose(errors[name], expected, rtol=1e-6)


def test_rows_are_spread_where_none_are_named() -> None:
    q, k, v = draw(2, 200, 16), draw(2, 200, 16), draw(2, 200, 16)
    named = lens.precision(q, k, v, rows=[(i * 200) // 64 - 1 for i in range(1, 65)])
    spread = lens.precision(q, k, v)
    assert all((named[name] == spread[name]).all() and named[name].shape == (2,) for name in TYPES)


def test_numbers_beyond_a_type_are_not_finite() -> None:
    q, k, v = draw(1, 1, 4, 8), draw(1, 1, 4, 8), 1e6 * draw(1, 1, 4, 8)
    errors = lens.precision(q, k, v)
    assert np.isfinite(errors["f32"]).all() and np.isfinite(errors["bf16"]).all() and not np.isfinite(errors["f16"]).any()


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([4], ValueError, "rows has 4 and must have queries from 0 to 3"),
        ([-1], ValueError, "rows is -1"),
        ([1.5], TypeError, "rows is of type float"),
        (7, TypeError, "not iterable"),
    ],
)
def test_rows_that_cannot_be(rows: object, error: type[Exception], says: str) -> None:
    q = draw(1, 1, 4, 8)
    with pytest.raises(error, match=says):
        lens.precision(q, q, q, rows=rows)
