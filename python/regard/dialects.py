"""Dialects: what other libraries mean by the options that libraries read differently.

| dialect | layout | `causal=True` and windows | window | query that sees no key |
|---|---|---|---|---|
| `torch` | bhld | upper left | a pair | zeros |
| `jax` | blhd | upper left | a pair, or one number for both sides | mean of all values |
| `mlx` | bhld | lower right | a pair, or the number of keys up to the query's own | mean of all values |
| `onnx-23`, `onnx-24` | bhld | upper left | a pair | zeros |
| `onnx-25` | bhld | upper left | a pair, −1 is no bound | zeros |
| `flash-attn-2` | blhd | lower right | a pair, −1 is no bound | zeros |

`docs/dialects.md` has the whole table with its sources. Options that a library does not have keep regard's meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, cast, get_args

import numpy as np

from regard._regard import Mask, Spans

Alignment = Literal["upper_left", "lower_right"]
Layout = Literal["bhld", "blhd", "packed"]
Bounds = tuple["int | None", "int | None"]


@dataclass(frozen=True)
class Dialect:
    """One library's reading of `attention`'s options."""

    name: str
    layout: Layout
    """Of arrays, where a call names none."""
    alignment: Alignment
    """Which query is level with which key: for `causal=True`, and for windows."""
    window: Callable[[Any], Any]
    """A window of the library as keys `(left, right)` of the query, both inclusive; None is no bound."""
    masked_rows: Literal["zeros", "mean"]
    """The output of a query that sees no key: zeros, or the mean of all values, as a softmax over equal scores gives."""
    zero_softcap_is_none: bool = False

    def translate(self, options: dict[str, Any], lengths: Callable[[Layout], tuple[int, int]]) -> dict[str, Any]:
        """`options` in regard's own terms; `lengths` gives the lengths of queries and keys in a layout."""
        own = {name: value for name, value in options.items() if value is not None}
        own.setdefault("layout", self.layout)
        alignment = self.alignment
        causal = own.pop("causal", None)
        if isinstance(causal, (bool, np.bool_)):
            causal = alignment if causal else None
        elif isinstance(causal, str) and causal in get_args(Alignment):
            alignment = cast("Alignment", causal)
        if causal is not None:
            own["causal"] = causal
        if self.zero_softcap_is_none and _is_zero(own.get("softcap")):
            del own["softcap"]
        if "window" in own:
            self._place_window(own, alignment, lengths)
        return own

    def _place_window(self, own: dict[str, Any], alignment: Alignment, lengths: Callable[[Layout], tuple[int, int]]) -> None:
        """Windows count from the diagonal that `alignment` names; regard's own count from the lower right."""
        bounds = _checked(self.window(own.pop("window")))
        if bounds == (None, None):
            return
        sizes = None if alignment == "lower_right" else self._unequal_lengths(own, lengths)
        if sizes is None:
            own["window"] = bounds
        else:
            own["mask"] = [*_masks(own.get("mask")), _upper_left_window(bounds, *sizes)]

    def _unequal_lengths(self, own: dict[str, Any], lengths: Callable[[Layout], tuple[int, int]]) -> tuple[int, int] | None:
        """The lengths of queries and keys, where they differ."""
        documents = own.get("documents")
        if isinstance(documents, tuple) and len(documents) == 2 and np.ndim(documents[0]) and not np.array_equal(*documents):
            raise ValueError(
                f"window of dialect {self.name!r} counts from the upper left, and documents with keys of other lengths than their "
                "queries have windows from the lower right only: give a mask of regard.Spans instead"
            )
        if documents is not None or own["layout"] == "packed":
            return None
        q_len, kv_len = lengths(own["layout"])
        return None if q_len == kv_len else (q_len, kv_len)


def _checked(window: Any) -> Bounds:
    """A pair of bounds, each 0 or more, or None."""
    if (
        not isinstance(window, (tuple, list))
        or len(window) != 2
        or not all(isinstance(bound, (int, np.integer, type(None))) for bound in window)
    ):
        raise TypeError(f"window is {window!r} and must be a pair (left, right) of integers or None")
    for side, bound in zip(("left", "right"), window):
        if bound is not None and bound < 0:
            raise ValueError(f"window has {bound} keys to the {side} and must have 0 or more, or None")
    return window[0], window[1]


def _upper_left_window(bounds: Bounds, q_len: int, kv_len: int) -> Mask:
    """Query `i` sees keys `i − left ..= i + right`."""
    left, right = bounds
    at = np.arange(q_len)
    first = np.zeros_like(at) if left is None else np.maximum(at - min(left, q_len), 0)
    end = np.full_like(at, kv_len) if right is None else np.minimum(at + min(right, kv_len) + 1, kv_len)
    return Spans(first, end)


def _masks(mask: Any) -> list[Any]:
    """The masks that an argument names: none, one, or a list."""
    if mask is None:
        return []
    return list(mask) if isinstance(mask, (list, tuple)) else [mask]


def _is_zero(softcap: Any) -> bool:
    return isinstance(softcap, Real) and softcap == 0


def _pair(window: Any) -> Any:
    return window


def _minus_one_unbounded(window: Any) -> Any:
    """-1 is no bound: flash-attn's `window_size`, ONNX's `left_window_size` and `right_window_size`."""
    if not isinstance(window, (tuple, list)):
        return window
    return tuple(None if bound == -1 else bound for bound in window)


def _symmetric(window: Any) -> Any:
    """One number is a bound on both sides: JAX's `local_window_size`."""
    return (window, window) if isinstance(window, int) else window


def _size(window: Any) -> Any:
    """One number counts the keys up to and with the query's own: `window_size` of MLX LM's masks, which are causal."""
    if not isinstance(window, int):
        return window
    if window < 1:
        raise ValueError(f"window is {window} and must have 1 key or more: it counts the query's own")
    return (window - 1, 0)


_ALL = (
    Dialect("torch", "bhld", "upper_left", _pair, "zeros"),
    Dialect("jax", "blhd", "upper_left", _symmetric, "mean"),
    Dialect("mlx", "bhld", "lower_right", _size, "mean"),
    Dialect("onnx-23", "bhld", "upper_left", _pair, "zeros", zero_softcap_is_none=True),
    Dialect("onnx-24", "bhld", "upper_left", _pair, "zeros", zero_softcap_is_none=True),
    Dialect("onnx-25", "bhld", "upper_left", _minus_one_unbounded, "zeros", zero_softcap_is_none=True),
    Dialect("flash-attn-2", "blhd", "lower_right", _minus_one_unbounded, "zeros", zero_softcap_is_none=True),
)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}
"""Every dialect by its name."""


def get(name: str) -> Dialect:
    """The dialect of that name.

    Raises `TypeError` when the name is no string, `ValueError` when there is no such dialect.
    """
    if not isinstance(name, str):
        raise TypeError(f"dialect is of type {type(name).__name__} and must be a string")
    if name not in DIALECTS:
        raise ValueError(f"dialect is {name!r} and must be one of {', '.join(DIALECTS)}")
    return DIALECTS[name]
