"""`regard.torch.linear_attention` and `regard.torch.causal_conv`: attention with a state of fixed size, and the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from regard import _regard as native

from .checks import check_tensors, is_plain, refuse_forward_mode, under_autocast
from .function import Formula, Tensors, apply
from .operators import register


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rule: Literal["linear", "gated", "delta", "gated_delta"] = "linear",
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    state: Tensor | None = None,
    scale: float | None = None,
    feature: Literal["identity", "elu+1"] = "identity",
    normalised: bool = False,
    chunk: int | None = None,
    return_state: bool = False,
) -> Any:
    """`regard.linear_attention` with gradients of q, k, v, `decay`, `beta` and `state`, through the output and the state.

    q `[batch, q_heads, length, head_dim]`, k `[batch, kv_heads, length, head_dim]`, v `[batch, kv_heads, length, value_dim]`, decay
    (logarithms) `[batch, kv_heads, length, 1 or head_dim]`, beta `[batch, kv_heads, length, 1]`, state float32
    `[batch, kv_heads, head_dim, value_dim]`. Returns the output `[batch, q_heads, length, value_dim]`, and with `return_state` also the
    state after the last position, float32. `torch.compile` traces it as the operator `regard::linear_attention`.

    Second and forward-mode derivatives raise `NotImplementedError`; arguments that cannot be, `ValueError` or `TypeError`.

    Source: Yang et al. 2024, "Gated Delta Networks", §3.1.
    """
    q, k, v = under_autocast(q, k, v)
    check_tensors(q=q, k=k, v=v)
    options = {"rule": rule, "scale": scale, "feature": feature, "normalised": normalised, "chunk": chunk}
    out, last = _call(LINEAR_ATTENTION, "linear_attention", (q, k, v, decay, beta, state), options)
    return (out, last) if return_state else out


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    state: Tensor | None = None,
    silu: bool = False,
    return_state: bool = False,
) -> Any:
    """`regard.causal_conv` with gradients of all its arrays, through the output and the state.

    x `[batch, channels, length]`, weight `[channels, 1, width]`, bias `[channels]`, state `[batch, channels, width − 1]`, all of one type.
    Returns the output `[batch, channels, length]`, and with `return_state` also the state after it. `torch.compile` traces it as the
    operator `regard::causal_conv`.

    Second and forward-mode derivatives raise `NotImplementedError`; arguments that cannot be, `ValueError` or `TypeError`.
    """
    x, weight, bias, state = under_autocast(x, weight, bias, state)
    given = {"x": x, "weight": weight, "bias": bias, "state": state}
    check_tensors(**{name: tensor for name, tensor in given.items() if tensor is not None or name in ("x", "weight")})
    out, last = _call(CAUSAL_CONV, "causal_conv", (x, weight, bias, state), {"silu": silu})
    return (out, last) if return_state else out


def _call(formula: Formula, operator: str, inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """The function itself, or its operator where somebody traces."""
    refuse_forward_mode(*inputs)
    if is_plain(*inputs):
        return apply(formula, options, inputs)
    outputs: tuple[Tensor, ...] = getattr(torch.ops.regard, operator)(*inputs, **options)
    return outputs


def _compute_linear(inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """`(out, state)` of `(q, k, v, decay, beta, state)`."""
    q, k, v, decay, beta, state = inputs
    out, last = native.linear_attention(q, k, v, decay=decay, beta=beta, state=state, return_state=True, **options)
    return out, last


def _derive_linear(
    inputs: Tensors, outputs: Tensors, d_outputs: Tensors, wanted: Sequence[bool], options: dict[str, Any]
) -> tuple[Tensor | None, ...]:
    """The gradients of `(q, k, v, decay, beta, state)`."""
    q, k, v, decay, beta, state = inputs
    d_out, d_state = d_outputs
    arrays: dict[str, Any] = {"decay": decay, "beta": beta, "state": state, "d_state": d_state}
    grads = native.linear_attention_backward(q, k, v, _or_zeros(d_out, outputs[0]), **arrays, **options)
    return _as_inputs(grads, inputs, wanted)


def _fake_linear(q: Tensor, k: Tensor, v: Tensor, *_tensors: Tensor | None, **_: Any) -> tuple[Tensor, Tensor]:
    """Shapes: out as q with the values' dimension; the state `[batch, kv_heads, head_dim, value_dim]`."""
    batch, heads = (*(1,) * (4 - k.ndim), *k.shape)[:2]
    state = q.new_empty((batch, heads, k.shape[-1], v.shape[-1]), dtype=torch.float32)
    return q.new_empty((*q.shape[:-1], v.shape[-1])), state


def _compute_conv(inputs: Tensors, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """`(out, state)` of `(x, weight, bias, state)`."""
    x, weight, bias, state = inputs
    out, last = native.causal_conv(x, weight, bias, state=state, return_state=True, **options)
    return out, last


def _derive_conv(
    inputs: Tensors, outputs: Tensors, d_outputs: Tensors, wanted: Sequence[bool], options: dict[str, Any]
) -> tuple[Tensor | None, ...]:
    """The gradients of `(x, weight, bias, state)`."""
    x, weight, bias, state = inputs
    d_out, d_state = d_outputs
    grads = native.causal_conv_backward(x, weight, _or_zeros(d_out, outputs[0]), bias, state=state, d_state=d_state, **options)
    return _as_inputs(grads, inputs, wanted)


def _fake_conv(x: Tensor, weight: Tensor, *_tensors: Tensor | None, **_: Any) -> tuple[Tensor, Tensor]:
    """Shapes: out as x; the state `[batch, channels, width − 1]`."""
    return x.new_empty(x.shape), x.new_empty((*x.shape[:2], weight.shape[-1] - 1))


def _or_zeros(d_out: Tensor | None, out: Tensor | None) -> Tensor:
    """The gradient of an output, which is zero where only the state is used."""
    assert out is not None
    return torch.zeros_like(out) if d_out is None else d_out


def _as_inputs(grads: Tensors, inputs: Tensors, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Gradients in the types of their inputs, where they are wanted."""
    triples = zip(grads, inputs, wanted, strict=True)
    return tuple(grad.to(of.dtype) if want and of is not None and grad is not None else None for grad, of, want in triples)


LINEAR_ATTENTION = Formula("regard.torch.linear_attention", _compute_linear, _derive_linear)
CAUSAL_CONV = Formula("regard.torch.causal_conv", _compute_conv, _derive_conv)

register(
    "linear_attention",
    LINEAR_ATTENTION,
    inputs="Tensor q, Tensor k, Tensor v, Tensor? decay=None, Tensor? beta=None, Tensor? state=None",
    constants='str rule="linear", float? scale=None, str feature="identity", bool normalised=False, SymInt? chunk=None',
    outputs="Tensor out, Tensor last",
    fake=_fake_linear,
)
register(
    "causal_conv",
    CAUSAL_CONV,
    inputs="Tensor x, Tensor weight, Tensor? bias=None, Tensor? state=None",
    constants="bool silu=False",
    outputs="Tensor out, Tensor last",
    fake=_fake_conv,
)
