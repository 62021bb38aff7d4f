"""Loads a directory that `regard train` wrote with Python's transformers, as it is, and compares logits.

    python3 crates/regard-nn/tests/transformers/check.py DIR [TEXT]
"""

import json
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "Once upon a time there was a king, who had three daughters; the youngest was so fair that the sun wondered at her."


def main(directory, text=TEXT):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    command = ["cargo", "run", "--release", "-q", "-p", "regard-nn", "--example", "logits", directory, text]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    theirs = tokenizer(text)["input_ids"]
    assert ours["tokens"] == theirs, f"tokens differ: {ours['tokens']} and {theirs}"
    assert tokenizer.decode(theirs) == text, tokenizer.decode(theirs)
    with torch.no_grad():
        logits = model(torch.tensor([theirs])).logits[0]
    furthest = (torch.tensor(ours["logits"]) - logits).abs().max().item()
    print(f"{len(theirs)} tokens, largest logit {logits.abs().max().item():.2f}, furthest from ours by {furthest:.2e}")
    assert furthest < 1e-4, "logits differ by more than 1e-4"


main(*sys.argv[1:])
