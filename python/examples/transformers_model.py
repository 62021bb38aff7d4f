"""A Hugging Face model with `attn_implementation="regard"`: the same text as with "eager", through the cache too."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import regard.transformers

torch.manual_seed(0)
torch.set_num_threads(1)  # the tensors are small
regard.transformers.register()

config = LlamaConfig(
    vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2
)
config.initializer_range = 0.2  # random weights large enough to have opinions
model = LlamaForCausalLM(config).eval()
prompt = torch.randint(0, 100, (2, 20))
padding = torch.ones_like(prompt)
padding[1, :8] = 0  # the second text is shorter, and padded on the left


def run(implementation: str) -> tuple[torch.Tensor, torch.Tensor]:
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        logits = model(prompt, attention_mask=padding).logits
        text = model.generate(prompt, attention_mask=padding, max_new_tokens=12, do_sample=False, pad_token_id=0)
    return logits, text


(eager, of_eager), (ours, of_ours) = run("eager"), run("regard")
seen = padding.bool()
print(
    f"logits {tuple(ours.shape)} are at most {(ours - eager)[seen].abs().max():.1e} apart, in numbers up to {eager.abs().max():.1f}"
)
print("the generated texts are the same:", torch.equal(of_eager, of_ours))
print("12 tokens of each:", of_ours[:, 20:].tolist())
