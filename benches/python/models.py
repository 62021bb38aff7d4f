"""A Llama-shaped model of about 150 M random parameters in bf16, run by regard and by Python's transformers in turn; prints a table.

    cargo build --release
    python3 -m pip install torch transformers
    python3 benches/python/models.py [--regard target/release/regard] [--rounds 3] [--threads 2]

Rates are tokens per second. In each round regard runs, then transformers (`"sdpa"`, bf16); a ratio is of one round. Prefill computes the
logits of the last token of a prompt, decoding those of one token after another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

WRITTEN = 16


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regard", default="target/release/regard", help="the binary")
    parser.add_argument("--model", type=Path, help="a checkpoint to use instead of the random one")
    parser.add_argument("--prefill", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--decode", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def make(directory: Path) -> Path:
    """16 layers of 768 with a vocabulary of 32,000: 150 M parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=16,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def ours(options: argparse.Namespace, model: Path) -> dict[str, float]:
    """regard's rates: the median of three runs in a process of its own."""
    lengths = {what: ",".join(map(str, getattr(options, what))) for what in ("prefill", "decode")}
    command = [options.regard, "bench", "model", "--json", "--runs", "3", "--threads", str(options.threads)]
    command += ["--model", str(model), "--prefill", lengths["prefill"], "--decode", lengths["decode"]]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rates = {f"{what} {n}": statistics.median(all) for what in ("prefill", "decode") for n, all in found[what].items()}
    return {**rates, "load": found["load_seconds"]}


def theirs(options: argparse.Namespace, model: LlamaForCausalLM) -> dict[str, float]:
    """transformers' rates, measured alike."""
    rates = {}
    for n in options.prefill:
        prompt = torch.randint(model.config.vocab_size, (1, n))
        rates[f"prefill {n}"] = statistics.median(n / seconds(lambda: model(prompt, logits_to_keep=1)) for _ in range(3))
    for n in options.decode:
        rates[f"decode {n}"] = statistics.median(WRITTEN / decode(model, n) for _ in range(3))
    return rates


def seconds(call) -> float:
    """The time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def decode(model: LlamaForCausalLM, n: int) -> float:
    """Seconds that some tokens take after a text."""
    cache = model(torch.randint(model.config.vocab_size, (1, n)), logits_to_keep=1, use_cache=True).past_key_values
    tokens = torch.randint(model.config.vocab_size, (WRITTEN, 1, 1))
    return seconds(lambda: [model(token, past_key_values=cache, use_cache=True) for token in tokens])


def main() -> None:
    """Prints the table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        directory = options.model or make(Path(scratch))
        peer = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa")
        theirs(options, peer)  # warms up
        rounds = [(ours(options, directory), theirs(options, peer)) for _ in range(options.rounds)]
    loads = statistics.median(mine["load"] for mine, _ in rounds)
    print(
        f"{peer.num_parameters() / 1e6:.0f} M parameters, {options.threads} threads; regard reads and packs them in {loads:.2f} s\n"
    )
    print("| tokens/s | regard | transformers | ratio |\n|---|---|---|---|")
    for case in rounds[0][1]:
        mine, peers = ([side[case] for side in sides] for sides in zip(*rounds, strict=True))
        ratios = [a / b for a, b in zip(mine, peers, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {case} | {statistics.median(mine):.0f} | {statistics.median(peers):.0f} | {spread} |")


if __name__ == "__main__":
    main()
