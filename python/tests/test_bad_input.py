"""Bad input: each a clear exception of the right type that names the argument, and nothing a crash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from liars import Liar

import regard

B, HQ, HKV, LQ, LKV, D = 2, 4, 2, 3, 5, 8
F32 = np.float32


def arrays(**change: Any) -> dict[str, Any]:
    """q, k and v that fit, but for what is changed."""
    fit = {"q": np.zeros((B, HQ, LQ, D), F32), "k": np.zeros((B, HKV, LKV, D), F32), "v": np.zeros((B, HKV, LKV, D), F32)}
    return {**fit, **change}


def read_only(*shape: int) -> np.ndarray:
    array = np.zeros(shape, F32)
    array.flags.writeable = False
    return array


def torch_tensor(*shape: int, **options: Any) -> Any:
    return pytest.importorskip("torch").zeros(*shape, **options)


def jax_array(*shape: int) -> Any:
    return pytest.importorskip("jax").numpy.zeros(shape)


def overlapping() -> dict[str, Any]:
    memory = np.zeros((B, HQ, LQ + 1, D), F32)
    return {"q": memory[:, :, 1:], "out": memory[:, :, :-1]}


def says(error: BaseException, text: str) -> bool:
    """Whether an exception says so, in its text or its notes: conversions of arguments name them in notes, which 3.11 brought."""
    said = "\n".join([str(error), *getattr(error, "__notes__", [])])
    return text in said or (sys.version_info < (3, 11) and isinstance(error, (TypeError, OverflowError)))


# What is changed, made when the test runs; the exception; what its text says.
Case = tuple[Callable[[], dict[str, Any]], type[Exception], str]
ATTENTION: dict[str, Case] = {
    # dtype
    "float64": (lambda: {"q": np.zeros((B, HQ, LQ, D))}, TypeError, "q has elements of type float64"),
    "float64 of torch": (
        lambda: {"q": torch_tensor(B, HQ, LQ, D).double()},
        TypeError,
        "q has elements of type a float of 64 bits",
    ),
    "complex": (lambda: {"v": np.zeros((B, HKV, LKV, D), np.complex64)}, TypeError, "v has elements of type complex64"),
    "integers": (
        lambda: {name: x.astype(np.int32) for name, x in arrays().items()},
        TypeError,
        "q is a signed integer and must be float32",
    ),
    "bools": (lambda: {"k": np.zeros((B, HKV, LKV, D), bool)}, TypeError, "k is bool and must be float32"),
    "other byte order": (
        lambda: {"q": np.zeros((B, HQ, LQ, D), ">f4")},
        TypeError,
        "q has elements of type of the other byte order",
    ),
    "objects": (lambda: {"q": np.zeros((B, HQ, LQ, D), object)}, TypeError, "q has elements of type object"),
    "float8": (lambda: {"q": np.zeros((B, HQ, LQ, D), ml_dtypes.float8_e4m3fn)}, TypeError, "q has elements of type float8_e4m3fn"),
    "types that differ": (lambda: {"k": np.zeros((B, HKV, LKV, D), np.float16)}, TypeError, "k is float16 and must be float32"),
    "values of another type": (
        lambda: {"v": np.zeros((B, HKV, LKV, D), ml_dtypes.bfloat16)},
        TypeError,
        "v is bfloat16 and must be float32",
    ),
    "output of another type": (
        lambda: {"out": np.zeros((B, HQ, LQ, D), np.float16)},
        TypeError,
        "out is float16 and must be float32",
    ),
    # what is no array
    "a list": (lambda: {"q": [[0.0]]}, TypeError, "q is of type list"),
    "None": (lambda: {"k": None}, TypeError, "k is of type NoneType"),
    "a class": (lambda: {"v": np.ndarray}, TypeError, "v is of type type"),
    # device
    "another device": (lambda: {"q": torch_tensor(B, HQ, LQ, D, device="meta")}, ValueError, "q gives no access"),
    "another device by DLPack": (lambda: {"q": Liar((B, HQ, LQ, D), device=(2, 0))}, ValueError, "q is on a device"),
    "a device hidden": (lambda: {"q": Liar((B, HQ, LQ, D), device_type=2)}, ValueError, "q is on a device"),
    # rank and shape
    "one dimension": (lambda: {"q": np.zeros(D, F32)}, ValueError, "q has 1 dimensions"),
    "five dimensions": (lambda: {"k": np.zeros((1, B, HKV, LKV, D), F32)}, ValueError, "k has 5 dimensions"),
    "no dimension": (lambda: {"q": np.float32(0)}, TypeError, "q"),
    "an array without dimensions": (lambda: {"q": np.zeros((), F32)}, ValueError, "q has 0 dimensions"),
    "batches that differ": (lambda: {"k": np.zeros((B + 1, HKV, LKV, D), F32)}, ValueError, "keys has 3 sequences and needs 2"),
    "heads that do not divide": (
        lambda: {"k": np.zeros((B, 3, LKV, D), F32), "v": np.zeros((B, 3, LKV, D), F32)},
        ValueError,
        "heads",
    ),
    "heads of keys and values": (lambda: {"v": np.zeros((B, HQ, LKV, D), F32)}, ValueError, "values has 4 heads"),
    "dims that differ": (lambda: {"k": np.zeros((B, HKV, LKV, D + 1), F32)}, ValueError, "keys has 9 elements"),
    "lengths that differ": (lambda: {"v": np.zeros((B, HKV, LKV + 1, D), F32)}, ValueError, "values has 6 positions"),
    # strides
    "strides between elements": (
        lambda: {"q": np.zeros((B, HQ, LQ, D), np.dtype([("x", F32), ("y", np.int8)]))["x"]},
        ValueError,
        "q has strides",
    ),
    "not aligned": (
        lambda: {"q": np.zeros(4 * B * HQ * LQ * D + 1, np.int8)[1:].view(F32).reshape(B, HQ, LQ, D)},
        ValueError,
        "q is not aligned",
    ),
    # output
    "output that is read-only": (lambda: {"out": read_only(B, HQ, LQ, D)}, ValueError, "out is read-only"),
    "output of JAX": (lambda: {"out": jax_array(B, HQ, LQ, D)}, ValueError, "out is read-only"),
    "output read-only by DLPack": (lambda: {"out": Liar((B, HQ, LQ, D), read_only=True)}, ValueError, "out is read-only"),
    "output of another shape": (lambda: {"out": np.zeros((B, HQ, LKV, D), F32)}, ValueError, "out has shape"),
    "output of another rank": (lambda: {"out": np.zeros((HQ, LQ, D), F32)}, ValueError, "out has shape"),
    "output over queries": (overlapping, ValueError, "out shares memory with q"),
    "output that is repeated": (
        lambda: {"out": np.lib.stride_tricks.as_strided(np.zeros(D, F32), (B, HQ, LQ, D), (0, 0, 0, 4))},
        ValueError,
        "out",
    ),
    # masks
    "mask that does not broadcast": (lambda: {"mask": np.zeros((LQ, LKV + 1), bool)}, ValueError, "mask"),
    "mask without heads": (lambda: {"mask": np.zeros((B, LQ, LKV), bool)}, ValueError, "mask"),
    "mask of five dimensions": (lambda: {"mask": np.zeros((1, 1, 1, LQ, LKV), bool)}, ValueError, "mask has 5 dimensions"),
    "mask of numbers": (lambda: {"mask": np.zeros((LQ, LKV), F32)}, TypeError, "mask is float32 and must be bool"),
    "mask of another kind": (lambda: {"mask": "causal"}, TypeError, "mask is of type str"),
    "list of other things": (lambda: {"mask": [regard.Causal.UPPER_LEFT, 3]}, TypeError, "mask is of type int"),
    "mask for another batch": (lambda: {"mask": regard.Padding([1, 2, 3])}, ValueError, "padding mask"),
    "documents that do not cover": (lambda: {"documents": [0, 2]}, ValueError, "document"),
    "documents that decrease": (lambda: {"documents": ([0, 2, 1, LQ], [0, 1, 2, LKV])}, ValueError, "document"),
    "documents below zero": (lambda: {"documents": [-1, LQ]}, ValueError, "documents"),
    "documents of numbers": (lambda: {"documents": np.zeros(2, F32)}, TypeError, "documents"),
    "documents of two dimensions": (lambda: {"documents": np.zeros((2, 2), int)}, ValueError, "documents"),
    "causal that is no name": (lambda: {"causal": "left"}, ValueError, "causal"),
    "causal without a dialect": (lambda: {"causal": True}, TypeError, "causal is of type bool"),
    "window that is no pair": (lambda: {"window": 3}, TypeError, "window"),
    "window below zero": (lambda: {"window": (-1, 0)}, ValueError, "window"),
    "window of fractions": (lambda: {"window": (1.5, 0)}, TypeError, "window"),
    "window beyond 64 bits": (lambda: {"window": (2**70, 0)}, (TypeError, OverflowError), "window"),
    "blocks that are no triple": (lambda: {"blocks": np.zeros((1, 1), bool)}, TypeError, "blocks"),
    "blocks of zero": (lambda: {"blocks": (np.ones((1, 1), bool), 0, 2)}, ValueError, "block"),
    "blocks that do not cover": (lambda: {"blocks": (np.ones((1, 1), bool), 2, 2)}, ValueError, "block"),
    "blocks of numbers": (lambda: {"blocks": (np.ones((2, 3), F32), 2, 2)}, TypeError, "block map"),
    # scores
    "scale of NaN": (lambda: {"scale": float("nan")}, ValueError, "scale"),
    "scale of infinity": (lambda: {"scale": float("inf")}, ValueError, "scale"),
    "scale that is no number": (lambda: {"scale": "big"}, TypeError, "scale"),
    "softcap of zero": (lambda: {"softcap": 0.0}, ValueError, "softcap"),
    "softcap below zero": (lambda: {"softcap": -1.0}, ValueError, "softcap"),
    "softcap of NaN": (lambda: {"softcap": float("nan")}, ValueError, "softcap"),
    "softcap that is no number": (lambda: {"softcap": [1.0]}, TypeError, "softcap"),
    "alibi for other heads": (lambda: {"alibi": [0.5]}, ValueError, "ALiBi"),
    "alibi that is no list": (lambda: {"alibi": "steep"}, TypeError, "alibi"),
    "bias of bools": (lambda: {"bias": np.zeros((LQ, LKV), bool)}, TypeError, "bias is bool"),
    "bias of float64": (lambda: {"bias": np.zeros((LQ, LKV))}, TypeError, "bias has elements of type float64"),
    "bias that does not broadcast": (lambda: {"bias": np.zeros((LKV, LQ), F32)}, ValueError, "bias"),
    "bias of −∞ before a softcap": (
        lambda: {"score": regard.Bias(np.full((LQ, LKV), -np.inf, F32)) >> regard.Softcap(1.0)},
        ValueError,
        "bias",
    ),
    "sinks for other heads": (lambda: {"sinks": np.zeros(3, F32)}, ValueError, "sink"),
    "sinks of two dimensions": (lambda: {"sinks": np.zeros((1, HQ), F32)}, ValueError, "sinks has 2 dimensions"),
    "sinks of integers": (lambda: {"sinks": np.zeros(HQ, int)}, TypeError, "sinks"),
    "score that is none": (lambda: {"score": 3}, TypeError, "score"),
    "score that is a mask": (lambda: {"score": regard.Causal.UPPER_LEFT}, TypeError, "score"),
    "mask that is a score": (lambda: {"mask": regard.Softcap(1.0)}, TypeError, "mask"),
    # dropout
    "dropout of one": (lambda: {"dropout": (1.0, 0)}, ValueError, "dropout is 1"),
    "dropout below zero": (lambda: {"dropout": (-0.1, 0)}, ValueError, "dropout is -0.1"),
    "dropout of NaN": (lambda: {"dropout": (float("nan"), 0)}, ValueError, "dropout"),
    "dropout without a seed": (lambda: {"dropout": 0.1}, TypeError, "dropout"),
    "dropout with a seed below zero": (lambda: {"dropout": (0.1, -1)}, TypeError, "dropout"),
    # the rest
    "layout that is none": (lambda: {"layout": "bhdl"}, ValueError, "layout"),
    "layout that is no name": (lambda: {"layout": 3}, TypeError, "layout"),
    "packed without documents": (lambda: {"layout": "packed"}, ValueError, "documents"),
    "return_lse that is no flag": (lambda: {"return_lse": "yes"}, TypeError, "return_lse"),
    "an option that is not there": (lambda: {"atten_mask": None}, TypeError, "atten_mask"),
    # objects that lie about themselves
    "no capsule": (lambda: {"q": Liar(capsule=3)}, TypeError, "q has a __dlpack__"),
    "a capsule of something else": (lambda: {"q": Liar(name=b"spam")}, ValueError, "q gave a capsule"),
    "a capsule that was taken": (lambda: {"q": Liar(name=b"used_dltensor_versioned")}, ValueError, "q gave a capsule"),
    "a version of the future": (lambda: {"q": Liar(major=2)}, BufferError, "q speaks DLPack 2"),
    "an error of its own": (lambda: {"q": Liar(error=KeyError("mine"))}, KeyError, "mine"),
    "a device that is none": (lambda: {"q": Liar(device="cpu")}, TypeError, "q has a __dlpack_device__"),
    "sizes below zero": (lambda: {"q": Liar((1, 1, -4, 8))}, ValueError, "q says that it has a size of -4"),
    "dimensions below zero": (lambda: {"q": Liar(ndim=-1)}, ValueError, "q says that it has -1 dimensions"),
    "a billion dimensions": (lambda: {"q": Liar(ndim=10**9)}, ValueError, "q says that it has 1000000000 dimensions"),
    "more than memory": (lambda: {"q": Liar((1, 1, 2**40, 2**40), real=(1,))}, ValueError, "q says that it has shape"),
    "strides beyond memory": (lambda: {"q": Liar((1, 1, 4, 8), strides=(0, 0, 2**62, 1))}, ValueError, "q says that it has shape"),
    "strides before memory": (
        lambda: {"q": Liar((1, 1, 4, 8), strides=(0, 0, -(2**60), 1))},
        ValueError,
        "q says that it has shape",
    ),
    "memory that is null": (lambda: {"q": Liar(null=True)}, ValueError, "q says that it has shape"),
    "an offset beyond memory": (lambda: {"q": Liar(offset=2**63)}, ValueError, "q says that it has shape"),
    "an offset between elements": (lambda: {"q": Liar(offset=2)}, ValueError, "q is not aligned"),
    "lanes": (lambda: {"q": Liar(lanes=4)}, TypeError, "q has elements of type"),
    "types that are none": (lambda: {"q": Liar(code=99)}, TypeError, "q has elements of type"),
    "bits that are none": (lambda: {"q": Liar(bits=7)}, TypeError, "q has elements of type a float of 7 bits"),
}


CALLS = [(name, regard.attention) for name in ATTENTION] + [
    (name, regard.explain)
    for name in ATTENTION
    if not name.startswith("output")  # nothing is written
]


@pytest.mark.parametrize(("name", "function"), CALLS)
def test_attention(name: str, function: Any) -> None:
    change, error, text = ATTENTION[name]
    with pytest.raises(error) as raised:
        function(**arrays(**change()))
    assert says(raised.value, text), raised.value


SDPA: dict[str, Case] = {
    "float64": (lambda: {"query": np.zeros((B, 2, LQ, D))}, TypeError, "query has elements of type float64"),
    "one dimension": (lambda: {"query": np.zeros(D, F32)}, ValueError, "query has 1 dimensions"),
    "both masks": (
        lambda: {"attn_mask": np.ones((LQ, LKV), bool), "is_causal": True},
        ValueError,
        "attn_mask is given and is_causal is True",
    ),
    "mask that does not broadcast": (lambda: {"attn_mask": np.ones((LKV, LQ), bool)}, ValueError, "attn_mask has shape [5, 3]"),
    "mask of integers": (lambda: {"attn_mask": np.ones((LQ, LKV), int)}, TypeError, "attn_mask is a signed integer"),
    "mask of float64": (lambda: {"attn_mask": np.ones((LQ, LKV))}, TypeError, "attn_mask has elements of type float64"),
    "mask that is no array": (lambda: {"attn_mask": [[True]]}, TypeError, "attn_mask is of type list"),
    "dropout of one": (lambda: {"dropout_p": 1.0}, ValueError, "dropout_p is 1"),
    "dropout below zero": (lambda: {"dropout_p": -0.5}, ValueError, "dropout_p is -0.5"),
    "dropout of NaN": (lambda: {"dropout_p": float("nan")}, ValueError, "dropout_p"),
    "dropout without a generator": (
        lambda: {name: jax_array(B, 2, LQ, D) for name in ("query", "key", "value")} | {"dropout_p": 0.5},
        NotImplementedError,
        "dropout_p",
    ),
    "scale of NaN": (lambda: {"scale": float("nan")}, ValueError, "scale"),
    "heads without enable_gqa": (lambda: {"query": np.zeros((B, 4, LQ, D), F32)}, ValueError, "query has shape"),
    "heads that do not divide": (lambda: {"query": np.zeros((B, 3, LQ, D), F32), "enable_gqa": True}, ValueError, "heads"),
    "lengths that differ": (lambda: {"value": np.zeros((B, 2, LKV + 1, D), F32)}, ValueError, "values"),
    "nine dimensions": (lambda: {"query": np.zeros((1,) * 7 + (LQ, D), F32)}, ValueError, "query has 9 dimensions"),
}


@pytest.mark.parametrize("name", SDPA)
def test_scaled_dot_product_attention(name: str) -> None:
    change, error, text = SDPA[name]
    fit = {"query": np.zeros((B, 2, LQ, D), F32), "key": np.zeros((B, 2, LKV, D), F32), "value": np.zeros((B, 2, LKV, D), F32)}
    with pytest.raises(error) as raised:
        regard.scaled_dot_product_attention(**{**fit, **change()})
    assert says(raised.value, text), raised.value
    if error in (ValueError, TypeError):
        assert isinstance(raised.value, RuntimeError), "PyTorch raises RuntimeError, and its users catch that"


def test_integers_as_torch_has_them_are_refused() -> None:
    with pytest.raises(TypeError, match="query is a signed integer"):
        regard.scaled_dot_product_attention(*(np.zeros((1, 1, 2, 2), np.int64) for _ in range(3)))


def cache(**options: Any) -> regard.KVCache:
    return regard.KVCache(**{"pages": 4, "kv_heads": HKV, "head_dim": D, "page_size": 4, **options})


def sequence(**options: Any) -> regard.Sequence:
    return cache(**options).sequence()


def freed() -> regard.Sequence:
    made = sequence()
    made.free()
    return made


KV = np.zeros((HKV, 3, D), F32)
Q1 = np.zeros((1, HQ, 2, D), F32)
CACHE: dict[str, tuple[Callable[[], Any], type[Exception] | tuple[type[Exception], ...], str]] = {
    "no pages": (lambda: cache(pages=0).sequence().append(KV, KV), ValueError, "pages"),
    "pages below zero": (lambda: cache(pages=-1), OverflowError, "pages"),
    "pages of fractions": (lambda: cache(pages=1.5), TypeError, "pages"),
    "page_size of zero": (lambda: cache(page_size=0), ValueError, "page"),
    "dtype that is none": (lambda: cache(dtype="float64"), ValueError, "dtype"),
    "arguments by position": (lambda: regard.KVCache(4, 2, 8), TypeError, "positional"),
    "keys of another type": (lambda: sequence().append(KV.astype(np.float16), KV), TypeError, "k is float16 and must be float32"),
    "values of another type": (lambda: sequence().append(KV, KV.astype(np.float16)), TypeError, "v is float16 and must be float32"),
    "keys of other heads": (lambda: sequence().append(KV[:1], KV[:1]), ValueError, "heads"),
    "keys of another dim": (lambda: sequence().append(KV[..., 1:], KV), ValueError, "keys has 7 elements"),
    "keys and values of other lengths": (lambda: sequence().append(KV, KV[:, 1:]), ValueError, "values"),
    "keys of two sequences": (
        lambda: sequence().append(np.zeros((2, HKV, 3, D), F32), np.zeros((2, HKV, 3, D), F32)),
        ValueError,
        "keys has 2 sequences",
    ),
    "a full pool": (lambda: sequence().append(np.zeros((HKV, 17, D), F32), np.zeros((HKV, 17, D), F32)), ValueError, "pages"),
    "append to many layers": (lambda: sequence(layers=2).append(KV, KV), ValueError, "cache has 2 layers"),
    "write past the end": (lambda: sequence().write(0, 0, KV, KV), ValueError, "positions 0..3"),
    "write to no layer": (lambda: sequence().write(1, 0, KV, KV), ValueError, "layer 1"),
    "grow below zero": (lambda: sequence().grow(-1), OverflowError, "tokens"),
    "truncate beyond the end": (lambda: sequence().truncate(1), ValueError, "sequence, which has 0 tokens"),
    "append to a freed one": (lambda: freed().append(KV, KV), ValueError, "freed"),
    "length of a freed one": (lambda: len(freed()), ValueError, "freed"),
    "fork of a freed one": (lambda: freed().fork(), ValueError, "freed"),
    "attend to a freed one": (lambda: freed().attend(Q1), ValueError, "freed"),
    "queries of another type": (lambda: sequence().attend(Q1.astype(np.float16)), TypeError, "q is float16 and must be float32"),
    "queries of another dim": (lambda: sequence().attend(Q1[..., 1:]), ValueError, "q has 7 elements"),
    "another number of queries": (lambda: cache().attend(Q1, []), ValueError, "0 sequences"),
    "sequences of another cache": (lambda: cache().attend(Q1, [sequence()]), ValueError, "another cache"),
    "sequences that are none": (lambda: cache().attend(Q1, [3]), TypeError, "sequences"),
    "a layer that is none": (lambda: sequence().attend(Q1, layer=1), ValueError, "layer 1"),
    "a layer below zero": (lambda: sequence().attend(Q1, layer=-1), TypeError, "layer"),
    "packed queries": (lambda: sequence().attend(Q1, layout="packed"), ValueError, "layout"),
    "pages of nobody": (lambda: cache().adopt([0], 4), ValueError, "page 0"),
    "pages that are not there": (lambda: cache().adopt([99], 4), ValueError, "page 99"),
    "an option that is not there": (lambda: sequence().attend(Q1, bias_gradient=True), TypeError, "bias_gradient"),
}


@pytest.mark.parametrize("name", CACHE)
def test_cache(name: str) -> None:
    call, error, text = CACHE[name]
    with pytest.raises(error) as raised:
        call()
    assert says(raised.value, text), raised.value


X = np.zeros((B, 2, 6, D), F32)
STATE = np.zeros((B, 2, D, D), F32)
LSE = np.zeros((B, HQ, LQ), F32)
OUT = np.zeros((B, HQ, LQ, D), F32)
OTHERS: dict[str, tuple[Callable[[], Any], type[Exception] | tuple[type[Exception], ...], str]] = {
    "rule": (lambda: regard.linear_attention(X, X, X, rule="delt"), ValueError, "rule"),
    "feature": (lambda: regard.linear_attention(X, X, X, feature="relu"), ValueError, "feature"),
    "decay that is missing": (lambda: regard.linear_attention(X, X, X, rule="gated"), ValueError, "decay"),
    "decay that is not used": (lambda: regard.linear_attention(X, X, X, decay=X), ValueError, "decay"),
    "decay above zero": (lambda: regard.linear_attention(X, X, X, rule="gated", decay=X + 1), ValueError, "decay"),
    "beta that is missing": (lambda: regard.linear_attention(X, X, X, rule="delta"), ValueError, "beta"),
    "decay of integers": (lambda: regard.linear_attention(X, X, X, rule="gated", decay=X.astype(int)), TypeError, "decay"),
    "state of another type": (
        lambda: regard.linear_attention(X, X, X, state=STATE.astype(np.float16)),
        TypeError,
        "state is float16",
    ),
    "state of another shape": (lambda: regard.linear_attention(X, X, X, state=STATE[:, :1]), ValueError, "state"),
    "chunk of zero": (lambda: regard.linear_attention(X, X, X, chunk=0), ValueError, "chunk"),
    "chunk below zero": (lambda: regard.linear_attention(X, X, X, chunk=-1), OverflowError, "chunk"),
    "linear scale of NaN": (lambda: regard.linear_attention(X, X, X, scale=float("nan")), ValueError, "scale"),
    "keys of another length": (lambda: regard.linear_attention(X, X[:, :, 1:], X), ValueError, "key"),
    "d_out of another shape": (
        lambda: regard.linear_attention_backward(X, X, X, X[:, :, 1:]),
        ValueError,
        "gradient of the output",
    ),
    "weight of two dimensions": (lambda: regard.causal_conv(X[0], np.zeros((2, 4), F32)), ValueError, "weight"),
    "weight of other channels": (lambda: regard.causal_conv(X[0], np.zeros((3, 1, 4), F32)), ValueError, "weight"),
    "conv bias of other channels": (
        lambda: regard.causal_conv(X[0], np.zeros((6, 1, 4), F32), np.zeros(2, F32)),
        ValueError,
        "bias",
    ),
    "conv of four dimensions": (lambda: regard.causal_conv(X, np.zeros((2, 1, 4), F32)), ValueError, "x has 4 dimensions"),
    "rope of an odd dim": (lambda: regard.Rope(7), ValueError, "even"),
    "rope of no dim": (lambda: regard.Rope(0), ValueError, "even"),
    "rope of a dim below zero": (lambda: regard.Rope(-2), OverflowError, "dim"),
    "rope's theta": (lambda: regard.Rope(8, theta=0.0), ValueError, "base"),
    "rope's style": (lambda: regard.Rope(8, style="neox"), ValueError, "style"),
    "rope wider than a head": (lambda: regard.Rope(16).turn(X), ValueError, "16"),
    "a scaling without a kind": (lambda: regard.Rope(8, scaling={"factor": 2.0}), ValueError, "rope_type"),
    "a scaling of another kind": (lambda: regard.Rope(8, scaling={"rope_type": "magic"}), ValueError, "magic"),
    "a scaling without its factor": (lambda: regard.Rope(8, scaling={"rope_type": "linear"}), ValueError, "factor"),
    "a scaling with a field too many": (
        lambda: regard.Rope(8, scaling={"rope_type": "linear", "factor": 2.0, "hat": 1}),
        ValueError,
        "hat",
    ),
    "a factor that is no number": (lambda: regard.Rope(8, scaling={"rope_type": "linear", "factor": "two"}), TypeError, "factor"),
    "angles of another length": (lambda: regard.rotate(X, np.zeros((5, 4), F32), np.zeros((5, 4), F32)), ValueError, "cos"),
    "angles of another type": (lambda: regard.rotate(X, np.zeros((6, 4)), np.zeros((6, 4))), TypeError, "cos"),
    "more angles than pairs": (lambda: regard.rotate(X, np.zeros((6, 5), F32), np.zeros((6, 5), F32)), ValueError, "cos"),
    "an odd table": (lambda: regard.sinusoidal(4, 5), ValueError, "even"),
    "a vector of weights": (lambda: regard.PackedMatrix(np.zeros(4, F32)), ValueError, "weight has 1 dimensions"),
    "weights of float64": (lambda: regard.PackedMatrix(np.zeros((4, 4))), TypeError, "weight has elements of type float64"),
    "weights of float16": (lambda: regard.PackedMatrix(np.zeros((4, 4), np.float16)), TypeError, "weight is float16"),
    "rows of another size": (
        lambda: regard.PackedMatrix(np.zeros((4, 4), F32))(np.zeros((2, 3), F32)),
        ValueError,
        "x has shape [2, 3]",
    ),
    "bias of another size": (
        lambda: regard.PackedMatrix(np.zeros((4, 4), F32))(np.zeros((2, 4), F32), np.zeros(3, F32)),
        ValueError,
        "bias",
    ),
    "no states": (lambda: regard.merge_states([], []), ValueError, "outs"),
    "states of other numbers": (lambda: regard.merge_states([OUT], []), ValueError, "outs"),
    "states of other shapes": (lambda: regard.merge_states([OUT, OUT[:1]], [LSE, LSE[:1]]), ValueError, "outs"),
    "lses of another type": (lambda: regard.merge_states([OUT], [LSE.astype(np.float16)]), TypeError, "lses"),
    "lse of another shape": (lambda: regard.attention_backward(*arrays().values(), OUT, LSE[:1], OUT), ValueError, "lse"),
    "lse of another type": (
        lambda: regard.attention_backward(*arrays().values(), OUT, LSE.astype(np.float16), OUT),
        TypeError,
        "lse",
    ),
    "out of another shape": (lambda: regard.attention_backward(*arrays().values(), OUT[:, :, 1:], LSE, OUT), ValueError, "out"),
    "d_out of another type": (
        lambda: regard.attention_backward(*arrays().values(), OUT, LSE, OUT.astype(np.float16)),
        TypeError,
        "d_out",
    ),
    "gradient of no bias": (
        lambda: regard.attention_backward(*arrays().values(), OUT, LSE, OUT, bias_gradient=True),
        ValueError,
        "bias",
    ),
    "window mask below zero": (lambda: regard.Window(-1, 0), ValueError, "window"),
    "window mask of fractions": (lambda: regard.Window(1.5, 0), TypeError, "left"),
    "padding below zero": (lambda: regard.Padding([-1]), ValueError, "lengths"),
    "spans of bools": (lambda: regard.Spans(np.zeros(3, bool), np.zeros(3, int)), TypeError, "first"),
    "spans of four dimensions": (
        lambda: regard.Spans(np.zeros((1, 1, 1, 3), int), np.zeros(3, int)),
        ValueError,
        "first has 4 dimensions",
    ),
    "bools of numbers": (lambda: regard.Bools(np.zeros((2, 2), F32)), TypeError, "bools is float32"),
    "dilation of zero": (lambda: regard.Dilated(1, 1, 0), ValueError, "dilation"),
    "stride of zero": (lambda: regard.Strided(0), ValueError, "stride"),
    "fixed without a summary": (lambda: regard.Fixed(4, 0), ValueError, "summary"),
    "more random keys than keys": (lambda: regard.RandomKeys(5, 1, 4, 0), ValueError, "random keys"),
    "blocks of no size": (lambda: regard.Blockwise(0, regard.Causal.UPPER_LEFT), ValueError, "size"),
    "centres of integers": (lambda: regard.Around(np.zeros(3, int), 1.0), TypeError, "centres"),
    "relative bias of three buckets": (lambda: regard.RelativeBias(np.zeros((1, 3), F32), 8, True), ValueError, "buckets"),
    "a mask and something else": (lambda: regard.Causal.UPPER_LEFT & 3, TypeError, "regard.Mask"),
    "a score and a mask": (lambda: regard.Softcap(1.0) >> regard.Causal.UPPER_LEFT, TypeError, "regard.Score"),
    "visible below zero": (lambda: regard.Causal.UPPER_LEFT.visible((1, 1, -1, 1)), OverflowError, "shape"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    call, error, text = OTHERS[name]
    with pytest.raises(error) as raised:
        call()
    assert says(raised.value, text), raised.value


def wide(*shape: int) -> np.ndarray:
    """Zeros of any size in four bytes."""
    return np.broadcast_to(np.zeros((1,) * len(shape), F32), shape)


MORE_THAN_MEMORY = {
    "an output": "regard.attention(*[wide(2**15, 2**15, 2**15, 1)] * 3)",
    "a cache": "regard.KVCache(pages=2**31, page_size=2**20, kv_heads=8, head_dim=128)",
    "heads of a cache": "regard.KVCache(pages=6, kv_heads=2**40, head_dim=8)",
    "layers of a cache": "regard.KVCache(pages=6, kv_heads=2, head_dim=8, layers=2**40)",
    "pages without a size": "regard.KVCache(pages=2**32 - 1, kv_heads=2, head_dim=0)",
    "a mask": "regard.Causal.UPPER_LEFT.visible((1, 1, 2**40, 2**40))",
    "bools": "regard.Bools(np.broadcast_to(np.zeros((1, 1), bool), (2**25, 2**25)))",
    "random keys": "regard.RandomKeys(3, 2**12, 2**29, 0)",
    "a table": "regard.sinusoidal(2**50, 2**20)",
    "a long table": "regard.sinusoidal(2**40, 2)",
    "a rope": "regard.Rope(2**40)",
    "a rope's result": "regard.Rope(2).turn(wide(1, 2**20, 2**20, 2))",
    "angles": "regard.rotate(wide(1, 2**20, 2**20, 2), wide(2**20, 1), wide(2**20, 1))",
    "weights": "regard.PackedMatrix(wide(2**20, 2**20))",
    "a product": "regard.PackedMatrix(wide(2, 2))(wide(2**40, 2))",
    "states": "regard.merge_states([wide(2**30, 2**10)], [wide(2**30)])",
    "slopes": "regard.Alibi(2**62)",
    "a linear state": "regard.linear_attention(*[wide(1, 1, 1, 2**25)] * 3, return_state=True)",
    "a convolution": "regard.causal_conv(wide(1, 2**20, 2**20), wide(2**20, 1, 2))",
    "documents": "regard.Documents(np.broadcast_to(np.zeros(1, int), 2**45))",
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
@pytest.mark.parametrize("name", MORE_THAN_MEMORY)
def test_more_than_memory(name: str) -> None:
    """In a process that may have 4 GiB: neither an abort nor a computation without an end."""
    script = f"""
