"""Values of every kind, most of them no use, drawn from a seed: numbers, arrays of every library, objects that lie."""

from __future__ import annotations

import random
import warnings
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from liars import Liar

warnings.simplefilter("ignore")  # of numpy's casts, and PyTorch's word on arrays that are read-only
FLOATS = [np.float32, np.float32, np.float16, ml_dtypes.bfloat16]
TYPES = [
    *FLOATS,
    np.float64,
    np.int8,
    np.int32,
    np.int64,
    np.uint8,
    np.uint64,
    bool,
    np.complex64,
    object,
    ">f4",
    ml_dtypes.float8_e4m3fn,
    "U3",
]
NUMBERS = [0, 1, 2, 3, -1, 7, 64, 2**31, 2**32, 2**40, 2**63, 2**64, -(2**63), 10**30]
FRACTIONS = [0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 1e300, float("nan"), float("inf"), -float("inf")]
NO_NUMBERS = [None, "text", b"bytes", [], {}, (), [1, 2], object, object(), True, 1j, slice(None), lambda: 1]


class Draw:
    """Values drawn from a seed."""

    def __init__(self, seed: int, wild: float) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.wild = wild  # the chance that a value is not what is needed

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def size(self, most: int = 9) -> int:
        return self.random.choice([0, 1, 1, 2, 3, 5, most]) if not self.chance(0.02) else 130

    def number(self) -> Any:
        return self.random.choice(NUMBERS if self.chance(0.7) else FRACTIONS + NO_NUMBERS)

    def fraction(self) -> Any:
        return self.random.choice(FRACTIONS) if self.chance(0.8) else self.number()

    def anything(self) -> Any:
        pick = self.random.randrange(5)
        if pick == 0:
            return self.number()
        if pick == 1:
            return self.random.choice(NO_NUMBERS)
        if pick == 2:
            return self.liar()
        return self.array(*(self.size() for _ in range(self.random.randrange(7))))

    def array(self, *shape: int, dtype: Any = None) -> Any:
        """An array of that shape, of some library, in some strides; sometimes not."""
        if self.chance(self.wild):
            shape = tuple(self.size() for _ in range(self.random.randrange(7)))
        if self.chance(self.wild) or dtype is None:
            dtype = self.random.choice(TYPES if self.chance(self.wild) or dtype is None else FLOATS)
        array = self.strided(shape, dtype)
        if self.chance(0.05):
            array.flags.writeable = False
        return self.library(array)

    def strided(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        pick = self.random.randrange(8) if shape else 0
        filled = lambda of: np.array(self.numpy.standard_normal(of) * 2).astype(dtype)
        with np.errstate(invalid="ignore"):
            if pick == 1:
                return filled(shape[::-1]).T
            if pick == 2:
                return filled(shape)[..., ::-1]
            if pick == 3:
                return filled((*shape[:-1], 2 * shape[-1]))[..., ::2]
            if pick == 4:
                return np.broadcast_to(filled((1,) * len(shape)), shape).view()
            if pick == 5 and self.chance(self.wild) and np.dtype(dtype).kind != "O":
                size = np.dtype(dtype).itemsize
                bytes_ = np.zeros(int(np.prod(shape)) * size + 1, np.int8)
                return bytes_[1:].view(dtype).reshape(shape)
            array = filled(shape)
        if array.size and array.dtype.kind == "f" and self.chance(0.1):
            array.flat[self.random.randrange(array.size)] = self.random.choice([np.nan, np.inf, -np.inf])
        return array

    def library(self, array: np.ndarray) -> Any:
        pick = self.random.randrange(32)  # tensors of JAX take a millisecond to make
        try:
            if pick == 0:
                return jnp.asarray(array)
            if pick in range(1, 5) and array.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
            if pick in range(1, 5):
                tensor = torch.from_numpy(array)
                return tensor.to("meta") if self.chance(self.wild / 4) else tensor
        except (TypeError, ValueError):
            pass
        return array

    def liar(self) -> Liar:
        """What it says is absurd, or true: a lie that memory could hold cannot be found out."""
        lies: list[dict[str, Any]] = [
            {},
            {"shape": (1, 2, -3, 4)},
            {"shape": (2**62, 2, 2, 2), "real": (1,)},
            {"shape": (1, 2, 2**45, 8), "real": (1,)},
            {"strides": (2**60, 1, 1, 1), "shape": (2, 1, 1, 1)},
            {"strides": (0, 0, -(2**61), 1), "shape": (1, 1, 4, 8)},
            {"ndim": self.random.choice([-1, 9, 100, 2**31 - 1, -(2**31)])},
            {"null": True},
            {"code": self.random.randrange(256)},
            {"bits": self.random.randrange(9), "code": 2},
            {"lanes": self.random.choice([0, 2, 65535])},
            {"device_type": self.random.randrange(-5, 20)},
            {"device": self.random.choice([(2, 0), (1,), None, (1, "x"), (2**40, 0), ()])},
            {"capsule": self.random.choice([3, "capsule", np.zeros(3)])},
            {"name": self.random.choice([b"dltensor_versionedx", b"used_dltensor", b"\xff", b""])},
            {"major": self.random.choice([0, 2, 2**31])},
            {"error": self.random.choice([KeyError("x"), MemoryError(), RuntimeError(), StopIteration()])},
            {"offset": self.random.choice([1, 2, 2**40 * 4, 2**63])},
            {"read_only": True},
        ]
        shape = (1, 2, self.random.randrange(1, 5), 4)
        lie = self.random.choice(lies)
        if "offset" in lie and lie["offset"] == 2**40 * 4:
            lie["shape"] = (1, 1, 2**60, 4)
            lie["real"] = (1,)
        return Liar(**{"shape": shape, "versioned": self.chance(0.7) or "major" in lie or "read_only" in lie, **lie})
