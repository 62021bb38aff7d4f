"""Formulas as operators of PyTorch's dispatcher, `regard::name` and `regard::name_backward`: what compilers and fake tensors see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .function import Formula, Tensors, one_by_one, split

LIBRARY = torch.library.Library("regard", "FRAGMENT")  # type: ignore[no-untyped-call]

Unpack = Callable[..., tuple[Tensors, dict[str, Any]]]


def register(
    name: str,
    formula: Formula,
    *,
    inputs: str,
    constants: str,
    outputs: str,
    fake: Callable[..., tuple[Tensor, ...]],
    others: str = "",
    unpack: Unpack | None = None,
) -> None:
    """Defines a pair of operators for a formula.

    `inputs`, `others` (tensors without a gradient), `constants` and `outputs` are parts of the operators' schemas. `fake` returns empty
    tensors of the outputs' shapes; `unpack` makes inputs and options of the formula out of the operator's arguments.
    """
    counted = len(inputs.split(",")), len(outputs.split(","))
    unpack = unpack or _all_of(counted[0])
    tensors = f"{inputs}, {others}" if others else inputs
    _define(name, f"({tensors}, *, {constants}) -> ({outputs})", _forward(formula, unpack), fake)
    _define(
        f"{name}_backward",
        f"({tensors.replace('=None', '')}, {outputs}, {_optional(outputs)}, *, {constants}, bool[] wanted) -> ({_gradients_of(inputs)})",
        _derivative(formula, unpack, counted),
        _derivative_fake,
    )
    _differentiate(name, formula, counted)


def _all_of(inputs: int) -> Unpack:
    """For operators whose tensors are all inputs of the formula; the dispatcher leaves out those that are defaults."""

    def unpack(*given: Tensor | None, **options: Any) -> tuple[Tensors, dict[str, Any]]:
        return (*given, *(None,) * (inputs - len(given))), options

    return unpack


def _optional(outputs: str) -> str:
    """The gradients of the outputs, which may be missing: `Tensor out` becomes `Tensor? d_out`."""
    return outputs.replace("Tensor ", "Tensor? d_")


def _gradients_of(inputs: str) -> str:
    """The gradients of the inputs: `Tensor? bias=None` becomes `Tensor dbias`."""
    names = (one.split("=")[0].split()[-1] for one in inputs.split(","))
    return ", ".join(f"Tensor d{name}" for name in names)


def _define(name: str, schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    qualified = f"regard::{name}"

    def vmap(info: Any, in_dims: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        return one_by_one(getattr(torch.ops.regard, name), info, in_dims, args, options)

    torch.library.define(qualified, schema, lib=LIBRARY, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, "cpu", kernel, lib=LIBRARY)
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_vmap(qualified, vmap, lib=LIBRARY)


def _forward(formula: Formula, unpack: Unpack) -> Callable[..., tuple[Tensor, ...]]:
    def kernel(*tensors: Tensor | None, **constants: Any) -> tuple[Tensor, ...]:
        return formula.compute(*unpack(*tensors, **constants))

    return kernel


def _derivative(formula: Formula, unpack: Unpack, counted: tuple[int, int]) -> Callable[..., tuple[Tensor, ...]]:
    def kernel(*tensors: Tensor | None, wanted: list[bool], **constants: Any) -> tuple[Tensor, ...]:
        before = len(tensors) - 2 * counted[1]
        inputs, options = unpack(*tensors[:before], **constants)
        _, outputs, d_outputs = split(tensors, before)
        grads = formula.derive(inputs, outputs, d_outputs, wanted, options)
        return tuple(_absent(tensors[0]) if grad is None else grad for grad in grads)

    return kernel


def _derivative_fake(*tensors: Tensor | None, wanted: list[bool], **_: Any) -> tuple[Tensor, ...]:
    """Shapes: as the inputs whose gradients they are."""
    pairs = zip(tensors, wanted, strict=False)
    return tuple(_absent(tensors[0]) if tensor is None or not want else tensor.new_empty(tensor.shape) for tensor, want in pairs)


def _absent(like: Tensor | None) -> Tensor:
    """What stands for a gradient that nobody wants: operators return no None."""
    assert like is not None
    return like.new_empty(0)


def _differentiate(name: str, formula: Formula, counted: tuple[int, int]) -> None:
    def setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output)
        ctx.constants = keyword_only_inputs
        ctx.mark_non_differentiable(*(output[i] for i in formula.constant))
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        nothing = (None,) * (len(saved) - counted[1])
        if all(d_output is None for d_output in d_outputs):
            return nothing
        # Arguments that were left out are not counted.
        wanted = [*ctx.needs_input_grad, *(False for _ in saved)][: counted[0]]
        grads = getattr(torch.ops.regard, f"{name}_backward")(*saved, *d_outputs, **ctx.constants, wanted=wanted)
        return (*(grad if want else None for grad, want in zip(grads, wanted, strict=True)), *nothing[counted[0] :])

    def refuse(_ctx: Any, *_grads: Tensor) -> Any:
        raise formula.second_derivative()

    torch.library.register_autograd(f"regard::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    torch.library.register_autograd(f"regard::{name}_backward", refuse, lib=LIBRARY)
