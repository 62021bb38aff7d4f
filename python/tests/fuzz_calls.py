"""The calls that `fuzz.py` makes, of every function and class, each drawn from a seed."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from fuzz_draws import FLOATS, Draw
from fuzz_rules import SHARED, anything, mask, options

import regard


def attention(draw: Draw) -> Callable[[], Any]:
    """`attention`, `explain`, `attention_backward` or `scaled_dot_product_attention`, with arrays that fit for the most part."""
    b, kv_heads, q_len, kv_len, dim = (draw.size() for _ in range(5))
    heads, dtype = kv_heads * draw.random.choice([1, 1, 2, 3]), draw.random.choice(FLOATS)
    value_dim = draw.random.choice([dim, 4])
    q, k, v = (
        draw.array(*shape, dtype=dtype)
        for shape in ((b, heads, q_len, dim), (b, kv_heads, kv_len, dim), (b, kv_heads, kv_len, value_dim))
    )
    for _ in range(draw.chance(draw.wild)):
        q, k, v = (anything(draw) if draw.chance(0.4) else x for x in (q, k, v))
    sizes = (b, heads, q_len, kv_len)
    pick = draw.random.randrange(7)
    if pick == 3:
        given = options(draw, sizes, SHARED)
        given.update({name: draw.random.choice([1, 4, draw.number()]) for name in ("first", "recent", "top") if draw.chance(0.5)})
        given["ranges"] = draw.random.choice([None, {"all": (0, kv_len)}, {"some": (draw.number(), draw.number())}, anything(draw)])
        return lambda: regard.lens.inspect(q, k, v, **given)
    if pick == 4:
        given = options(draw, sizes, SHARED)
        given.update(
            {name: (draw.number(), draw.number()) for name in ("batch", "heads", "rows", "keys") if draw.chance(draw.wild)}
        )
        given["lse"] = draw.random.choice([None, draw.array(b, heads, q_len, dtype=np.float32)])
        block = draw.random.choice([1, 3, (2, 1), draw.number()])
        return lambda: regard.lens.map(q, k, block=block, **given)
    if pick == 0:
        given = options(draw, sizes, [*SHARED, "return_lse", "out"])
        return lambda: regard.explain(q, k, v, **given)
    if pick == 1:
        given = options(draw, sizes, [*SHARED, "bias_gradient"])
        out = draw.array(b, heads, q_len, value_dim, dtype=dtype)
        lse, d_out = draw.array(b, heads, q_len, dtype=np.float32), draw.array(b, heads, q_len, value_dim, dtype=dtype)
        return lambda: regard.attention_backward(q, k, v, out, lse, d_out, **given)
    if pick == 2:
        mask = draw.random.choice(
            [None, draw.array(q_len, kv_len, dtype=bool), draw.array(b, heads, q_len, kv_len, dtype=dtype), anything(draw)]
        )
        rest = (
            draw.random.choice([0.0, 0.5, draw.fraction()]),
            draw.chance(0.3),
            draw.random.choice([None, draw.fraction()]),
            draw.chance(0.5),
        )
        return lambda: regard.scaled_dot_product_attention(q, k, v, mask, *rest)
    given = options(draw, sizes, [*SHARED, "return_lse", "out"])
    if draw.chance(0.1) and isinstance(q, np.ndarray):
        given["out"] = draw.random.choice([q, k, v, q.swapaxes(-1, -2) if q.ndim > 1 else q])
    if draw.chance(0.3):
        given["dialect"] = draw.random.choice([*regard.dialects.DIALECTS, anything(draw)])
    return lambda: regard.attention(q, k, v, **given)


def cached(draw: Draw) -> Callable[[], Any]:
    """A series of operations on two caches and their sequences, living, freed and forgotten."""
    heads, dim, dtype = draw.random.choice([1, 2]), draw.random.choice([4, 8]), draw.random.choice(FLOATS)
    fit = {"pages": 6, "kv_heads": heads, "head_dim": dim, "page_size": draw.random.choice([1, 4]), "dtype": np.dtype(dtype).name}
    fit["layers"] = draw.random.choice([1, 2])
    for key in list(fit):
        if draw.chance(draw.wild / 5):
            fit[key] = draw.number()

    def run() -> None:
        pools = [regard.KVCache(**fit), regard.KVCache(pages=4, kv_heads=2, head_dim=8)]
        sequences = [pool.sequence() for pool in pools]
        for _ in range(15):
            # The series goes on with what is left.
            with contextlib.suppress(Exception):
                operation = draw.random.choice(OPERATIONS)
                operation(draw, draw.random.choice(pools), draw.random.choice(sequences), sequences, (heads, dim, dtype))
            if not sequences:
                sequences.append(pools[0].sequence())

    return run


def _tokens(draw: Draw, fit: tuple[int, int, Any]) -> tuple[Any, Any]:
    heads, dim, dtype = fit
    count = draw.size(5)
    return draw.array(heads, count, dim, dtype=dtype), draw.array(heads, count, dim, dtype=dtype)


def _queries(draw: Draw, batch: int, fit: tuple[int, int, Any]) -> Any:
    heads, dim, dtype = fit
    return draw.array(batch, heads * 2, draw.size(3), dim, dtype=dtype)


def _or_any(draw: Draw, *good: Any) -> Any:
    return draw.random.choice([*good, draw.number()])


OPERATIONS: list[Callable[[Draw, Any, Any, list[Any], tuple[int, int, Any]], Any]] = [
    lambda draw, pool, one, all_, fit: all_.append(pool.sequence()),
    lambda draw, pool, one, all_, fit: one.append(*_tokens(draw, fit)),
    lambda draw, pool, one, all_, fit: one.append(*_tokens(draw, fit)),
    lambda draw, pool, one, all_, fit: one.grow(_or_any(draw, 0, 1, 3)),
    lambda draw, pool, one, all_, fit: one.write(_or_any(draw, 0, 1), _or_any(draw, 0, 2), *_tokens(draw, fit)),
    lambda draw, pool, one, all_, fit: all_.append(one.fork()),
    lambda draw, pool, one, all_, fit: one.truncate(_or_any(draw, 0, 1, 5)),
    lambda draw, pool, one, all_, fit: one.free() if draw.chance(0.3) else all_.remove(one),
    lambda draw, pool, one, all_, fit: all_.append(pool.adopt(_or_any(draw, [], [0], [0, 1], [2**31]), _or_any(draw, 0, 1, 4))),
    lambda draw, pool, one, all_, fit: one.attend(
        _queries(draw, 1, fit), **options(draw, (1, fit[0] * 2, 3, len(one)), [*SHARED, "return_lse", "out", "layer"])
    ),
    lambda draw, pool, one, all_, fit: pool.attend(_queries(draw, 2, fit), draw.random.sample(all_, min(2, len(all_)))),
    lambda draw, pool, one, all_, fit: (len(one), repr(one), one.block_table, one.cache.free_pages, repr(pool), pool.nbytes),
]


def linear(draw: Draw) -> Callable[[], Any]:
    """Linear attention and its convolution, forward and backward."""
    b, kv_heads, length, dim, value_dim = (draw.size() for _ in range(5))
    heads, dtype = kv_heads * draw.random.choice([1, 2]), draw.random.choice(FLOATS)
    q, k, v = (draw.array(b, h, length, d, dtype=dtype) for h, d in ((heads, dim), (kv_heads, dim), (kv_heads, value_dim)))
    rule = draw.random.choice(["linear", "gated", "delta", "gated_delta", anything(draw)])
    given: dict[str, Any] = {"rule": rule}
    below = lambda x: -abs(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
    if draw.chance(0.6):
        given["decay"] = below(draw.array(b, kv_heads, length, draw.random.choice([1, dim]), dtype=np.float32))
    if draw.chance(0.6):
        beta = draw.array(b, kv_heads, length, 1, dtype=np.float32)
        given["beta"] = np.clip(beta, 0, 1) if isinstance(beta, np.ndarray) and beta.dtype.kind == "f" else beta
    if draw.chance(0.4):
        given["state"] = draw.array(b, kv_heads, dim, value_dim, dtype=np.float32)
    for name, value in (("scale", draw.fraction()), ("chunk", draw.number()), ("feature", "elu+1"), ("normalised", True)):
        if draw.chance(0.2):
            given[name] = value
    if draw.chance(0.5):
        return lambda: regard.linear_attention(q, k, v, return_state=draw.chance(0.5), **given)
    if draw.chance(0.5):
        d_out = draw.array(b, heads, length, value_dim, dtype=dtype)
        return lambda: regard.linear_attention_backward(q, k, v, d_out, **given)
    channels, width = draw.size(), draw.size(4)
    x, weight = draw.array(b, channels, length, dtype=dtype), draw.array(channels, 1, width, dtype=dtype)
    bias = draw.random.choice([None, draw.array(channels, dtype=dtype)])
    state = draw.random.choice([None, draw.array(b, channels, max(width - 1, 0), dtype=dtype)])
    if draw.chance(0.5):
        return lambda: regard.causal_conv(x, weight, bias, state=state, silu=draw.chance(0.5), return_state=draw.chance(0.5))
    return lambda: regard.causal_conv_backward(x, weight, draw.array(b, channels, length, dtype=dtype), bias, state=state)


def positions(draw: Draw) -> Callable[[], Any]:
    """Ropes, tables, packed matrices and merged states."""
    b, heads, length, dim = (draw.size() for _ in range(4))
    x = draw.array(b, heads, length, 2 * dim, dtype=draw.random.choice(FLOATS))
    absurd = draw.random.choice([0, 2, 7, 2**45, 2**60, -1, "x", 1.5, None])
    scaling = draw.random.choice(
        [
            None,
            {"rope_type": "linear", "factor": draw.fraction()},
            {"rope_type": "yarn", "factor": draw.fraction(), "original_max_position_embeddings": draw.number()},
            {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": draw.fraction()},
            {
                "rope_type": "longrope",
                "factor": 4.0,
                "short_factor": [1.0] * dim,
                "long_factor": anything(draw),
                "original_max_position_embeddings": 8,
            },
            {draw.random.choice(["rope_type", 3]): anything(draw)},
        ]
    )
    pick = draw.random.randrange(6)
    if pick == 0:
        rope_dim = draw.random.choice([2 * dim, absurd])
        return lambda: regard.Rope(
            rope_dim, theta=draw.random.choice([1e4, draw.fraction()]), scaling=scaling, length=draw.size()
        ).turn(x, draw.random.choice([0, 5, draw.number()]))
    if pick == 1:
        cos, sin = (draw.array(length, draw.random.choice([dim, 1]), dtype=np.float32) for _ in range(2))
        return lambda: regard.rotate(x, cos, sin, style=draw.random.choice(["half", "interleaved", "x"]))
    if pick == 2:
        return lambda: regard.sinusoidal(
            draw.random.choice([3, absurd]), draw.random.choice([4, absurd]), first=draw.random.choice([0, draw.number()])
        )
    if pick == 3:
        outputs = draw.size()
        weight = draw.array(outputs, dim, dtype=draw.random.choice([np.float32, ml_dtypes.bfloat16]))
        rows, bias = draw.array(b, dim, dtype=np.float32), draw.random.choice([None, draw.array(outputs, dtype=np.float32)])
        return lambda: regard.PackedMatrix(weight)(rows, bias)
    if pick == 4:
        outs = [draw.array(b, heads, dim, dtype=np.float32) for _ in range(draw.random.randrange(3))]
        return lambda: regard.merge_states(outs, [draw.array(b, heads, dtype=np.float32) for _ in outs])
    shape = draw.random.choice([(b, heads, length, dim), (1, 1, 2**40, 2**40), anything(draw)])
    return lambda: regard.Mask.visible(mask(draw, 3), shape)


def settings(draw: Draw) -> Callable[[], Any]:
    """Kernels and threads."""
    name, threads = (
        draw.random.choice([*regard.available_kernels(), anything(draw)]),
        draw.random.choice([1, 2, 3, 0, -1, 10**9, "x", 1.5]),
    )

    def run() -> None:
        with regard.kernel(name):
            attention(draw)()
        regard.set_num_threads(threads)

    return run


def together(draw: Draw) -> Callable[[], Any]:
    """The same calls from several threads at once, while the number of threads that compute changes."""
    works = [draw.random.choice([attention, cached, linear])(draw) for _ in range(3)]
    panics: list[BaseException] = []

    def quiet(work: Callable[[], Any]) -> None:
        try:
            with contextlib.suppress(Exception):
                work()
        except BaseException as panic:
            panics.append(panic)

    def run() -> None:
        threads = [threading.Thread(target=quiet, args=(work,)) for work in works for _ in range(2)]
        for thread in threads:
            thread.start()
        regard.set_num_threads(draw.random.choice([1, 2, 3]))
        for thread in threads:
            thread.join()
        if panics:
            raise panics[0]

    return run


FAMILIES = [attention, attention, attention, attention, cached, cached, linear, linear, positions, settings, together]


def call(seed: int, *, show: bool = False) -> None:
    """Makes the calls of one seed."""
    pick = random.Random(seed)
    draw = Draw(seed, wild=pick.choice([0.0, 0.02, 0.1, 0.4]))
    family = pick.choice(FAMILIES)
    if show:
        print(f"seed {seed}: {family.__name__}, wild {draw.wild}")
    family(draw)()
