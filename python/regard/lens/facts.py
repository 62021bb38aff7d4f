"""Facts of every row, and maps of the weights: the native functions, with their results named."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from regard._regard import _inspect, _map

if TYPE_CHECKING:
    from typing_extensions import Unpack

F32: TypeAlias = npt.NDArray[np.float32]
I64: TypeAlias = npt.NDArray[np.int64]
Range: TypeAlias = tuple[int, int]


class Options(TypedDict, total=False):
    """The options of `regard.attention` that decide its weights, and `dropout`, which the output alone feels."""

    mask: Any
    score: Any
    causal: Literal["upper_left", "lower_right"] | None
    window: tuple[int | None, int | None] | None
    documents: Any
    blocks: Any
    softcap: float | None
    alibi: Any
    bias: Any
    sinks: Any
    scale: float | None
    dropout: tuple[float, int] | None
    layout: Literal["bhld", "blhd", "packed"] | None


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of every row, a row being one query of one head: `[batch, q_heads, q_len]` each, as the log-sum-exp of `regard.attention`;
    of a watched model `[layers, batch, heads, q_len]`.

    Weights `p` are those before dropout; with a learned sink they sum to less than 1. A row that sees nothing has zeros, −∞ for
    `max_logit` and `lse`, and no keys.
    """

    entropy: F32
    """`−Σ p ln p` in nats, the learned sink counted as a key."""
    max_logit: F32
    """The largest score, after scores and masks."""
    lse: F32
    """The natural log of the softmax denominator."""
    distance: F32
    """The mean of `|q − k|` under `p`, the query's own position being `q + kv_len − q_len`."""
    first: F32
    """The mass on the first keys."""
    recent: F32
    """The mass on the most recent keys, the query's own among them."""
    distances: F32
    """`[.., classes]`: the mass at distance 0 (the query's own key), 1, 2–3, 4–7, …"""
    top_weights: F32
    """`[.., top]`: the largest weights in descending order, zeros where a row sees fewer keys."""
    top_keys: I64
    """`[.., top]`: their keys, −1 where a row sees fewer. Of equal weights the earlier key comes first."""
    ranges: dict[str, F32]
    """The mass on each of the ranges that were named."""
    output: Any = None
    """What `regard.attention` returns, bit for bit, where it was asked for."""

    @property
    def max_weight(self) -> F32:
        """The largest weight."""
        return self.top_weights[..., 0]

    @property
    def own(self) -> F32:
        """The weight on the query's own key."""
        return self.distances[..., 0]

    def __repr__(self) -> str:
        """The shape of a fact."""
        return f"Facts({list(self.entropy.shape)}, ranges={list(self.ranges)})"


def inspect(
    q: Any,
    k: Any,
    v: Any,
    *,
    first: int = 4,
    recent: int = 32,
    top: int = 8,
    ranges: Mapping[str, Range] | None = None,
    return_output: bool = False,
    **options: Unpack[Options],
) -> Facts:
    """Facts of every row of `regard.attention(q, k, v, **options)`, computed in the pass that computes the output.

    Arrays, masks, scores and layouts are those of `regard.attention`; facts are numpy arrays. `first` and `recent` say how many keys are
    the first and the most recent ones; `top`, 1 to 1024, how many of the largest weights are kept; `ranges` names keys whose mass is
    wanted, as `{"question": (3, 17)}`, the end excluded.

    Raises what `regard.attention` raises; `ValueError` or `TypeError` for a number, or a range, that cannot be.
    """
    arrays, output = _inspect(q, k, v, wanted(first, recent, top, ranges), **options)
    masses = arrays.pop("ranges")
    named = {name: masses[..., i] for i, name in enumerate(ranges or {})}
    return Facts(**arrays, ranges=named, output=output if return_output else None)


