"""`MultiHeadAttention` against `torch.nn.MultiheadAttention` in float64, in all its options, for numpy and for tensors with gradients.

Tolerance: PyTorch's own float32 layer is off from float64 by roundings of the same sums in another order; ours may be off by 8 times the
largest of its errors, or by 8 units of the largest number where PyTorch was lucky.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import oracle
import pytest

import regard

torch = pytest.importorskip("torch")

N, L, S, E, H = 3, 5, 7, 24, 4
KDIM, VDIM = 10, 14
LAYERS = {
    "plain": {},
    "without biases": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True},
    "all": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    "other dims": {"kdim": KDIM, "vdim": VDIM, "batch_first": True},
    "other dims and all": {"kdim": KDIM, "vdim": VDIM, "add_bias_kv": True, "add_zero_attn": True, "bias": False},
}


def layer(name: str, **more: Any) -> Any:
    """A layer in evaluation whose every parameter is random: PyTorch begins with biases of zero."""
    torch.manual_seed(0)
    made = torch.nn.MultiheadAttention(E, H, **LAYERS[name], **more).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def inputs(module: Any, *, batched: bool = True) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((L, module.embed_dim), (S, module.kdim), (S, module.vdim))
    if not batched:
        return [torch.randn(length, dim, generator=generator) for length, dim in sizes]
    lead = (lambda length: (N, length)) if module.batch_first else (lambda length: (length, N))
    return [torch.randn(*lead(length), dim, generator=generator) for length, dim in sizes]


def masks(kind: str, *, batched: bool = True) -> dict[str, Any]:
    """Masks that leave every query some key: PyTorch gives NaN where none is left."""
    rng = np.random.default_rng(2)
    padding = np.zeros((N, S) if batched else (S,), bool)
    padding[..., -2:] = rng.random(padding.shape)[..., -2:] < 0.7
    rows = rng.random((L, S)) < 0.4
    heads = rng.random(((N if batched else 1) * H, L, S)) < 0.4
    rows[:, 0] = heads[:, :, 0] = False
    added = lambda shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    of = torch.from_numpy
    return {
        "none": {},
        "padding": {"key_padding_mask": of(padding)},
        "rows": {"attn_mask": of(rows)},
        "heads": {"attn_mask": of(heads)},
        "both": {"attn_mask": of(rows), "key_padding_mask": of(padding)},
        "floats": {"attn_mask": added((L, S)), "key_padding_mask": added(padding.shape)},
        "floats of heads": {"attn_mask": added(heads.shape)},
        "floats of −∞": {"attn_mask": torch.zeros(L, S).masked_fill(of(rows), -torch.inf)},
        "causal": {"attn_mask": torch.ones(L, S, dtype=torch.bool).triu(1), "is_causal": True},
    }[kind]


MASKS = ["none", "padding", "rows", "heads", "both", "floats", "floats of heads", "floats of −∞", "causal"]


def of_type(arguments: Any, dtype: Any) -> Any:
    """Floats of another type; bools and flags as they are."""
    if isinstance(arguments, dict):
        return {name: of_type(value, dtype) for name, value in arguments.items()}
    return arguments.to(dtype) if isinstance(arguments, torch.Tensor) and arguments.is_floating_point() else arguments


def as_numpy(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}


def agrees(got: Any, exact: Any, theirs: Any, what: str = "out") -> None:
    """`exact` is PyTorch's in float64, `theirs` its own float32."""
    got, exact, theirs = map(oracle.widened, (got, exact, theirs))
    assert got.shape == exact.shape, what
    tolerance = 8 * max(abs(theirs - exact).max(initial=0), 2.0**-24 * abs(exact).max(initial=0))
    assert abs(got - exact).max(initial=0) <= tolerance, f"{what} is off by {abs(got - exact).max()} and may be off by {tolerance}"


def compare(module: Any, xs: list[Any], options: dict[str, Any], calls: list[tuple[Any, Any]]) -> None:
    """Each `(layer, how arguments become its own)` against PyTorch's."""
    exact_module = copy.deepcopy(module).double()
    with torch.no_grad():
        exact = exact_module(*(x.double() for x in xs), **of_type(options, torch.float64))
        theirs = module(*xs, **options)
    for ours, convert in calls:
        with torch.no_grad():
            got = ours(*convert(dict(enumerate(xs))).values(), **convert(options))
        for what, *three in zip(("out", "weights"), got, exact, theirs):
            assert (three[0] is None) == (three[1] is None)
            if three[1] is not None:
                agrees(*three, what)


