"""A directory of every family, as Python's transformers saves it, through the commands: `families.py regard [NAME ...]`.

Checkpoints and tokenizers are written by `save_pretrained` and read as they are. `regard run` must continue a text by the tokens that
`generate` chooses, and `regard embed` must give BERT's mean state, of length 1.

    pip install -r crates/regard-nn/tests/transformers/requirements.txt
    python3 crates/regard-cli/tests/python/families.py target/release/regard
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "regard-nn" / "tests" / "families"))
import make  # noqa: E402


def tokenizer():
    """Sixty-four words."""
    words = {f"w{i}": i for i in range(64)}
    raw = Tokenizer(models.WordLevel(words))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def command(*arguments):
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def decoder(binary, place, model, prompt, text):
    if model.config.model_type == "t5":
        start = torch.tensor([[model.config.decoder_start_token_id]])
        chosen = make.greedy(model, start, lambda ids: model(input_ids=prompt, decoder_input_ids=ids).logits)
    else:
        chosen = make.greedy(model, prompt, lambda ids: model(ids).logits)
    options = ["--max-tokens", str(make.NEW), "--temperature", "0", "--precision", "f32", "--json"]
    found = command(binary, "run", text, "--model", place, *options)
    words = [f"w{i}" for i in chosen.tolist()]
    assert found["text"].split() == words, (found["text"], words)


def bert(binary, place, model, prompt, text):
    mean = model(prompt).last_hidden_state.mean(1)[0]
    found = torch.tensor(command(binary, "embed", text, "--model", place, "--pooling", "mean", "--precision", "f32"))
    furthest = (found - mean / mean.norm()).abs().max()
    assert furthest < 1e-5, furthest


@torch.no_grad()
def walk(binary, name, seed):
    torch.manual_seed(seed)
    kind = make.TYPES.get(name, name)
    auto = make.AUTO.get(kind, AutoModelForCausalLM)
    prompt = torch.randint(2, 64, (1, make.PROMPT))
    with tempfile.TemporaryDirectory() as place:
        model = make.random_model(auto, AutoConfig.for_model(kind, **make.FAMILIES[name])).eval()
        model.save_pretrained(place)
        tokenizer().save_pretrained(place)
        text = " ".join(f"w{i}" for i in prompt[0].tolist())
        (bert if kind == "bert" else decoder)(binary, place, model, prompt, text)


def main(binary, *names):
    torch.set_num_threads(1)
    make.disable_progress_bar()
    for name in names or make.FAMILIES:
        for seed in range(100, 200):
            try:
                walk(binary, name, seed)
            except make.Unlucky:
                continue
            break
        else:
            raise SystemExit(f"{name}: no seed will do")
        print(f"{name}: the same (seed {seed})")


if __name__ == "__main__":
    main(*sys.argv[1:])
