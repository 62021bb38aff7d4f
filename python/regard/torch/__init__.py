"""regard for PyTorch: differentiable attention on the CPU, and regard under PyTorch's own functions.

- `attention`: all of `regard.attention`, with gradients of queries, keys, values, bias and sinks, dropout, jagged nested tensors;
- `scaled_dot_product_attention`: PyTorch's function;
- `linear_attention` and `causal_conv`: the differentiable forms of those of `regard`;
- `install()` and `uninstall()`: regard under `torch.nn.functional.scaled_dot_product_attention`, for models that are not changed.

All of them can be compiled by `torch.compile`, without a break in the graph unless masks or scores are objects.
"""

from __future__ import annotations

from .attention import attention
from .checks import ArgumentError, ArgumentTypeError
from .install import install, installed, uninstall
from .linear import causal_conv, linear_attention
from .sdpa import scaled_dot_product_attention

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "attention",
    "causal_conv",
    "install",
    "installed",
    "linear_attention",
    "scaled_dot_product_attention",
    "uninstall",
]
