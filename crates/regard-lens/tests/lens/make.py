"""Writes story.safetensors: the attention weights of the story model on a text, by transformers' eager attention in f32.

    python crates/regard-lens/tests/lens/make.py    # needs torch, transformers and safetensors
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

here = Path(__file__).parent
story = here / "../../../regard-story/model"
text = (here / "text.txt").read_text()

tokenizer = AutoTokenizer.from_pretrained(story)
model = AutoModelForCausalLM.from_pretrained(story, dtype=torch.float32, attn_implementation="eager").eval()
tokens = tokenizer(text, return_tensors="pt").input_ids
with torch.no_grad():
    output = model(tokens, output_attentions=True)
losses = torch.nn.functional.cross_entropy(output.logits[0, :-1], tokens[0, 1:], reduction="none")
save_file(
    {
        "tokens": tokens[0].to(torch.int32),
        "weights": torch.cat(output.attentions).contiguous(),  # [layers, heads, tokens, tokens]
        "losses": losses.contiguous(),
    },
    here / "story.safetensors",
)
print(tokens.shape, torch.cat(output.attentions).shape, losses.mean())
