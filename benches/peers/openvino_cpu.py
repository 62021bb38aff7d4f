"""OpenVINO as a peer of `regard bench`: its `ScaledDotProductAttention` (opset 13), compiled for the CPU.

    regard bench --peer "python3 benches/peers/openvino_cpu.py"
"""

import numpy as np
import openvino as ov
from openvino import opset13 as op

import masks
from protocol import Unsupported, Work, serve

TYPES = {"f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16}
core = ov.Core()
threads = 1


def set_threads(n):
    global threads
    threads = n


def tensor(x, dtype):
    """An array of f32 in the type of the case."""
    if dtype != "bf16":
        return ov.Tensor(x.astype(np.float16) if dtype == "f16" else x)
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    made = ov.Tensor(ov.Type.bf16, x.shape)
    made.data.view(np.uint16)[...] = rounded
    return made


def compile(case, shapes, mask):
    q, *kv = (op.parameter(shape, TYPES[case["dtype"]]) for shape in shapes)
    group = shapes[0][1] // shapes[1][1]
    repeat = lambda x: op.reshape(op.tile(op.unsqueeze(x, 2), [1, 1, group, 1, 1]), [0, shapes[0][1], *shapes[1][2:]], True)
    k, v = (x if group == 1 else repeat(x) for x in kv)
    inputs, causal = [q, *kv], case["causal"] and mask is None
    if mask is not None:
        inputs.append(op.parameter(mask.shape, ov.Type.boolean))
    out = op.scaled_dot_product_attention(q, k, v, *inputs[3:], causal=causal)
    hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": TYPES[case["dtype"]]}
    return core.compile_model(ov.Model([out], inputs), "CPU", hints).create_infer_request()


def call(case, q, k, v):
    if case["kind"] not in ("forward", "memory"):
        raise Unsupported("forward passes only")
    if case["lengths"]:
        raise Unsupported("sequences of several lengths")
    *_, q_len, kv_len, _ = case["sizes"]
    if q_len * kv_len > 1 << 30:
        raise Unsupported("scores of this length do not fit")
    special = case["window"] or case["documents"] or case["blocks"]
    mask = masks.dense(case) if special else None
    if not case["causal"] and mask is None and q.shape[1] != k.shape[1]:
        q = q.reshape(k.shape[0], k.shape[1], -1, k.shape[3])  # heads that share keys are queries of one head
    request = compile(case, [q.shape, k.shape, v.shape], mask)
    tensors = [tensor(x, case["dtype"]) for x in (q, k, v)] + ([ov.Tensor(mask)] if special else [])
    for i, x in enumerate(tensors):
        request.set_input_tensor(i, x)

    def run():
        request.infer()
        return [request.get_output_tensor(0).data]

    precision = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
    notes = ["dense mask"] if special else []
    if precision != TYPES[case["dtype"]]:
        notes.append(f"computes in {precision.get_type_name()}")
    return Work(run, ", ".join(notes) or None)


def prepare(case):
    batch, q_heads, kv_heads, q_len, kv_len, dim = case["sizes"]
    random = np.random.default_rng(1)
    make = lambda *shape: random.standard_normal(shape, np.float32)
    return call(case, make(batch, q_heads, q_len, dim), make(batch, kv_heads, kv_len, dim), make(batch, kv_heads, kv_len, dim))


def outputs(case, q, k, v):
    out = call(case, q, k, v).call()[0]
    if case["dtype"] == "bf16":
        out = (out.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return {"attention": out.reshape(q.shape)}


serve(f"OpenVINO {ov.__version__.split('-')[0]}", prepare, set_threads, outputs)