import resource
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
import numpy as np
import regard
from test_bad_input import wide
try:
    {MORE_THAN_MEMORY[name]}
except (MemoryError, ValueError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout, f"exit status {done.returncode}: {done.stderr[-500:]}"


def test_nothing_was_written_where_a_call_was_refused() -> None:
    out = np.full((B, HQ, LQ, D), 7, F32)
    with pytest.raises(ValueError):
        regard.attention(**arrays(), out=out, scale=float("nan"))
    assert (out == 7).all()


def test_honest_objects_are_read() -> None:
    for versioned in (True, False):
        q = Liar((1, 2, 4, 8), versioned=versioned)
        q.memory[:] = np.random.default_rng(0).standard_normal(q.memory.shape)
        out = regard.attention(q, q, q)
        assert isinstance(out, np.ndarray)
        np.testing.assert_array_equal(out, regard.attention(q.memory, q.memory, q.memory))
        strided = Liar((1, 2, 4, 8), strides=(64, 8, 16, 1), versioned=versioned)
        np.testing.assert_array_equal(regard.attention(strided, strided, strided), np.zeros((1, 2, 4, 8)))


def test_a_last_dimension_that_is_not_contiguous_is_read() -> None:
    rng = np.random.default_rng(1)
    q = rng.standard_normal((B, HQ, LQ, 2 * D)).astype(F32)[..., ::2]
    np.testing.assert_array_equal(regard.attention(q, q, q), regard.attention(*(np.ascontiguousarray(q) for _ in range(3))))
