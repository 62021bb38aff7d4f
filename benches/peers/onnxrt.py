"""ONNX Runtime as a peer of `regard bench`: one node, whichever of its attentions runs the case fastest.

    regard bench --peer "python3 benches/peers/onnxrt.py"

`Attention` (ONNX, opset 24) takes `[batch, heads, length, dim]`; `GroupQueryAttention` (com.microsoft) takes `[batch, length, heads · dim]`
and is always causal.
"""

import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import masks
from protocol import Unsupported, Work, serve

TYPES = {"f32": (TensorProto.FLOAT, np.float32), "f16": (TensorProto.FLOAT16, np.float16)}
threads = 1


def set_threads(n):
    global threads
    threads = n


def session(node, inputs, result):
    """A session of one node: `inputs` are arrays by name."""
    kinds = {np.dtype(x): t for t, x in (*TYPES.values(), (TensorProto.BOOL, np.bool_), (TensorProto.INT32, np.int32))}
    info = [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()]
    outs = [helper.make_tensor_value_info(name, result, None) for name in node.output]
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "attention", info, outs), opset_imports=opsets, ir_version=11)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def standard(case, q, k, v, mask, result):
    inputs = {"q": q, "k": k, "v": v}
    if mask is not None:
        inputs["mask"] = mask
    causal = int(case["causal"] and mask is None)
    node = helper.make_node("Attention", list(inputs), ["out"], is_causal=causal)
    made = session(node, inputs, result)
    return lambda: made.run(["out"], inputs)


def grouped(case, q, k, v, mask, result):
    """Causal, and with a window; keys and values enter as new ones of an empty cache."""
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    if q_len != kv_len or not (case["causal"] or case["window"]) or case["documents"] or case["blocks"]:
        raise Unsupported("GroupQueryAttention is causal")
    flat = lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3).reshape(batch, kv_len, -1))
    empty = np.zeros((batch, kv_heads, 0, dim), q.dtype)
    inputs = {"q": flat(q), "k": flat(k), "v": flat(v), "past_k": empty, "past_v": empty}
    inputs |= {"last": np.full(batch, kv_len - 1, np.int32), "total": np.array([kv_len], np.int32).reshape(())}
    heads = dict(num_heads=q_heads, kv_num_heads=kv_heads, local_window_size=case["window"] or -1)
    node = helper.make_node("GroupQueryAttention", list(inputs), ["out", "present_k", "present_v"], domain="com.microsoft", **heads)
    made = session(node, inputs, result)
    return lambda: made.run(["out"], inputs)


def check(case):
    """Raises where there is no kernel; the type of the case otherwise."""
    if case["kind"] not in ("forward", "memory"):
        raise Unsupported("forward passes only")
    if case["dtype"] not in TYPES:
        raise Unsupported("no bf16 on CPUs")
    if case["lengths"]:
        raise Unsupported("sequences of several lengths")
    *_, q_len, kv_len, _ = case["sizes"]
    if q_len * kv_len > 1 << 30:
        raise Unsupported("scores of this length do not fit")
    return TYPES[case["dtype"]]


def prepare(case):
    result, dtype = check(case)
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    random = np.random.default_rng(1)
    make = lambda *shape: random.standard_normal(shape, np.float32).astype(dtype)
    q, k, v = make(batch, q_heads, q_len, dim), make(batch, kv_heads, kv_len, dim), make(batch, kv_heads, kv_len, dim)
    dense = case["window"] or case["documents"] or case["blocks"]
    mask = masks.dense(case) if dense else None
    work, fastest = None, np.inf
    for node, way in (("Attention, dense mask" if dense else "Attention", standard), ("GroupQueryAttention", grouped)):
        try:
            call = way(case, q, k, v, mask, result)
        except (Unsupported, NoKernel):
            continue
        if case["kind"] == "memory":
            return Work(call, node)  # a call before the one that is measured would leave its memory behind
        call()
        began = time.perf_counter()
        call()
        if (seconds := time.perf_counter() - began) < fastest:
            work, fastest = Work(call, node), seconds
    if work is None:
        raise Unsupported("no kernel for it")
    return work


def outputs(case, q, k, v):
    result, dtype = check(case)
    return {"attention": standard(case, q.astype(dtype), k.astype(dtype), v.astype(dtype), None, result)()[0]}


serve(f"ONNX Runtime {ort.__version__}", prepare, set_threads, outputs)
