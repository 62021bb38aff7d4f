"""Linear attention: a state of fixed size in place of a cache that grows, from the prompt to the last token."""

import numpy as np

import regard

HEADS, LENGTH, DIM = 4, 1000, 64
rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, HEADS, LENGTH, DIM), dtype=np.float32)
k /= np.linalg.norm(k, axis=-1, keepdims=True)  # delta rules want keys of length 1
decay = -0.1 * rng.random((1, HEADS, LENGTH, 1), dtype=np.float32)  # logarithms: at most 0
beta = rng.random((1, HEADS, LENGTH, 1), dtype=np.float32)  # rates of correction

gates = {"linear": {}, "gated": {"decay": decay}, "delta": {"beta": beta}, "gated_delta": {"decay": decay, "beta": beta}}
for rule, given in gates.items():
    out, state = regard.linear_attention(q, k, v, rule=rule, **given, return_state=True)
    print(f"{rule:>11}: output {out.shape}, state {state.shape}, {state.nbytes:,} bytes after {LENGTH} tokens or a million")

# The prompt in one call, then token by token: the state is all that goes from one to the next.
part = lambda x, a, b: x[:, :, a:b]
out, state = regard.linear_attention(
    *(part(x, 0, 900) for x in (q, k, v)), rule="gated_delta", decay=part(decay, 0, 900), beta=part(beta, 0, 900), return_state=True
)
steps = [out]
for t in range(900, LENGTH):
    gate = {"decay": part(decay, t, t + 1), "beta": part(beta, t, t + 1)}
    out, state = regard.linear_attention(
        *(part(x, t, t + 1) for x in (q, k, v)), rule="gated_delta", state=state, **gate, return_state=True
    )
    steps.append(out)
whole = regard.linear_attention(q, k, v, rule="gated_delta", **gates["gated_delta"])
print(f"in one call or token by token: at most {abs(np.concatenate(steps, 2) - whole).max():.1e} apart")

# The short convolution that such models have before it, with its own state.
x, weight = rng.standard_normal((1, 256, LENGTH), dtype=np.float32), rng.standard_normal((256, 1, 4), dtype=np.float32)
y, last = regard.causal_conv(x, weight, silu=True, return_state=True)
print(f"causal convolution: output {y.shape}, state {last.shape}")
