"""How far a float32 kernel may be from PyTorch's attention in float64, forward and backward, for every element.

The roundings of a float32 computation, followed through the formulas, as in `oracle.py`, with `u = 2⁻²⁴`, `γ(n) = min(n, 6√n)·u`
(Higham and Mary 2019), `w` the rounding of weights in kernels that multiply bfloat16 as it is, and `m` a row's largest score:

    δ(raw) = scale·γ(D+2)·Σ|q||k| + 2u|raw|                the product, its scale
    ε      = δ(raw) + 4u(|s|+|raw|) + 2u(|s|+|m|) + 4u     exp(s − m) of s = raw + mask
    ε̄      = Σ p ε                                         the denominator
    δ(p)/p = exp(ε + ε̄) − 1 + γ(n) + f/p                   a weight below f = 1.22e−38 may become 0
    δ(o)   = Σ p|v| (δ(p)/p + γ(n) + w)                    + rounding of the output's type

The backward pass computes p again, from a log-sum-exp in float32, and Δ = dO·O from the rounded output; with A = Σ|dO||v|:

    δ(lse) = ε̄ + γ(n) + 2u(|lse| + |m|)
    η      = δ(p)/p + δ(lse) + 2u|lse|
    δ(Δ)   = Σ|dO| δ(o) + γ(Dv) Σ|dO||o|
    δ(dS)  = p [(η + 4u)(|dP| + Σ p|dP|) + γ(Dv) A + δ(Δ)]
    δ(dQ)  = scale Σ_j (δ(dS) + (γ + w)|dS|) |k|           + rounding;  dK alike over queries, and a mask's gradient is Σ dS
    δ(dV)  = Σ_i p (η + γ + w) |dO|                        + rounding

Where an array was broadcast, the gradients of its copies are rounded, then summed, then rounded again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import regard

U = 2.0**-24
FLUSH = 1.22e-38
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# Half the least subnormal; in float32 and bfloat16, where subnormals may be flushed, the least normal.
TINY = {torch.float32: 2.0**-126, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-126}
# Kernels that multiply bfloat16 as it is round the weights of bfloat16 values to bfloat16.
ROUNDS_WEIGHTS = {"amx", "avx512bf16"}


def gamma(n: int) -> float:
    """The relative error of a sum of n rounded products."""
    return min(n, 6 * math.sqrt(n)) * U


@dataclass
class Problem:
    """One attention in float64: q, k, v, the mask as numbers that are added (or None), and the gradient of the output.

    Arrays broadcast as PyTorch's do; with `gqa`, key and value heads are repeated. `dtype` is what the kernel computes in.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    d_out: Tensor
    scale: float | None
    gqa: bool
    dtype: torch.dtype

    def tolerances(self) -> dict[str, Tensor]:
        """The tolerances of "out", "dq", "dk", "dv" and "dmask", of the shapes of these arrays."""
        scale = 1 / math.sqrt(self.q.shape[-1]) if self.scale is None else self.scale
        if self.q.shape[-1] == 0 or self.k.shape[-2] == 0:
            return {}
        q, k, v = self._wide()
        w = UNIT[torch.bfloat16] if self.dtype == torch.bfloat16 and regard.available_kernels()[0] in ROUNDS_WEIGHTS else 0.0
        n = gamma(k.shape[-2] + 1)
        raw = scale * q @ k.mT
        s = raw if self.mask is None else raw + self.mask
        seen = ~torch.isneginf(s)
        top = s.masked_fill(~seen, 0).where(seen, -math.inf).amax(-1, keepdim=True)
        top = top.masked_fill(torch.isneginf(top), 0)
        lse = top + torch.exp(s - top).sum(-1, keepdim=True).clamp_min(1e-300).log()
        p = torch.exp(s - lse)
        d_raw = abs(scale) * gamma(q.shape[-1] + 2) * (abs(q) @ abs(k).mT) + 2 * U * abs(raw)
        s0 = abs(s).masked_fill(~seen, 0)
        exponent = d_raw + 4 * U * (s0 + abs(raw)) + 2 * U * (s0 + abs(top)) + 4 * U
        total = (p * exponent).sum(-1, keepdim=True)
        relative = torch.expm1(exponent + total) + n
        weights = p * relative + seen * FLUSH
        out = p @ v
        d_o = (weights + p * (n + w)) @ abs(v) + self._rounding(out)

        d_lse = total + n + 2 * U * (abs(lse) + abs(top))
        again = weights + p * (d_lse + 2 * U * abs(lse))
        d_out = self.d_out.expand(out.shape)
        dp = d_out @ v.mT
        size = (p * abs(dp)).sum(-1, keepdim=True)
        gv = gamma(v.shape[-1])
        delta = (abs(d_out) * d_o).sum(-1, keepdim=True) + gv * (abs(d_out) * abs(out)).sum(-1, keepdim=True)
        d_s = (again + 4 * U * p) * (abs(dp) + size) + p * (gv * (abs(d_out) @ abs(v).mT) + delta)
        ds = p * (dp - (d_out * out).sum(-1, keepdim=True))
        queries, keys = gamma(q.shape[-2] * q.shape[-3] + 2), gamma(k.shape[-2] + 2)
        tolerances = {
            "out": d_o.reshape(self.d_out.shape),
            "dq": self._narrow(self.q, abs(scale) * (d_s + (keys + w) * abs(ds)) @ abs(k), scale * ds @ k),
            "dk": self._narrow(self.k, abs(scale) * (d_s + (queries + w) * abs(ds)).mT @ abs(q), scale * ds.mT @ q),
            "dv": self._narrow(self.v, (again + p * (queries + w)).mT @ abs(d_out), p.mT @ d_out),
        }
        if self.mask is not None:
            of_mask = (d_s + gamma(ds.numel() // max(self.mask.numel(), 1) + 1) * abs(ds)).sum_to_size(self._mask_shape(ds))
            value = ds.sum_to_size(self._mask_shape(ds)).reshape(self.mask.shape)
            tolerances["dmask"] = of_mask.reshape(self.mask.shape) + 2 * self._rounding(value)
        return tolerances

    def _rounding(self, x: Tensor) -> Tensor:
        return UNIT[self.dtype] * abs(x) + TINY[self.dtype]

    def _wide(self) -> tuple[Tensor, ...]:
        """q, k and v with all leading dimensions, at least one of them."""
        arrays = [x if x.ndim > 2 else x[None] for x in (self.q, self.k, self.v)]
        if self.gqa:
            arrays = [x.repeat_interleave(arrays[0].shape[-3] // x.shape[-3], -3) for x in arrays]
        lead = torch.broadcast_shapes(*(x.shape[:-2] for x in arrays))
        return tuple(x.expand(*lead, *x.shape[-2:]) for x in arrays)

    def _narrow(self, like: Tensor, tolerance: Tensor, value: Tensor) -> Tensor:
        """The tolerance of the gradient of an array, from those of its copies."""
        if self.gqa:
            groups = tolerance.shape[-3] // like.shape[-3]
            tolerance, value = (x.unflatten(-3, (-1, groups)).sum(-3) for x in (tolerance, value))
        shape = like.shape if like.ndim > 2 else (1, *like.shape)
        tolerance = tolerance + self._rounding(value)
        if shape != tolerance.shape:
            tolerance = tolerance.sum_to_size(shape) + self._rounding(value.sum_to_size(shape))
        return tolerance.reshape(like.shape)

    def _mask_shape(self, ds: Tensor) -> tuple[int, ...]:
        assert self.mask is not None
        return (1,) * (ds.ndim - self.mask.ndim) + tuple(self.mask.shape)


def worst(got: Tensor, expected: Tensor, tolerance: Tensor) -> float:
    """The largest error, in tolerances; infinite where a number is not one, or of another shape."""
    if got.shape != expected.shape:
        return math.inf
    if got.numel() == 0:
        return 0.0
    error = abs(got.detach().double() - expected.detach())
    ratio = torch.where(error == 0, 0.0, error / tolerance)
    return float(ratio.nan_to_num(nan=math.inf).max())
