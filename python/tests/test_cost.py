"""`regard.cost`: known figures, every way to name a model, and bad input."""

from __future__ import annotations

import json
from collections import UserDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import regard

STORY = Path(__file__).resolve().parents[2] / "crates" / "regard-story" / "model"


def integers(value: Any) -> bool:
    """Whether all numbers are integers."""
    if isinstance(value, dict):
        return all(map(integers, value.values()))
    return all(map(integers, value)) if isinstance(value, list) else not isinstance(value, float)


def test_known_figures() -> None:
    """Kwon et al. 2023, §3: 800 KB a token; a matrix of 2048² in f32 is 16.8 MB, and one for each of 96 layers 1.6 GB."""
    opt = regard.cost("opt-13b", length=2048, dtype="f16")
    assert opt["kv_cache"]["per_token"] == 2 * 5120 * 40 * 2
    scores = regard.cost("gpt3", length=2048, dtype=np.float32)["scores"]
    assert (scores["matrix"], scores["matrix_of_each_layer"]) == (16_777_216, 1_610_612_736)


def test_every_figure_is_an_integer_of_any_size() -> None:
    large = regard.cost("gpt3", length=10**7, batch=64, train=True, chip="h100")
    assert integers(large)
    flops = 96 * 96 * (10**7 * (10**7 + 1) // 2) * (4 * 128 + 2) * 64
    assert large["prefill"]["attention"]["flops"] == flops > 1 << 64
    assert large["time"]["training"]["total_ns"] > 0


def test_models_are_given_in_every_way() -> None:
    config = json.loads((STORY / "config.json").read_text())
    ways = [config, UserDict(config), STORY, str(STORY), STORY / "config.json"]
    first, *others = [regard.cost(way, length=100, train=True) for way in ways]
    assert all(other == first for other in others)
    preset = regard.cost("story", length=100, train=True)
    assert preset["parameters"] == first["parameters"] and preset["parameters"]["total"] == 5_180_672


def test_a_configuration_of_transformers_counts_its_model() -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config = transformers.Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
    )
    cost = regard.cost(config, length=7, dtype=torch.bfloat16)
    model = transformers.Qwen3ForCausalLM(config)
    assert cost["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert cost["dtype"] == "bf16"


@pytest.mark.parametrize("dtype", ["bf16", "bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_types_have_many_names(dtype: Any) -> None:
    assert regard.cost("gpt2", length=1, dtype=dtype)["memory"]["weights"] == 2 * 124_439_808


def test_times_are_of_a_chip() -> None:
    assert regard.cost("gpt2", length=9)["time"] is None
    here = regard.cost("gpt2", length=9, chip="here")
    assert here["time"]["chip"]["name"] == "here" and here["time"]["decode"]["total_ns"] > 0
    with_memory = regard.cost("gpt2", length=9, memory=10**9)
    assert with_memory["fits"]["memory"] == 10**9 and with_memory["fits"]["batch"] > 100


def test_names_can_be_listed() -> None:
    assert {"gpt3", "opt-13b", "llama-3-8b", "story"} <= set(regard.cost_presets())
    assert {"h100", "epyc-9654"} <= set(regard.cost_chips())
    for name in regard.cost_presets():
        assert regard.cost(name, length=1)["parameters"]["total"] > 10**6


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "unknown preset": ("gpt5", {"length": 1}, ValueError, 'there is no preset "gpt5"; the presets are gpt2, gpt3'),
    "unknown chip": ("gpt2", {"length": 1, "chip": "abacus"}, ValueError, 'there is no chip "abacus"; the chips are h100'),
    "no such path": ("/no/such/model", {"length": 1}, OSError, "cannot read /no/such/model"),
    "no such path, as a path": (Path("model"), {"length": 1}, OSError, "cannot read model"),
    "a field that is missing": ({"model_type": "llama"}, {"length": 1}, ValueError, 'no field "hidden_size"'),
    "no type": ({}, {"length": 1}, ValueError, 'no field "model_type"'),
    "another family": ({"model_type": "t5"}, {"length": 1}, ValueError, "model_type is t5; supported: llama"),
    "a configuration that is none": (3, {"length": 1}, TypeError, "config is of type int"),
    "length 0": ("gpt2", {"length": 0}, ValueError, "length is 0 and must be at least 1"),
    "length -1": ("gpt2", {"length": -1}, ValueError, "length is -1"),
    "length 1.5": ("gpt2", {"length": 1.5}, TypeError, "length is of type float"),
    "length True": ("gpt2", {"length": True}, TypeError, "length is of type bool"),
    "batch 0": ("gpt2", {"length": 1, "batch": 0}, ValueError, "batch is 0 and must be at least 1"),
    "another type": ("gpt2", {"length": 1, "dtype": np.float64}, ValueError, 'dtype is "float64"'),
    "a chip that is no name": ("gpt2", {"length": 1, "chip": 3}, TypeError, "chip is of type int"),
    "memory that is no number": ("gpt2", {"length": 1, "memory": "80GB"}, TypeError, "memory is of type str"),
    "too large": ("gpt3", {"length": 2**64 - 1, "batch": 2**64 - 1}, OverflowError, "would be 2^128 or more"),
    "beyond 64 bits": ("gpt3", {"length": 2**64}, ValueError, "length is 18446744073709551616"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name: str) -> None:
    config, options, exception, text = BAD[name]
    with pytest.raises(exception) as caught:
        regard.cost(config, **options)
    assert text in str(caught.value)
