"""ONNX's `FlexAttention` (`ai.onnx.preview` 1): attention with graphs that change its scores and its probabilities.

    Y = prob_mod(softmax(score_mod(√scale · Q (√scale · K)ᵀ))) V

In float32, a `score_mod` that is made of factors, softcaps, added arrays and masks, and a `prob_mod` that multiplies rows, run in the kernels
(`regard.onnx.modifier` reads them); other modifiers are evaluated on whole tensors. A query whose scores are all −∞ has output 0, as in
`Attention` and in PyTorch's flex_attention; ONNX's definition has no rule for it, and its reference implementation gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regard import _regard
from regard.onnx.heads import check_heads
from regard.onnx.modifier import Modifier, Step, Unreadable
from regard.onnx.node import Array, Call
from regard.onnx.stages import check_scale, float_type, fused, product, softmax, weighted


@dataclass
class _Scores:
    """A `score_mod` in regard's terms: what multiplies the scale, scores in their order, and masks."""

    factor: float = 1.0
    scores: list[_regard.Score] = field(default_factory=list)
    masks: list[_regard.Mask] = field(default_factory=list)


def flex_attention(call: Call) -> Mapping[str, Array]:
    """`Y`, `[batch, q_heads, q_len, value_dim]`."""
    q, k, v = (call.inputs[name] for name in ("Q", "K", "V"))
    check_heads(q, k, v)
    scale = call.attributes.get("scale", 1.0 / np.sqrt(q.shape[3]))
    check_scale(scale)
    precision = call.attributes.get("softmax_precision")
    softmax_type = np.promote_types(q.dtype, np.float32) if precision is None else float_type("softmax_precision", precision)
    score_mod, prob_mod = (_modifier(call, name) for name in ("score_mod", "prob_mod"))
    shape = (*q.shape[:3], k.shape[2])
    if fused(q, v, softmax_type):
        try:
            changes = read_scores(score_mod.steps(shape, softmax_type) if score_mod else ())
            rows = read_rows(prob_mod.steps(shape, softmax_type) if prob_mod else ())
        except Unreadable:
            pass
        else:
            y = _regard.attention(q, k, v, scale=scale * changes.factor, score=changes.scores, mask=changes.masks)
            return {"Y": y if rows is None else y * rows}
    scores = product(q, k, scale).astype(softmax_type)
    probabilities = softmax(score_mod.evaluate(scores) if score_mod else scores)
    probabilities = prob_mod.evaluate(probabilities) if prob_mod else probabilities
    return {"Y": weighted(probabilities, v.astype(softmax_type)).astype(v.dtype)}


def read_scores(steps: Sequence[Step]) -> _Scores:
    """Steps as regard's scores and masks. Raises `Unreadable`."""
    read = _Scores()
    rest = list(steps)
    hidden = False  # some score may be −∞ already, which adding keeps and nothing else does
    while rest:
        step = rest.pop(0)
        if step.kind == "add" and step.operand is not None:
            if np.isnan(step.operand).any() or np.isposinf(step.operand).any():
                raise Unreadable
            hidden |= bool(np.isneginf(step.operand).any())
            read.scores.append(_regard.Bias(np.ascontiguousarray(step.operand, np.float32)))
        elif step.kind == "mask" and step.operand is not None:
            hidden = True
            read.masks.append(_regard.Bools(np.ascontiguousarray(step.operand)))
        elif hidden:
            raise Unreadable
        else:
            _read_factor(read, step, rest)
    return read


def _read_factor(read: _Scores, step: Step, rest: list[Step]) -> None:
    """A factor ahead of all scores, or a softcap: `cap · tanh(f · s)`, whose own scale is `f · cap`."""
    factor = 1.0
    if step.kind == "multiply":
        factor = _number(step)
        if not rest or rest[0].kind != "tanh":
            _multiply_scale(read, factor)
            return
        rest.pop(0)
    cap = _number(rest.pop(0)) if rest and rest[0].kind == "multiply" else 1.0
    if not cap > 0:
        raise Unreadable
    _multiply_scale(read, factor * cap)
    read.scores.append(_regard.Softcap(cap))


def _multiply_scale(read: _Scores, factor: float) -> None:
    """The scale is applied before all scores: later, only a factor of 1 (up to the rounding of `1 / cap` to float32) is none."""
    if read.scores:
        if abs(factor - 1.0) > np.finfo(np.float32).eps:
            raise Unreadable
        return
    read.factor *= factor


def _number(step: Step) -> float:
    """The factor of a step, the same for the whole tensor."""
    if step.operand is None or step.operand.size != 1 or not np.isfinite(step.operand).all():
        raise Unreadable
    return float(step.operand.item())


def read_rows(steps: Sequence[Step]) -> Array | None:
    """Factors of whole rows of probabilities, `[.., .., .., 1]`: they may as well multiply the rows of the result. Raises `Unreadable`."""
    rows: Array | None = None
    for step in steps:
        if step.kind != "multiply" or step.operand is None or step.operand.shape[3] != 1 or not np.isfinite(step.operand).all():
            raise Unreadable
        factor = step.operand.astype(np.float32)
        rows = factor if rows is None else rows * factor
    return rows


def _modifier(call: Call, name: str) -> Modifier | None:
    graph: Any = call.attributes.get(name)
    return None if graph is None else Modifier(name, graph, call.opsets, call.scope)
