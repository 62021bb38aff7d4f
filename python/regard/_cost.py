"""What a model will cost."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping
from typing import Any

from regard._regard import _cost, _cost_names


def cost(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    length: int,
    batch: int = 1,
    dtype: Any = "bf16",
    train: bool = False,
    chip: str | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """Parameters, operations, bytes, memory and time of a model, for `batch` texts of `length` tokens: what `regard cost --json` prints.

    `config` is a Hugging Face configuration, as a dictionary or as transformers has it; a directory with a `config.json`, or such a
    file; or the name of a preset, of which `cost_presets()` has all. `dtype` is f32, f16 or bf16, or NumPy's or PyTorch's name or type
    of it. Every figure is an integer: bytes, operations or nanoseconds. Times are there for a `chip`: `"here"` measures this machine,
    in about a second; `cost_chips()` has the others. `fits` is there for a `memory` in bytes, or for a chip that has one.

    Each figure with its formula and source: docs/cost.md.
    """
    asked = {
        "length": _natural("length", length),
        "batch": _natural("batch", batch),
        "dtype": _dtype(dtype),
        "train": bool(train),
        "chip": None if chip is None else _text("chip", chip),
        "memory": None if memory is None else _natural("memory", memory),
    }
    return json.loads(_cost(asked, **_model(config)))


def cost_presets() -> list[str]:
    """The models that `cost` knows by name."""
    return _cost_names()[0]


def cost_chips() -> list[str]:
    """The chips that `cost` knows by name."""
    return _cost_names()[1]


def _model(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return {"config": _json(dict(config))}
    if isinstance(config, str) and (config in cost_presets() or not (os.sep in config or os.path.exists(config))):
        return {"preset": config}
    if isinstance(config, (str, os.PathLike)):
        return {"path": os.fspath(config)}
    to_dict = getattr(config, "to_dict", None)
    if callable(to_dict) and isinstance(given := to_dict(), Mapping):
        return {"config": _json(dict(given))}
    raise TypeError(f"config is of type {type(config).__name__} and must be a dictionary, a path or the name of a preset")


def _json(config: dict[str, Any]) -> str:
    """Values that JSON has not are written as text: none of them is a size."""
    return json.dumps(config, default=str)


def _natural(name: str, given: Any) -> int:
    if isinstance(given, bool):
        raise TypeError(f"{name} is of type bool and must be an integer")
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} is of type {type(given).__name__} and must be an integer") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{name} is {number} and must be from 1 to 2^64 - 1")
    return number


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{name} is of type {type(given).__name__} and must be a string")
    return given


def _dtype(given: Any) -> str:
    """The name of a type of NumPy's, PyTorch's or JAX's, or a name."""
    name = given if isinstance(given, str) else getattr(given, "name", None) or getattr(given, "__name__", None) or str(given)
    return str(name).removeprefix("torch.")
