"""The backend: ONNX's interface (`onnx.backend.base`) over graphs of the operators that regard runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, checker, defs, helper, numpy_helper
from onnx.backend.base import Backend as Base
from onnx.backend.base import BackendRep
from onnx.onnx_cpp2py_export.checker import CheckerContext

from regard.onnx.node import Array, Node, type_name
from regard.onnx.operators import OPERATORS


class Model(BackendRep):
    """A model that is ready to run, as often as one likes: what `Backend.prepare` returns."""

    def __init__(self, model: ModelProto) -> None:
        """Raises `UnsupportedOperator` (a NotImplementedError) for the first node that the backend does not run."""
        graph = model.graph
        if graph.sparse_initializer:
            raise NotImplementedError(f"sparse initializer {graph.sparse_initializer[0].values.name!r} is not supported")
        opsets = {"" if opset.domain == "ai.onnx" else opset.domain: opset.version for opset in model.opset_import}
        self._nodes = [Node(node, opsets, OPERATORS) for node in graph.node]
        self._constants = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
        self._formals = {value.name: value for value in graph.input}
        self._required = [name for name in self._formals if name not in self._constants]
        self._outputs = [value.name for value in graph.output]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The graph's outputs, in its order.

        `inputs`: an array for each input that has no initializer, in the graph's order (one alone needs no list), or a mapping by name,
        which may replace initializers that are inputs too.
        """
        _refuse_options(kwargs)
        scope = {**self._constants, **self._named(inputs)}
        for node in self._nodes:
            node.run(scope)
        return tuple(scope[name] for name in self._outputs)

    def _named(self, inputs: Any) -> dict[str, Array]:
        if not isinstance(inputs, Mapping):
            inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(inputs) != len(self._required):
                raise ValueError(f"inputs has {len(inputs)} arrays and the model needs {len(self._required)}: {self._required}")
            inputs = dict(zip(self._required, inputs))
        missing = [name for name in self._required if name not in inputs]
        unknown = [name for name in inputs if name not in self._formals]
        if missing or unknown:
            raise ValueError(f"inputs must be named {list(self._formals)}: {missing} are missing, {unknown} are not the model's")
        return {name: _checked(np.asarray(value), self._formals[name]) for name, value in inputs.items()}


class Backend(Base):
    """Runs ONNX models whose nodes are attention operators on the CPU (`regard.onnx` lists them)."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` would take the model, as far as its operators and the device decide."""
        _refuse_options(kwargs)
        try:
            Model(model)
        except NotImplementedError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Model:
        """A model that is ready to run.

        Raises `UnsupportedOperator` (a NotImplementedError) for operators that are not regard's, ValueError for other devices than the
        CPU, and `onnx.checker.ValidationError` for models that are not ONNX.
        """
        _refuse_options(kwargs)
        cls._check_device(device)
        prepared = Model(model)
        checker.check_model(model)
        return prepared

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Array, ...]:
        """`prepare`, then `run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The outputs that a single node names.

        `inputs`: an array for each input that the node names. `opset_version`: of the default domain, the newest where it is not given.
        `outputs_info`: types and shapes that the outputs must turn out to have.
        """
        opsets = {"": kwargs.pop("opset_version", defs.onnx_opset_version())}
        _refuse_options(kwargs)
        cls._check_device(device)
        if node.domain not in ("", "ai.onnx"):
            opsets[node.domain] = max((s.since_version for s in defs.get_all_schemas() if s.domain == node.domain), default=1)
        ready = Node(node, opsets, OPERATORS)
        context = CheckerContext()
        context.ir_version, context.opset_imports = onnx.IR_VERSION, opsets
        checker.check_node(node, context)
        names = [name for name in node.input if name]
        arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(arrays) != len(names):
            raise ValueError(f"inputs has {len(arrays)} arrays and the node names {len(names)}: {names}")
        scope = {name: np.asarray(value) for name, value in zip(names, arrays)}
        ready.run(scope)
        outputs = tuple(scope[name] for name in node.output if name)
        _check_outputs(outputs, outputs_info)
        return outputs

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """`"CPU"`, with or without a number."""
        return device.partition(":")[0] == "CPU"

    @classmethod
    def _check_device(cls, device: str) -> None:
        if not cls.supports_device(device):
            raise ValueError(f"device is {device!r} and must be 'CPU'")


def _refuse_options(kwargs: Mapping[str, Any]) -> None:
    """ONNX's runner hands its own tolerances to `prepare`; nothing else has a meaning here."""
    unknown = sorted(set(kwargs) - {"rtol", "atol"})
    if unknown:
        raise TypeError(f"option {unknown[0]!r} is not one that regard.onnx has")


def _checked(value: Array, formal: ValueInfoProto) -> Array:
    """`value`, of the type that the model declares for it."""
    number = formal.type.tensor_type.elem_type
    if number and value.dtype != helper.tensor_dtype_to_np_dtype(number):
        declared = type_name(helper.tensor_dtype_to_np_dtype(number))
        raise TypeError(f"input {formal.name!r} is {type_name(value.dtype)} and the model declares {declared}")
    return value


def _check_outputs(outputs: Sequence[Array], info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None) -> None:
    got = [(output.dtype, output.shape) for output in outputs]
    if info is not None and got != [(np.dtype(dtype), tuple(shape)) for dtype, shape in info]:
        raise ValueError(f"outputs_info is {list(info)} and the outputs have {got}")
