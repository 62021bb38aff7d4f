"""A paged key/value cache: a prompt is written once, its forks share its pages, and all decode in one call."""

import numpy as np

import regard

HEADS, KV_HEADS, DIM = 8, 2, 64
rng = np.random.default_rng(0)


def tokens(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of new tokens, `[kv_heads, tokens, dim]`: what a model would compute."""
    k, v = rng.standard_normal((2, KV_HEADS, count, DIM), dtype=np.float32)
    return k, v


cache = regard.KVCache(pages=64, page_size=16, kv_heads=KV_HEADS, head_dim=DIM)
prompt = cache.sequence()
prompt.append(*tokens(40))
print(f"{prompt} in pages {prompt.block_table}; {cache.free_pages} of {cache.pages} pages are free")

# Three answers to one prompt. A fork copies nothing; a page that two hold is copied when one of them writes to it.
answers = [prompt.fork() for _ in range(3)]
print(f"after 3 forks {cache.free_pages} pages are free")

for step in range(20):
    for answer in answers:
        answer.append(*tokens(1))
    q = rng.standard_normal((len(answers), HEADS, 1, DIM), dtype=np.float32)  # the new token of each
    out = cache.attend(q, answers, causal="lower_right")
print(f"decoded 20 tokens of {len(answers)} answers, output {out.shape}; {cache.free_pages} pages are free")

# One answer alone is the same row, bit for bit.
alone = answers[1].attend(q[1:2], causal="lower_right")
print("alone or together, the same bits:", np.array_equal(alone[0], out[1]))

answers[0].truncate(50)
answers[1].free()
print(f"after a truncation and a free: {answers}, {cache.free_pages} pages are free")
