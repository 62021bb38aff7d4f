"""Random attention problems against PyTorch's own in MATH mode and float64, and its errors: `python torch_suite.py [cases] [seed]`.

Every case draws types, shapes, heads, masks, strides and a scale, and compares the output and all gradients of
`regard.torch.scaled_dot_product_attention` with those of PyTorch for the same numbers, each element within the tolerance that
`torch_oracle` derives; and the output of `regard.scaled_dot_product_attention`, which records nothing.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch_oracle
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import regard
import regard.torch

torchs = torch.nn.functional.scaled_dot_product_attention

LENGTHS = (1, 2, 3, 5, 8, 16, 17, 31, 33, 63, 64, 65, 100, 130)
DIMS = (1, 2, 3, 5, 8, 15, 16, 24, 32, 33, 40, 64, 72, 80, 96, 100, 128, 129, 160, 192, 255, 256)
MASKS = ("none", "causal", "bools", "bools with hidden rows", "numbers", "numbers with -inf")
STRIDES = ("contiguous", "heads last", "every other", "columns", "expanded")


@dataclass
class Case:
    """What one case was drawn to be, for its name."""

    dtype: str
    q: tuple[int, ...]
    k: tuple[int, ...]
    v: tuple[int, ...]
    gqa: bool
    mask: str
    mask_shape: tuple[int, ...] | None
    scale: float | None
    strides: tuple[str, ...]
    seed: int

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    rank = rng.choices((2, 3, 4, 5), (1, 2, 8, 2))[0]
    batch = tuple(rng.choice((1, 2, 3)) for _ in range(rank - 3))
    heads = rng.choice((1, 2, 3, 4, 6))
    gqa = rank > 2 and rng.random() < 0.3
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0]) if gqa else heads
    q_len = rng.choice(LENGTHS)
    kv_len = q_len if rng.random() < 0.4 else rng.choice(LENGTHS)
    dim = rng.choice(DIMS)
    value_dim = dim if rng.random() < 0.7 else rng.choice(DIMS)
    lead, kv_lead = ((*batch, heads), (*batch, kv_heads)) if rank > 2 else ((), ())
    leads = [lead, kv_lead, kv_lead]
    if not gqa and rng.random() < 0.2:
        leads = [_broadcast(rng, one) for one in leads]
    kind = rng.choice(MASKS)
    scores = (*(lead if gqa else torch.broadcast_shapes(*leads[:2])), q_len, kv_len)
    return Case(
        dtype=rng.choice(("float32", "float32", "bfloat16", "float16")),
        q=(*leads[0], q_len, dim),
        k=(*leads[1], kv_len, dim),
        v=(*leads[2], kv_len, value_dim),
        gqa=gqa,
        mask=kind,
        mask_shape=None if kind in ("none", "causal") else _mask_shape(rng, scores),
        scale=rng.choice((None, None, None, 1.0, 0.05, -0.3, 0.0)),
        strides=tuple(rng.choices(STRIDES, (4, 2, 1, 1, 1))[0] for _ in range(3)),
        seed=seed,
    )


def _broadcast(rng: random.Random, lead: tuple[int, ...]) -> tuple[int, ...]:
    """Leading dimensions of which some are 1 or missing."""
    kept = [1 if rng.random() < 0.3 else size for size in lead]
    return tuple(kept[rng.randint(0, len(kept)) if rng.random() < 0.3 else 0 :])


def _mask_shape(rng: random.Random, scores: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to the scores'."""
    *lead, rows, columns = scores
    shape = [1 if rng.random() < 0.4 else size for size in lead]
    shape = shape[rng.randint(0, len(shape)) :]
    return (*shape, 1 if rng.random() < 0.15 else rows, 1 if rng.random() < 0.05 else columns)


def strided(x: Tensor, how: str) -> Tensor:
    """The same numbers with other strides; "expanded" repeats the first entry of the first axis."""
    if how == "heads last" and x.ndim > 2:
        return x.transpose(-2, -3).contiguous().transpose(-2, -3)
    if how == "every other":
        return torch.stack((x, torch.full_like(x, torch.nan)), -1).flatten(-2)[..., ::2]
    if how == "columns":
        return x.mT.contiguous().mT
    if how == "expanded":
        return x[:1].expand(x.shape)
    return x


