"""FlexAttention's modifiers: graphs that change scores or probabilities, read as regard's masks and scores where they are those.

A modifier is run with a placeholder for the tensor that it changes (`Changed`). Nodes without the placeholder are evaluated, as are those that
ask only for its shape or type, so that positions, slopes and masks become arrays whichever way a graph computes them. On the placeholder:

    Add, Sub          an array that is added                   Mul, Div     a factor
    Tanh              a tanh, which between factors is a softcap: cap · tanh(s / cap)
    Where             a mask, if what it puts in place of hidden scores is −∞
    Identity, Cast    nothing, if the type stays

Anything else, and masks ahead of a softcap (which would make −∞ a finite −cap), cannot be read: `evaluate` runs such a graph in ONNX's
reference evaluator, on the whole tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import GraphProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from regard.onnx.node import Array

# Operators that need no more than the shape or the type of these inputs.
_ASKS = {"Shape": (0,), "Size": (0,), "CastLike": (1,)}


@dataclass(frozen=True)
class Step:
    """One change of the tensor; `operand` broadcasts to it, and a tanh has none."""

    kind: Literal["add", "multiply", "tanh", "mask"]
    operand: Array | None = None


@dataclass(frozen=True)
class Changed:
    """The placeholder, and what was done to it."""

    steps: tuple[Step, ...] = ()

    def then(self, kind: Literal["add", "multiply", "tanh", "mask"], operand: Array | None = None) -> Changed:
        """One step more."""
        return Changed((*self.steps, Step(kind, operand)))


class Unreadable(Exception):
    """The graph does what no step says."""


@dataclass(frozen=True)
class Modifier:
    """A graph `tensor → tensor`, with what it may take from around it."""

    name: str
    graph: GraphProto
    opsets: Mapping[str, int]
    scope: Mapping[str, Array]

    def __post_init__(self) -> None:
        if len(self.graph.input) != 1 or len(self.graph.output) != 1:
            raise ValueError(
                f"{self.name} has {len(self.graph.input)} inputs and {len(self.graph.output)} outputs and must have one of each"
            )

    def evaluate(self, tensor: Array) -> Array:
        """The graph on a tensor, by ONNX's reference evaluator. Raises ValueError where the shape or the type changes."""
        graph = GraphProto()
        graph.CopyFrom(self.graph)
        around = {name: self.scope[name] for name in _free_names(graph) if name in self.scope}
        graph.input.extend(_formal(name, value) for name, value in around.items())
        (changed,) = _reference(graph, self.opsets, {self.graph.input[0].name: tensor, **around})
        if changed.shape != tensor.shape or changed.dtype != tensor.dtype:
            got, needed = (f"{x.dtype} {list(x.shape)}" for x in (changed, tensor))
            raise ValueError(f"{self.name} returns {got} and must return {needed}, as it was given")
        return changed

    def steps(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Step, ...]:
        """The graph read as steps for a tensor of this shape and type. Raises `Unreadable`."""
        if self.graph.sparse_initializer:
            raise Unreadable
        values: dict[str, Array | Changed] = dict(self.scope)
        values.update({constant.name: numpy_helper.to_array(constant) for constant in self.graph.initializer})
        values[self.graph.input[0].name] = Changed()
        for node in self.graph.node:
            results = self._read(node, [values[name] if name else None for name in node.input], shape, dtype)
            values.update(zip(node.output, results))
        changed = values[self.graph.output[0].name]
        if not isinstance(changed, Changed):
            raise Unreadable
        return changed.steps

    def _read(
        self, node: NodeProto, operands: list[Array | Changed | None], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> list[Array | Changed]:
        """The outputs of one node."""
        asked = _ASKS.get(node.op_type, ())
        empty = np.broadcast_to(dtype.type(0), shape)
        known = [empty if i in asked and isinstance(x, Changed) else x for i, x in enumerate(operands)]
        if any(isinstance(x, Changed) for x in known):
            return [_change(node, known, shape, dtype)]
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise Unreadable
        feeds = {name: value for name, value in zip(node.input, known) if name}
        return list(_reference(node, self.opsets, feeds))


def _change(node: NodeProto, operands: list[Array | Changed | None], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Changed:
    """What a node does to the placeholder, which is among its operands."""
    if node.domain not in ("", "ai.onnx"):
        raise Unreadable
    match (node.op_type, *operands):
        case ("Identity", Changed() as tensor):
            return tensor
        case ("Cast", Changed() as tensor) if _target(node) == dtype:
            return tensor
        case ("CastLike", Changed() as tensor, np.ndarray() as like) if like.dtype == dtype:
            return tensor
        case ("Tanh", Changed() as tensor):
            return tensor.then("tanh")
        case ("Add", Changed() as tensor, np.ndarray() as x) | ("Add", np.ndarray() as x, Changed() as tensor):
            return tensor.then("add", _fitting(x, shape))
        case ("Sub", Changed() as tensor, np.ndarray() as x):
            return tensor.then("add", _fitting(-x, shape))
        case ("Mul", Changed() as tensor, np.ndarray() as x) | ("Mul", np.ndarray() as x, Changed() as tensor):
            return tensor.then("multiply", _fitting(x, shape))
        case ("Div", Changed() as tensor, np.ndarray() as x):
            return tensor.then("multiply", _fitting(1 / x.astype(np.float64), shape))
        case ("Where", np.ndarray() as seen, Changed() as tensor, np.ndarray() as other) if np.isneginf(other).all():
            return tensor.then("mask", _fitting(seen, shape))
        case ("Where", np.ndarray() as hidden, np.ndarray() as other, Changed() as tensor) if np.isneginf(other).all():
            return tensor.then("mask", _fitting(~hidden, shape))
    raise Unreadable


def _fitting(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` with a dimension for each of `shape`, to which it must broadcast."""
    try:
        fits = np.broadcast_shapes(x.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise Unreadable
    return x.reshape((1,) * (len(shape) - x.ndim) + x.shape)


def _target(node: NodeProto) -> np.dtype[Any]:
    """The type that a Cast names."""
    return helper.tensor_dtype_to_np_dtype(next(attribute.i for attribute in node.attribute if attribute.name == "to"))


def _reference(proto: GraphProto | NodeProto, opsets: Mapping[str, int], feeds: Mapping[str, Any]) -> list[Array]:
    """The outputs of a graph or a node, by ONNX's reference evaluator."""
    return list(ReferenceEvaluator(proto, opsets=dict(opsets)).run(None, dict(feeds)))


def _free_names(graph: GraphProto) -> list[str]:
    """Names that a graph uses, or graphs within it, and does not define."""
    defined = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    defined.update(value.values.name for value in graph.sparse_initializer)
    free: dict[str, None] = {}
    for node in graph.node:
        inner = [name for a in node.attribute for g in (*a.graphs, *([a.g] if a.HasField("g") else [])) for name in _free_names(g)]
        free.update({name: None for name in (*node.input, *inner) if name and name not in defined})
        defined.update(node.output)
    free.update({value.name: None for value in graph.output if value.name not in defined})
    return list(free)


def _formal(name: str, value: Array) -> ValueInfoProto:
    kind: TypeProto = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    return helper.make_value_info(name, kind)
