"""`regard.onnx`: a backend for ONNX's attention operators, which ONNX's own test runner can test.

    model = onnx.load("attention.onnx")
    (y,) = regard.onnx.Backend.run_model(model, [q, k, v])

It runs `Attention` (opsets 23, 24 and 25), `FlexAttention` (`ai.onnx.preview` 1), `LinearAttention` and `CausalConvWithState` (27),
`RotaryEmbedding` and `RMSNormalization` (23), and `TensorScatter` (24), one by one or in graphs, and refuses every other operator by name.

What runs where: `Attention` and `FlexAttention` on float32 run in regard's fused kernels, which never hold the scores. Three things hold
them, in numpy, as long as their node runs: float16, bfloat16 and float64 inputs, or a `softmax_precision` of a half (ONNX rounds halves after
every step and its tolerance demands the same roundings, and the kernels compute in float32); `qk_matmul_output`, beside the fused `Y`; and a
`score_mod` or `prob_mod` that is not one of regard's masks and scores (see `regard.onnx.modifier`).
"""

from __future__ import annotations

from regard.onnx.backend import Backend, Model
from regard.onnx.node import UnsupportedOperator

__all__ = ["Backend", "Model", "UnsupportedOperator"]
