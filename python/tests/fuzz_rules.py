"""Masks, scores and options of attention, nested at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_draws import FLOATS, NO_NUMBERS, Draw

import regard

Sizes = tuple[int, int, int, int]
SHARED = [
    "mask",
    "score",
    "causal",
    "window",
    "documents",
    "blocks",
    "softcap",
    "alibi",
    "bias",
    "sinks",
    "scale",
    "dropout",
    "layout",
]


def anything(draw: Draw) -> Any:
    """A value of any kind, masks and scores among them."""
    pick = draw.random.randrange(6)
    return mask(draw, 2) if pick == 0 else score(draw, 2) if pick == 1 else draw.anything()


def mask(draw: Draw, depth: int = 3, sizes: Sizes = (2, 2, 5, 7)) -> Any:
    b, h, q, kv = sizes
    if depth and draw.chance(0.4):
        left, right = mask(draw, depth - 1, sizes), mask(draw, depth - 1, sizes)
        if isinstance(left, regard.Mask) and isinstance(right, regard.Mask):
            return left & right if draw.chance(0.5) else left | right
    if draw.chance(draw.wild):
        return draw.random.choice(
            [draw.number, lambda: draw.array(b, h, q, kv, dtype=bool), lambda: draw.random.choice(NO_NUMBERS)]
        )()
    makers: list[Callable[[], Any]] = [
        lambda: regard.Causal.UPPER_LEFT,
        lambda: regard.Causal.LOWER_RIGHT,
        lambda: regard.Window(*draw.random.choice([(1, 1), (None, 0), (0, None), (2**31, 2**32 - 1), (draw.number(), 1)])),
        lambda: regard.PrefixLm(draw.random.choice([0, 2, [1] * b, [2**31], draw.number()])),
        lambda: regard.Documents([0, q // 2, q], [0, kv // 2, kv], draw.random.choice([None, regard.Causal.UPPER_LEFT])),
        lambda: regard.Documents(sorted(draw.random.randrange(9) for _ in range(4))),
        lambda: regard.Blocks(
            draw.array(1, 1, -(-q // 2), -(-kv // 3), dtype=bool), 2, draw.random.choice([3, 3, 0, draw.number()])
        ),
        lambda: regard.Bools(draw.array(b, 1, q, kv, dtype=bool)),
        lambda: regard.Padding(draw.random.choice([kv, [1] * b, [2**31], draw.number()])),
        lambda: regard.Spans(draw.array(q, dtype=np.int64), draw.array(b, h, q, dtype=np.int32)),
        lambda: regard.Dilated(draw.size(), draw.size(), draw.random.choice([1, 2, 2**30, draw.number()])),
        lambda: regard.Strided(draw.random.choice([1, 3, 2**30, draw.number()])),
        lambda: regard.Fixed(draw.random.choice([1, 4, 2**30]), draw.random.choice([1, 2, draw.number()])),
        lambda: regard.Global(draw.random.choice([0, 1, [0], [kv - 1], [2**31], draw.number()])),
        lambda: regard.RandomKeys(draw.size(), draw.random.choice([1, h]), kv, draw.random.choice([0, 2**63, draw.number()])),
        lambda: regard.RandomKeys(draw.number(), draw.number(), draw.number(), 0),
        lambda: regard.Blockwise(draw.random.choice([1, 2, 2**30, draw.number()]), mask(draw, 0, sizes)),
        lambda: regard.Around(draw.array(q, dtype=np.float32), draw.fraction()),
    ]
    return draw.random.choice(makers)()


def score(draw: Draw, depth: int = 2, sizes: Sizes = (2, 2, 5, 7)) -> Any:
    b, h, q, kv = sizes
    if depth and draw.chance(0.4):
        first, second = score(draw, depth - 1, sizes), score(draw, depth - 1, sizes)
        if isinstance(first, regard.Score) and isinstance(second, regard.Score):
            return first >> second
    makers: list[Callable[[], Any]] = [
        lambda: regard.Softcap(draw.random.choice([1.0, 30.0, draw.fraction()])),
        lambda: regard.Alibi(draw.random.choice([h, [0.5] * h, draw.size(), 2**62, -1])),
        lambda: regard.Bias(draw.array(b, h, q, kv, dtype=draw.random.choice(FLOATS))),
        lambda: regard.RelativeBias(
            draw.array(h, 8, dtype=np.float32), draw.random.choice([16, 2**20, draw.number()]), draw.chance(0.5)
        ),
        lambda: regard.Gaussian(draw.array(q, dtype=np.float32), draw.random.choice([1.0, draw.fraction()])),
    ]
    return draw.random.choice(makers)()


def options(draw: Draw, sizes: Sizes, names: list[str]) -> dict[str, Any]:
    """Some of the options of attention, most of them as they should be."""
    b, h, q, kv = sizes
    good: dict[str, Callable[[], Any]] = {
        "mask": lambda: mask(draw, 3, sizes) if draw.chance(0.7) else [mask(draw, 1, sizes), draw.array(b, 1, q, kv, dtype=bool)],
        "score": lambda: score(draw, 2, sizes),
        "causal": lambda: draw.random.choice(["upper_left", "lower_right", None]),
        "window": lambda: draw.random.choice([(1, 1), (None, 0), (2**32 - 1, 0), None]),
        "documents": lambda: draw.random.choice([[0, q], ([0, q], [0, kv]), ([0, q // 2, q], [0, kv // 2, kv])]),
        "blocks": lambda: (draw.array(1, 1, -(-q // 2), -(-kv // 2), dtype=bool), 2, 2),
        "softcap": lambda: 2.0,
        "alibi": lambda: draw.random.choice([True, [0.5] * h, False]),
        "bias": lambda: draw.array(draw.random.choice([1, b]), h, q, kv, dtype=draw.random.choice(FLOATS)),
        "sinks": lambda: draw.array(h, dtype=draw.random.choice(FLOATS)),
        "scale": lambda: draw.random.choice([1.0, -0.5, 0.0, 1e10]),
        "dropout": lambda: (draw.random.choice([0.0, 0.5, 0.999]), draw.random.choice([0, 2**64 - 1])),
        "layout": lambda: draw.random.choice(["bhld", "blhd", "packed"]),
        "return_lse": lambda: draw.chance(0.5),
        "out": lambda: draw.array(b, h, q, 4, dtype=np.float32),
        "layer": lambda: 0,
        "bias_gradient": lambda: draw.chance(0.5),
    }
    chosen = [name for name in names if draw.chance(0.25)]
    options = {name: anything(draw) if draw.chance(draw.wild) else good[name]() for name in chosen}
    if draw.chance(draw.wild / 10):
        options[draw.random.choice(["hat", "q", ""])] = anything(draw)
    return options
