"""Makes tests/torch/attention.safetensors: small nn.MultiheadAttention layers, with what PyTorch computes for them in f64.

    python3 crates/regard-nn/tests/torch/make.py

`flags` are [heads, batch_first, add_zero_attn, is_causal, need_weights (0 no, 1 averaged, 2 per head)]. The gradients are those of
Σ r·out, and of Σ r·out + Σ s·weights where there is `s`: PyTorch's weights of a row that sees nothing are NaN, so there its output
is asked for alone, and 0 is written for NaN.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

BATCH, Q_LEN, KV_LEN, WIDTH = 2, 3, 5, 6


def causal(q_len, kv_len):
    return torch.ones(q_len, kv_len).tril() == 0


def some(*shape):
    """Hides about a third, never the first key."""
    mask = torch.rand(shape) < 0.4
    mask[..., 0] = False
    return mask


def row_of_nothing():
    mask = some(Q_LEN, KV_LEN)
    mask[1] = True
    return mask


def hidden_bias(*shape):
    return torch.randn(shape).masked_fill(some(*shape), float("-inf"))


CASES = {
    "plain": dict(weights=1, self_attention=True),
    "without_bias": dict(bias=False, batch_first=True, weights=2),
    "other_sizes": dict(heads=3, kdim=4, vdim=5, padding=lambda: some(BATCH, KV_LEN), weights=2),
    "boolean_masks": dict(batch_first=True, padding=lambda: some(BATCH, KV_LEN), mask=lambda: some(Q_LEN, KV_LEN), weights=1),
    "float_masks": dict(padding=lambda: hidden_bias(BATCH, KV_LEN), mask=lambda: torch.randn(BATCH * 2, Q_LEN, KV_LEN), weights=2),
    "float_mask_hides": dict(mask=lambda: hidden_bias(Q_LEN, KV_LEN), weights=1),
    "mask_per_head": dict(mask=lambda: some(BATCH * 2, Q_LEN, KV_LEN), weights=2, batch_first=True),
    "extra_keys": dict(
        add_bias_kv=True, add_zero_attn=True, padding=lambda: some(BATCH, KV_LEN), mask=lambda: causal(Q_LEN, KV_LEN), is_causal=True,
        weights=2,
    ),
    "extra_keys_other_sizes": dict(add_bias_kv=True, kdim=4, vdim=5, mask=lambda: torch.randn(Q_LEN, KV_LEN), weights=1),
    "zero_key": dict(add_zero_attn=True, self_attention=True, batch_first=True, weights=1),
    "row_sees_nothing": dict(mask=row_of_nothing, weights=2, nothing=True),
    "sequence_sees_nothing": dict(
        batch_first=True, padding=lambda: torch.tensor([[False] * KV_LEN, [True] * KV_LEN]), weights=1, nothing=True,
    ),
    "single": dict(single=True, padding=lambda: some(KV_LEN), mask=lambda: some(2, Q_LEN, KV_LEN), weights=2),
}


def rounded(x):
    """Numbers of f32 in f64: both sides compute with the same."""
    return x.float().double() if x.is_floating_point() else x


def case(name, heads=2, weights=0, self_attention=False, single=False, nothing=False, padding=None, mask=None, is_causal=False, **options):
    layer = torch.nn.MultiheadAttention(WIDTH, heads, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(rounded(0.7 * torch.randn_like(parameter)))

    def text(length, width):
        shape = [length, width] if single else [BATCH, length, width] if layer.batch_first else [length, BATCH, width]
        return rounded(torch.randn(shape, dtype=torch.float64)).requires_grad_()

    query = text(Q_LEN, WIDTH)
    key = query if self_attention else text(KV_LEN, layer.kdim)
    value = query if self_attention else text(KV_LEN, layer.vdim)
    masks = {"key_padding_mask": padding, "attn_mask": mask}
    masks = {k: rounded(make().double() if make().is_floating_point() else make()) for k, make in masks.items() if make}
    for m in masks.values():
        if m.is_floating_point():
            m.requires_grad_()
    out, given = layer(query, key, value, need_weights=bool(weights) and not nothing, average_attn_weights=weights == 1,
                       is_causal=is_causal, **masks)
    r = rounded(torch.randn_like(out))
    loss = (out * r).sum()
    tensors = {"query": query, "key": key, "value": value, "out": out, "r": r, **masks}
    tensors["flags"] = torch.tensor([heads, layer.batch_first, layer.add_zero_attn, is_causal, weights], dtype=torch.uint8)
    if nothing:
        with torch.no_grad():
            given = layer(query, key, value, average_attn_weights=weights == 1, **masks)[1].nan_to_num(0.0)
    else:
        tensors["s"] = rounded(torch.randn_like(given))
        loss = loss + (given * tensors["s"]).sum()
    tensors["weights"] = given
    loss.backward()
    assert not out.isnan().any() and not given.isnan().any()
    for k, m in masks.items():
        if m.grad is not None:
            tensors[f"grad.{k}"] = m.grad
    tensors["grad.query"] = query.grad
    if not self_attention:
        tensors |= {"grad.key": key.grad, "grad.value": value.grad}
    for k, parameter in layer.named_parameters():
        tensors |= {f"state.{k}": parameter, f"grad.state.{k}": parameter.grad}
    plain = lambda x: x.detach().contiguous().clone()
    kind = lambda x: plain(x).float() if x.is_floating_point() else plain(x).to(torch.uint8)
    return {f"{name}/{k}": kind(x) for k, x in tensors.items()}


def main():
    torch.manual_seed(1)
    tensors = {}
    for name, options in CASES.items():
        tensors |= case(name, **options)
    target = Path(__file__).with_name("attention.safetensors")
    save_file(tensors, target)
    print(torch.__version__, len(CASES), "cases", target.stat().st_size, "bytes")


main()
