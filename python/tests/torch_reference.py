"""Attention with all its options, written out in PyTorch's own operators: in float64 the truth for outputs and gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    visible: Tensor | None = None,
    softcap: float | None = None,
    slopes: Tensor | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    scale: float | None = None,
    kept: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`softmax(scale q kᵀ → softcap → alibi → bias → visible, with sinks) · kept/(1 − dropout) · v` of four dimensions."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    s = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    if slopes is not None:
        at = torch.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2])
        s = s - slopes.to(s.dtype)[:, None, None] * (at - torch.arange(k.shape[2])).abs()
    if bias is not None:
        s = s + bias
    if visible is not None:
        s = s.masked_fill(~visible, -math.inf)
    if sinks is not None:
        s = torch.cat((s, sinks[:, None, None].expand(*s.shape[:-1], 1)), -1)
    p = torch.softmax(s, -1)[..., : k.shape[2]]
    p = p.masked_fill(p.isnan(), 0)  # a row that sees nothing
    if kept is not None:
        p = p * kept / (1 - dropout)
    return p @ v


def gradients(call: Any, tensors: dict[str, Tensor], d_out: Tensor) -> dict[str, Tensor]:
    """The output of `call(**tensors)` as "out", and the gradients of the tensors."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    out = call(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), d_out.to(out.dtype))
    return {"out": out.detach()} | dict(zip(leaves, grads, strict=True))


def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {name: tensor.double() for name, tensor in tensors.items()}


# A result is off by the rounding of its type, by those of the probabilities and of the output that its gradient is made of, and by sums
# of at most a few hundred products in float32, each within 6√n u < 128u of the largest: 4 units of the type, and 512u in float32.
FACTOR = {torch.float32: 512 * 2.0**-24, torch.float16: 4 * 2.0**-11, torch.bfloat16: 4 * 2.0**-8}


def assert_close(got: Any, expected: Any, what: str = "result") -> None:
    """A tensor near that of the truth, or dictionaries of such."""
    if isinstance(got, dict):
        assert got.keys() == expected.keys()
        for name in got:
            assert_close(got[name], expected[name], name)
        return
    assert got.shape == expected.shape, f"{what} has shape {tuple(got.shape)} and needs {tuple(expected.shape)}"
    if got.numel() == 0:
        return
    largest = float(expected.detach().abs().max())
    error = float((got.detach().double() - expected.detach().double()).abs().max())
    assert error <= FACTOR[got.dtype] * max(largest, 1e-3), f"{what} is off by {error:.3g}, and the largest is {largest:.3g}"
