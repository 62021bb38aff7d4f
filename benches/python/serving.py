"""Many requests at once: regard's engine beside llama.cpp and transformers; prints a table for the story model and one of 150 M.

    cargo build --release
    python3 -m pip install torch transformers gguf llama-cpp-python
    python3 benches/python/serving.py [--regard target/release/regard] [--rounds 3] [--threads 2]

Rates are tokens per second: of prompts of 256 tokens, each up to its next token (prefill), and of continuations, a token of each text a
step (decode). In each round regard runs a bf16 checkpoint, then transformers (`"sdpa"`, bf16) the same, then llama.cpp the same weights as
f16. A ratio is of one round. What regard's steps cost beside the model, what pages cost, and what a cached prefix saves are printed below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import models
import torch
from models import WRITTEN, llama, rate, seconds, spread
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM

STORY = Path(__file__).resolve().parents[2] / "crates" / "regard-story" / "model"
PROMPT = 256


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regard", default="target/release/regard", help="the binary")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def ours(options: argparse.Namespace, model: Path | None) -> dict:
    """What `regard bench serving` prints of a checkpoint, or of the built-in model."""
    batches = ",".join(map(str, options.batch))
    command = [options.regard, "bench", "serving", "--json", "--threads", str(options.threads), "--batch", batches]
    command += ["--prompt", str(PROMPT)] + (["--model", str(model), "--precision", "bf16"] if model else [])
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def words(directory: Path, vocabulary: int) -> Path:
    """The same directory with a tokenizer, which a server cannot do without."""
    Tokenizer(WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0")).save(str(directory / "tokenizer.json"))
    return directory


class Llama:
    """llama.cpp with a file and as many sequences as are asked for."""

    def __init__(self, options: argparse.Namespace, file: Path, vocabulary: int) -> None:
        llama.llama_log_set(models.SILENT, None)
        self.vocabulary = vocabulary
        self.model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
        most = max(options.batch)
        limits = llama.llama_context_default_params()
        limits.n_ctx = most * (PROMPT + WRITTEN)
        limits.n_seq_max, limits.n_batch, limits.n_ubatch = most, most * PROMPT, 512
        limits.n_threads = limits.n_threads_batch = options.threads
        self.context = llama.llama_init_from_model(self.model, limits)
        self.batch = llama.llama_batch_init(most * PROMPT, 0, 1)

    def read(self, texts: int, first: int, tokens: int) -> None:
        """The next tokens of so many texts in one call, up to the logits of the last of each."""
        batch = self.batch
        batch.n_tokens = texts * tokens
        for i in range(texts * tokens):
            text, at = divmod(i, tokens)
            batch.token[i] = (i * 7919 + 13) % self.vocabulary
            batch.pos[i], batch.seq_id[i][0], batch.n_seq_id[i] = first + at, text, 1
            batch.logits[i] = at == tokens - 1
        if llama.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp reads no tokens")
        llama.llama_get_logits_ith(self.context, texts * tokens - 1)

    def forget(self) -> None:
        """Empties the cache."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def rates(self, batch: int) -> tuple[float, float]:
        """Of prefill and of decoding."""
        self.forget()
        prefill = seconds(lambda: self.read(batch, 0, PROMPT))
        decode = seconds(lambda: [self.read(batch, PROMPT + i, 1) for i in range(WRITTEN)])
        return batch * PROMPT / prefill, batch * WRITTEN / decode


def theirs(model, batch: int) -> tuple[float, float]:
    """transformers' rates, measured alike."""
    prompt = torch.randint(model.config.vocab_size, (batch, PROMPT))
    found = []
    prefill = seconds(lambda: found.append(model(prompt, logits_to_keep=1, use_cache=True)))
    cache = found[0].past_key_values
    tokens = torch.randint(model.config.vocab_size, (WRITTEN, batch, 1))
    decode = seconds(lambda: [model(token, past_key_values=cache, use_cache=True) for token in tokens])
    return batch * PROMPT / prefill, batch * WRITTEN / decode


def best(run, batches: list[int]) -> dict[str, float]:
    """The median of three runs for each batch, after one that warms up."""
    rates = {}
    for batch in batches:
        run(batch)
        prefill, decode = (statistics.median(all) for all in zip(*(run(batch) for _ in range(3)), strict=True))
        rates |= {f"prefill {batch}": prefill, f"decode {batch}": decode}
    return rates


def table(options: argparse.Namespace, name: str, directory: Path, scratch: Path, *, built_in: bool) -> None:
    """Prints what a model's rounds gave."""
    peer = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    other = Llama(options, models.to_gguf(directory, scratch / f"{name}.gguf"), peer.config.vocab_size)
    rounds = []
    for _ in range(options.rounds):
        mine = ours(options, None if built_in else directory)
        rounds.append((mine, best(lambda n: theirs(peer, n), options.batch), best(other.rates, options.batch)))
    print(f"\n{name}: {peer.num_parameters() / 1e6:.0f} M parameters, {options.threads} threads, prompts of {PROMPT} tokens\n")
    print("| tokens/s | regard | transformers | ratio | llama.cpp | ratio |")
    print("|---|---|---|---|---|---|")
    for what in ("prefill", "decode"):
        for batch in map(str, options.batch):
            mine = [statistics.median(round[0][what][batch]) for round in rounds]
            peers, others = ([round[side][f"{what} {batch}"] for round in rounds] for side in (1, 2))
            cells = [rate(mine), rate(peers), spread(mine, peers), rate(others), spread(mine, others)]
            print(f"| {what}, {batch} at once | {' | '.join(cells)} |")
    most = str(max(options.batch))
    for what, batch in (
        ("outside_the_model", most),
        ("outside_when_drawn", most),
        ("contiguous_to_paged", most),
        ("hit_to_miss", None),
    ):
        found = [statistics.median(round[0][what][batch] if batch else round[0][what]) for round in rounds]
        print(f"\n{what.replace('_', ' ')}{f', {batch} at once' if batch else ''}: {statistics.median(found):.3f}", end="")
    print()


def main() -> None:
    """Prints both tables."""
    options = arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        place = Path(scratch)
        table(options, "story", STORY, place, built_in=True)
        table(options, "llama-150m", words(models.make(place / "llama"), 32000), place, built_in=False)


if __name__ == "__main__":
    main()
