"""`regard.torch` under `torch.compile`, `torch.export`, `torch.func` and fake tensors: the same numbers, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch_reference as reference
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_reference import assert_close, gradients

import regard
import regard.torch

attention = regard.torch.attention
L = 12
MASK = torch.rand(L, L, generator=torch.Generator().manual_seed(0)) < 0.7
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"causal": "upper_left"},
    "window": {"window": (3, None)},
    "mask": {"mask": [MASK, MASK.mT]},
    "documents": {"documents": [0, 5, L], "causal": "lower_right"},
    "documents of keys": {"documents": (torch.tensor([0, 5, L]), torch.tensor([0, 2, L]))},
    "blocks": {"blocks": (torch.tensor([[True, False], [True, True]]), 6, 6)},
    "scores": {"softcap": 2.0, "alibi": True, "scale": 0.5},
    "slopes": {"alibi": torch.tensor([0.5, 0.2, 0.1, 0.0])},
    "dropout": {"dropout": (0.3, 5)},
    "layout": {"layout": "blhd", "causal": "upper_left"},
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


def draw(length: int = L, *, layout: str = "bhld") -> dict[str, Any]:
    """q, k and v with fewer heads of k and v, and a bias and sinks."""
    tensors = {"q": torch.randn(2, 4, length, 8), "k": torch.randn(2, 2, length, 8), "v": torch.randn(2, 2, length, 6)}
    if layout == "blhd":
        tensors = {name: tensor.transpose(1, 2) for name, tensor in tensors.items()}
    return tensors | {"bias": torch.randn(4, length, length), "sinks": torch.randn(4)}


def same(call: Any, other: Any, tensors: dict[str, Any]) -> None:
    """Two functions with the same results and gradients, bit for bit: one computes with the other's kernels."""
    d_out = torch.randn_like(call(**tensors))
    a, b = gradients(call, tensors, d_out), gradients(other, tensors, d_out)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_attention_is_one_graph_with_the_same_bits(name: str) -> None:
    options = OPTIONS[name]

    def call(**tensors: Any) -> Any:
        return attention(**tensors, **options)

    same(torch.compile(call, fullgraph=True, backend="aot_eager"), call, draw(layout=options.get("layout", "bhld")))


def test_inductor() -> None:
    def call(q: Any, k: Any, v: Any, bias: Any, sinks: Any) -> Any:
        return attention(q * 2, k, v, bias=bias, sinks=sinks, causal="lower_right").transpose(1, 2) + 1

    same(torch.compile(call, fullgraph=True), call, draw())


def test_lengths_may_change_without_compiling_again() -> None:
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, causal="lower_right"), fullgraph=True, dynamic=True, backend=counter
    )
    for length in (5, 9, 17):
        q, k, v = list(draw(length).values())[:3]
        assert torch.equal(compiled(q, k, v), attention(q, k, v, causal="lower_right"))
    assert counter.frame_count == 1


def test_dropout_is_drawn_at_every_call_of_a_compiled_function() -> None:
    q = torch.randn(1, 2, 9, 8)
    compiled = torch.compile(lambda x: attention(x, x, x, dropout=0.5), fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    first, second = compiled(q), compiled(q)
    torch.manual_seed(1)
    assert torch.equal(first, compiled(q)) and not torch.equal(first, second)


def test_objects_break_the_graph_and_are_right() -> None:
    mask, score = regard.Causal.LOWER_RIGHT, regard.Softcap(2.0)

    def call(**tensors: Any) -> Any:
        return attention(**tensors, mask=mask, score=score) * 2

    same(torch.compile(call, backend="aot_eager"), call, draw())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="objects cannot be traced"):
        torch.compile(call, backend="aot_eager", fullgraph=True)(**draw())


def test_the_other_functions_compile() -> None:
    def sdpa(q: Any, k: Any, v: Any) -> Any:
        return regard.torch.scaled_dot_product_attention(q, k, v, attn_mask=MASK, enable_gqa=True)

    def linear(q: Any, k: Any, v: Any) -> Any:
        out, state = regard.torch.linear_attention(q, k, v, return_state=True)
        return torch.cat((out.flatten(), state.flatten()))

    def conv(x: Any, weight: Any, bias: Any) -> Any:
        return regard.torch.causal_conv(x, weight, bias, silu=True)

    tensors = {name: tensor for name, tensor in draw().items() if name in "qkv"}
    arrays = {"x": torch.randn(2, 3, 9), "weight": torch.randn(3, 1, 4), "bias": torch.randn(3)}
    for call, given in ((sdpa, tensors), (linear, tensors), (conv, arrays)):
        same(torch.compile(call, fullgraph=True, backend="aot_eager"), call, given)


