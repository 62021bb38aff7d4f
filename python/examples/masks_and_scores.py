"""Masks say who is seen, scores say how much: both compose, and hidden tiles cost nothing."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 8, 4096, 64), dtype=np.float32)


def picture(mask: regard.Mask, length: int = 12) -> str:
    rows = mask.visible((1, 1, length, length))[0, 0]
    return "\n".join("  " + " ".join("■" if seen else "·" for seen in row) for row in rows)


# Both must agree: `&`. Either is enough: `|`. Here a window of 4 keys, and the first 2 for everyone.
sliding = regard.Causal.LOWER_RIGHT & (regard.Window(3, 0) | regard.Global(2))
print(f"{sliding}\n{picture(sliding)}")

# Scores run from left to right, before every mask.
score = regard.Alibi(8) >> regard.Softcap(30.0)
out = regard.attention(q, k, v, mask=regard.Causal.LOWER_RIGHT & (regard.Window(255, 0) | regard.Global(4)), score=score)
print(f"{score}: output {out.shape}")

# The same, and more, by name: packed documents, a bias, attention sinks, and the log-sum-exp of each row.
texts = [0, 1000, 1001, 4096]  # three texts end to end
packed = [x[0].swapaxes(0, 1) for x in (q, k, v)]  # [total, heads, dim]
out, lse = regard.attention(
    *packed, layout="packed", documents=texts, causal="upper_left", softcap=30.0, sinks=np.zeros(8, np.float32), return_lse=True
)
print(f"{len(texts) - 1} packed texts: output {out.shape}, log-sum-exp {lse.shape}")

for name, mask in (("causal", regard.Causal.LOWER_RIGHT), ("window of 256", regard.Causal.LOWER_RIGHT & regard.Window(255, 0))):
    plan = regard.explain(q, k, v, mask=mask)
    print(f"{name}: {100 * plan.hidden_share:.0f} % of the tiles are hidden and cost nothing")
