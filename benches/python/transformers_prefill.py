"""A Llama-shaped model of about 150 M random parameters reads a prompt with `"regard"` and with `"sdpa"`; prints the ratio of the times.

    python benches/python/transformers_prefill.py [--dtype bfloat16 float32] [--tokens 2048] [--runs 7] [--threads 2]

One process, the implementations in turn, so that both meet the same machine: a ratio is of two neighbouring runs. What is timed is what
generation does first: a forward pass that fills the cache and computes the logits of the last token. Also printed is how far the
logits are apart, as a share of the largest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import regard
import regard.transformers

IMPLEMENTATIONS = ("sdpa", "regard")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float16", "float32"), default=["bfloat16", "float32"])
    parser.add_argument("--tokens", type=int, default=2048, help="length of the prompt")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each implementation, after one that is not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--hidden", type=int, default=768, help="a multiple of 256: 64 for each head, four query heads share a key head"
    )
    parser.add_argument("--vocabulary", type=int, default=32000)
    return parser.parse_args()


def llama(options: argparse.Namespace, dtype: torch.dtype) -> LlamaForCausalLM:
    """The model; 12 layers of 768 with a vocabulary of 32,000 are 152 M parameters."""
    torch.manual_seed(0)
    heads = options.hidden // 64
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=options.vocabulary,
        max_position_embeddings=options.tokens,
    )
    model: LlamaForCausalLM = LlamaForCausalLM._from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.train(False)
    return model


def prefill(model: LlamaForCausalLM, prompt: Tensor, implementation: str) -> tuple[float, Tensor]:
    """Seconds, and the logits of the last token."""
    model.set_attn_implementation(implementation)
    start = time.perf_counter()
    logits = model(prompt, use_cache=True, logits_to_keep=1).logits
    return time.perf_counter() - start, logits.float()


def spread(values: list[float]) -> str:
    """Median, and least to most."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def compare(options: argparse.Namespace, name: str) -> None:
    """Prints one line for a type."""
    model = llama(options, getattr(torch, name))
    prompt = torch.randint(options.vocabulary, (1, options.tokens))
    first = {each: prefill(model, prompt, each)[1] for each in IMPLEMENTATIONS}
    apart = float((first["regard"] - first["sdpa"]).abs().max() / first["sdpa"].abs().max())
    times: dict[str, list[float]] = {each: [] for each in IMPLEMENTATIONS}
    for run in range(options.runs):
        for each in IMPLEMENTATIONS if run % 2 == 0 else reversed(IMPLEMENTATIONS):
            times[each].append(prefill(model, prompt, each)[0])
    ratios = [sdpa / ours for sdpa, ours in zip(times["sdpa"], times["regard"], strict=True)]
    seconds = "  ".join(f"{each} {spread(times[each])} s" for each in IMPLEMENTATIONS)
    print(f"{name:9} {seconds}  sdpa/regard {spread(ratios)}  logits apart {apart:.1e}", flush=True)


def main() -> None:
    """Prints the size, and a line for each type."""
    options = arguments()
    torch.set_num_threads(options.threads)
    regard.set_num_threads(options.threads)
    regard.transformers.register()
    parameters = sum(each.numel() for each in llama(options, torch.bfloat16).parameters())
    print(f"{parameters / 1e6:.0f} M parameters, {options.tokens} tokens, {options.threads} threads, {options.runs} runs")
    with torch.inference_mode():
        for name in options.dtype:
            compare(options, name)


if __name__ == "__main__":
    main()
