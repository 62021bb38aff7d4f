"""`install()`: regard under `torch.nn.functional.scaled_dot_product_attention` on the CPU, and `uninstall()`."""

from __future__ import annotations

import functools
import math
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard import _regard as native

from .checks import DTYPES
from .recognise import recognise

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"

# What the compiled kernel knows of the forward operator.
SCHEMA = (
    f"aten::{FORWARD}(Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, "
    "Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)"
)

_lock = threading.Lock()
_library: Any = None
# The compiled kernels that were registered: a call that is under way may outlive its registration.
_kernels: list[Any] = []


def install() -> None:
    """Puts regard under `torch.nn.functional.scaled_dot_product_attention`, and all that is built on it, for tensors on the CPU.

    It takes the place of PyTorch's flash attention for the CPU, forward and backward, with the same results: also zeros for a query that
    sees nothing, the strides of the results, and the log-sum-exp (which is 0 there, for a query that sees nothing). What was computed
    with one may be differentiated with the other. Unlike PyTorch's, what a mask hides is never observed, not even NaN. Masks of 0 and −∞,
    which is what bools have become when they come here, are recognised where that pays, and what they hide is skipped.

    PyTorch computes as before, by itself: float64; dropout above 0; values of another dimension than queries and keys; a mask that wants
    a gradient; a scale that is not finite; queries, keys or values whose last dimension has not stride 1, or that have another number of
    dimensions than 3 or 4; leading dimensions that broadcast, but for one KV head; empty tensors; nested tensors; the MATH backend, if it
    is chosen with `torch.nn.attention.sdpa_kernel`; other devices; and programs that call PyTorch's kernels past its dispatcher, as those
    of `torch.compile` with `cpp_wrapper` and of AOTInductor do.

    With PyTorch 2.14 or later, on Linux and macOS, its dispatcher calls compiled code, and Python only for what has a mask or is left to
    PyTorch; any error of these is a `RuntimeError`. With earlier versions and elsewhere it calls Python every time, which takes some
    microseconds; results are the same.

    The threads that compute are regard's own: `regard.set_num_threads`. May be called from any thread and more than once: installed is
    installed, until one `uninstall()`.

    Raises `RuntimeError` when this PyTorch has no such operators to take the place of, or no `torch.library.get_kernel`.
    """
    global _library
    with _lock:
        if _library is not None:
            return
        if not hasattr(torch.library, "get_kernel") or not hasattr(torch.ops.aten, FORWARD):
            raise RuntimeError(f"PyTorch {torch.__version__} has no kernel to take the place of: install() needs 2.9 or later")
        library: Any = torch.library.Library("aten", "IMPL", "CPU")  # type: ignore[no-untyped-call]
        forward = _forward_over(_kernel(FORWARD))
        library.impl(BACKWARD, _backward_over(_kernel(BACKWARD)), with_keyset=True)
        if not _compiled_over(forward):
            library.impl(FORWARD, forward, with_keyset=True)
        _library = library


def uninstall() -> None:
    """Gives `torch.nn.functional.scaled_dot_product_attention` back to PyTorch; does nothing when regard is not installed."""
    global _library
    with _lock:
        if _library is not None:
            native._give_back_to_torch()
            _library._destroy()
            _library = None


def installed() -> bool:
    """Whether regard is under `torch.nn.functional.scaled_dot_product_attention`."""
    return _library is not None


def _kernel(name: str) -> Any:
    """PyTorch's own kernel of an operator."""
    return torch.library.get_kernel(f"aten::{name}", "CPU")


def _compiled_over(forward: Any) -> bool:
    """Puts the compiled kernel under the forward operator, and this one under that; whether this PyTorch has what it needs."""
    if str(getattr(torch.ops.aten, FORWARD).default._schema) != SCHEMA:
        return False
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    taken = native._put_under_torch(Path(torch.__file__).parent / "lib" / name, functools.partial(forward, keys))
    if taken:
        _kernels.append(_kernel(FORWARD))
    return taken


def _forward_over(torchs: Any) -> Any:
    """The forward operator: regard's, or PyTorch's own for what regard does not take."""

    def forward(
        keys: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        attn_mask: Tensor | None = None,
        scale: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        if not _takes(query, key, value, dropout_p, attn_mask, scale):
            outputs: tuple[Tensor, Tensor] = torchs.call_boxed(
                keys, query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
            )
            return outputs
        out = torch.empty_like(query)
        options = _options(query, key, is_causal, attn_mask, scale)
        _, lse = native.attention(query, key, value, out=out, return_lse=True, **options)
        if attn_mask is not None:
            lse.masked_fill_(lse == -math.inf, 0.0)
        # PyTorch's log-sum-exp lies as [batch, length, heads].
        return out, lse if query.shape[2] == 1 else lse.transpose(1, 2).contiguous().transpose(1, 2)

    return forward


def _backward_over(torchs: Any) -> Any:
    """The backward operator likewise."""

    def backward(
        keys: Any,
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        logsumexp: Tensor,
        dropout_p: float,
        is_causal: bool,
        *,
        attn_mask: Tensor | None = None,
        scale: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tensors = (grad_out, query, key, value, out, logsumexp)
        if not _takes(query, key, value, dropout_p, attn_mask, scale):
            own: tuple[Tensor, Tensor, Tensor] = torchs.call_boxed(
                keys, *tensors, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
            )
            return own
        options = _options(query, key, is_causal, attn_mask, scale)
        d_out, q, k, v, o = (tensor.transpose(1, 2) for tensor in tensors[:5])
        # PyTorch's gradients lie as [batch, length, heads, dim].
        grads = native.attention_backward(q, k, v, o, logsumexp, d_out, layout="blhd", **options)
        dq, dk, dv = (grad.transpose(1, 2) for grad in grads[:3])
        return dq, dk, dv

    return backward


def _takes(query: Tensor, key: Tensor, value: Tensor, dropout_p: float, attn_mask: Tensor | None, scale: float | None) -> bool:
    """Whether regard computes this; PyTorch's own kernel has the rest, and says what is wrong with it."""
    dtype, shape, of_key = query.dtype, query.shape, key.shape
    return (
        dtype in DTYPES
        and key.dtype == value.dtype == dtype
        and len(shape) == len(of_key) == value.ndim == 4
        and dropout_p == 0
        and of_key == value.shape
        and (shape[0], shape[3]) == (of_key[0], of_key[3])
        and of_key[1] > 0
        and shape[1] % of_key[1] == 0
        and (attn_mask is None or (attn_mask.dtype in (dtype, torch.float32) and attn_mask.ndim in (2, 4)))
        and (scale is None or math.isfinite(scale))
    )


def _options(query: Tensor, key: Tensor, is_causal: bool, attn_mask: Tensor | None, scale: float | None) -> dict[str, Any]:
    """The options of `regard.attention` for the operator's."""
    options: dict[str, Any] = {"causal": "upper_left" if is_causal else None, "scale": scale}
    if attn_mask is not None:
        batch, heads, q_len, _ = query.shape
        mask = recognise(attn_mask, batch * heads * q_len * key.shape[2])
        options |= {"bias": attn_mask} if mask is None else {"mask": mask}
    return options