def weights(q: Any, k: Any, *, rows: int | Iterable[int], lse: Any = None, **options: Unpack[Options]) -> F32:
    """The exact weights of some rows, `[batch, q_heads, rows, kv_len]`: zeros where a row does not see.

    `rows` are queries, 0 or more. `lse`, from `Facts` or `regard.attention`, spares the pass that computes it.
    """
    numbers = [natural("rows", row) for row in (rows if isinstance(rows, Iterable) else [rows])]
    if not numbers:
        raise ValueError("rows is empty and needs at least one query")
    if lse is None:
        lse = _lse(q, k, options)
    each = [map(q, k, rows=(row, row + 1), lse=lse, **options) for row in numbers]
    return np.concatenate(each, axis=-2)


def map(
    q: Any,
    k: Any,
    *,
    batch: Range | None = None,
    heads: Range | None = None,
    rows: Range | None = None,
    keys: Range | None = None,
    block: int | tuple[int, int] = 1,
    lse: Any = None,
    **options: Unpack[Options],
) -> F32:
    """The weights of any part, pooled: `[batch, heads, rows of cells, columns of cells]`.

    A cell has `block` queries by `block` keys, or `block=(queries, keys)`, counted from the part's first; its value is the mean over its
    queries of the mass on its keys. Parts are `(start, end)`, the end excluded; None is all. Nothing but the part is computed, but for the
    log-sum-exp, which `lse`, from `Facts` or `regard.attention`, spares.
    """
    cell = block if isinstance(block, tuple) else (block, block)
    if len(cell) != 2:
        raise ValueError(f"block is {block} and must be a number, or a pair (queries, keys)")
    place = {"batch": batch, "heads": heads, "rows": rows, "keys": keys}
    for name, given in place.items():
        if given is not None:
            pair(name, given)
    sizes = tuple(natural("block", size) for size in cell)
    return _map(q, k, {**place, "block": sizes}, lse, **options)


def received(q: Any, k: Any, *, lse: Any = None, **options: Unpack[Options]) -> F32:
    """What every key receives from all queries, `[batch, q_heads, kv_len]`: the sum of its weights."""
    if lse is None:
        lse = _lse(q, k, options)
    queries = int(np.shape(lse)[-1])
    means = map(q, k, block=(max(queries, 1), 1), lse=lse, **options)
    all_rows: F32 = means.sum(-2) * queries
    return all_rows


def _lse(q: Any, k: Any, options: Any) -> F32:
    """Weights do not depend on values: keys stand in for them."""
    lse: F32 = _inspect(q, k, k, wanted(0, 0, 1, None), **options)[0]["lse"]
    return lse


def wanted(first: int, recent: int, top: int, ranges: Mapping[str, Range] | None) -> dict[str, Any]:
    """What an inspection looks for, checked as far as lengths are not needed."""
    if ranges is not None and not isinstance(ranges, Mapping):
        raise TypeError(f"ranges is of type {type(ranges).__name__} and must be a mapping of names to (start, end)")
    if not 1 <= natural("top", top) <= 1024:
        raise ValueError(f"top is {top} and must be from 1 to 1024: `weights` and `map` have all of them")
    named = [(text(name), pair(f"ranges[{name!r}]", keys)) for name, keys in (ranges or {}).items()]
    return {"first": natural("first", first), "recent": natural("recent", recent), "top": top, "ranges": named}


def text(name: Any) -> str:
    """The name of a range."""
    if not isinstance(name, str):
        raise TypeError(f"ranges has a name of type {type(name).__name__} and must have strings")
    return name


def natural(name: str, given: Any) -> int:
    """An integer from 0 to 2⁶³ − 1."""
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} is of type {type(given).__name__} and must be an integer") from None
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{name} is {number} and must be from 0 to 2^63 - 1")
    return number


def pair(name: str, given: Any) -> Range:
    """A part `(start, end)`; whether it fits is for whoever knows the length."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"{name} is {given!r} and must be a pair (start, end)")
    start, end = natural(name, given[0]), natural(name, given[1])
    if start > end:
        raise ValueError(f"{name} is ({start}, {end}) and must begin before it ends")
    return start, end
