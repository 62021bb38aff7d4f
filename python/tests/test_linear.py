"""Linear attention and its convolution, forward and backward, against their recurrences in float64.

Tolerance: the same recurrence in float32 is off from float64 by its roundings; ours, which sum in another order, may be off by 8 times the
largest of its errors. Half precision is rounded once more, to its own type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from arrays import normal, of_kind

import regard

torch = pytest.importorskip("torch")

B, HQ, HKV, L, D, DV = 2, 4, 2, 70, 16, 24
RULES = ("linear", "gated", "delta", "gated_delta")


def recurrence(x: dict[str, Any], rule: str, scale: float, *, feature: bool = False, normalised: bool = False) -> tuple[Any, Any]:
    """S' = diag(exp decay) S; S = S' + k (β (v − S'ᵀk))ᵀ for delta rules, S' + k vᵀ else; o = scale · Sᵀq."""
    q, k, v, state = x["q"], x["k"], x["v"], x["state"]
    groups = q.shape[1] // k.shape[1]
    if feature:
        q, k = (torch.nn.functional.elu(y) + 1 for y in (q, k))
    outs, keys = [], torch.zeros_like(k[:, :, 0])
    for t in range(q.shape[2]):
        k_t, v_t = k[:, :, t], v[:, :, t]
        if "gated" in rule:
            state = state * x["decay"][:, :, t].exp()[..., None]
        if "delta" in rule:
            v_t = x["beta"][:, :, t] * (v_t - torch.einsum("bhdm,bhd->bhm", state, k_t))
        state = state + k_t[..., None] * v_t[..., None, :]
        keys = keys + k_t
        out = scale * torch.einsum("bhd,bhdm->bhm", q[:, :, t], state.repeat_interleave(groups, 1))
        if normalised:
            out = out / (scale * torch.einsum("bhd,bhd->bh", q[:, :, t], keys.repeat_interleave(groups, 1)))[..., None]
        outs.append(out)
    return torch.stack(outs, 2), state


def draw(rule: str, dtype: str = "float32", *, seed: int = 0, per_element: bool = True) -> dict[str, np.ndarray]:
    """Keys of length 1 and rates below 1, with which delta rules are stable."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((B, HKV, L, D))
    x = {
        "q": normal(rng, B, HQ, L, D, dtype=dtype),
        "k": (keys / np.linalg.norm(keys, axis=-1, keepdims=True)).astype(normal(rng, 1, dtype=dtype).dtype),
        "v": normal(rng, B, HKV, L, DV, dtype=dtype),
        "state": normal(rng, B, HKV, D, DV),
    }
    if "gated" in rule:
        x["decay"] = -rng.random((B, HKV, L, D if per_element else 1)).astype(np.float32) * 0.2
    if "delta" in rule:
        x["beta"] = rng.random((B, HKV, L, 1)).astype(np.float32)
    return x


def tensors(x: dict[str, np.ndarray], dtype: Any) -> dict[str, Any]:
    return {name: torch.from_numpy(oracle.widened(value)).to(dtype).requires_grad_() for name, value in x.items()}


def agrees(got: Any, exact: Any, peer: Any, what: str, *, dtype: str = "float32") -> None:
    got, exact, peer = map(oracle.widened, (got, exact, peer))
    tolerance = 8 * abs(peer - exact).max() + (oracle.UNIT[dtype] * abs(exact) if dtype != "float32" else 0)
    oracle.assert_close(got, exact, np.broadcast_to(tolerance, exact.shape), what)


def run(x: dict[str, Any], **options: Any) -> Any:
    gates = {name: x[name] for name in ("decay", "beta", "state") if name in x}
    return regard.linear_attention(x["q"], x["k"], x["v"], return_state=True, **gates, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_forward(rule: str, dtype: str) -> None:
    for per_element in (True, False):
        x = draw(rule, dtype, per_element=per_element)
        exact, peer = (recurrence(tensors(x, of), rule, 0.3) for of in (torch.float64, torch.float32))
        out, state = run(x, rule=rule, scale=0.3)
        assert out.dtype == x["q"].dtype and state.dtype == np.float32
        agrees(out, exact[0], peer[0], "out", dtype=dtype)
        agrees(state, exact[1], peer[1], "state")


@pytest.mark.parametrize("rule", RULES)
def test_backward(rule: str) -> None:
    x = draw(rule, seed=1)
    rng = np.random.default_rng(2)
    d_out, d_state = normal(rng, B, HQ, L, DV), normal(rng, B, HKV, D, DV)

    def gradients(dtype: Any) -> dict[str, Any]:
        leaves = tensors(x, dtype)
        outs = recurrence(leaves, rule, D**-0.5)
        upstream = [torch.from_numpy(d).to(dtype) for d in (d_out, d_state)]
        return dict(zip(leaves, torch.autograd.grad(outs, list(leaves.values()), upstream)))

    exact, peer = gradients(torch.float64), gradients(torch.float32)
    gates = {name: x[name] for name in ("decay", "beta", "state") if name in x}
    grads = regard.linear_attention_backward(x["q"], x["k"], x["v"], d_out, d_state=d_state, rule=rule, **gates)
    for name, grad in zip(("q", "k", "v", "decay", "beta", "state"), grads):
        assert (grad is None) == (name not in x)
        if grad is not None:
            agrees(grad, exact[name], peer[name], f"gradient of {name}")


def test_normalised_features() -> None:
    """Katharopoulos et al. 2020: softmax's kernel replaced by elu(x) + 1."""
    x = draw("linear", seed=3)
    x["state"] = np.zeros_like(x["state"])
    given = {name: x[name] for name in ("q", "k", "v")}
    exact, peer = (
        recurrence(tensors(x, dtype), "linear", D**-0.5, feature=True, normalised=True)[0]
        for dtype in (torch.float64, torch.float32)
    )
    out = regard.linear_attention(*given.values(), feature="elu+1", normalised=True)
    agrees(out, exact, peer, "out")


@pytest.mark.parametrize("rule", RULES)
def test_in_parts_with_the_state_between(rule: str) -> None:
    x = draw(rule, seed=4)
    exact, peer = (recurrence(tensors(x, dtype), rule, 1.0) for dtype in (torch.float64, torch.float32))
    outs, state = [], x["state"]
    for a, b in ((0, 1), (1, 40), (40, L)):
        part = {name: value if name == "state" else value[:, :, a:b] for name, value in x.items()}
        out, state = run({**part, "state": state}, rule=rule, scale=1.0)
        outs.append(out)
    agrees(np.concatenate(outs, 2), exact[0], peer[0], "out")
    agrees(state, exact[1], peer[1], "state")


@pytest.mark.parametrize("chunk", [1, 16, 64, 128])
@pytest.mark.parametrize("rule", RULES)
def test_chunks_change_nothing(rule: str, chunk: int) -> None:
    x = draw(rule, seed=5)
    exact, peer = (recurrence(tensors(x, dtype), rule, 1.0)[0] for dtype in (torch.float64, torch.float32))
    agrees(run(x, rule=rule, scale=1.0, chunk=chunk)[0], exact, peer, "out")


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax"])
def test_kinds(kind: str) -> None:
    x = draw("gated_delta", seed=6)
    out, state = run({name: of_kind(kind, value) for name, value in x.items()}, rule="gated_delta")
    assert type(out) is type(state) is type(of_kind(kind, x["q"]))
    np.testing.assert_array_equal(np.asarray(out), run(x, rule="gated_delta")[0])


class TestCausalConv:
    C, T, WIDTH = 5, 33, 4

    def draw(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(7)
        shapes = {
            "x": (B, self.C, self.T),
            "weight": (self.C, 1, self.WIDTH),
            "bias": (self.C,),
            "state": (B, self.C, self.WIDTH - 1),
        }
        return {name: normal(rng, *shape) for name, shape in shapes.items()}

    def reference(self, x: dict[str, Any], silu: bool) -> tuple[Any, Any]:
        """PyTorch's convolution over the state and the input, joined."""
        joined = torch.cat([x["state"], x["x"]], -1)
        out = torch.nn.functional.conv1d(joined, x["weight"], x["bias"], groups=self.C)
        return torch.nn.functional.silu(out) if silu else out, joined[..., -(self.WIDTH - 1) :]

    @pytest.mark.parametrize("silu", [False, True])
    def test_forward(self, silu: bool) -> None:
        x = self.draw()
        exact, peer = (self.reference(tensors(x, dtype), silu) for dtype in (torch.float64, torch.float32))
        out, state = regard.causal_conv(x["x"], x["weight"], x["bias"], state=x["state"], silu=silu, return_state=True)
        agrees(out, exact[0], peer[0], "out")
        np.testing.assert_array_equal(state, x["x"][..., -(self.WIDTH - 1) :])

    @pytest.mark.parametrize("silu", [False, True])
    def test_backward(self, silu: bool) -> None:
        x = self.draw()
        d_out = normal(np.random.default_rng(8), B, self.C, self.T)

        def gradients(dtype: Any) -> list[Any]:
            leaves = tensors(x, dtype)
            wanted = [leaves[name] for name in ("x", "weight", "bias", "state")]
            return list(torch.autograd.grad(self.reference(leaves, silu)[0], wanted, torch.from_numpy(d_out).to(dtype)))

        got = regard.causal_conv_backward(x["x"], x["weight"], d_out, x["bias"], state=x["state"], silu=silu)
        names = ("x", "weight", "bias", "state")
        for name, *three in zip(names, got, gradients(torch.float64), gradients(torch.float32)):
            agrees(*three, f"gradient of {name}")

    def test_in_parts_with_the_state_between(self) -> None:
        x = self.draw()
        whole = regard.causal_conv(x["x"], x["weight"], x["bias"], state=x["state"])
        outs, state = [], x["state"]
        for a, b in ((0, 1), (1, 3), (3, self.T)):
            out, state = regard.causal_conv(x["x"][..., a:b], x["weight"], x["bias"], state=state, return_state=True)
            outs.append(out)
        np.testing.assert_allclose(np.concatenate(outs, -1), whole, rtol=0, atol=1e-6)  # sums of 5 numbers of about 1
