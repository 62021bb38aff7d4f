"""PyTorch as a peer of `regard bench`: reads one JSON line after another, answers each with one.

    regard bench --peer "python3 benches/peers/pytorch.py"
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


def attention(case):
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    backward = case["kind"] == "backward"
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[case["dtype"]]
    make = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_(backward)
    q, k, v = make(batch, q_heads, q_len, dim), make(batch, kv_heads, kv_len, dim), make(batch, kv_heads, kv_len, dim)
    d_out = torch.randn(batch, q_heads, q_len, dim).to(dtype)

    def forward():
        return F.scaled_dot_product_attention(q, k, v, is_causal=case["causal"], enable_gqa=q_heads != kv_heads)

    def both():
        q.grad = k.grad = v.grad = None
        forward().backward(d_out)

    return both if backward else torch.inference_mode()(forward)


class Block(nn.Module):
    def __init__(self, hidden, heads, kv_heads, intermediate):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, hidden // heads
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.q, self.o = linear(hidden, hidden), linear(hidden, hidden)
        self.k, self.v = linear(hidden, kv_heads * self.dim), linear(hidden, kv_heads * self.dim)
        self.gate, self.up, self.down = linear(hidden, intermediate), linear(hidden, intermediate), linear(intermediate, hidden)
        self.norm1, self.norm2 = nn.RMSNorm(hidden, eps=1e-5), nn.RMSNorm(hidden, eps=1e-5)

    def forward(self, x, cos, sin):
        batch, length, hidden = x.shape
        split = lambda y, heads: y.view(batch, length, heads, self.dim).transpose(1, 2)

        def turn(y):
            a, b = y.chunk(2, dim=-1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

        h = self.norm1(x)
        q, k, v = split(self.q(h), self.heads), split(self.k(h), self.kv_heads), split(self.v(h), self.kv_heads)
        h = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o(h.transpose(1, 2).reshape(batch, length, hidden))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, vocab, hidden, layers, heads, kv_heads, intermediate, context):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(hidden, heads, kv_heads, intermediate) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        dim = hidden // heads
        angles = torch.outer(torch.arange(context), 10000.0 ** (-torch.arange(0, dim, 2) / dim))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def loss(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def training(case):
    windows, heads, kv_heads, layers, context, dim = case["sizes"]
    vocab, intermediate = 4096, 640
    model = Llama(vocab, heads * dim, layers, heads, kv_heads, intermediate, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    text = torch.randint(vocab, (windows, context + 1))

    def step():
        optimizer.zero_grad(set_to_none=True)
        model.loss(text[:, :-1], text[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def main():
    work = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "hello" in message:
                torch.set_num_threads(message["hello"]["threads"])
                answer = {"name": f"PyTorch {torch.__version__}"}
            elif "case" in message:
                torch.manual_seed(1)
                case = message["case"]
                work = training(case) if case["kind"] == "train" else attention(case)
                answer = {"ready": True}
            else:
                began = time.perf_counter()
                for _ in range(message["run"]):
                    work()
                answer = {"seconds": time.perf_counter() - began}
        except Exception as error:  # told to regard, which ends the run
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
