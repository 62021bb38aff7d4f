"""`nn.MultiheadAttention` without PyTorch at the call: its weights, its masks, its answers, on numpy arrays."""

import numpy as np
import torch

import regard

torch.manual_seed(0)
module = torch.nn.MultiheadAttention(embed_dim=64, num_heads=4, batch_first=True)
state = {name: x.numpy() for name, x in module.state_dict().items()}  # from any file of arrays

layer = regard.MultiHeadAttention.from_torch(state, num_heads=4, batch_first=True)
x = np.random.default_rng(0).standard_normal((2, 10, 64), dtype=np.float32)
padding = np.zeros((2, 10), bool)
padding[1, 7:] = True  # PyTorch's sense: True hides

out, weights = layer(x, x, x, key_padding_mask=padding, is_causal=True)
print(f"output {out.shape}, weights {weights.shape}; each row of weights adds to {weights.sum(-1).min():.6f}")
print("weights of padded keys:", weights[1, :, 7:].max())

with torch.no_grad():
    later = torch.ones(10, 10, dtype=torch.bool).triu(1)
    tensors = torch.from_numpy(x), torch.from_numpy(padding)
    theirs, _ = module(*(tensors[:1] * 3), key_padding_mask=tensors[1], attn_mask=later)
print(f"PyTorch's own layer is {abs(out - theirs.numpy()).max():.1e} away")

# From the module itself, tensors in and gradients out: the parameters are the module's own.
trained = regard.MultiHeadAttention.from_torch(module)
y, _ = trained(*(tensors[:1] * 3), need_weights=False)
y.square().mean().backward()
print(f"gradient of in_proj_weight: {tuple(module.in_proj_weight.grad.shape)}, norm {module.in_proj_weight.grad.norm():.4f}")
