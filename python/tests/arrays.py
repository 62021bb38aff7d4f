"""Arrays of every library and type that regard reads, from one generator of numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

DTYPES = ("float32", "float16", "bfloat16")
KINDS = ("numpy", "torch", "jax")


def normal(rng: np.random.Generator, *shape: int, dtype: str = "float32", kind: str = "numpy") -> Any:
    """Normal numbers, rounded to a type."""
    return of_kind(kind, rng.standard_normal(shape).astype(numpy_type(dtype)))


def numpy_type(dtype: str) -> Any:
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def of_kind(kind: str, array: np.ndarray) -> Any:
    """The same numbers as an array of another library."""
    if kind == "torch":
        torch = pytest.importorskip("torch")
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)
    if kind == "jax":
        return pytest.importorskip("jax.numpy").asarray(array)
    return array


def kind_of(array: Any) -> str:
    """The library of an array."""
    return {"numpy": "numpy", "torch": "torch", "jax": "jax", "jaxlib": "jax"}[type(array).__module__.partition(".")[0]]
