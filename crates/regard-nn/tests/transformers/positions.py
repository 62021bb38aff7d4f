"""Makes the fixture of tests/positions.rs: positions as Python's transformers computes them.

    python3 crates/regard-nn/tests/transformers/positions.py
"""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as turn_part
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as turn_interleaved
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.t5.modeling_t5 import T5Attention

LONG = dict(rope_type="longrope", short_factor=[1.0 + i / 8 for i in range(8)], long_factor=[1.0 + i * i / 2 for i in range(8)])
YARN = dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=512)
# The rope_parameters of a model with heads of 16 elements and 4096 positions, and the length of a text.
ROPES = [
    (dict(rope_type="default"), 100),
    (dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5), 100),
    (dict(rope_type="linear", factor=4.0), 100),
    (dict(rope_type="dynamic", factor=2.0), 4096),
    (dict(rope_type="dynamic", factor=2.0), 10000),
    (dict(rope_type="dynamic", factor=1.0, partial_rotary_factor=0.75), 16384),
    (YARN, 100),
    (dict(YARN, beta_fast=20.0, beta_slow=2.0, truncate=False), 100),
    (dict(YARN, attention_factor=1.5, rope_theta=150.0), 100),
    (dict(YARN, mscale=1.0, mscale_all_dim=0.5, factor=40.0), 100),
    (dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256), 100),
    (dict(LONG, original_max_position_embeddings=1024), 1024),
    (dict(LONG, original_max_position_embeddings=1024), 1025),
    (dict(LONG, original_max_position_embeddings=1024, factor=16.0), 4000),
    (dict(LONG, original_max_position_embeddings=1024, attention_factor=1.25), 4000),
]


def config(parameters):
    parameters = {"rope_theta": 10000.0, **parameters}
    return LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=4096, rope_parameters=parameters)


def frequencies(parameters, length):
    kind = parameters["rope_type"]
    if kind == "default":
        part = parameters.get("partial_rotary_factor", 1.0)
        dim = int(16 * part)
        half = LlamaConfig(hidden_size=4 * dim, num_attention_heads=4, rope_parameters={k: v for k, v in parameters.items() if k[0] == "r"})
        return LlamaRotaryEmbedding.compute_default_rope_parameters(half)
    return ROPE_INIT_FUNCTIONS[kind](config(parameters), "cpu", seq_len=length)


def ropes():
    for parameters, length in ROPES:
        inv_freq, attention_factor = frequencies(dict(parameters), length)
        yield dict(parameters=parameters, length=length, frequencies=inv_freq.tolist(), attention_factor=attention_factor)


def turned():
    torch.manual_seed(3)
    x = torch.randn(1, 2, 3, 16)
    positions = torch.tensor([[700, 701, 702]])
    rotary = LlamaRotaryEmbedding(config(dict(YARN)))
    yarn = apply_rotary_pos_emb(x, x, *rotary(x, positions))[0]
    angles = positions[0][:, None] * frequencies(dict(rope_type="default", rope_theta=10000.0), 1)[0]
    interleaved = turn_interleaved(x.transpose(1, 2), angles.sin()[None], angles.cos()[None]).transpose(1, 2)
    angles = positions[0][:, None] * frequencies(dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5), 1)[0]
    angles = torch.cat([angles, angles], -1)[None]
    part = turn_part(x, x, angles.cos(), angles.sin())[0]
    return {name: t.flatten().tolist() for name, t in dict(x=x, yarn=yarn, interleaved=interleaved, part=part).items()}


def buckets():
    for bidirectional, number, largest in [(True, 32, 128), (False, 32, 128), (True, 8, 20), (False, 12, 40), (True, 64, 500)]:
        relative = torch.arange(-600, 601)
        found = T5Attention._relative_position_bucket(relative, bidirectional, number, largest)
        yield dict(bidirectional=bidirectional, buckets=number, max_distance=largest, first=-600, expected=found.tolist())


def slopes():
    return {heads: build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1].tolist() for heads in [1, 6, 8, 12, 20, 36]}


def main():
    marian = MarianSinusoidalPositionalEmbedding(40, 6)
    marian.weight.data = marian.create_weight() if hasattr(marian, "create_weight") else marian.weight.data
    fixture = dict(
        ropes=list(ropes()), turned=turned(), buckets=list(buckets()), slopes=slopes(), marian=marian.weight.flatten().tolist(),
    )
    (Path(__file__).parent / "positions.json").write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


main()
