"""The operators that this backend runs, by domain and name, with the opsets that defined the forms it follows."""

from __future__ import annotations

from regard.onnx.attention import attention
from regard.onnx.flex import flex_attention
from regard.onnx.linear import causal_conv_with_state, linear_attention
from regard.onnx.node import Operator
from regard.onnx.normalization import rms_normalization
from regard.onnx.positions import rotary_embedding
from regard.onnx.scatter import tensor_scatter

OPERATORS = {
    ("", "Attention"): Operator(attention, (23, 24, 25)),
    ("", "CausalConvWithState"): Operator(causal_conv_with_state, (27,)),
    ("", "LinearAttention"): Operator(linear_attention, (27,)),
    ("", "RMSNormalization"): Operator(rms_normalization, (23,)),
    ("", "RotaryEmbedding"): Operator(rotary_embedding, (23,)),
    ("", "TensorScatter"): Operator(tensor_scatter, (24,)),
    ("ai.onnx.preview", "FlexAttention"): Operator(flex_attention, (1,)),
}
