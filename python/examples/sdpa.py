"""PyTorch's attention function, on numpy arrays."""

import numpy as np

import regard

rng = np.random.default_rng(0)
query = rng.standard_normal((1, 8, 100, 64), dtype=np.float32)  # 8 heads, 100 positions, 64 elements
key, value = rng.standard_normal((2, 1, 2, 100, 64), dtype=np.float32)  # 2 heads, each for 4 of the query's

out = regard.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
print(f"{type(out).__name__} of shape {out.shape} and type {out.dtype}")

# By hand: position 0 sees only itself, so its output is its own value.
print("position 0 gives its own value:", np.array_equal(out[0, 5, 0], value[0, 1, 0]))

# A boolean mask: True takes part. A row without True gives zeros, never NaN.
mask = np.ones((100, 100), bool)
mask[3] = False
out = regard.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
print("a query that sees nothing gives zeros:", not out[:, :, 3].any())
