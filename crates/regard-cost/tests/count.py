"""The parameters of every preset, counted by transformers on models without memory: what tests/presets.rs expects.

    python crates/regard-cost/tests/count.py
"""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

presets = json.loads((Path(__file__).parents[1] / "src" / "presets.json").read_text())
for preset in presets:
    given = dict(preset["config"])
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    kind = AutoModel if config.model_type == "bert" else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    router = sum(b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias"))
    print(f'("{preset["name"]}", {sum(p.numel() for p in model.parameters()) + router:_}),')