def test_export() -> None:
    class Layer(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return attention(q, k, v, causal="upper_left")

    arguments = tuple(draw().values())[:3]
    program = torch.export.export(Layer(), arguments)
    assert "regard.attention" in str(program.graph)
    assert torch.equal(program.module()(*arguments), Layer()(*arguments))


def test_operators_keep_pytorchs_contracts() -> None:
    leaves = [tensor.requires_grad_() for tensor in draw().values()]
    torch.library.opcheck(torch.ops.regard.attention.default, tuple(leaves), {"causal": "lower_right"})
    q, k, v = (leaf.detach().requires_grad_() for leaf in leaves[:3])
    torch.library.opcheck(torch.ops.regard.linear_attention.default, (q, k, v))
    torch.library.opcheck(torch.ops.regard.causal_conv.default, (torch.randn(2, 3, 7, requires_grad=True), torch.randn(3, 1, 4)))


def test_second_derivatives_are_refused_of_operators_too() -> None:
    q = torch.randn(1, 2, 5, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.ops.regard.attention(q, q, q)[0].sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second"):
        grad.sum().backward()


def test_fake_tensors() -> None:
    with FakeTensorMode() as mode:
        q, k, v, bias, sinks = (mode.from_tensor(tensor).requires_grad_() for tensor in draw().values())
        out, lse = attention(q, k, v, bias=bias, sinks=sinks, return_lse=True)
        out.sum().backward()
    assert tuple(out.shape) == (2, 4, L, 6) and tuple(lse.shape) == (2, 4, L)
    assert bias.grad.shape == bias.shape and sinks.grad.shape == sinks.shape
    meta = torch.randn(1, 2, 5, 8, device="meta")
    assert regard.torch.scaled_dot_product_attention(meta, meta, meta).device.type == "meta"


# --- torch.func


def test_vmap() -> None:
    q, k = torch.randn(3, 2, 4, 9, 8), torch.randn(2, 9, 3, 8)
    masks = torch.rand(3, 9, 9) < 0.8

    def call(q: Any, k: Any, mask: Any) -> Any:
        return attention(q, k[:, None].expand(2, 2, 9, 8), k[:, None].expand(2, 2, 9, 8), mask=mask)

    got = torch.vmap(call, in_dims=(0, 2, 0))(q, k, masks)
    assert torch.equal(got, torch.stack([call(q[i], k[:, :, i], masks[i]) for i in range(3)]))


def test_vmap_draws_dropout_as_it_is_told_to() -> None:
    q = torch.randn(1, 2, 9, 8).expand(3, 1, 2, 9, 8)

    def call(x: Any) -> Any:
        return attention(x, x, x, dropout=0.5)

    same_seed = torch.vmap(call, randomness="same")(q)
    assert torch.equal(same_seed[0], same_seed[1])
    different = torch.vmap(call, randomness="different")(q)
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(call)(q)


def test_gradients_of_torch_func() -> None:
    x = torch.randn(3, 1, 2, 9, 8)

    def loss(x: Any) -> Any:
        return attention(x, x, x, mask=regard.Causal.UPPER_LEFT).square().sum()

    def truth(x: Any) -> Any:
        return reference.attention(x, x, x, visible=torch.ones(9, 9, dtype=torch.bool).tril()).square().sum()

    expected = torch.stack([torch.func.grad(truth)(one) for one in x.double()])
    assert_close(torch.func.grad(loss)(x[0]), expected[0])
    assert_close(torch.vmap(torch.func.grad(loss))(x), expected)
    assert_close(torch.func.vjp(loss, x[0])[1](torch.tensor(1.0))[0], expected[0])
    with pytest.raises(NotImplementedError, match="no second"):
        torch.func.grad(lambda x: torch.func.grad(loss)(x).sum())(x[0])


# --- nested tensors

LENGTHS = (3, 7, 1, 5)


def jagged(lengths: tuple[int, ...], heads: int, dim: int = 8) -> Any:
    """A nested tensor `[batch, ragged, heads, dim]`."""
    return torch.nested.nested_tensor([torch.randn(n, heads, dim) for n in lengths], layout=torch.jagged)


def each(call: Any, q: Any, k: Any, v: Any) -> list[Any]:
    """A function of each sequence, `[1, heads, length, dim]`, by itself."""
    return [call(*(x.transpose(0, 1)[None] for x in one)) for one in zip(q, k, v, strict=True)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_lengths", [LENGTHS, (2, 7, 9, 1)])
def test_nested_tensors_are_sequences_of_their_own(causal: bool, kv_lengths: tuple[int, ...]) -> None:
    q, k, v = jagged(LENGTHS, 4), jagged(kv_lengths, 2), jagged(kv_lengths, 2)
    if kv_lengths == LENGTHS:
        k, v = (torch.nested.nested_tensor_from_jagged(x.values(), q.offsets()) for x in (k, v))
    else:
        v = torch.nested.nested_tensor_from_jagged(v.values(), k.offsets())
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = regard.torch.scaled_dot_product_attention(*(x.transpose(1, 2) for x in leaves), is_causal=causal, enable_gqa=True)
    assert out.is_nested and out.layout == torch.jagged and out.shape == q.transpose(1, 2).shape
    grads = torch.autograd.grad(out.values().square().sum(), leaves)

    parts = [[one.double().requires_grad_() for one in x.unbind()] for x in (q, k, v)]
    shapes = [torch.ones(a, b, dtype=torch.bool) for a, b in zip(LENGTHS, kv_lengths, strict=True)]
    visible = iter([shape.tril() if causal else shape for shape in shapes])
    expected = each(lambda *x: reference.attention(*x, visible=next(visible)), *parts)
    for got, truth in zip(out.unbind(), expected, strict=True):
        assert_close(got, truth[0].detach())
    loss = sum(truth.square().sum() for truth in expected)
    for grad, of in zip(grads, parts, strict=True):
        assert_close(grad.values(), torch.cat(torch.autograd.grad(loss, of, retain_graph=True)))


def test_nested_tensors_have_the_options_that_make_sense() -> None:
    q, sinks = jagged(LENGTHS, 2).requires_grad_(), torch.randn(2, requires_grad=True)
    out, lse = attention(q, q, q, layout="blhd", window=(2, 0), softcap=3.0, alibi=True, sinks=sinks, return_lse=True)
    assert out.shape == q.shape and lse.shape == (2, sum(LENGTHS))
    slopes = torch.tensor([2.0**-4, 2.0**-8])
    expected = []
    for one in q.detach().double().unbind():
        x, n = one.transpose(0, 1)[None], len(one)
        visible = torch.ones(n, n, dtype=torch.bool).tril().triu(-2)
        expected.append(reference.attention(x, x, x, visible=visible, softcap=3.0, slopes=slopes, sinks=sinks.double())[0])
    assert_close(out.values(), torch.cat(expected, 1).transpose(0, 1).detach())
    out.values().sum().backward()
    assert sinks.grad is not None and q.grad.shape == q.shape


def test_compiled_nested_tensors() -> None:
    q = jagged(LENGTHS, 2).requires_grad_()

    def call(x: Any) -> Any:
        x = x.transpose(1, 2)
        return regard.torch.scaled_dot_product_attention(x, x, x, is_causal=True)

    out = torch.compile(call, fullgraph=True, backend="aot_eager")(q)
    assert torch.equal(out.values(), call(q).values())
    (got,) = torch.autograd.grad(out.values().square().sum(), q)
    (expected,) = torch.autograd.grad(call(q).values().square().sum(), q)
    assert torch.equal(got.values(), expected.values())


def test_nested_tensors_refuse_by_name() -> None:
    q = jagged(LENGTHS, 2)
    dense = torch.randn(4, 3, 2, 8)
    strided = torch.nested.nested_tensor([torch.randn(3, 2, 8), torch.randn(5, 2, 8)])
    for given, text in (
        ({"mask": MASK}, "mask is given"),
        ({"bias": torch.zeros(1)}, "bias is given"),
        ({"k": dense}, "k is not nested"),
        ({"q": dense}, "q is not nested"),
        ({"v": jagged(LENGTHS, 2).transpose(1, 2)}, "v has 4 dimensions and is ragged at 2"),
        ({"q": strided, "k": strided, "v": strided}, "q has the layout torch.strided"),
        ({"layout": "packed"}, "layout is 'packed'"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            attention(**({"q": q, "k": q, "v": q, "layout": "blhd"} | given))
    other = jagged((1, 2, 3, 4), 2)
    with pytest.raises(ValueError, match="alibi is given"):
        attention(q, other, other, layout="blhd", alibi=True)
    with pytest.raises(ValueError, match="attn_mask is given"):
        regard.torch.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, q, q)), attn_mask=MASK)
    with pytest.raises(RuntimeError, match="enable_gqa"):
        few = torch.nested.nested_tensor_from_jagged(q.values()[:, :1], q.offsets()).transpose(1, 2)
        regard.torch.scaled_dot_product_attention(q.transpose(1, 2), few, few)
