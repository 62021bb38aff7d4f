"""A Llama-shaped model of about 150 M random parameters, run by regard and by its peers in turn; prints a table.

    cargo build --release
    python3 -m pip install torch transformers gguf llama-cpp-python
    python3 benches/python/models.py [--regard target/release/regard] [--rounds 3] [--threads 2]

Rates are tokens per second. In each round regard runs a bf16 checkpoint, then transformers (`"sdpa"`, bf16) the same; then regard the same
weights from a GGUF file of f16, in bf16, and llama.cpp that file. A ratio is of one round. Prefill computes the logits of the last token of
a prompt, decoding those of one token after another. The share of memory is regard's: the time in which what a token reads can be read at
all, measured in turn, by the time of the token.
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

import gguf
import llama_cpp as llama
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SILENT = llama.llama_log_callback(lambda *_: None)  # must outlive the library's use of it

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


def to_gguf(directory: Path, file: Path) -> Path:
    """The same weights as a GGUF file of f16, which llama.cpp reads: heads are turned as its rotary embedding wants them."""
    config = json.loads((directory / "config.json").read_text())
    heads = config["num_attention_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in load_file(directory / "model.safetensors").items():
        for side, count in (("q_proj", heads), ("k_proj", config["num_key_value_heads"])):
            if side in name:
                weight = weight.reshape(count, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        kept = weight.float() if weight.dim() == 1 else weight.half()
        writer.add_tensor(names.get_name(name, (".weight",)), kept.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def ours(options: argparse.Namespace, model: Path) -> dict[str, float]:
    """regard's rates in bf16: the median of three runs in a process of its own."""
    lengths = {what: ",".join(map(str, getattr(options, what))) for what in ("prefill", "decode")}
    command = [options.regard, "bench", "model", "--json", "--runs", "3", "--threads", str(options.threads), "--precision", "bf16"]
    command += ["--model", str(model), "--prefill", lengths["prefill"], "--decode", lengths["decode"]]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rates = {f"{what} {n}": statistics.median(all) for what in ("prefill", "decode") for n, all in found[what].items()}
    shares = {f"share {n}": share for n, share in found["memory_share"].items()}
    return {**rates, **shares, "load": found["load_seconds"]}


class Llama:
    """llama.cpp with a file of its own."""

    def __init__(self, options: argparse.Namespace, file: Path) -> None:
        llama.llama_log_set(SILENT, None)
        self.model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
        limits = llama.llama_context_default_params()
        limits.n_ctx = max(*options.prefill, *options.decode) + WRITTEN
        limits.n_batch, limits.n_ubatch = limits.n_ctx, 512
        limits.n_threads = limits.n_threads_batch = options.threads
        self.context = llama.llama_init_from_model(self.model, limits)

    def read(self, tokens: int) -> None:
        """Reads any tokens, up to the logits of the last one."""
        some = (llama.llama_token * tokens)(*(i * 7919 % 32000 for i in range(tokens)))
        if llama.llama_decode(self.context, llama.llama_batch_get_one(some, tokens)):
            raise RuntimeError("llama.cpp reads no tokens")
        llama.llama_get_logits(self.context)

    def forget(self) -> None:
        """Empties the cache."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def rates(self, options: argparse.Namespace) -> dict[str, float]:
        """Its rates, measured alike."""
        rates = {}
        for n in options.prefill:
            rates[f"prefill {n}"] = statistics.median(n / self.seconds(0, lambda n=n: self.read(n)) for _ in range(3))
        for n in options.decode:
            write = lambda: [self.read(1) for _ in range(WRITTEN)]  # noqa: E731
            rates[f"decode {n}"] = statistics.median(WRITTEN / self.seconds(n, write) for _ in range(3))
        return rates

    def seconds(self, before: int, call) -> float:
        """The time of a call after some tokens."""
        self.forget()
        if before:
            self.read(before)
        return seconds(call)


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
        file = to_gguf(directory, Path(scratch) / "model.gguf")
        peer = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa")
        other = Llama(options, file)
        theirs(options, peer)  # warms up
        rounds = [
            (ours(options, directory), theirs(options, peer), ours(options, file), other.rates(options))
            for _ in range(options.rounds)
        ]
    loads = statistics.median(mine["load"] for mine, *_ in rounds)
    print(
        f"{peer.num_parameters() / 1e6:.0f} M parameters, {options.threads} threads; regard reads and packs them in {loads:.2f} s\n"
    )
    print("| tokens/s | regard | transformers | ratio | regard, f16 file | llama.cpp | ratio | share of memory |")
    print("|---|---|---|---|---|---|---|---|")
    for case in rounds[0][1]:
        mine, peers, mine_of_file, others = ([side[case] for side in sides] for sides in zip(*rounds, strict=True))
        shares = [mine.get(case.replace("decode", "share"), 0.0) for mine, *_ in rounds]
        share = f"{statistics.median(shares):.2f}" if "decode" in case else ""
        cells = [
            rate(mine),
            rate(peers),
            spread(mine, peers),
            rate(mine_of_file),
            rate(others),
            spread(mine_of_file, others),
            share,
        ]
        print(f"| {case} | {' | '.join(cells)} |")


def rate(all: list[float]) -> str:
    """A median."""
    return f"{statistics.median(all):.0f}"


def spread(mine: list[float], peers: list[float]) -> str:
    """The ratios of rounds."""
    ratios = [a / b for a, b in zip(mine, peers, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


if __name__ == "__main__":
    main()
