"""Makes the fixtures of tests/transformers.rs: tiny random Llama models with the logits that Python's transformers gives them.

    python3 crates/regard-nn/tests/transformers/make.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
MODELS = {
    "tied": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    "biased": dict(num_attention_heads=8, num_key_value_heads=1, head_dim=12, attention_bias=True, mlp_bias=True, rope_theta=500.0),
    "scaled": dict(num_attention_heads=4, rope_parameters=dict(
        rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)),
}


def main():
    for name, options in MODELS.items():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2, max_position_embeddings=128,
            initializer_range=0.3, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1, **options,
        )
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():  # nothing may hide behind a one or a zero
                if key.endswith("norm.weight") or key.endswith("bias"):
                    parameter.normal_(1.0 if key.endswith("weight") else 0.0, 0.3)
            tokens = torch.randint(64, (2, 100))
            logits = model(tokens).logits
        target = HERE / name
        target.mkdir(exist_ok=True)
        model.save_pretrained(target)
        expected = {"tokens": tokens.to(torch.int32), "logits": logits[:, ::9].contiguous()}
        save_file(expected, target / "expected.safetensors")
        (target / "generation_config.json").unlink(missing_ok=True)
        print(name, json.loads((target / "config.json").read_text())["transformers_version"], tuple(logits.shape))


main()
