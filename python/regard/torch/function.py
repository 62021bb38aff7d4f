"""Differentiable functions of native pairs: a forward pass, and the gradients of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tensors = Sequence["Tensor | None"]


@dataclass(frozen=True)
class Formula:
    """A function `outputs = compute(inputs, options)` of tensors, with its derivative.

    `derive(inputs, outputs, d_outputs, wanted, options)` gives the gradient of `Σ d_outputs · outputs` for every input that is wanted,
    in its type, and None for the others; of the outputs in `constant` there is none. `name` is how errors call the function.
    """

    name: str
    compute: Callable[[Tensors, dict[str, Any]], tuple[Tensor, ...]]
    derive: Callable[[Tensors, Tensors, Tensors, Sequence[bool], dict[str, Any]], tuple[Tensor | None, ...]]
    constant: tuple[int, ...] = ()

    def second_derivative(self) -> NotImplementedError:
        """What asking for a second derivative raises."""
        return NotImplementedError(
            f"{self.name} has a first derivative and no second: use torch's own operators to differentiate twice"
        )


def apply(formula: Formula, options: dict[str, Any], inputs: Tensors) -> tuple[Tensor, ...]:
    """The outputs of a formula, differentiable, also by `torch.func`."""
    # The form that `torch.func` needs inspects its own signature at every call, which takes as long as a small attention.
    if torch._C._are_functorch_transforms_active():
        outputs: tuple[Tensor, ...] = Transformed.apply(formula, options, *inputs)
    elif torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
        outputs = Plain.apply(formula, options, *inputs)
    else:
        outputs = formula.compute(inputs, options)
    return outputs


class Plain(torch.autograd.Function):
    """The outputs of a formula: `Plain.apply(formula, options, *inputs)`."""

    @staticmethod
    def forward(ctx: Any, formula: Formula, options: dict[str, Any], *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Computes, and keeps inputs and outputs: what a pass makes on its way is computed again."""
        outputs = formula.compute(inputs, options)
        _keep(ctx, (formula, options, *inputs), outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Nothing for the formula and the options, and the gradients of the inputs."""
        return _backward(ctx, d_outputs)


class Transformed(torch.autograd.Function):
    """As `Plain`, in the form that `torch.func` asks for."""

    @staticmethod
    def forward(formula: Formula, options: dict[str, Any], *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Computes."""
        return formula.compute(inputs, options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keeps inputs and outputs."""
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Nothing for the formula and the options, and the gradients of the inputs."""
        return _backward(ctx, d_outputs)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        """One after the other."""
        return one_by_one(Transformed.apply, info, in_dims, args)


def _keep(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    ctx.formula, ctx.options, *tensors = inputs
    ctx.save_for_backward(*tensors, *outputs)
    ctx.mark_non_differentiable(*(outputs[i] for i in ctx.formula.constant))
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, d_outputs: Tensors) -> tuple[Tensor | None, ...]:
    _, _, *wanted = ctx.needs_input_grad
    if all(d_output is None for d_output in d_outputs):
        return (None, None, *(None for _ in wanted))
    saved = ctx.saved_tensors
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return (None, None, *Gradients.apply(ctx.formula, ctx.options, tuple(wanted), *saved, *d_outputs))
    return (None, None, *ctx.formula.derive(*split((*saved, *d_outputs), len(wanted)), wanted, ctx.options))


class Gradients(torch.autograd.Function):
    """The gradients of a formula's inputs, `Gradients.apply(formula, options, wanted, *inputs, *outputs, *d_outputs)`."""

    @staticmethod
    def forward(formula: Formula, options: dict[str, Any], wanted: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Any, ...]:
        """Computes."""
        return formula.derive(*split(tensors, len(wanted)), wanted, options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keeps whose derivative is asked for."""
        ctx.formula = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor | None) -> Any:
        """Raises `NotImplementedError`."""
        raise ctx.formula.second_derivative()

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        """One after the other."""
        return one_by_one(Gradients.apply, info, in_dims, args)


def split(tensors: Tensors, inputs: int) -> tuple[Tensors, Tensors, Tensors]:
    """Inputs, outputs and the gradients of outputs, of which there are as many."""
    outputs = (len(tensors) - inputs) // 2
    return tensors[:inputs], tensors[inputs : inputs + outputs], tensors[inputs + outputs :]


def one_by_one(call: Callable[..., tuple[Any, ...]], info: Any, in_dims: Any, args: Any, options: Any = None) -> tuple[Any, Any]:
    """`torch.vmap` of a function whose arguments have no room for one more batch: a call for each, and the results stacked."""
    if info.batch_size == 0:
        raise ValueError("vmap over a dimension of size 0 has no result to take a shape from")
    leaves, spec = pytree.tree_flatten(list(args))
    dims = pytree.tree_leaves(list(in_dims), is_leaf=lambda dim: dim is None)
    results = []
    for i in range(info.batch_size):
        one = [leaf if dim is None else leaf.select(dim, i) for leaf, dim in zip(leaves, dims, strict=True)]
        results.append(call(*pytree.tree_unflatten(one, spec), **(options or {})))
    stacked = tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, tuple(None if part is None else 0 for part in stacked)
