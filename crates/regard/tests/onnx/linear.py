"""Writes linear.txt: what ONNX's reference implementation says about LinearAttention and CausalConvWithState (opset 27).

    python3 -m pip install onnx==1.23.2 && python3 linear.py > linear.txt

Inputs are not stored: both sides make them from the same counter (`numbers`). A case is one line of words, then a line of outputs and
a line of states, in ONNX's layouts.
"""

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def numbers(seed, shape, low, high):
    """Knuth's multiplicative hash of a counter, to eleven bits between low and high: exact in f32."""
    count = int(np.prod(shape))
    counter = np.arange(count, dtype=np.uint64) + np.uint64(1000 * seed + 1)
    bits = (counter * np.uint64(2654435761) % np.uint64(1 << 32)) >> np.uint64(21)
    return (np.float32(low) + bits.astype(np.float32) * np.float32((high - low) / 2048)).reshape(shape).astype(np.float32)


def evaluate(op, inputs, **attributes):
    names = [name if array is not None else "" for name, array in inputs]
    node = helper.make_node(op, names, ["out", "state"], **attributes)
    typed = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in inputs if a is not None]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("out", "state")]
    graph = helper.make_graph([node], op, typed, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)])
    return ReferenceEvaluator(model).run(None, {n: a for n, a in inputs if a is not None})


def show(words, arrays):
    print(*words)
    for array in arrays:
        print(*(f"{x:.9g}" for x in array.ravel()))


def linear(rule, b, hq, hkv, t, d, dv, width, beta_heads, past, scale):
    inputs = [
        ("query", numbers(1, (b, t, hq * d), -1, 1)),
        ("key", numbers(2, (b, t, hkv * d), -0.5, 0.5)),
        ("value", numbers(3, (b, t, hkv * dv), -1, 1)),
        ("past_state", numbers(4, (b, hkv, d, dv), -1, 1) if past else None),
        ("decay", numbers(5, (b, t, hkv * width), -1, 0) if width else None),
        ("beta", numbers(6, (b, t, beta_heads), 0, 1) if beta_heads else None),
    ]
    result = evaluate("LinearAttention", inputs, q_num_heads=hq, kv_num_heads=hkv, update_rule=rule, scale=scale)
    show(["linear", rule, b, hq, hkv, t, d, dv, width, beta_heads, int(past), scale], result)


def conv(b, c, length, taps, bias, past, silu):
    inputs = [
        ("input", numbers(1, (b, c, length), -1, 1)),
        ("weight", numbers(2, (c, 1, taps), -1, 1)),
        ("bias", numbers(3, (c,), -1, 1) if bias else None),
        ("past_state", numbers(4, (b, c, taps - 1), -1, 1) if past else None),
    ]
    result = evaluate("CausalConvWithState", inputs, activation="silu" if silu else "none")
    show(["conv", b, c, length, taps, int(bias), int(past), int(silu)], result)


linear("linear", 2, 2, 2, 5, 4, 3, 0, 0, False, 0.0)
linear("linear", 1, 4, 2, 70, 4, 4, 0, 0, True, 0.5)
linear("gated", 2, 4, 2, 5, 4, 3, 1, 0, True, 0.0)
linear("gated", 1, 2, 1, 70, 4, 4, 4, 0, True, 1.0)
linear("delta", 2, 2, 1, 9, 4, 3, 0, 1, False, 0.0)
linear("delta", 1, 2, 2, 70, 4, 4, 0, 2, True, 0.25)
linear("gated_delta", 1, 4, 2, 70, 4, 5, 1, 1, True, 0.0)
linear("gated_delta", 2, 2, 2, 9, 4, 3, 4, 2, True, 0.0)
linear("gated_delta", 1, 2, 2, 1, 4, 4, 1, 2, True, 0.0)
conv(2, 3, 7, 4, True, True, True)
conv(1, 2, 2, 4, False, True, False)
conv(1, 3, 5, 1, True, False, False)
conv(2, 2, 6, 3, False, False, True)