def both_kinds(module: Any, **flags: Any) -> list[tuple[Any, Any]]:
    return [
        (regard.MultiHeadAttention.from_torch(module, **flags), as_numpy),
        (regard.MultiHeadAttention.from_torch(module, **flags), dict),
    ]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_and_mask(name: str, mask: str) -> None:
    module = layer(name)
    compare(module, inputs(module), {**masks(mask), "need_weights": True}, both_kinds(module))


@pytest.mark.parametrize(("weights", "average"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("mask", ["none", "both", "floats"])
@pytest.mark.parametrize("batched", [False, True])
def test_weights_and_texts_without_a_batch(batched: bool, mask: str, weights: bool, average: bool) -> None:
    for name in ("plain", "all"):
        module = layer(name)
        options = {**masks(mask, batched=batched), "need_weights": weights, "average_attn_weights": average}
        compare(module, inputs(module, batched=batched), options, both_kinds(module))


@pytest.mark.parametrize("name", LAYERS)
def test_from_a_state_dict(name: str) -> None:
    module = layer(name)
    flags = {"add_zero_attn": module.add_zero_attn, "batch_first": module.batch_first}
    arrays = {key: value.numpy() for key, value in module.state_dict().items()}
    for state, convert in itertools.product((module.state_dict(), arrays), (as_numpy, dict)):
        compare(module, inputs(module), masks("both"), [(regard.MultiHeadAttention.from_torch(state, H, **flags), convert)])


def test_self_attention_of_an_encoder() -> None:
    """In evaluation PyTorch takes its fused path here."""
    module = layer("plain", batch_first=True)
    x = inputs(module)[0]
    compare(module, [x, x, x], {"need_weights": False}, both_kinds(module))


@pytest.mark.parametrize("mask", ["none", "heads", "floats", "causal"])
@pytest.mark.parametrize("name", ["plain", "all", "other dims"])
def test_gradients(name: str, mask: str) -> None:
    module = layer(name)
    options = {**masks(mask), "average_attn_weights": False}

    def gradients(call: Any, owner: Any, dtype: Any) -> list[Any]:
        xs = [x.to(dtype).requires_grad_() for x in inputs(module)]
        given = of_type(options, dtype)
        floats = [x.requires_grad_() for x in given.values() if isinstance(x, torch.Tensor) and x.is_floating_point()]
        out, weights = call(*xs, **given)
        generator = torch.Generator().manual_seed(3)
        loss = sum((x * torch.randn(x.shape, generator=generator).to(dtype)).sum() for x in (out, weights))
        leaves = [*xs, *floats, *owner.parameters()]
        return list(torch.autograd.grad(loss, leaves))

    double = copy.deepcopy(module).double()
    exact, theirs = gradients(double, double, torch.float64), gradients(module, module, torch.float32)
    ours = gradients(regard.MultiHeadAttention.from_torch(module), module, torch.float32)
    for i, three in enumerate(zip(ours, exact, theirs)):
        agrees(*three, f"gradient {i}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: Any) -> None:
    module = layer("plain").to(dtype)
    xs = [x.to(dtype) for x in inputs(module)]
    compare(module, xs, of_type(masks("both"), dtype), [(regard.MultiHeadAttention.from_torch(module), dict)])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_query_without_keys_has_zeros(kind: str) -> None:
    """PyTorch gives NaN here where weights are asked for; regard's rule is zeros."""
    module = layer("plain", batch_first=True)
    ours, convert = both_kinds(module)[kind == "torch"]
    hidden = torch.zeros(L, S, dtype=torch.bool)
    hidden[2] = True
    with torch.no_grad():
        out, weights = ours(*convert(dict(enumerate(inputs(module)))).values(), **convert({"attn_mask": hidden}))
    assert not weights[:, 2].any()
    np.testing.assert_array_equal(out[:, 2], np.broadcast_to(module.out_proj.bias.detach(), (N, E)))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["plain", "all"])
def test_causal_without_a_mask(name: str, kind: str) -> None:
    module = layer(name)
    ours, convert = both_kinds(module)[kind == "torch"]
    xs = convert(dict(enumerate(inputs(module)))).values()
    mask = masks("causal")["attn_mask"]
    with torch.no_grad():
        short, long = ours(*xs, is_causal=True), ours(*xs, **convert({"attn_mask": mask}))
    for a, b in zip(short, long):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_dropout_drops_the_weights_that_are_returned(kind: str) -> None:
    module = layer("plain", batch_first=True)
    ours, convert = both_kinds(module)[kind == "torch"]
    xs = list(convert(dict(enumerate(inputs(module)))).values())
    with torch.no_grad():
        out, weights = ours(*xs, dropout=(0.5, 7), average_attn_weights=False)
        _, kept = ours(*xs, average_attn_weights=False)
        values = torch.nn.functional.linear(
            torch.as_tensor(xs[2]), *(x[2 * E :] for x in (module.in_proj_weight, module.in_proj_bias))
        )
        heads = torch.as_tensor(np.asarray(weights)) @ values.reshape(N, S, H, E // H).transpose(1, 2)
        expected = module.out_proj(heads.transpose(1, 2).reshape(N, L, E))
    dropped = np.asarray(weights == 0)
    assert 0.3 < dropped.mean() < 0.7
    np.testing.assert_allclose(np.asarray(weights)[~dropped], 2 * np.asarray(kept)[~dropped], rtol=1e-6)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)  # float32 sums of numbers of about 1


class TestRefusals:
    def state(self) -> dict[str, Any]:
        return dict(layer("plain").state_dict())

    @pytest.mark.parametrize(
        ("change", "heads", "error", "text"),
        [
            ({}, 5, ValueError, "num_heads"),
            ({}, 0, ValueError, "num_heads"),
            ({}, 2.0, TypeError, "num_heads"),
            ({}, None, TypeError, "num_heads"),
            ({"in_proj_weight": None}, H, ValueError, "q_proj_weight"),
            ({"out_proj.weight": None}, H, ValueError, "out_proj.weight"),
            ({"in_proj_bias": torch.zeros(3)}, H, ValueError, "in_proj_bias"),
            ({"bias_k": torch.zeros(1, 1, E)}, H, ValueError, "bias_v"),
            ({"bias_q": torch.zeros(1, 1, E)}, H, ValueError, "bias_q"),
        ],
    )
    def test_state_dicts(self, change: dict[str, Any], heads: Any, error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            regard.MultiHeadAttention.from_torch({**self.state(), **change}, heads)

    def test_what_is_no_layer(self) -> None:
        with pytest.raises(TypeError, match="module"):
            regard.MultiHeadAttention.from_torch(3, 4)

    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ({"query": np.zeros((L, N, E))}, TypeError, "query is float64"),
            ({"key": np.zeros((S, N, E), np.float16)}, TypeError, "key is float16"),
            ({"value": torch.zeros(S, N, E)}, TypeError, "value"),
            ({"query": [[0.0]]}, TypeError, "query"),
            ({"query": np.zeros((L, N, E + 1), np.float32)}, ValueError, "query"),
            ({"query": np.zeros((L, E), np.float32)}, ValueError, "key has 3 dimensions"),
            ({"query": np.zeros((1, L, N, E), np.float32)}, ValueError, "query has 4 dimensions"),
            ({"key": np.zeros((S + 1, N, E), np.float32)}, ValueError, "key"),
            ({"query": np.zeros((L, N + 1, E), np.float32)}, ValueError, "key"),
            ({"attn_mask": np.zeros((S, L), bool)}, ValueError, "attn_mask"),
            ({"attn_mask": np.zeros((N, L, S), bool)}, ValueError, "attn_mask"),
            ({"attn_mask": np.zeros((L, S), np.int64)}, TypeError, "attn_mask"),
            ({"attn_mask": torch.zeros(L, S)}, TypeError, "attn_mask"),
            ({"key_padding_mask": np.zeros(S, bool)}, ValueError, "key_padding_mask"),
            ({"key_padding_mask": [[True]]}, TypeError, "key_padding_mask"),
            ({"dropout": (1.5, 0)}, ValueError, "dropout"),
            ({"dropout": 0.5}, TypeError, "dropout"),
        ],
    )
    def test_calls(self, change: dict[str, Any], error: type[Exception], text: str) -> None:
        ours = regard.MultiHeadAttention.from_torch(layer("plain"))
        arguments = {name: x.numpy() for name, x in zip(("query", "key", "value"), inputs(layer("plain")))}
        with pytest.raises(error, match=text):
            ours(**{**arguments, **change})
