"""ONNX's Attention operator through `regard.onnx.Backend`: a model in, arrays out."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import regard.onnx

node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=1, left_window_size=16, softcap=20.0)
inputs = [
    helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, heads, 100, 64]) for name, heads in (("q", 8), ("k", 2), ("v", 2))
]
output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 100, 64])
graph = helper.make_graph([node], "causal attention in a window", inputs, [output])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
onnx.checker.check_model(model)

rng = np.random.default_rng(0)
arrays = [rng.standard_normal((1, heads, 100, 64), dtype=np.float32) for heads in (8, 2, 2)]
(y,) = regard.onnx.Backend.run_model(model, arrays)
(theirs,) = ReferenceEvaluator(model).run(None, dict(zip("qkv", arrays)))
print(f"output {y.shape}; furthest from ONNX's reference: {abs(y - theirs).max():.1e}")

# The same call without a model: the dialect knows what the operator's options mean.
direct = regard.attention(*arrays, dialect="onnx-25", causal=True, window=(16, -1), softcap=20.0)
print(f"regard.attention with dialect='onnx-25': {abs(direct - y).max():.1e} from the backend")
