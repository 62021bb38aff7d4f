"""One node of a graph: its schema, its attributes, and the call of its operator with values."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, defs, helper

Array = np.ndarray[Any, np.dtype[Any]]


class UnsupportedOperator(NotImplementedError, unittest.SkipTest):
    """An operator, or a version of one, that this backend does not run; ONNX's runner counts its tests as skipped, as unittest does."""


@dataclass(frozen=True)
class Call:
    """What an operator is given: everything by the names of its schema, as its version defines it."""

    version: int
    """The opset that defined this form of the operator."""
    inputs: Mapping[str, Array]
    """Those that are there."""
    attributes: Mapping[str, Any]
    """Those that are set or have a default."""
    outputs: frozenset[str]
    """Those that are wanted."""
    opsets: Mapping[str, int]
    """The model's version of each domain, for graphs among the attributes."""
    scope: Mapping[str, Array]
    """Every value of the outer graph so far, by its name there, for the same graphs."""


@dataclass(frozen=True)
class Operator:
    """A function of a call to its outputs by name, and the opsets whose definitions it follows."""

    run: Callable[[Call], Mapping[str, Array]]
    versions: tuple[int, ...]


class Node:
    """A node that is ready to run.

    Raises `UnsupportedOperator` where `operators` has no entry for it, ValueError where its attributes are not its schema's.
    """

    def __init__(self, proto: NodeProto, opsets: Mapping[str, int], operators: Mapping[tuple[str, str], Operator]) -> None:
        self._proto = proto
        self._opsets = opsets
        self._schema, self._operator = _resolve(proto, opsets, operators)
        self._attributes = _attributes(proto, self._schema)

    def run(self, scope: dict[str, Array]) -> None:
        """Takes its inputs from `scope` and puts its outputs there."""
        inputs = {formal.name: scope[name] for formal, name in zip(self._schema.inputs, self._proto.input) if name}
        _check(self._schema, inputs)
        outputs = {formal.name: name for formal, name in zip(self._schema.outputs, self._proto.output) if name}
        version, wanted = self._schema.since_version, frozenset(outputs)
        results = self._operator.run(Call(version, inputs, self._attributes, wanted, self._opsets, scope))
        scope.update({name: results[formal] for formal, name in outputs.items()})


def _resolve(
    proto: NodeProto, opsets: Mapping[str, int], operators: Mapping[tuple[str, str], Operator]
) -> tuple[defs.OpSchema, Operator]:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    title = f"{proto.op_type} of domain {domain or 'ai.onnx'}"
    operator = operators.get((domain, proto.op_type))
    if operator is None:
        known = ", ".join(sorted(op_type for _, op_type in operators))
        raise UnsupportedOperator(f"{title} is not an operator that regard.onnx runs; those are {known}")
    if domain not in opsets:
        raise ValueError(f"the model imports no opset of domain {domain or 'ai.onnx'}, which its node {proto.op_type} needs")
    opset = opsets[domain]
    if opset < operator.versions[0] or not defs.has(proto.op_type, opset, domain):
        raise UnsupportedOperator(f"{title} is in opsets from {operator.versions[0]}, and the model has {opset}")
    schema = defs.get_schema(proto.op_type, opset, domain)
    if schema.since_version not in operator.versions:
        raise UnsupportedOperator(f"{title} in the form of opset {schema.since_version} is not one that regard.onnx knows")
    return schema, operator


def _attributes(proto: NodeProto, schema: defs.OpSchema) -> dict[str, Any]:
    """The attributes that are set, over the schema's defaults; bytes become text."""
    formals = schema.attributes
    protos = [formal.default_value for formal in formals.values() if formal.default_value.type != AttributeProto.UNDEFINED]
    for attribute in proto.attribute:
        if attribute.name not in formals:
            raise ValueError(f"{proto.op_type} has no attribute {attribute.name!r} in the form of opset {schema.since_version}")
        if formals[attribute.name].type != attribute.type:
            needed = str(formals[attribute.name].type).rpartition(".")[2]
            raise TypeError(f"attribute {attribute.name!r} of {proto.op_type} must be of type {needed}")
        protos.append(attribute)
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in protos}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _check(schema: defs.OpSchema, inputs: Mapping[str, Array]) -> None:
    """Every required input is there, each of a type that its schema allows, and of one type where they share a type's name."""
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    bound: dict[str, tuple[str, str]] = {}
    for formal in schema.inputs:
        if formal.name not in inputs:
            if formal.option == defs.OpSchema.FormalParameterOption.Single:
                raise ValueError(f"{schema.name} needs its input {formal.name!r}")
            continue
        got = type_name(inputs[formal.name].dtype)
        needed = allowed.get(formal.type_str, [formal.type_str])
        if got not in needed:
            raise TypeError(f"input {formal.name!r} of {schema.name} is {got} and must be {' or '.join(needed)}")
        first, its = bound.setdefault(formal.type_str, (formal.name, got))
        if got != its:
            raise TypeError(f"input {formal.name!r} of {schema.name} is {got} and must be {its}, as {first!r} is")


def type_name(dtype: np.dtype[Any]) -> str:
    """A numpy type as schemas write it: `tensor(float)`."""
    number = helper.np_dtype_to_tensor_dtype(dtype)
    return f"tensor({TensorProto.DataType.Name(number).lower()})"
