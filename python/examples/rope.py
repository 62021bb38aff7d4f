"""Rotary positions: scores depend on distances only, and scalings reach further than a model was trained for."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q, k = rng.standard_normal((2, 1, 1, 1, 64), dtype=np.float32)

rope = regard.Rope(64, theta=10_000.0)
for at in (0, 1_000, 100_000):
    score = (rope.turn(q, first=at + 7) * rope.turn(k, first=at)).sum()
    print(f"query at {at + 7:>6}, key at {at:>6}: score {score:.4f}")

# A cache holds keys that are turned already; a new query is turned by its own position.
keys, values = rng.standard_normal((2, 1, 2, 40, 64), dtype=np.float32)
cache = regard.KVCache(pages=8, kv_heads=2, head_dim=64)
sequence = cache.sequence()
sequence.append(rope.turn(keys), values)
query = rng.standard_normal((1, 8, 1, 64), dtype=np.float32)
out = sequence.attend(rope.turn(query, first=len(sequence) - 1), causal="lower_right")
print(f"attention with turned keys: {out.shape}")

# Scalings, as a Hugging Face configuration has them.
llama3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
scaled = regard.Rope(64, theta=500_000.0, scaling=llama3)
plain = regard.Rope(64, theta=500_000.0)
print(f"llama3: the slowest pair turns {plain.frequencies[-1] / scaled.frequencies[-1]:.0f} times slower, the fastest as before")
print(f"sinusoidal positions for embeddings: {regard.sinusoidal(100, 64).shape}")
