"""PyTorch as a peer of `regard bench`.

    regard bench --peer "python3 benches/peers/pytorch.py"
"""

import torch
import torch.nn.functional as F
from torch import nn

import masks
from protocol import Unsupported, Work, serve, status

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def attention(case):
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    backward = "backward" in case["kind"]
    gqa = q_heads != kv_heads
    make = lambda *shape: torch.randn(*shape).to(DTYPES[case["dtype"]]).requires_grad_(backward)
    if case["lengths"]:
        sequences = [(make(1, q_heads, q_len, dim), make(1, kv_heads, n, dim), make(1, kv_heads, n, dim)) for n in case["lengths"]]
        forward = lambda: [F.scaled_dot_product_attention(q, k, v, enable_gqa=gqa) for q, k, v in sequences]
        return Work(torch.inference_mode()(forward), "one sequence after another")
    q, k, v = make(batch, q_heads, q_len, dim), make(batch, kv_heads, kv_len, dim), make(batch, kv_heads, kv_len, dim)
    d_out = torch.randn(batch, q_heads, q_len, dim).to(q.dtype) if backward else None
    mask, note = None, "contiguous keys" if case["page"] else None
    if case["documents"] and not backward:
        parts = list(zip(*(x.split(case["documents"], dim=2) for x in (q, k, v))))
        forward = lambda: [F.scaled_dot_product_attention(*part, is_causal=case["causal"], enable_gqa=gqa) for part in parts]
        return Work(torch.inference_mode()(forward), "one document after another")
    if case["window"] or case["blocks"] or case["documents"]:
        if q_len > 1 << 16:
            raise Unsupported("no window, and a dense mask of this length does not fit")
        mask, note = torch.from_numpy(masks.dense(case)), "dense mask"
    if "inspect" in case["kind"]:
        return Work(torch.inference_mode()(materialised(q, k, v, case["causal"])), "weights of all heads materialised")
    causal = case["causal"] and mask is None
    if causal and q_len != kv_len:
        raise Unsupported("its causal mask aligns the first positions")

    def forward():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=gqa)

    def both():
        q.grad = k.grad = v.grad = None
        out = forward()
        out.backward(d_out)
        return out, q.grad, k.grad, v.grad

    return Work(both if backward else torch.inference_mode()(lambda: [forward()]), note)


def unfused(q, k, v, hidden):
    """Outputs and weights as three operations in the type of the inputs; `hidden` is where a query does not see, or None."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    return weights @ v, weights


def materialised(q, k, v, causal):
    """What BertViz draws: the weights of every head of every layer (the batch), as eager attention returns them."""
    length = k.shape[2]
    size, room = q[..., 0].numel() * length * q.element_size(), status("MemAvailable", "/proc/meminfo")
    if size > room:
        raise Unsupported(f"{size / 1e9:.0f} GB of weights do not fit into {room / 1e9:.0f} GB")
    hidden = torch.ones(q.shape[2], length, dtype=torch.bool).triu(1) if causal else None

    def call():
        all_layers = [unfused(*each, hidden) for each in zip(q, k, v)]
        del all_layers  # the weights count as working memory, not as a result
        return []

    return call


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


def prepare(case):
    torch.manual_seed(1)
    return Work(training(case)) if case["kind"] == "train" else attention(case)


def outputs(case, *arrays):
    """The fused kernel, and the same as three operations in the type of the inputs."""
    q, k, v = (torch.from_numpy(x).to(DTYPES[case["dtype"]]) for x in arrays)
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=case["causal"])
    hidden = torch.ones(q.shape[2], k.shape[2], dtype=bool).triu(1) if case["causal"] else None
    return {"fused": fused.float().numpy(), "unfused": unfused(q, k, v, hidden)[0].float().numpy()}


if __name__ == "__main__":
    serve(f"PyTorch {torch.__version__}", prepare, torch.set_num_threads, outputs)
