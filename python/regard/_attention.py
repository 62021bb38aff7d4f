"""`attention` and `explain`: the native functions, and what a dialect changes about them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from regard import dialects
from regard._regard import attention as _native_attention
from regard._regard import explain as _native_explain

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from regard._regard import Explanation


class Options(TypedDict, total=False):
    """The options of `attention`."""

    mask: Any
    score: Any
    causal: Literal["upper_left", "lower_right"] | bool | None
    window: tuple[int | None, int | None] | int | None
    documents: Any
    blocks: Any
    softcap: float | None
    alibi: Any
    bias: Any
    sinks: Any
    scale: float | None
    dropout: tuple[float, int] | None
    layout: Literal["bhld", "blhd", "packed"] | None
    return_lse: bool
    out: Any


def attention(q: Any, k: Any, v: Any, *, dialect: str | None = None, **options: Unpack[Options]) -> Any:
    """Exact attention, `softmax(scale · q kᵀ → scores → masks) v`.

    q `[batch, q_heads, q_len, head_dim]`, k `[batch, kv_heads, kv_len, head_dim]`, v `[batch, kv_heads, kv_len, value_dim]`: numpy arrays
    or CPU tensors that speak DLPack, float32, float16 or bfloat16, read in place. `q_heads` is a multiple of `kv_heads`. Returns
    `[batch, q_heads, q_len, value_dim]` in q's kind and type. Tensors of PyTorch that want gradients get them.

    Who is seen (all must agree):

    - `mask`: a `regard.Mask`, an array of bools that broadcasts to `[batch, q_heads, q_len, kv_len]` (True is seen), or a list of those;
    - `causal`: "upper_left" (query i sees keys up to i) or "lower_right" (the last query is level with the last key);
    - `window`: `(left, right)` keys before and after the query's own position, counted from the lower right; None is no bound;
    - `documents`: `cu_seqlens` of sequences that lie end to end, or those of queries and those of keys; causal and window count inside;
    - `blocks`: `(map, q_block, kv_block)`, a map of bools `[.., rows of blocks, columns of blocks]`.

    How much (applied in this order, before every mask):

    - `score`: a `regard.Score`, or a list of them;
    - `softcap`: `cap · tanh(s / cap)`;
    - `alibi`: True, or a slope for each query head;
    - `bias`: numbers that broadcast to `[batch, q_heads, q_len, kv_len]`; −∞ hides.

    And `sinks`, a logit for each query head that joins the denominator only; `scale`, by default `1/√head_dim`; `dropout=(p, seed)` of
    probabilities; `layout` "bhld" (the default), "blhd" or "packed" (`[total, heads, dim]`, with `documents`); `return_lse=True` to get also
    the log-sum-exp of each row, float32 `[batch, q_heads, q_len]`; `out`, an array that the result is written to.

    A query that sees no key gives zeros and a log-sum-exp of −∞. What is hidden is never observed, not even NaN.

    `dialect` reads options as another library does: see `regard.dialects`. With one, `causal=True` is allowed.

    Raises `ValueError` or `TypeError` that names the argument; `NotImplementedError` for what has no meaning; `MemoryError`.
    """
    if dialect is None:
        return _native_attention(q, k, v, **options)  # type: ignore[arg-type]  # what has a meaning in dialects only is refused there
    spec = dialects.get(dialect)
    own = spec.translate(dict(options), _lengths(q, k))
    if spec.masked_rows == "zeros":
        return _native_attention(q, k, v, **own)
    return _with_means(spec, q, k, v, own)


def explain(q: Any, k: Any, v: Any, *, dialect: str | None = None, **options: Unpack[Options]) -> Explanation:
    """What `attention` would do with the same arguments: the kernel, why, operations, bytes, memory and tiles. Computes nothing."""
    if dialect is None:
        return _native_explain(q, k, v, **options)
    return _native_explain(q, k, v, **dialects.get(dialect).translate(dict(options), _lengths(q, k)))


def _lengths(q: Any, k: Any) -> Any:
    """The lengths of queries and keys, once their layout is known."""

    def of(layout: str) -> tuple[int, int]:
        axis = -2 if layout == "bhld" else -3
        sizes = []
        for name, array in (("q", q), ("k", k)):
            shape = np.shape(array)
            if len(shape) < -axis:
                raise ValueError(f"{name} has {len(shape)} dimensions and needs at least {-axis} in layout {layout!r}")
            sizes.append(int(shape[axis]))
        return sizes[0], sizes[1]

    return of


def _with_means(spec: dialects.Dialect, q: Any, k: Any, v: Any, own: dict[str, Any]) -> Any:
    """Attention whose queries without a key have the mean of all values: a softmax over scores that are all the same."""
    if own["layout"] == "packed":
        raise ValueError(f"layout is 'packed', which dialect {spec.name!r} does not have: give 'bhld' or 'blhd'")
    return_lse = own.pop("return_lse", False)
    out, lse = _native_attention(q, k, v, return_lse=True, **own)
    xp = _namespace(out)
    values = v if isinstance(v, type(out)) else xp.asarray(v) if isinstance(v, np.ndarray) else xp.from_dlpack(v)
    dead = xp.isneginf(lse)
    if bool(dead.any()) and 0 not in values.shape:
        filled = xp.where(*_mean_rows(xp, out, dead, values, own["layout"]), out)
        if own.get("out") is None:
            out = filled
        else:
            out[...] = filled
    return (out, lse) if return_lse else out


def _mean_rows(xp: Any, out: Any, dead: Any, values: Any, layout: str) -> tuple[Any, Any]:
    """Which rows of `out` see no key, and the mean of their values: both broadcast to `out`."""
    keys = -2 if layout == "bhld" else -3
    mean = xp.mean(values, axis=keys, dtype=xp.float32)  # [.., kv_heads, dim]
    if out.ndim > 2:
        heads = out.shape[-3 if layout == "bhld" else -2]
        *batch, kv_heads, dim = mean.shape
        mean = xp.broadcast_to(mean[..., None, :], (*batch, kv_heads, heads // kv_heads, dim)).reshape((*batch, heads, dim))
    if layout == "blhd":
        dead, mean = xp.swapaxes(dead, -1, -2), mean[..., None, :, :]
    else:
        mean = mean[..., None, :]
    return dead[..., None], (mean.to(out.dtype) if hasattr(mean, "to") else mean.astype(out.dtype))


def _namespace(array: Any) -> Any:
    """The module of functions that an array's library has."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return torch
    return array.__array_namespace__() if hasattr(array, "__array_namespace__") else np
