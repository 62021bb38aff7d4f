"""What the heads of a Hugging Face model do: hooks that look on, as arrays and as a page for the browser."""

import tempfile
from pathlib import Path

import torch
from transformers import MistralConfig, MistralForCausalLM

import regard.transformers
from regard import lens

torch.manual_seed(0)
torch.set_num_threads(1)  # the tensors are small
regard.transformers.register()

config = MistralConfig(
    vocab_size=100,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    sliding_window=16,
)
config.initializer_range = 0.2  # random weights large enough to have opinions
model = MistralForCausalLM._from_config(config, attn_implementation="regard").eval()
prompt = torch.randint(1, 100, (2, 20))
padding = torch.ones_like(prompt)
padding[1, :8] = 0  # the second text is shorter, and padded on the left

with lens.watch(model, ranges={"start": (0, 8)}) as seen:
    model.generate(prompt, attention_mask=padding, min_new_tokens=12, max_new_tokens=12, do_sample=False, pad_token_id=0)

facts = seen.facts  # of the prompts, and of every token that was fed back
print(f"entropy {facts.entropy.shape}: layers, batch, heads, rows")
for i, name in enumerate(seen.layers):
    print(f"{name}: {facts.entropy[i, 0].mean():.2f} nats; on the first 8 tokens {facts.ranges['start'][i, 0].mean():.2f}")
print("the last row of head 0 reads tokens", facts.top_keys[-1, 0, 0, -1, :3])

report = seen.report(text=0, tokens=[f"w{i}" for i in seen.reading.ids[0]], title="a random Mistral")
with tempfile.TemporaryDirectory() as folder:
    page = Path(folder) / "report.html"
    report.save(page)  # or .json, .csv
    print(f"{page.name}: {page.stat().st_size >> 10} KiB, for any browser")
