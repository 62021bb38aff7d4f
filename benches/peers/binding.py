"""regard's Python package as a peer of `regard bench`: what the binding costs beside the call from Rust.

python3 -m pip install .
regard bench --case bf16-call --case one-row --peer "python3 benches/peers/binding.py"
"""

import torch
from protocol import Unsupported, Work, serve

import regard

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def prepare(case):
    if case["kind"] != "forward" or case["page"] or case["documents"] or case["blocks"]:
        raise Unsupported("a plain forward pass is what this peer is for")
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    make = lambda heads, length: torch.randn(batch, heads, length, dim).to(DTYPES[case["dtype"]])
    q, k, v = make(q_heads, q_len), make(kv_heads, kv_len), make(kv_heads, kv_len)
    if not case["causal"] and not case["window"]:
        gqa = q_heads != kv_heads
        return Work(lambda: [regard.scaled_dot_product_attention(q, k, v, enable_gqa=gqa)])
    options = {"causal": "lower_right"}
    if case["window"]:
        options["window"] = (case["window"] - 1, 0)
    return Work(lambda: [regard.attention(q, k, v, **options)])


serve("regard in Python", prepare, regard.set_num_threads)
