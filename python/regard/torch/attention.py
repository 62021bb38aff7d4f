"""`regard.torch.attention`: attention with gradients of queries, keys, values, bias and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from regard import _regard as native

from .checks import check_device, check_tensors, is_plain, refuse_forward_mode, under_autocast
from .function import Formula, Tensors, apply
from .operators import register
from .options import CONSTANTS, TENSORS, draw_dropout, has_objects, native_dropout, pack, unpack


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Any = None,
    score: Any = None,
    causal: Literal["upper_left", "lower_right"] | None = None,
    window: tuple[int | None, int | None] | None = None,
    documents: Any = None,
    blocks: Any = None,
    softcap: float | None = None,
    alibi: Any = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    scale: float | None = None,
    dropout: float | tuple[float, int | Tensor] | None = None,
    layout: Literal["bhld", "blhd", "packed"] = "bhld",
    return_lse: bool = False,
    out: Tensor | None = None,
) -> Any:
    """`regard.attention` for tensors that want gradients: of q, k, v, `bias` (summed where it broadcasts) and `sinks`.

    q `[batch, q_heads, q_len, head_dim]`, k `[batch, kv_heads, kv_len, head_dim]`, v `[batch, kv_heads, kv_len, value_dim]`, float32,
    float16 or bfloat16 on the CPU, or as `layout` says; all options are those of `regard.attention`. Returns the output, and with
    `return_lse` also the log-sum-exp, float32, which has no gradient.

    - `dropout` may be a probability alone: the seed is then drawn from PyTorch's default generator, so that `torch.manual_seed`
      reproduces it. The backward pass drops the same probabilities again; nothing is stored.
    - q, k and v may be jagged nested tensors, `[batch, heads, ragged, dim]`, or `[batch, ragged, heads, dim]` with layout "blhd": each
      element of the batch is a document. The result is one too, with the lengths of q.
    - `torch.compile` traces it as the operator `regard::attention`; masks and scores that are objects (`regard.Mask`, `regard.Score`)
      cannot be traced, and break the graph. `torch.vmap` computes one element after the other.
    - `torch.autocast("cpu")` casts q, k and v, as it does for PyTorch's own.

    Second derivatives, forward-mode derivatives (`jvp`), and a gradient of `alibi` raise `NotImplementedError`.
    Raises `ValueError` or `TypeError` that names the argument.
    """
    options = {"mask": mask, "score": score, "causal": causal, "window": window, "documents": documents, "blocks": blocks}
    options |= {"softcap": softcap, "alibi": alibi, "scale": scale, "layout": layout, "dropout": draw_dropout(dropout)}
    q, k, v = under_autocast(q, k, v)
    check_tensors(q=q, k=k, v=v)
    if q.is_nested or k.is_nested or v.is_nested:
        from . import nested

        result, lse = nested.attention(q, k, v, bias, sinks, options, out)
    else:
        result, lse = attend(q, k, v, bias, sinks, options, out)
    return (result, lse) if return_lse else result


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    options: dict[str, Any],
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The output and its log-sum-exp, differentiable, of tensors that are checked."""
    inputs = (q, k, v, _numbers("bias", bias), _numbers("sinks", sinks))
    refuse_forward_mode(*inputs)
    alibi = options["alibi"]
    if isinstance(alibi, Tensor) and alibi.requires_grad:
        raise NotImplementedError("alibi wants a gradient and has none: give a bias that is computed from the slopes")
    if out is not None:
        return _into(out, inputs, options)
    if is_plain(*inputs):
        return _apply(inputs, options)
    if torch.compiler.is_compiling() and has_objects(options):
        out, lse = _untraced(inputs, options)
    else:
        tensors, constants = pack(options)
        out, lse = torch.ops.regard.attention(*inputs, *tensors, **constants)
    return out, lse


def _numbers(name: str, array: Any) -> Tensor | None:
    """An array that may want a gradient, as a tensor."""
    if array is None:
        return None
    tensor = torch.as_tensor(array)
    check_device(name, tensor)
    return tensor


def _apply(inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    out, lse = apply(FORMULA, options, inputs)
    return out, lse


_disable: Any = torch.compiler.disable
_untraced = _disable(_apply, reason="masks and scores that are objects cannot be traced")


def _into(out: Tensor, inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The output where the caller wants it, which no gradient goes through."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (out, *inputs)):
        raise NotImplementedError(
            "out is given, and an argument wants a gradient: leave out `out`, or compute under torch.no_grad()"
        )
    if not is_plain(out, *inputs) or torch._C._are_functorch_transforms_active():
        raise NotImplementedError("out is given, which is for plain tensors outside of torch.compile and torch.func: leave it out")
    result, lse = compute(inputs, {**options, "out": out})
    return result, lse


def compute(inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """`(out, lse)` of `(q, k, v, bias, sinks)`."""
    q, k, v, bias, sinks = inputs
    own = {**options, "dropout": native_dropout(options["dropout"])}
    out, lse = native.attention(q, k, v, bias=bias, sinks=sinks, return_lse=True, **own)
    return out, lse


def derive(
    inputs: Tensors, outputs: Tensors, d_outputs: Tensors, wanted: Sequence[bool], options: dict[str, Any]
) -> tuple[Tensor | None, ...]:
    """The gradients of `(q, k, v, bias, sinks)`.

    Source: Dao 2023, "FlashAttention-2", Algorithm 2.
    """
    q, k, v, bias, sinks = inputs
    own = {**options, "dropout": native_dropout(options["dropout"]), "bias_gradient": wanted[3]}
    out, lse = outputs
    grads = native.attention_backward(q, k, v, out, lse, d_outputs[0], bias=bias, sinks=sinks, **own)
    triples = zip(grads, inputs, wanted, strict=True)
    return tuple(grad.to(of.dtype) if want and of is not None else None for grad, of, want in triples)


def fake(q: Tensor, k: Tensor, v: Tensor, *_tensors: Tensor | None, layout: str = "bhld", **_: Any) -> tuple[Tensor, Tensor]:
    """Shapes: out as q with the values' dimension; lse `[batch, heads, length]`, or `[heads, total length]` packed."""
    rows = q.shape[:-1] if layout == "bhld" else (*q.shape[:-3], q.shape[-2], q.shape[-3])
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(rows, dtype=torch.float32)


FORMULA = Formula("regard.torch.attention", compute, derive, constant=(1,))

register(
    "attention",
    FORMULA,
    inputs="Tensor q, Tensor k, Tensor v, Tensor? bias=None, Tensor? sinks=None",
    others=TENSORS,
    constants=CONSTANTS,
    outputs="Tensor out, Tensor lse",
    fake=fake,
    unpack=unpack,
)