@dataclass
class Arrays:
    """The arrays of a case, in its own type."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    d_out: Tensor

    @classmethod
    def of(cls, case: Case) -> Arrays:
        """Those of a case."""
        generator = torch.Generator().manual_seed(case.seed)
        dtype = getattr(torch, case.dtype)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        q, k, v = (strided(normal(shape), how) for shape, how in zip((case.q, case.k, case.v), case.strides, strict=True))
        mask = None
        if case.mask_shape is not None:
            seen = torch.rand(case.mask_shape, generator=generator) < 0.7
            if case.mask == "bools with hidden rows":
                seen &= torch.rand((*case.mask_shape[:-1], 1), generator=generator) < 0.7
            numbers = torch.randn(case.mask_shape, generator=generator)
            numbers = numbers if case.seed % 2 else numbers.to(dtype)
            mask = seen if "bools" in case.mask else numbers.masked_fill(~seen, -torch.inf) if "inf" in case.mask else numbers
        lead = torch.broadcast_shapes(case.q[:-2], *(() if case.gqa else (case.k[:-2], case.v[:-2])))
        return cls(q, k, v, mask, case.mask == "causal", normal((*lead, case.q[-2], case.v[-1])))


def run(case: Case) -> list[str]:
    """What is wrong with a case: nothing, or the results that are out of tolerance."""
    arrays = Arrays.of(case)
    options = {"is_causal": arrays.causal, "scale": case.scale, "enable_gqa": case.gqa}
    names = ["q", "k", "v"] + ["mask"] * (arrays.mask is not None and arrays.mask.is_floating_point())
    own = {name: getattr(arrays, name).detach().requires_grad_() for name in names}
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in own.items()}
    bools = {} if "mask" in own else {"mask": arrays.mask}
    with sdpa_kernel(SDPBackend.MATH):
        expected = torchs(*_arguments(wide | bools), **options)
    expected_grads = torch.autograd.grad(expected, list(wide.values()), arrays.d_out.double())
    got = regard.torch.scaled_dot_product_attention(*_arguments(own | bools), **options)
    grads = torch.autograd.grad(got, list(own.values()), arrays.d_out)
    with torch.no_grad():
        plain = regard.scaled_dot_product_attention(*_arguments(own | bools), **options)
    problem = torch_oracle.Problem(
        *(wide[name].detach() for name in "qkv"),
        _numbers(arrays, case),
        arrays.d_out.double(),
        case.scale,
        case.gqa,
        getattr(torch, case.dtype),
    )
    tolerances = problem.tolerances()
    results = {"out": (got, expected), "out, recording nothing": (plain, expected)}
    results |= {f"d{name}": pair for name, pair in zip(names, zip(grads, expected_grads, strict=True), strict=True)}
    errors = {name: torch_oracle.worst(*pair, tolerances[name.split(",")[0]]) for name, pair in results.items()}
    wrong = [f"{name} is off by {error:.3g} tolerances" for name, error in errors.items() if error > 1]
    types = {got.dtype, plain.dtype, *(grad.dtype for grad in grads[:3])}
    return wrong + ([] if types == {arrays.q.dtype} else [f"results are of types {types}"])


def _arguments(tensors: dict[str, Any]) -> list[Any]:
    return [tensors["q"], tensors["k"], tensors["v"], tensors["mask"]]


def _numbers(arrays: Arrays, case: Case) -> Tensor | None:
    """The mask as numbers that are added."""
    mask = torch.ones(case.q[-2], case.k[-2], dtype=torch.bool).tril() if arrays.causal else arrays.mask
    if mask is None or mask.dtype != torch.bool:
        return None if mask is None else mask.double()
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)


def x(*shape: int, dtype: Any = torch.float32) -> Tensor:
    """Some numbers."""
    return torch.ones(shape, dtype=dtype)


QKV = (x(1, 2, 5, 8), x(1, 2, 5, 8), x(1, 2, 5, 8))
MASK = x(5, 5, dtype=torch.bool)

# What PyTorch's documentation and its checks refuse.
REFUSALS: dict[str, Callable[[Any], Any]] = {
    "a mask and is_causal": lambda f: f(*QKV, attn_mask=MASK, is_causal=True),
    "dropout_p above 1": lambda f: f(*QKV, dropout_p=1.5),
    "dropout_p below 0": lambda f: f(*QKV, dropout_p=-0.5),
    "query of 1 dimension": lambda f: f(x(8), x(5, 8), x(5, 8)),
    "all of 1 dimension": lambda f: f(x(8), x(8), x(8)),
    "key of another type": lambda f: f(QKV[0], QKV[1].bfloat16(), QKV[2]),
    "value of another type": lambda f: f(QKV[0], QKV[1], QKV[2].half()),
    "integers": lambda f: f(*(t.int() for t in QKV)),
    "bools": lambda f: f(*(t.bool() for t in QKV)),
    "key on another device": lambda f: f(QKV[0], QKV[1].to("meta"), QKV[2]),
    "key of another head dimension": lambda f: f(QKV[0], x(1, 2, 5, 7), QKV[2]),
    "value of another length": lambda f: f(x(5, 8), x(5, 8), x(4, 8)),
    "other heads without enable_gqa": lambda f: f(x(1, 4, 5, 8), *QKV[1:]),
    "heads that do not divide": lambda f: f(x(1, 5, 5, 8), *QKV[1:], enable_gqa=True),
    "more key than query heads": lambda f: f(x(1, 2, 5, 8), x(1, 4, 5, 8), x(1, 4, 5, 8), enable_gqa=True),
    "other batches": lambda f: f(x(3, 2, 5, 8), x(2, 2, 5, 8), x(2, 2, 5, 8)),
    "mask of another length": lambda f: f(*QKV, attn_mask=MASK[:4]),
    "mask of other heads": lambda f: f(*QKV, attn_mask=MASK.expand(1, 3, 5, 5)),
    "mask of float64": lambda f: f(*QKV, attn_mask=MASK.double()),
    "mask of bfloat16": lambda f: f(*QKV, attn_mask=MASK.bfloat16()),
    "mask of integers": lambda f: f(*QKV, attn_mask=MASK.int()),
    "query that is a list": lambda f: f([[1.0]], *QKV[1:]),
    "query that is None": lambda f: f(None, *QKV[1:]),
    "mask that is a list": lambda f: f(*QKV, attn_mask=[[True]]),
    "dropout_p that is a string": lambda f: f(*QKV, dropout_p="0.1"),
    "dropout_p that is None": lambda f: f(*QKV, dropout_p=None),
    "is_causal that is a string": lambda f: f(*QKV, is_causal="yes"),
    "scale that is a string": lambda f: f(*QKV, scale="1"),
    "a missing value": lambda f: f(*QKV[:2]),
    "an unknown argument": lambda f: f(*QKV, causal=True),
}

# What PyTorch reads past the end of memory for, and regard refuses as PyTorch refuses the like.
UNSAFE: dict[str, Callable[[Any], Any]] = {"value shorter than key": lambda f: f(x(1, 2, 5, 8), x(1, 2, 5, 8), x(1, 2, 3, 8))}


def raised(call: Callable[[Any], Any], function: Any) -> BaseException | None:
    """What a function raises."""
    try:
        call(function)
    except Exception as error:  # noqa: BLE001  # whatever it raises is the answer
        return error
    return None


def refusals() -> list[str]:
    """The errors of PyTorch's that are none of regard's, or of another type."""
    wrong = []
    for name, call in (REFUSALS | UNSAFE).items():
        expected = RuntimeError() if name in UNSAFE else raised(call, torchs)
        assert expected is not None, f"PyTorch does not refuse {name}"
        for function in (regard.torch.scaled_dot_product_attention, regard.scaled_dot_product_attention):
            got = raised(call, function)
            if not isinstance(got, type(expected)):
                wrong.append(f"{name}: PyTorch raises {type(expected).__name__}, {function.__module__} {got!r}")
                break
    return wrong


def main(cases: int = 600, seed: int = 0) -> int:
    """Runs everything; the exit status."""
    torch.set_num_threads(1)  # problems are small: handing them out takes longer
    start = time.monotonic()
    failed = 0
    for i in range(seed, seed + cases):
        case = draw(i)
        try:
            wrong = run(case)
        except Exception as error:  # noqa: BLE001  # the case has failed, and the others go on
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            failed += 1
            print(f"FAILED {case}: {'; '.join(wrong)}")
    unlike = refusals()
    print("\n".join(f"FAILED refusal: {one}" for one in unlike), end="\n" if unlike else "")
    print(f"PyTorch SDPA, MATH mode in float64 as reference, forward and gradients, {time.monotonic() - start:.0f} s")
    print(f"refusals: {len(REFUSALS | UNSAFE) - len(unlike)}/{len(REFUSALS | UNSAFE)}")
    print(f"{cases - failed}/{cases}")
    return 1 if failed or unlike else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
