"""The masks of a case, dense, for peers that know no others: true where a query sees a key, `[q_len, kv_len]`."""

import numpy as np


def dense(case):
    """The mask, or None where everything is seen; causal aligns the last query with the last key."""
    *_, q_len, kv_len, _ = case["sizes"]
    q = np.arange(q_len, dtype=np.int32)[:, None] + (kv_len - q_len)
    kv = np.arange(kv_len, dtype=np.int32)[None, :]
    if window := case["window"]:
        return (kv <= q) & (kv + window > q)
    if blocks := case["blocks"]:
        return bigbird(blocks, q_len)
    if lengths := case["documents"]:
        document = np.repeat(np.arange(len(lengths)), lengths)
        same = document[:, None] == document[None, :]
        return same & (kv <= q) if case["causal"] else same
    return kv <= q if case["causal"] else None


def bigbird(blocks, length):
    size, n = blocks["size"], -(-length // blocks["size"])
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    seen = (2 * abs(i - j) < blocks["window"]) | (i < blocks["global"]) | (j < blocks["global"])
    random = np.random.default_rng(9).integers(n, size=(n, blocks["random"]))
    seen[i, random] = True
    return np.kron(seen, np.ones((size, size), bool))[:length, :length]
