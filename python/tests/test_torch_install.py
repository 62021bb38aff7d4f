"""`regard.torch.install()`: PyTorch's own functions and layers with regard under them, against PyTorch without it, in float64."""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_reference import assert_close

import regard.torch
from regard.torch.recognise import recognise

module = importlib.import_module("regard.torch.install")
sdpa = torch.nn.functional.scaled_dot_product_attention
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
L, S = 37, 50


class Counting:
    """The native module, counting the calls of attention, from Python and by PyTorch's dispatcher; in `python` there are only the former."""

    def __init__(self, native: Any, *, python: bool) -> None:
        self.native, self.python = native, python
        self.from_python, self.before = 0, native._calls_from_torch()

    @property
    def compiled(self) -> int:
        """Calls by the dispatcher, without Python."""
        return self.native._calls_from_torch() - self.before

    @property
    def calls(self) -> int:
        """All of them."""
        return self.from_python + self.compiled

    def attention(self, *args: Any, **options: Any) -> Any:
        """Counts, and computes."""
        self.from_python += 1
        return self.native.attention(*args, **options)

    def _put_under_torch(self, *args: Any) -> bool:
        return not self.python and self.native._put_under_torch(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)


@pytest.fixture(params=["compiled", "python"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """regard installed, with its compiled kernel and as in versions of PyTorch that cannot have it, and a counter of what it computes."""
    counting = Counting(module.native, python=request.param == "python")
    monkeypatch.setattr(module, "native", counting)
    regard.torch.install()
    yield counting
    regard.torch.uninstall()


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert not regard.torch.installed()


def draw(dtype: Any = torch.float32, *, kv_heads: int = 4) -> tuple[Any, ...]:
    """q, k and v, with heads after lengths in memory, as layers have them."""
    shapes = ((2, L, 4, 16), (2, S, kv_heads, 16), (2, S, kv_heads, 16))
    return tuple(torch.randn(shape).to(dtype).transpose(1, 2).requires_grad_() for shape in shapes)


def hidden_rows() -> Any:
    """A mask with rows that see nothing."""
    mask = torch.rand(2, 1, L, S) < 0.7
    mask[:, :, 3] = False
    return mask


MASKS = {
    "none": dict,
    "causal": lambda: {"is_causal": True},
    "bools": lambda: {"attn_mask": hidden_rows()},
    "padding": lambda: {"attn_mask": (torch.arange(S) < torch.tensor([[20], [50]]))[:, None, None]},
    "window": lambda: {"attn_mask": torch.ones(L, S, dtype=torch.bool).tril(3).triu(-4)},
    "numbers": lambda: {"attn_mask": torch.randn(4, L, S)[None]},
    "numbers of 2 dimensions": lambda: {"attn_mask": torch.randn(L, 1)},
    "scale": lambda: {"scale": -0.3},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MASKS)
def test_results_and_gradients(name: str, dtype: Any, calls: Counting) -> None:
    tensors, options = draw(dtype), MASKS[name]()
    if options.get("attn_mask") is not None and options["attn_mask"].is_floating_point():
        options["attn_mask"] = options["attn_mask"].to(dtype)
    out = sdpa(*tensors, **options)
    d_out = torch.randn_like(out)
    grads = torch.autograd.grad(out, tensors, d_out)
    assert calls.calls == 1
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    if "attn_mask" in options and options["attn_mask"].is_floating_point():
        options["attn_mask"] = options["attn_mask"].double()
    with sdpa_kernel(SDPBackend.MATH):
        expected = sdpa(*wide, **options)
    assert_close(out, expected)
    for got, of in zip(grads, torch.autograd.grad(expected, wide, d_out.double()), strict=True):
        assert_close(got, of)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_queries(kv_heads: int, calls: Counting) -> None:
    tensors = draw(kv_heads=kv_heads)
    out = sdpa(*tensors, is_causal=True, enable_gqa=True)
    grads = torch.autograd.grad(out.square().sum(), tensors)
    assert calls.calls == 1
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = sdpa(*wide, is_causal=True, enable_gqa=True)
    for got, of in zip((out, *grads), (expected, *torch.autograd.grad(expected.square().sum(), wide)), strict=True):
        assert_close(got, of)


def operator(options: dict[str, Any]) -> list[Any]:
    """Results of the operators: output, log-sum-exp, and the gradients."""
    torch.manual_seed(1)
    q, k, v = (tensor.detach() for tensor in draw())
    out, lse = flash(q, k, v, **options)
    is_causal, others = options.get("is_causal", False), {name: options[name] for name in options if name != "is_causal"}
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return [out, lse, *backward(torch.randn_like(out), q, k, v, out, lse, 0.0, is_causal, **others)]


@pytest.mark.parametrize("name", MASKS)
def test_the_operators_results_have_pytorchs_values_strides_and_types(name: str) -> None:
    options = MASKS[name]()
    mask = options.get("attn_mask")
    if mask is not None and mask.dtype == torch.bool:
        options["attn_mask"] = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    theirs = operator(options)
    regard.torch.install()
    own = operator(options)
    regard.torch.uninstall()
    for a, b in zip(own, theirs, strict=True):
        assert a.stride() == b.stride() and a.dtype == b.dtype
        assert_close(a, b.double())


@pytest.mark.parametrize("first", [True, False])
def test_forward_with_one_and_backward_with_the_other(first: bool) -> None:
    tensors, mask = draw(), hidden_rows()
    expected = torch.autograd.grad(sdpa(*tensors, mask).square().sum(), tensors)
    if first:
        regard.torch.install()
    out = sdpa(*tensors, mask)
    (regard.torch.uninstall if first else regard.torch.install)()
    got = torch.autograd.grad(out.square().sum(), tensors)
    regard.torch.uninstall()
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b)


LAYOUTS = {
    "row-major": lambda: torch.randn(2, 4, 5, 8),
    "heads after lengths": lambda: torch.randn(2, 5, 4, 8).transpose(1, 2),
    "projected together": lambda: torch.randn(2, 5, 3 * 32)[..., :32].unflatten(-1, (4, 8)).transpose(1, 2),
    "one row, projected together": lambda: torch.randn(2, 1, 3 * 32)[..., :32].unflatten(-1, (4, 8)).transpose(1, 2),
    "one head": lambda: torch.randn(2, 5, 3, 8)[:, :, 1:2].transpose(1, 2),
    "one of everything": lambda: torch.randn(1, 1, 1, 8),
    "every second row": lambda: torch.randn(2, 4, 10, 8)[:, :, ::2],
    "every second head": lambda: torch.randn(2, 8, 5, 8)[:, ::2],
    "every second batch": lambda: torch.randn(4, 4, 5, 8)[::2],
    "one batch for all": lambda: torch.randn(1, 4, 5, 8).expand(2, 4, 5, 8),
    "one head for all": lambda: torch.randn(2, 1, 5, 8).expand(2, 4, 5, 8),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_compiled_kernel_lays_out_its_results_as_pytorch_does(name: str, dtype: Any, causal: bool) -> None:
    q = LAYOUTS[name]().to(dtype)
    k, v = torch.randn(2, q.shape[0], 1, 7, 8).to(dtype)
    expected = flash(q, *(x.expand(-1, q.shape[1], -1, -1) for x in (k, v)), is_causal=causal, scale=0.5)
    before = module.native._calls_from_torch()
    regard.torch.install()
    out, lse = flash(q, k, v, is_causal=causal, scale=0.5)
    regard.torch.uninstall()
    assert module.native._calls_from_torch() - before == (0 not in q.stride())
    assert (out.stride(), out.dtype, out.device) == (expected[0].stride(), dtype, q.device)
    assert (lse.stride(), lse.dtype, lse.device) == (expected[1].stride(), torch.float32, q.device)
    assert_close(out, expected[0].double())
    assert_close(lse, expected[1].double())


def test_python_is_called_for_the_rest(calls: Counting) -> None:
    q, k, v = (tensor.detach() for tensor in draw())
    sdpa(q, k, v, is_causal=True)
    sdpa(q, k, v, hidden_rows())
    assert calls.from_python == (2 if calls.python else 1)
    expected = sdpa(q.double(), k.double(), v.double(), scale=0.1)
    assert expected.dtype == torch.float64 and calls.calls == 2


def test_large_problems_are_shared_out(calls: Counting) -> None:
    q, k, v = torch.randn(3, 1, 8, 512, 64)
    assert_close(sdpa(q, k, v, is_causal=True), sdpa(q.double(), k.double(), v.double(), is_causal=True))
    assert calls.calls == 1


def test_the_forced_kernel_computes(calls: Counting) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 64)
    with regard.kernel("scalar"):
        out = sdpa(q, k, v)
        assert torch.equal(out, torch.from_numpy(regard.attention(q.numpy(), k.numpy(), v.numpy())))
    assert calls.calls == 1


def test_what_pytorch_keeps(calls: Counting) -> None:
    q, k, v = (tensor.detach() for tensor in draw())
    bias = torch.randn(L, S, requires_grad=True)
    kept = {
        "float64": lambda: sdpa(q.double(), k.double(), v.double()),
        "dropout": lambda: sdpa(q, k, v, dropout_p=0.5),
        "values of another dimension": lambda: sdpa(q, k, v[..., :8]),
        "a mask that wants a gradient": lambda: sdpa(q, k, v, bias),
        "a scale that is not finite": lambda: sdpa(q, k, v, scale=math.nan),
        "strides of the last dimension": lambda: sdpa(q.mT.contiguous().mT, k, v),
        "5 dimensions": lambda: sdpa(q[None], k[None], v[None]),
        "a batch that broadcasts": lambda: sdpa(q, k[:1], v[:1]),
        "empty": lambda: sdpa(q[:, :, :0], k, v),
    }
    for name, call in kept.items():
        call()
        assert calls.calls == 0, name
    with sdpa_kernel(SDPBackend.MATH):
        sdpa(q, k, v)
    assert calls.calls == 0
    sdpa(q[0], k[0], v[0])
    assert calls.calls == 1, "3 dimensions are regard's"


def test_errors_are_pytorchs(calls: Counting) -> None:
    q, k, v = draw()
    for given in ({"dropout_p": -0.5}, {"attn_mask": torch.ones(3, 3)}, {"attn_mask": torch.ones(L, S).double()}):
        with pytest.raises(RuntimeError):
            sdpa(q, k, v, **given)
    with pytest.raises(RuntimeError, match="dropout"):
        flash(q, k, v, 0.5)
    with pytest.raises(RuntimeError, match="type"):
        flash(q, k, v.int())


def test_an_interrupt_in_python_is_one(monkeypatch: pytest.MonkeyPatch, calls: Counting) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_takes", interrupted)
    q, k, v = (tensor.detach() for tensor in draw())
    with pytest.raises(KeyboardInterrupt):
        try:
            sdpa(q, k, v, torch.zeros(L, S))
        except RuntimeError:
            time.sleep(1)


def test_uninstall_gives_everything_back() -> None:
    tensors, mask = [tensor.detach() for tensor in draw()], hidden_rows()
    before = sdpa(*tensors, mask)
    for _ in range(2):
        regard.torch.install()
        regard.torch.install()
        assert regard.torch.installed()
        regard.torch.uninstall()
        regard.torch.uninstall()
        assert not regard.torch.installed()
        assert torch.equal(sdpa(*tensors, mask), before)


def test_threads_may_install_while_others_compute() -> None:
    tensors = [tensor.detach() for tensor in draw()]
    expected = sdpa(*(tensor.double() for tensor in tensors))
    errors: list[Exception] = []

    def work(step: Any) -> None:
        try:
            for _ in range(20):
                step()
        except Exception as error:  # noqa: BLE001  # for the main thread to see
            errors.append(error)

    steps = (regard.torch.install, regard.torch.uninstall, lambda: assert_close(sdpa(*tensors), expected))
    threads = [threading.Thread(target=work, args=(step,)) for step in (*steps, steps[2])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    regard.torch.uninstall()
    assert not errors


def test_compiled_functions_use_it(calls: Counting) -> None:
    torch._dynamo.reset()
    q, k, v = draw()
    got = torch.compile(lambda q, k, v: sdpa(q, k, v, is_causal=True) * 2, fullgraph=True)(q, k, v)
    assert calls.calls == 1
    assert_close(got, 2 * sdpa(*(tensor.double() for tensor in (q, k, v)), is_causal=True))
    assert torch.autograd.grad(got.sum(), q)[0].shape == q.shape


# --- masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masks_are_recognised(dtype: Any) -> None:
    bools = {
        "causal": (torch.ones(L, S).tril().bool(), "Spans"),
        "window": (torch.ones(L, S).tril(3).triu(-4).bool(), "Spans"),
        "padding": ((torch.arange(S) < torch.tensor([[20], [50]]))[:, None, None], "Spans"),
        "nothing": (torch.zeros(L, S).bool(), "Spans"),
        "everything": (torch.ones(L, S).bool(), "Spans"),
        "two runs": ((torch.ones(L, S).tril(-9) + torch.ones(L, S).triu(9)).bool(), "Bools"),
        "random": (hidden_rows(), "Bools"),
        "one column": (torch.rand(L, 1) < 0.5, "Bools"),
    }
    for name, (seen, kind) in bools.items():
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -math.inf)
        found = recognise(mask, 2 * 16 * L * S)
        assert repr(found).startswith(kind), name
        assert torch.equal(torch.from_numpy(found.visible((2, 16, L, S))), seen.expand(2, 16, L, S)), name
    repeated = torch.zeros(L, S, dtype=dtype).expand(2, 16, L, S)
    assert recognise(repeated, 2 * 16 * L * S) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_masks_are_left_as_they_are(dtype: Any) -> None:
    zero = torch.zeros(L, S, dtype=dtype)
    inside = zero.clone()
    inside[L // 2, S // 2] = -1
    lowest = zero.masked_fill(torch.ones(L, S).triu(1).bool(), torch.finfo(dtype).min)
    for mask in (inside, lowest, zero + 1, torch.full_like(zero, math.nan), torch.full_like(zero, math.inf)):
        assert recognise(mask, 32 * L * S) is None
    assert recognise(zero, L * S) is None, "it does not pay"


# --- layers


def layers() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """`nn.MultiheadAttention`'s options, of the layer and of the call."""
    additive = torch.randn(L, S)
    padding = torch.arange(S) >= torch.tensor([[20], [50]])
    return {
        "plain": ({}, {}),
        "no weights": ({}, {"need_weights": False}),
        "batch first": ({"batch_first": True}, {"need_weights": False}),
        "weights of every head": ({}, {"average_attn_weights": False}),
        "no bias": ({"bias": False}, {"need_weights": False}),
        "dimensions of keys and values": ({"kdim": 24, "vdim": 20}, {"need_weights": False}),
        "a key and a value more": ({"add_bias_kv": True}, {"need_weights": False}),
        "a key of zeros": ({"add_zero_attn": True}, {"need_weights": False}),
        "both": ({"add_bias_kv": True, "add_zero_attn": True}, {"need_weights": False, "key_padding_mask": padding}),
        "padding": ({}, {"need_weights": False, "key_padding_mask": padding}),
        "padding in numbers": ({}, {"need_weights": False, "key_padding_mask": torch.zeros(2, S).masked_fill(padding, -math.inf)}),
        "mask": ({}, {"need_weights": False, "attn_mask": torch.ones(L, S).triu(9).bool()}),
        "mask of every head": ({}, {"need_weights": False, "attn_mask": torch.rand(2 * 4, L, S) < 0.3}),
        "numbers": ({}, {"need_weights": False, "attn_mask": additive}),
        "numbers and padding": ({}, {"need_weights": False, "attn_mask": additive, "key_padding_mask": padding}),
        "causal": ({}, {"need_weights": False, "attn_mask": torch.ones(L, S).triu(1).bool(), "is_causal": True}),
        "dropout, evaluated": ({"dropout": 0.5}, {"need_weights": False}),
        "unbatched": ({}, {"need_weights": False, "unbatched": True}),
    }


def widened(options: dict[str, Any]) -> dict[str, Any]:
    """Masks of numbers in float64."""
    return {name: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for name, x in options.items()}


@pytest.mark.parametrize("name", layers())
def test_multi_head_attention_in_all_its_options(name: str, calls: Counting) -> None:
    made, options = layers()[name]
    layer = torch.nn.MultiheadAttention(32, 4, **made).train(made.get("dropout") is None)
    [torch.nn.init.normal_(bias) for name, bias in layer.named_parameters() if "bias" in name]
    q, k, v = torch.randn(L, 2, 32), torch.randn(S, 2, made.get("kdim", 32)), torch.randn(S, 2, made.get("vdim", 32))
    if made.get("batch_first"):
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    if options.pop("unbatched", False):
        q, k, v = (x[:, 0] for x in (q, k, v))
    q.requires_grad_()
    out, weights = layer(q, k, v, **options)
    grads = torch.autograd.grad(out.square().sum(), [q, *layer.parameters()])
    assert (calls.calls == 1) == (options.get("need_weights") is False)
    regard.torch.uninstall()
    wide = q.detach().double().requires_grad_()
    layer = layer.double()
    expected, of_weights = layer(wide, k.double(), v.double(), **widened(options))
    assert_close(out, expected)
    for got, of in zip(grads, torch.autograd.grad(expected.square().sum(), [wide, *layer.parameters()]), strict=True):
        assert_close(got, of)
    if of_weights is not None:
        assert_close(weights, of_weights)


def losses(dtype: Any) -> list[float]:
    """Training of an encoder on one batch with padding, every product of attention in FLASH mode."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(dtype)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.05, momentum=0.9)
    x, target = torch.randn(3, 20, 32).to(dtype), torch.randn(3, 20, 32).to(dtype)
    padding = torch.arange(20) >= torch.tensor([[20], [13], [7]])
    causal = torch.nn.Transformer.generate_square_subsequent_mask(20).isinf()
    curve = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for _ in range(12):
            optimiser.zero_grad()
            loss = (encoder(x, mask=causal, src_key_padding_mask=padding) - target)[~padding].square().mean()
            loss.backward()
            optimiser.step()
            curve.append(loss.item())
    return curve


def test_training_an_encoder_in_flash_mode_reaches_the_same_losses(calls: Counting) -> None:
    own = losses(torch.float32)
    assert calls.calls == 24
    regard.torch.uninstall()
    theirs, truth = losses(torch.float32), losses(torch.float64)
    assert truth[-1] < 0.9 * truth[0]
    for a, b, exact in zip(own, theirs, truth, strict=True):
        # As near to float64 as PyTorch in float32 is, whose own error is by chance small here and there: a few roundings beside it.
        assert abs(a - exact) <= 4 * abs(b - exact) + 1e-6 * exact
