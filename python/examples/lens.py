"""What attention heads look at: facts of every row without a matrix of weights, any part of the matrix at any zoom."""

import numpy as np

import regard
from regard import lens

rng = np.random.default_rng(0)
length, dim = 8192, 64
q, k, v = (rng.standard_normal((1, 2, length, dim), dtype=np.float32) for _ in range(3))
q[:, 1] = 3 * np.roll(k[:, 1], 1, axis=-2)  # head 1 looks for the key before its own

facts = lens.inspect(q, k, v, causal="lower_right", top=2, ranges={"preface": (0, 100)})
print(
    f"{length} rows of {q.shape[1]} heads; the weights would take {4 * 2 * length**2 / 2**20:.0f} MiB, and are never there together"
)
for head in range(2):
    row = (0, head, length // 2)
    keys = ", ".join(f"{weight:.3f} on key {key}" for key, weight in zip(facts.top_keys[row], facts.top_weights[row], strict=True))
    print(f"head {head}, row {length // 2}: entropy {facts.entropy[row]:.2f} nats, {keys}")
    print(f"  of all rows: distance {facts.distance[0, head].mean():.0f}, on the first 4 keys {facts.first[0, head].mean():.4f}")
print("on the preface:", facts.ranges["preface"][0].mean(-1))

# Exact weights of one row, and the matrix pooled in 8 by 8 cells: each row of cells sums to 1.
(row,) = lens.weights(q, k, rows=1000, lse=facts.lse, causal="lower_right")[0, 1]
print(f"row 1000 of head 1: {row[999]:.3f} on key 999, all in all {row.sum():.4f}")
print(lens.map(q, k, block=length // 8, lse=facts.lse, causal="lower_right")[0, 0].round(2))
print("keys that receive most:", lens.received(q, k, lse=facts.lse, causal="lower_right")[0].argmax(-1))
print("kernel:", regard.explain(q, k, v, causal="lower_right").kernel)
