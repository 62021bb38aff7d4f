"""The compiled part of regard: everything here is also `regard.<name>`, but for what begins with an underscore."""

from collections.abc import Sequence as Seq
from os import PathLike
from typing import Any, Literal, TypeAlias, final

import numpy as np

# A numpy array, or any CPU tensor that speaks DLPack (torch, JAX): float32, float16 or bfloat16 for numbers.
_Array: TypeAlias = Any

__version__: str

# --- masks: who is seen. `a & b`: both agree; `a | b`: either does.

@final
class Mask:
    def __and__(self, other: Mask, /) -> Mask: ...
    def __or__(self, other: Mask, /) -> Mask: ...
    def visible(self, shape: tuple[int, int, int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The mask written out for scores `[batch, heads, q_len, kv_len]`; True is seen."""

@final
class Causal:
    UPPER_LEFT: Mask
    LOWER_RIGHT: Mask

def Window(left: int | None, right: int | None) -> Mask:
    """Keys from `left` before to `right` after the query's absolute position `q + kv_len − q_len`, both inclusive; None: no bound."""

def PrefixLm(prefix: int | Seq[int]) -> Mask: ...
def Documents(bounds: _Array | Seq[int], kv_bounds: _Array | Seq[int] | None = None, inner: Mask | None = None) -> Mask:
    """`bounds`: 0, then the ascending ends of the documents (`cu_seqlens`)."""

def Blocks(map: _Array, q_block: int, kv_block: int) -> Mask:
    """`map`: bools `[.., rows of blocks, columns of blocks]`."""

def Bools(array: _Array) -> Mask:
    """Bools that broadcast to `[batch, heads, q_len, kv_len]`, True is seen; read in place, not copied, where memory allows."""

def Padding(lengths: _Array | Seq[int] | int) -> Mask:
    """Sequence `b` has `lengths[b]` keys."""

def Spans(first: _Array, end: _Array) -> Mask:
    """Query `[batch, head, q]` sees keys `first..end`: integer arrays that broadcast to `[batch, heads, q_len]`."""

def Dilated(left: int, right: int, dilation: int) -> Mask: ...
def Strided(stride: int) -> Mask: ...
def Fixed(block: int, summary: int) -> Mask: ...
def Global(positions: Seq[int] | int) -> Mask:
    """A list of positions, or the number of first positions."""

def RandomKeys(each: int, heads: int, length: int, seed: int) -> Mask: ...
def Blockwise(size: int, mask: Mask) -> Mask: ...
def Around(centres: _Array, radius: float) -> Mask: ...

# --- scores: how much. `a >> b`: first a, then b.

@final
class Score:
    def __rshift__(self, other: Score, /) -> Score: ...

def Softcap(cap: float) -> Score: ...
def Alibi(heads_or_slopes: int | _Array | Seq[float]) -> Score: ...
def Bias(array: _Array) -> Score:
    """float32, float16 or bfloat16, broadcasts to `[batch, heads, q_len, kv_len]`. −∞ hides."""

def RelativeBias(table: _Array, max_distance: int, bidirectional: bool) -> Score:
    """T5's; `table` float32 `[heads, buckets]`."""

def Gaussian(centres: _Array, deviation: float) -> Score: ...

# --- attention
# The options below are the same in attention, attention_backward, explain and KVCache.attend:
#   mask      Mask, bool array, or a list of those (all must agree)
#   score     Score or a list of those, first to last; applied before the three named ones
#   causal    "upper_left" | "lower_right" | None
#   window    (left, right), each an int or None
#   documents cu_seqlens, or (q cu_seqlens, kv cu_seqlens)
#   blocks    (map, q_block, kv_block)
#   softcap, alibi, bias   applied in this order, after `score`
#   sinks     one logit for each query head
#   scale     default 1/sqrt(head_dim)
#   dropout   (p, seed)
#   layout    "bhld": [batch, heads, length, dim]; "blhd": [batch, length, heads, dim]; "packed": [total, heads, dim], with documents
# Arrays of fewer dimensions: [heads, length, dim] and [length, dim] in "bhld".
# Results are of the kind of `q` (numpy, torch, JAX, ...), in its type; lse is float32 [batch, heads, q_len] ([heads, total] packed).

def attention(
    q: _Array,
    k: _Array,
    v: _Array,
    *,
    mask: Any = None,
    score: Any = None,
    causal: Literal["upper_left", "lower_right"] | None = None,
    window: tuple[int | None, int | None] | None = None,
    documents: Any = None,
    blocks: Any = None,
    softcap: float | None = None,
    alibi: Any = None,
    bias: _Array | None = None,
    sinks: _Array | None = None,
    scale: float | None = None,
    dropout: tuple[float, int] | None = None,
    layout: Literal["bhld", "blhd", "packed"] = "bhld",
    return_lse: bool = False,
    out: _Array | None = None,
) -> Any: ...
def attention_backward(
    q: _Array,
    k: _Array,
    v: _Array,
    out: _Array,
    lse: _Array,
    d_out: _Array,
    *,
    mask: Any = None,
    score: Any = None,
    causal: Literal["upper_left", "lower_right"] | None = None,
    window: tuple[int | None, int | None] | None = None,
    documents: Any = None,
    blocks: Any = None,
    softcap: float | None = None,
    alibi: Any = None,
    bias: _Array | None = None,
    sinks: _Array | None = None,
    scale: float | None = None,
    dropout: tuple[float, int] | None = None,
    layout: Literal["bhld", "blhd", "packed"] = "bhld",
    bias_gradient: bool = False,
) -> tuple[Any, Any, Any, Any | None, Any | None]:
    """`(dq, dk, dv, dbias, dsinks)` of `sum(d_out * out)`; `dbias` float32 in the shape of `bias` where `bias_gradient`, `dsinks`
    float32 where there are sinks."""

def scaled_dot_product_attention(
    query: _Array,
    key: _Array,
    value: _Array,
    attn_mask: _Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """torch.nn.functional.scaled_dot_product_attention, for arrays of any kind; any number of leading dimensions."""

@final
class Explanation:
    kernel: str
    why: str
    forward_flops: int
    backward_flops: int
    bytes: int
    memory: int
    pairs: int
    hidden_tiles: int
    clear_tiles: int
    mixed_tiles: int
    hidden_share: float

def explain(q: _Array, k: _Array, v: _Array, **options: Any) -> Explanation:
    """What `attention` would do with the same arguments; computes nothing."""

def merge_states(outs: Seq[_Array], lses: Seq[_Array]) -> tuple[Any, Any]:
    """Joins what the same queries saw of disjoint sets of keys: outs `[.., dim]`, lses float32 `[..]`."""

# --- kernels and threads

def available_kernels() -> list[str]: ...
def _push_kernel(name: str) -> None: ...
def _pop_kernel() -> None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...

# --- the paged cache

@final
class KVCache:
    pages: int
    page_size: int
    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    free_pages: int
    nbytes: int
    def __new__(
        cls,
        *,
        pages: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        page_size: int = 16,
        layers: int = 1,
        dtype: str = "float32",
    ) -> KVCache: ...
    def sequence(self) -> Sequence: ...
    def adopt(self, block_table: Seq[int], length: int) -> Sequence: ...
    def attend(
        self,
        q: _Array,
        sequences: Seq[Sequence],
        *,
        layer: int = 0,
        mask: Any = None,
        score: Any = None,
        causal: Literal["upper_left", "lower_right"] | None = None,
        window: tuple[int | None, int | None] | None = None,
        documents: Any = None,
        blocks: Any = None,
        softcap: float | None = None,
        alibi: Any = None,
        bias: _Array | None = None,
        sinks: _Array | None = None,
        scale: float | None = None,
        dropout: tuple[float, int] | None = None,
        layout: Literal["bhld", "blhd"] = "bhld",
        return_lse: bool = False,
        out: _Array | None = None,
    ) -> Any:
        """q `[len(sequences), q_heads, q_len, head_dim]`."""

@final
class Sequence:
    block_table: list[int]
    cache: KVCache
    def __len__(self) -> int: ...
    def append(self, k: _Array, v: _Array) -> None:
        """`[kv_heads, tokens, dim]` or `[1, kv_heads, tokens, dim]`; caches of one layer."""
    def grow(self, tokens: int) -> None: ...
    def write(self, layer: int, first: int, k: _Array, v: _Array) -> None: ...
    def fork(self) -> Sequence: ...
    def truncate(self, length: int) -> None: ...
    def free(self) -> None: ...
    def attend(self, q: _Array, **options: Any) -> Any:
        """KVCache.attend of this sequence alone."""

# --- linear attention and its convolution

def linear_attention(
    q: _Array,
    k: _Array,
    v: _Array,
    *,
    rule: Literal["linear", "gated", "delta", "gated_delta"] = "linear",
    decay: _Array | None = None,
    beta: _Array | None = None,
    state: _Array | None = None,
    scale: float | None = None,
    feature: Literal["identity", "elu+1"] = "identity",
    normalised: bool = False,
    chunk: int | None = None,
    return_state: bool = False,
) -> Any:
    """q `[batch, q_heads, length, head_dim]`, decay (logarithms) `[batch, kv_heads, length, 1 or head_dim]`, beta
    `[batch, kv_heads, length, 1]`, state float32 `[batch, kv_heads, head_dim, value_dim]`."""

def linear_attention_backward(
    q: _Array,
    k: _Array,
    v: _Array,
    d_out: _Array,
    *,
    d_state: _Array | None = None,
    rule: Literal["linear", "gated", "delta", "gated_delta"] = "linear",
    decay: _Array | None = None,
    beta: _Array | None = None,
    state: _Array | None = None,
    scale: float | None = None,
    feature: Literal["identity", "elu+1"] = "identity",
    normalised: bool = False,
    chunk: int | None = None,
) -> tuple[Any, Any, Any, Any | None, Any | None, Any]:
    """`(dq, dk, dv, ddecay, dbeta, dstate)`; the last three float32."""

def causal_conv(
    x: _Array,
    weight: _Array,
    bias: _Array | None = None,
    *,
    state: _Array | None = None,
    silu: bool = False,
    return_state: bool = False,
) -> Any:
    """x `[batch, channels, length]`, weight `[channels, 1, width]`, bias `[channels]`, state `[batch, channels, width − 1]`: a causal,
    depthwise convolution."""

def causal_conv_backward(
    x: _Array,
    weight: _Array,
    d_out: _Array,
    bias: _Array | None = None,
    *,
    state: _Array | None = None,
    d_state: _Array | None = None,
    silu: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """`(dx, dweight, dbias, dstate)` of `sum(d_out * out) + sum(d_state * state)`; those of weight and bias float32."""

# --- positions

@final
class Rope:
    dim: int
    frequencies: np.ndarray[Any, np.dtype[np.float64]]
    attention_factor: float
    def __new__(
        cls,
        dim: int,
        *,
        theta: float = 10000.0,
        style: Literal["half", "interleaved"] = "half",
        scaling: dict[str, Any] | None = None,
        length: int = 0,
    ) -> Rope:
        """`scaling`: a dictionary as in a Hugging Face config (`rope_type`, `factor`, ...). `dim` may be less than a head's: the rest stays."""
    def turn(self, x: _Array, first: int = 0) -> Any:
        """`[batch, heads, length, dim]` turned by positions `first..first + length`."""
    def turn_back(self, dx: _Array, first: int = 0) -> Any: ...

def rotate(x: _Array, cos: _Array, sin: _Array, *, style: Literal["half", "interleaved"] = "half") -> Any:
    """x `[batch, heads, length, dim]` by angles float32 `[length, pairs]` or `[batch, length, pairs]`; `pairs = dim / 2`, or less: the
    rest stays."""

def sinusoidal(
    length: int, dim: int, *, first: int = 0, style: Literal["half", "interleaved"] = "interleaved"
) -> np.ndarray[Any, np.dtype[np.float32]]: ...

# --- packed matrix products

@final
class PackedMatrix:
    inputs: int
    outputs: int
    def __new__(cls, weight: _Array) -> PackedMatrix:
        """weight `[outputs, inputs]`, float32 or bfloat16."""
    def __call__(self, x: _Array, bias: _Array | None = None) -> Any:
        """`x @ weight.T + bias`, x `[.., inputs]` float32."""

# --- what attention does: `regard.lens`

def _precision(q: _Array, k: _Array, v: _Array, rows: list[int] | None = None, **options: Any) -> dict[Any, Any]: ...
def _inspect(q: _Array, k: _Array, v: _Array, wanted: dict[str, Any], **options: Any) -> tuple[dict[str, Any], Any]: ...
def _map(
    q: _Array, k: _Array, place: dict[str, Any], lse: _Array | None = None, **options: Any
) -> np.ndarray[Any, np.dtype[np.float32]]: ...
def _report(told: dict[str, Any], layers: list[dict[str, Any]]) -> Report: ...
def _cell(n: int) -> int: ...

@final
class Report:
    """What every head of a model did with one text, as `regard inspect` reports it."""

    def json(self) -> str:
        """Of the form "regard-lens/1", at most 19 MiB: the largest weights are left out first, then coarse maps."""
    def html(self) -> str:
        """One page for any browser, without a network."""
    def csv(self) -> str:
        """A line of names, and one of numbers for each head."""
    def save(self, path: str | PathLike[str]) -> None:
        """Writes what the ending says: `.html`, `.json` or `.csv`."""

# --- what a model will cost

def _cost(asked: dict[str, Any], *, config: str | None = None, path: str | None = None, preset: str | None = None) -> str: ...
def _cost_names() -> tuple[list[str], list[str]]: ...

# --- under PyTorch's own operators: `regard.torch.install`

def _put_under_torch(library: PathLike[str], kernel: Any) -> bool:
    """Whether PyTorch's dispatcher calls compiled code from here on, and `kernel` for what that does not compute."""

def _give_back_to_torch() -> None: ...
def _calls_from_torch() -> int:
    """How many calls of PyTorch's operator were computed without Python."""
