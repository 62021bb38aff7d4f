"""`regard.torch`: gradients of every option against PyTorch's own operators in float64, dropout, autocast, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch_reference as reference
from torch.autograd import forward_ad
from torch_reference import assert_close, gradients, wide

import regard
import regard.torch

B, HQ, HKV, LQ, LKV, D, DV = 2, 4, 2, 37, 50, 24, 16
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LOWER_RIGHT = torch.ones(LQ, LKV, dtype=torch.bool).tril(LKV - LQ)


def draw(dtype: Any = torch.float32, *, seed: int = 0) -> dict[str, Any]:
    """q, k and v."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": (B, HQ, LQ, D), "k": (B, HKV, LKV, D), "v": (B, HKV, LKV, DV)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def upstream(*shape: int) -> Any:
    """The gradient of an output."""
    return torch.randn(shape or (B, HQ, LQ, DV), generator=torch.Generator().manual_seed(9))


def compare(own: dict[str, Any], theirs: dict[str, Any], tensors: dict[str, Any]) -> None:
    """`regard.torch.attention` with some options against the reference with others."""
    got = gradients(lambda **t: regard.torch.attention(**t, **own), tensors, upstream())
    expected = gradients(lambda **t: reference.attention(**t, **theirs), wide(tensors), upstream())
    assert_close(got, expected)
    assert {name: got[name].dtype for name in tensors} == {name: tensor.dtype for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_queries_keys_and_values(dtype: Any) -> None:
    compare({"causal": "lower_right"}, {"visible": LOWER_RIGHT}, draw(dtype))


@pytest.mark.parametrize("shape", [(LQ, LKV), (HQ, 1, LKV), (B, 1, LQ, LKV), (1, HQ, LQ, 1), (B, HQ, LQ, LKV)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_has_a_gradient_of_its_own_shape_and_type(shape: tuple[int, ...], dtype: Any) -> None:
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    # Without sinks, what is added to a whole row changes nothing: its gradient is 0, and would be compared with roundings.
    compare({"causal": "lower_right"}, {"visible": LOWER_RIGHT}, draw() | {"bias": bias, "sinks": torch.zeros(HQ)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_sinks_have_a_gradient(dtype: Any) -> None:
    compare(
        {"window": (9, 0)}, {"visible": LOWER_RIGHT.triu(LKV - LQ - 9)}, draw() | {"sinks": torch.tensor([0.5, -1, 2, 0]).to(dtype)}
    )


def test_every_option_at_once() -> None:
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.0])
    bias = torch.randn(HQ, LQ, LKV, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(LQ, LKV, generator=torch.Generator().manual_seed(3)) < 0.8
    own = {"softcap": 2.0, "alibi": slopes, "scale": 0.3, "causal": "lower_right", "mask": [mask, regard.Window(30, None)]}
    theirs = {
        "softcap": 2.0,
        "slopes": slopes,
        "scale": 0.3,
        "visible": LOWER_RIGHT & mask & torch.ones(LQ, LKV).triu(LKV - LQ - 30).bool(),
    }
    compare(own, theirs, draw() | {"bias": bias, "sinks": torch.zeros(HQ)})


def test_scores_that_are_objects() -> None:
    own = {"score": regard.Softcap(2.0), "mask": regard.Causal.LOWER_RIGHT}
    compare(own, {"softcap": 2.0, "visible": LOWER_RIGHT}, draw())


@pytest.mark.parametrize("layout", ["blhd", "packed"])
def test_layouts(layout: str) -> None:
    tensors = draw()
    own: dict[str, Any] = {"layout": layout, "causal": "upper_left"}
    visible = torch.ones(LQ, LKV, dtype=torch.bool).tril()

    def call(**t: Any) -> Any:
        turned = [x.transpose(1, 2) for x in t.values()]
        if layout == "blhd":
            return regard.torch.attention(*turned, **own).transpose(1, 2)
        bounds = ([0, LQ, 2 * LQ], torch.tensor([0, LKV, 2 * LKV]))
        return (
            regard.torch.attention(*(x.flatten(0, 1) for x in turned), documents=bounds, **own)
            .unflatten(0, (B, LQ))
            .transpose(1, 2)
        )

    expected = gradients(lambda **t: reference.attention(**t, visible=visible), wide(tensors), upstream())
    assert_close(gradients(call, tensors, upstream()), expected)


def test_a_row_that_sees_nothing_is_zero_and_has_no_gradient() -> None:
    visible = LOWER_RIGHT.clone()
    visible[3] = False
    compare({"mask": visible}, {"visible": visible}, draw())


def test_what_is_hidden_is_never_observed() -> None:
    tensors = draw()
    clean = gradients(lambda **t: regard.torch.attention(**t, mask=LOWER_RIGHT), tensors, upstream())
    visible = LOWER_RIGHT.clone()
    visible[:, 5] = False
    tensors["v"][:, :, 5] = tensors["k"][:, :, 5] = math.nan
    poisoned = gradients(lambda **t: regard.torch.attention(**t, mask=visible), tensors, upstream())
    assert all(tensor.isfinite().all() for tensor in poisoned.values())
    assert not torch.equal(clean["out"], poisoned["out"])


def test_regard_attention_hands_tensors_that_want_gradients_over() -> None:
    tensors = draw()
    got = gradients(lambda **t: regard.attention(**t, causal="lower_right"), tensors, upstream())
    assert_close(got, gradients(lambda **t: reference.attention(**t, visible=LOWER_RIGHT), wide(tensors), upstream()))
    q, k, v = (tensor[:, :HKV].clone().requires_grad_() for tensor in tensors.values())
    assert regard.scaled_dot_product_attention(q, k, v).requires_grad
    with torch.no_grad():
        assert not regard.scaled_dot_product_attention(q, k, v).requires_grad


def test_only_what_wants_a_gradient_gets_one() -> None:
    tensors = draw()
    tensors["k"].requires_grad_()
    regard.torch.attention(**tensors).sum().backward()
    assert tensors["q"].grad is None and tensors["v"].grad is None and tensors["k"].grad is not None


def test_the_log_sum_exp_has_no_gradient() -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in draw().items()}
    out, lse = regard.torch.attention(**tensors, return_lse=True)
    assert out.requires_grad and not lse.requires_grad
    scores = tensors["q"].double() @ tensors["k"].double().repeat_interleave(2, 1).mT / math.sqrt(D)
    assert_close(lse, scores.logsumexp(-1))


# --- dropout

P = 0.3


def weights(seed: Any, **given: Any) -> Any:
    """The probabilities after dropout: the output where the values are a unit matrix."""
    tensors = draw()
    unit = torch.eye(LKV).expand(B, HKV, LKV, LKV)
    return regard.torch.attention(tensors["q"], tensors["k"], unit, dropout=(P, seed) if seed is not None else P, **given)


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    tensors = draw()
    unit = torch.eye(LKV, dtype=torch.float64).expand(B, HKV, LKV, LKV)
    got, kept = weights(7), reference.attention(tensors["q"].double(), tensors["k"].double(), unit)
    assert_close(got, torch.where(got != 0, kept / (1 - P), 0))
    drops, n = int((got == 0).sum()), got.numel()
    assert abs(drops - n * P) < 5 * math.sqrt(n * P * (1 - P)), "5 standard deviations"


def test_the_backward_pass_drops_the_same() -> None:
    kept = weights(7) != 0
    compare({"dropout": (P, 7)}, {"kept": kept, "dropout": P}, draw())


def test_seeds_of_dropout() -> None:
    torch.manual_seed(3)
    first, second = weights(None), weights(None)
    torch.manual_seed(3)
    assert torch.equal(first, weights(None)) and not torch.equal(first, second)
    assert torch.equal(weights(5), weights(torch.tensor(5))) and not torch.equal(weights(5), weights(6))
    assert torch.equal(weights(2**64 - 1), weights(torch.tensor(-1)))
    q, k, v = (torch.randn(1, 2, 9, 8) for _ in range(3))
    torch.manual_seed(4)
    one = regard.torch.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    torch.manual_seed(4)
    assert torch.equal(one, regard.torch.scaled_dot_product_attention(q, k, v, dropout_p=0.5))


def test_dropout_of_everything_is_zero() -> None:
    q, k, v = (torch.randn(1, 2, 9, 8, requires_grad=True) for _ in range(3))
    out = regard.torch.scaled_dot_product_attention(q, k, v, dropout_p=1.0)
    assert not out.any() and not torch.autograd.grad(out.sum(), v)[0].any()


# --- linear attention and the convolution


def test_linear_attention_has_gradients_of_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "q": (1, 4, 21, 8),
        "k": (1, 2, 21, 8),
        "v": (1, 2, 21, 6),
        "decay": (1, 2, 21, 8),
        "beta": (1, 2, 21, 1),
        "state": (1, 2, 8, 6),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["k"] = torch.nn.functional.normalize(tensors["k"], dim=-1)
    tensors["decay"], tensors["beta"] = -tensors["decay"].abs() * 0.1, tensors["beta"].sigmoid()

    def truth(q: Any, k: Any, v: Any, decay: Any, beta: Any, state: Any) -> Any:
        outs = []
        for t in range(q.shape[2]):
            state = state * decay[:, :, t].exp()[..., None]
            change = beta[:, :, t] * (v[:, :, t] - (state.mT @ k[:, :, t, :, None])[..., 0])
            state = state + k[:, :, t, :, None] * change[:, :, None]
            outs.append((state.repeat_interleave(2, 1).mT @ q[:, :, t, :, None])[..., 0] / math.sqrt(8))
        return torch.cat((torch.stack(outs, 2).flatten(), state.flatten()))

    def own(**t: Any) -> Any:
        out, state = regard.torch.linear_attention(**t, rule="gated_delta", return_state=True)
        return torch.cat((out.flatten(), state.flatten()))

    d_out = upstream(4 * 21 * 6 + 2 * 8 * 6)
    assert_close(gradients(own, tensors, d_out), gradients(truth, wide(tensors), d_out))


def test_the_convolution_has_gradients_of_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 3, 11), "weight": (3, 1, 4), "bias": (3,), "state": (2, 3, 3)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def truth(x: Any, weight: Any, bias: Any, state: Any) -> Any:
        past = torch.cat((state, x), -1)
        return torch.cat((torch.nn.functional.silu(torch.nn.functional.conv1d(past, weight, bias, groups=3)), past[..., -3:]), -1)

    def own(**t: Any) -> Any:
        return torch.cat(regard.torch.causal_conv(**t, silu=True, return_state=True), -1)

    d_out = upstream(2, 3, 14)
    assert_close(gradients(own, tensors, d_out), gradients(truth, wide(tensors), d_out))


def test_a_state_alone_has_gradients() -> None:
    x, weight = torch.randn(1, 2, 7, requires_grad=True), torch.randn(1, 2, 4)[0, :, None].contiguous().requires_grad_()
    regard.torch.causal_conv(x, weight, return_state=True)[1].sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.tensor([0.0] * 4 + [1.0] * 3).expand(1, 2, 7))


# --- autocast


def test_autocast_casts_as_it_does_for_pytorchs_own() -> None:
    q, k, v = (torch.randn(1, 2, 9, 8, requires_grad=True) for _ in range(3))
    mask = torch.randn(9, 9)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            got = regard.torch.scaled_dot_product_attention(q, k, v, mask)
            assert regard.torch.attention(q, k, v).dtype == dtype
        expected = reference.attention(*(x.to(dtype).double() for x in (q, k, v)), bias=mask.to(dtype).double())
        assert got.dtype == dtype
        assert_close(got, expected)
        assert torch.autograd.grad(got.sum(), q)[0].dtype == torch.float32


# --- what is refused


def test_second_derivatives_are_refused_by_name() -> None:
    x, weight = torch.randn(1, 2, 7, requires_grad=True), torch.randn(2, 1, 4)
    q = torch.randn(1, 2, 5, 8, requires_grad=True)
    outputs = {
        "regard.torch.attention": (regard.torch.attention(q, q, q), q),
        "regard.torch.linear_attention": (regard.torch.linear_attention(q, q, q), q),
        "regard.torch.causal_conv": (regard.torch.causal_conv(x, weight), x),
    }
    for name, (out, of) in outputs.items():
        (grad,) = torch.autograd.grad(out.sum(), of, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"{name} has a first derivative and no second"):
            grad.sum().backward()


def test_forward_mode_is_refused_by_name() -> None:
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: regard.torch.attention(x, q, q), (q,), (q,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        regard.torch.linear_attention(forward_ad.make_dual(q, q), q, q)
    with forward_ad.dual_level():
        regard.torch.attention(q, q, q)


def test_arguments_that_cannot_be_are_refused_by_name() -> None:
    q = torch.randn(1, 2, 5, 8)
    slopes = torch.ones(2, requires_grad=True)
    refusals: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (TypeError, "q is of type list", {"q": [1.0]}),
        (TypeError, "q is torch.float64", {"q": q.double()}),
        (TypeError, "k is torch.bfloat16 and q is torch.float32", {"k": q.bfloat16()}),
        (ValueError, "k is on meta", {"k": q.to("meta")}),
        (ValueError, "q has the layout torch.sparse_coo", {"q": q.to_sparse()}),
        (ValueError, "2 heads and keys have 3", {"k": q[:, :1].expand(1, 3, 5, 8), "v": q[:, :1].expand(1, 3, 5, 8)}),
        (NotImplementedError, "alibi wants a gradient", {"alibi": slopes}),
        (ValueError, "dropout is 1", {"dropout": 1.0}),
        (ValueError, "dropout is -0.1", {"dropout": -0.1}),
        (TypeError, "dropout is 'x'", {"dropout": "x"}),
        (TypeError, "the seed of dropout", {"dropout": (0.1, 0.5)}),
        (ValueError, "the seed of dropout", {"dropout": (0.1, -1)}),
        (TypeError, "mask", {"mask": q}),
        (ValueError, "scale", {"scale": math.nan}),
        (ValueError, "causal is 'left'", {"causal": "left"}),
    ]
    for error, text, given in refusals:
        with pytest.raises(error, match=text.replace("'", "['\"]")):
            regard.torch.attention(**({"q": q, "k": q, "v": q} | given))


def test_out_is_for_calls_without_gradients() -> None:
    q = torch.randn(1, 2, 5, 8)
    out = torch.empty_like(q)
    assert regard.torch.attention(q, q, q, out=out) is out
    assert torch.equal(out, regard.torch.attention(q, q, q))
    with pytest.raises(NotImplementedError, match="out is given, and an argument wants a gradient"):
        regard.torch.attention(q.clone().requires_grad_(), q, q, out=out)


def test_a_tensor_changed_before_the_backward_pass_is_noticed() -> None:
    q = torch.randn(1, 2, 5, 8)
    k = q.clone().requires_grad_()
    out = regard.torch.attention(q, k, q)
    q.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
