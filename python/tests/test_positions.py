"""Rotary and sinusoidal positions against their formulas in float64, and scalings against Hugging Face's."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from arrays import DTYPES, normal, of_kind

import regard

B, H, L, D = 2, 3, 11, 16


def turned(x: np.ndarray, angles: np.ndarray, style: str, factor: float = 1.0) -> np.ndarray:
    """(a, b) ↦ factor · (a cos − b sin, b cos + a sin) of each pair; what has no angle stays. Angles `[.., length, pairs]`."""
    pairs = angles.shape[-1]
    cos, sin = factor * np.cos(angles), factor * np.sin(angles)
    out = oracle.widened(x)
    first, second = (
        (slice(0, pairs), slice(pairs, 2 * pairs)) if style == "half" else (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
    )
    a, b = out[..., first].copy(), out[..., second].copy()
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


def agrees(got: Any, expected: np.ndarray, x: np.ndarray, dtype: str, factor: float = 1.0) -> None:
    """Cosine, sine, two products and a sum: 5 roundings of each of the pair's two numbers, and one to the type."""
    size = factor * 2 * abs(oracle.widened(x)).max(-1, keepdims=True)
    oracle.assert_close(got, expected, 5 * oracle.U * size + oracle.UNIT[dtype] * abs(expected) + oracle.TINY[dtype])


def frequencies(dim: int, theta: float = 10_000.0) -> np.ndarray:
    return theta ** (-np.arange(0, dim, 2) / dim)


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rope(dtype: str, style: str, kind: str) -> None:
    x = normal(np.random.default_rng(0), B, H, L, D, dtype=dtype)
    rope = regard.Rope(D, theta=500.0, style=style)
    out = rope.turn(of_kind(kind, x), 1_000)
    assert type(out) is type(of_kind(kind, x))
    agrees(out, turned(x, np.arange(1_000, 1_000 + L)[:, None] * frequencies(D, 500.0), style), x, dtype)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_part_of_a_head(style: str) -> None:
    x = normal(np.random.default_rng(1), B, H, L, D)
    rope = regard.Rope(6, style=style)
    assert rope.dim == 6 and rope.attention_factor == 1
    np.testing.assert_allclose(rope.frequencies, frequencies(6), rtol=1e-15)
    out = rope.turn(x)
    agrees(out, turned(x, np.arange(L)[:, None] * frequencies(6), style), x, "float32")
    np.testing.assert_array_equal(out[..., 6:], x[..., 6:])


def test_turning_back_is_the_transpose() -> None:
    rng = np.random.default_rng(2)
    x, d = normal(rng, B, H, L, D), normal(rng, B, H, L, D)
    rope = regard.Rope(D)
    agrees(rope.turn_back(d, 5), turned(d, -np.arange(5, 5 + L)[:, None] * frequencies(D), "half"), d, "float32")
    forward, backward = (
        float(np.vdot(a.astype(np.float64), b.astype(np.float64))) for a, b in ((rope.turn(x, 5), d), (x, rope.turn_back(d, 5)))
    )
    assert abs(forward - backward) < 1e-4  # sums of 1056 products of about 1, each off by a few 2⁻²⁴


def test_scores_depend_on_distances_only() -> None:
    rng = np.random.default_rng(3)
    q, k = normal(rng, 1, 1, 1, D), normal(rng, 1, 1, 1, D)
    rope = regard.Rope(D)
    near, far = (float((rope.turn(q, at + 7) * rope.turn(k, at)).sum()) for at in (0, 100_000))
    assert abs(near - far) < 1e-5


SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512},
    "yarn with all": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
        "attention_factor": 1.5,
    },
    "yarn of DeepSeek": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    },
    "yarn that does not truncate": {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 512,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": [1.0 + 0.1 * i for i in range(32)],
        "long_factor": [2.0 + 0.5 * i for i in range(32)],
        "original_max_position_embeddings": 512,
    },
}


@pytest.mark.parametrize("length", [100, 2000])
@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_are_those_of_hugging_face(name: str, length: int) -> None:
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    scaling = dict(SCALINGS[name])
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=512, rope_parameters={"rope_theta": 10_000.0, **scaling}
    )
    expected, factor = functions[scaling["rope_type"]](config, "cpu", seq_len=length)
    if name == "dynamic":  # Hugging Face has this length beside the scaling, in the config
        scaling["original_max_position_embeddings"] = 512
    rope = regard.Rope(64, scaling=scaling, length=length)
    # Hugging Face computes frequencies in float32: an exponent of up to ln 10⁴ costs about 10 units.
    np.testing.assert_allclose(rope.frequencies, expected.double().numpy(), rtol=20 * oracle.U)
    assert rope.attention_factor == pytest.approx(factor, rel=1e-12)


def test_the_attention_factor_scales() -> None:
    x = normal(np.random.default_rng(4), B, H, L, 64)
    rope = regard.Rope(64, scaling=SCALINGS["yarn with all"])
    agrees(rope.turn(x), turned(x, np.arange(L)[:, None] * rope.frequencies, "half", 1.5), x, "float32", 1.5)


def test_default_is_no_scaling() -> None:
    np.testing.assert_array_equal(regard.Rope(D, scaling={"rope_type": "default"}).frequencies, regard.Rope(D).frequencies)


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("pairs", [D // 2, 3])
def test_rotate(pairs: int, each: bool, style: str) -> None:
    rng = np.random.default_rng(5)
    x = normal(rng, B, H, L, D)
    angles = rng.uniform(-10, 10, (B, L, pairs) if each else (L, pairs))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    out = regard.rotate(x, cos, sin, style=style)
    agrees(out, turned(x, angles[:, None] if each else angles, style), x, "float32")


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_sinusoidal(style: str) -> None:
    table = regard.sinusoidal(50, 12, first=1_000, style=style)
    angles = np.arange(1_000, 1_050)[:, None] * frequencies(12)
    parts = (np.sin(angles), np.cos(angles))
    expected = np.concatenate(parts, -1) if style == "half" else np.stack(parts, -1).reshape(50, 12)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, expected, rtol=0, atol=2 * oracle.U)
