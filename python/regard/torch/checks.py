"""What every differentiable function asks of its tensors, and what it raises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_unpack: Any = forward_ad.unpack_dual

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class ArgumentError(ValueError, RuntimeError):
    """A value that cannot be; also a `RuntimeError`, which PyTorch raises for the same."""


class ArgumentTypeError(TypeError, RuntimeError):
    """A type that cannot be; also a `RuntimeError`, which PyTorch raises for the same."""


def check_tensors(**tensors: Any) -> None:
    """Refuses, by name, what is no tensor of floats on the CPU, or of another type than the first."""
    (first, leader), *_ = tensors.items()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is of type {type(tensor).__name__} and must be a torch.Tensor")
        check_device(name, tensor)
        if isinstance(leader, Tensor) and tensor.device != leader.device:
            raise ArgumentError(f"{name} is on {tensor.device} and {first} on {leader.device}: they must be on one device")
        if tensor.dtype not in DTYPES:
            raise ArgumentTypeError(f"{name} is {tensor.dtype} and must be float32, float16 or bfloat16")
        if tensor.dtype != leader.dtype:
            raise ArgumentTypeError(f"{name} is {tensor.dtype} and {first} is {leader.dtype}: they must have one type")


def check_device(name: str, tensor: Tensor) -> None:
    """Refuses a tensor whose numbers are elsewhere than in the CPU's memory, or not laid out by strides."""
    if tensor.device.type not in ("cpu", "meta"):
        raise ArgumentError(f"{name} is on {tensor.device} and must be on the CPU")
    if tensor.layout not in (torch.strided, torch.jagged):
        raise ArgumentError(f"{name} has the layout {tensor.layout} and must be strided")


def refuse_forward_mode(*tensors: Tensor | None) -> None:
    """Refuses tensors that carry tangents, which would otherwise be lost without a word."""
    if torch.compiler.is_compiling() or getattr(forward_ad, "_current_level", -1) < 0:
        return
    if any(tensor is not None and _unpack(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError("regard has no forward-mode derivatives (jvp): use reverse mode, or PyTorch's own attention")


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether tensors are memory that can be read now: no trace, no mode, no subclass."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    plain = (Tensor, torch.nn.Parameter)
    return all(tensor is None or (type(tensor) in plain and tensor.device.type == "cpu") for tensor in tensors)


def under_autocast(*tensors: Any) -> tuple[Any, ...]:
    """The tensors, and what is none, as `torch.autocast("cpu")` wants the arguments of a matrix product: in its type, but for float64."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    to = torch.get_autocast_dtype("cpu")
    return tuple(
        tensor.to(to) if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor
        for tensor in tensors
    )
