"""Partial attention merges: the output and the log-sum-exp of two sets of keys are all that their union needs."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q = rng.standard_normal((4, 8, 1, 64), dtype=np.float32)  # four users, one new token each
shared_k, shared_v = rng.standard_normal((2, 1, 8, 1000, 64), dtype=np.float32)  # the system prompt that all of them have
own_k, own_v = rng.standard_normal((2, 4, 8, 50, 64), dtype=np.float32)  # what each of them wrote

# The prompt is read once for all four: their queries lie side by side in one sequence.
side_by_side = q.transpose(2, 1, 0, 3)
out, lse = regard.attention(side_by_side, shared_k, shared_v, return_lse=True)
of_prompt = (np.ascontiguousarray(out.transpose(2, 1, 0, 3)), np.ascontiguousarray(lse.transpose(2, 1, 0)))
of_own = regard.attention(q, own_k, own_v, return_lse=True)

out, lse = regard.merge_states([of_prompt[0], of_own[0]], [of_prompt[1], of_own[1]])

k = np.concatenate([np.broadcast_to(shared_k, (4, 8, 1000, 64)), own_k], axis=2)
v = np.concatenate([np.broadcast_to(shared_v, (4, 8, 1000, 64)), own_v], axis=2)
whole = regard.attention(q, k, v)
print(f"merged output {out.shape}; furthest from attention over all keys: {abs(out - whole).max():.1e}")
share = np.exp(of_prompt[1] - lse).mean()
print(f"the prompt has {100 * share:.0f} % of the attention on average, and {100 * 1000 / 1050:.0f} % of the keys")
