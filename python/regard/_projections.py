"""The projections of multi-head attention: linear layers that compute for numpy arrays and for tensors of PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from regard._regard import PackedMatrix


def is_tensor(x: Any) -> bool:
    """Whether `x` is a tensor of PyTorch, without importing it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def as_numpy(x: Any) -> Any:
    """A float32 array over the numbers of an array or a tensor."""
    array = x.detach().float().numpy() if is_tensor(x) else np.asarray(x)
    return array.astype(np.float32, copy=False)


def as_tensor(x: Any, like: Any) -> Any:
    """A tensor of the type of `like`; `x` itself where it is one, so that its gradient finds it."""
    import torch

    return (x if is_tensor(x) else torch.from_numpy(np.ascontiguousarray(x))).to(like.dtype)


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Zeros of the library and type of `like`."""
    return like.new_zeros(shape) if is_tensor(like) else np.zeros(shape, like.dtype)


def broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` repeated to a shape, without a copy."""
    return x.expand(shape) if is_tensor(x) else np.broadcast_to(x, shape)


def joined(parts: list[Any], axis: int) -> Any:
    """Arrays or tensors one after the other."""
    if not is_tensor(parts[0]):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(parts, axis)


@dataclass
class Projection:
    """`x @ weight[rows].T + bias[rows]`."""

    weight: Any
    """`[outputs, inputs]`, of numpy or of PyTorch."""
    bias: Any | None = None
    rows: slice = field(default_factory=lambda: slice(None))

    @property
    def outputs(self) -> int:
        return len(range(*self.rows.indices(self.weight.shape[0])))

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    def __call__(self, x: Any) -> Any:
        """x `[.., inputs]`; `[.., outputs]`. Differentiable in x, weight and bias for tensors."""
        if not is_tensor(x):
            return self._packed(x, self._numpy_bias)
        from torch.nn.functional import linear

        return linear(x, as_tensor(self.weight, x)[self.rows], None if self.bias is None else as_tensor(self.bias, x)[self.rows])

    @cached_property
    def _packed(self) -> PackedMatrix:
        return PackedMatrix(as_numpy(self.weight)[self.rows])

    @cached_property
    def _numpy_bias(self) -> Any | None:
        return None if self.bias is None else np.ascontiguousarray(as_numpy(self.bias)[self.rows])


class StateDict:
    """The entries of an `nn.MultiheadAttention`'s state dict that nobody took yet."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._rest = {name: value for name, value in state.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._rest

    def take(self, name: str, *shape: int | None) -> Any:
        """The entry of that name, whose shape must be this; None stands for any size."""
        if name not in self._rest:
            raise ValueError(f"state dict has no {name!r}, which an nn.MultiheadAttention has")
        value = self._rest.pop(name)
        given = tuple(np.shape(value))
        if len(given) != len(shape) or any(need not in (None, size) for size, need in zip(given, shape)):
            needed = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} of the state dict has shape {list(given)} and needs [{needed}]")
        return value

    def take_if_there(self, name: str, *shape: int | None) -> Any | None:
        """As `take`, or None."""
        return self.take(name, *shape) if name in self else None

    def finish(self) -> None:
        """Refuses entries that no one took."""
        if self._rest:
            raise ValueError(f"state dict has {', '.join(map(repr, self._rest))}, which an nn.MultiheadAttention has not")


def of_state(state: StateDict, embed_dim: int) -> list[Projection]:
    """The projections of queries, keys and values: in one matrix, or in three where keys or values have sizes of their own."""
    bias = state.take_if_there("in_proj_bias", 3 * embed_dim)
    parts = [slice(i * embed_dim, (i + 1) * embed_dim) for i in range(3)]
    if "in_proj_weight" in state:
        weight = state.take("in_proj_weight", 3 * embed_dim, embed_dim)
        return [Projection(weight, bias, part) for part in parts]
    weights = [state.take(f"{name}_proj_weight", embed_dim, None) for name in "qkv"]
    return [Projection(weight, None if bias is None else bias[part]) for weight, part in zip(weights, parts)]
