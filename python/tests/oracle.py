"""The oracle: attention in float64, everything written out, and how far a float32 kernel may be from it.

The roundings of a float32 computation, followed through the formulas, with `u = 2⁻²⁴` and `γ(n) = min(n, 6√n)·u` for a sum of n products
(Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4):

    δ(raw) = scale·γ(D+2)·Σ|q||k| + 2u|raw|                     the product, its scale
    δ(s)   = |score(raw ± δ) − score(raw)| + 4u(|s|+|raw|)      the score, as steep as it is here
    ε      = δ(s) + 2u(|s| + |m|) + 4u                          exp(s − m): its argument, its own 4 units
    ε̄      = Σ p ε + p_sink (4u|m| + 4u)                        the denominator
    δ(p)/p = exp(ε + ε̄) − 1 + γ(n)
    δ(lse) = ε̄ + γ(n) + 2u(|lse| + |m|)
    δ(out) = Σ w|v| (δ(p)/p + γ(n) + rounding of weights) + rounding of the output's type
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import regard

U = 2.0**-24
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TINY = {"float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
# Kernels that multiply bf16 as it is round the weights of bf16 values to bf16.
ROUNDS_WEIGHTS = {"amx", "avx512bf16"}


@dataclass
class Truth:
    """What the oracle says, and the tolerances."""

    out: np.ndarray
    lse: np.ndarray
    weights: np.ndarray
    out_tolerance: np.ndarray
    lse_tolerance: np.ndarray
    weights_tolerance: np.ndarray


def widened(x: Any) -> np.ndarray:
    """The numbers of an array of any library, in float64."""
    if hasattr(x, "detach"):
        return np.asarray(x.detach().double().numpy())
    return np.asarray(x).astype(np.float64)


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    visible: Any = True,
    score: Callable[[np.ndarray], np.ndarray] = lambda s: s,
    sinks: Any = None,
    scale: float | None = None,
    dtype: str = "float32",
    kernel: str | None = None,
) -> Truth:
    """Attention of q `[batch, q_heads, q_len, dim]`; `visible` broadcasts to the scores; `score` works on all of them."""
    q, k, v = (widened(x) for x in (q, k, v))
    groups = q.shape[1] // max(k.shape[1], 1)
    k, v = (np.repeat(x, groups, axis=1) for x in (k, v))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return _truth(q, k, v, visible, score, sinks, scale, dtype, kernel or regard.available_kernels()[0])


def _truth(q: Any, k: Any, v: Any, visible: Any, score: Any, sinks: Any, scale: float, dtype: str, kernel: str) -> Truth:
    raw = scale * np.einsum("bhid,bhjd->bhij", q, k)
    seen = np.broadcast_to(visible, raw.shape)
    s = np.where(seen, score(raw), -np.inf)
    seen = seen & ~np.isneginf(s)
    sink = np.full((1, q.shape[1], 1, 1), -np.inf) if sinks is None else widened(sinks).reshape(1, -1, 1, 1)
    m = np.maximum(s.max(-1, keepdims=True, initial=-np.inf), sink)
    top = np.where(np.isfinite(m), m, 0.0)
    total = np.exp(s - top).sum(-1, keepdims=True) + np.exp(sink - top)
    lse = np.where(total > 0, top + np.log(total), -np.inf)
    p = np.where(seen, np.exp(s - np.where(np.isfinite(lse), lse, 0.0)), 0.0)
    values = np.where(np.isfinite(v), v, 0.0)  # what is hidden may be anything
    out = np.einsum("bhij,bhjd->bhid", p, values)

    n = min(k.shape[2] + 1, 6 * np.sqrt(k.shape[2] + 1)) * U
    dim = min(q.shape[3] + 2, 6 * np.sqrt(q.shape[3] + 2)) * U
    delta = abs(scale) * dim * np.einsum("bhid,bhjd->bhij", abs(q), abs(k)) + 2 * U * abs(raw)
    spread = np.maximum(abs(score(raw + delta) - score(raw)), abs(score(raw - delta) - score(raw)))
    exponent = np.where(seen, spread + 4 * U * (abs(s) + abs(raw)) + 2 * U * (abs(s) + abs(top)) + 4 * U, 0.0)
    exponent = np.where(np.isfinite(exponent), exponent, 0.0)
    p_sink = np.exp(sink - np.where(np.isfinite(lse), lse, 0.0))
    denominator = (p * exponent).sum(-1, keepdims=True) + p_sink * (4 * U * abs(top) + 4 * U)
    relative = np.expm1(exponent + denominator) + n
    rounds = UNIT["bfloat16"] if dtype == "bfloat16" and kernel in ROUNDS_WEIGHTS else 0.0
    slack = np.einsum("bhij,bhjd->bhid", p * (relative + n + rounds), abs(values))
    return Truth(
        out=out,
        lse=lse[..., 0],
        weights=p,
        out_tolerance=slack + UNIT[dtype] * abs(out) + TINY[dtype],
        lse_tolerance=(denominator + n + 2 * U * (abs(np.where(np.isfinite(lse), lse, 0)) + abs(top)))[..., 0],
        weights_tolerance=p * (relative + n + rounds + UNIT[dtype]) + TINY[dtype],
    )


def assert_close(got: Any, expected: np.ndarray, tolerance: np.ndarray, what: str = "out") -> None:
    """Every element within its own tolerance; infinities equal only themselves, and NaN nothing."""
    got = widened(got)
    assert got.shape == expected.shape, f"{what} has shape {got.shape} and needs {expected.shape}"
    if got.size == 0:
        return
    with np.errstate(invalid="ignore"):
        ratio = np.where(got == expected, 0.0, abs(got - expected) / tolerance)
    ratio = np.where(np.isfinite(ratio), ratio, np.inf)
    at = np.unravel_index(ratio.argmax(), ratio.shape)
    assert ratio[at] <= 1, f"{what}{list(map(int, at))} is {got[at]} and should be {expected[at]} ± {tolerance[at]:.3g}"


def upper_left(q_len: int, kv_len: int) -> np.ndarray:
    """Query i sees keys up to i."""
    return np.arange(kv_len)[None] <= np.arange(q_len)[:, None]


def lower_right(q_len: int, kv_len: int) -> np.ndarray:
    """The last query is level with the last key."""
    return np.arange(kv_len)[None] <= np.arange(q_len)[:, None] + (kv_len - q_len)


def window(q_len: int, kv_len: int, left: int | None, right: int | None, *, offset: int | None = None) -> np.ndarray:
    """Keys from `left` before to `right` after query `i + offset`; the offset is that of the lower right if none is given."""
    at = np.arange(q_len)[:, None] + (kv_len - q_len if offset is None else offset)
    key = np.arange(kv_len)[None]
    seen = np.ones((q_len, kv_len), bool)
    if left is not None:
        seen &= key >= at - left
    if right is not None:
        seen &= key <= at + right
    return seen
