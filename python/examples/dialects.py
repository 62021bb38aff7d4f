"""One call, seven readings: what `causal=True` and a query without keys mean elsewhere."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q = rng.standard_normal((1, 1, 4, 8), dtype=np.float32)  # 4 queries
k, v = rng.standard_normal((2, 1, 1, 2, 8), dtype=np.float32)  # 2 keys
v[..., 0] = [1.0, 3.0]  # so that the first element tells which values were seen: their mean is 2

for name, dialect in regard.dialects.DIALECTS.items():
    arrays = (x.swapaxes(1, 2) for x in (q, k, v)) if dialect.layout == "blhd" else (q, k, v)
    out = regard.attention(*arrays, dialect=name, causal=True).reshape(4, 8)
    seen = ", ".join(f"{x:.2f}" for x in out[:, 0])
    print(f"{name:>12}: {dialect.alignment:11} [{seen}]")
print("upper left: query 0 sees key 0. lower right: the last query sees the last key, and the first two queries see none")
