"""Models of one node for the tests of `regard.onnx`, and what ONNX says that they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

PREVIEW = "ai.onnx.preview"
Arrays = Mapping[str, "np.ndarray[Any, Any] | None"]


def node_model(op: str, opset: int, inputs: Arrays, outputs: list[str], **attributes: Any) -> ModelProto:
    """One node; an input of None is left out, as is an output of no name."""
    domain = PREVIEW if op == "FlexAttention" else ""
    names = [name if value is not None else "" for name, value in inputs.items()]
    node = helper.make_node(op, names, outputs, domain=domain, **{k: v for k, v in attributes.items() if v is not None})
    return graph_model([node], inputs, [name for name in outputs if name], opset)


def graph_model(nodes: list[Any], inputs: Arrays, outputs: list[str], opset: int, constants: Arrays | None = None) -> ModelProto:
    """Nodes in their order. Outputs are declared to be like the first input, as something has to be declared."""
    formals = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
        if value is not None
    ]
    first = formals[0].type.tensor_type
    ends = [helper.make_tensor_value_info(name, first.elem_type, [None] * len(first.shape.dim)) for name in outputs]
    kept = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items() if value is not None]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(PREVIEW, 1)]
    return helper.make_model(helper.make_graph(nodes, "model", formals, ends, kept), opset_imports=opsets)


def feeds(inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs that are there."""
    return {name: value for name, value in inputs.items() if value is not None}


def reference(model: ModelProto, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """ONNX's reference implementation."""
    return list(ReferenceEvaluator(model).run(None, feeds(inputs)))


def function_body(model: ModelProto, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """The function body of the schema of the model's only node, which is its definition, in primitive operators."""
    (node,) = model.graph.node
    opset = next(opset.version for opset in model.opset_import if opset.domain == node.domain)
    schema: Any = defs.get_schema(node.op_type, opset, node.domain)
    types = {value.name: value.type.SerializeToString() for value in model.graph.input}
    own = [types.get(name, TypeProto().SerializeToString()) for name in node.input]
    body = FunctionProto()
    version = schema.context_dependent_function_opset_versions[-1]
    body.ParseFromString(schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), own))
    assert body.node, f"{node.op_type} has no function body for these inputs"
    known = {opset.domain for opset in body.opset_import}
    body.opset_import.extend(opset for opset in model.opset_import if opset.domain not in known)
    named = {formal: inputs[name] for formal, name in zip(body.input, node.input) if name}
    wanted = [formal for formal, name in zip(body.output, node.output) if name]
    return list(ReferenceEvaluator(body).run(wanted, named, attributes={}))


def modifier(nodes: list[Any], dtype: int = TensorProto.FLOAT, **constants: Any) -> GraphProto:
    """A graph from `x` to `y`, both of four dimensions, with constants of the same type unless they are arrays."""
    ends = [helper.make_tensor_value_info(name, dtype, ["B", "H", "L", "S"]) for name in ("x", "y")]
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    arrays = {name: value if isinstance(value, np.ndarray) else np.array(value, kind) for name, value in constants.items()}
    kept = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    return helper.make_graph(nodes, "modifier", ends[:1], ends[1:], kept)
