"""Two more clients that others wrote, against a running server: litellm, and lm-eval on a small task of its own kind.

    pip install -r crates/regard-serve/tests/python/clients.txt
    python3 crates/regard-serve/tests/python/clients.py target/release/regard

lm-eval scores the same questions with transformers (f32), and each log-likelihood must be the same.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import litellm
import lm_eval
from lm_eval.tasks import TaskManager
from server import KEY, NAME, STORY, served

QUESTIONS = [
    ("Once upon a time there was a", [" king", " computer", " the"], 0),
    ("The princess was so beautiful that every", ["one", " of", " engine"], 0),
    ("Then said the wolf: 'Little pig, let me come", [" in", " telephone", " were"], 0),
    ("and they lived happily ever", [" after", " before", " under"], 0),
    ("The old woman had two", [" daughters", " electricity", " and"], 0),
    ("He went into the forest to cut", [" wood", " happily", " whom"], 0),
]
TASK = {
    "task": "endings",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{start}}",
    "doc_to_choice": "{{ends}}",
    "doc_to_target": "{{right}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}],
}


def litellm_asks(base_url):
    shared = dict(api_base=base_url, api_key=KEY, temperature=0, max_tokens=12)
    chat = dict(model=f"openai/{NAME}", messages=[{"role": "user", "content": "Who?"}], **shared)
    whole = litellm.completion(**chat).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**chat, stream=True)]
    assert whole and "".join(pieces) == whole, (whole, pieces)
    text = litellm.text_completion(model=f"text-completion-openai/{NAME}", prompt="Once upon a time", **shared)
    assert text.choices[0].text and text.usage.completion_tokens == 12, text
    try:
        litellm.completion(**{**chat, "temperature": 9})
    except litellm.BadRequestError as error:
        assert "temperature" in str(error), error
    else:
        raise AssertionError("a temperature of 9 was taken")
    print("litellm: ok")


def likelihoods(model, options, folder):
    """lm-eval's accuracy, and the log-likelihood of each ending."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(folder / "endings.jsonl")}}}
    found = lm_eval.simple_evaluate(
        model=model, model_args=options, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    samples = sorted(found["samples"]["endings"], key=lambda sample: sample["doc_id"])
    return found["results"]["endings"]["acc,none"], [pair for sample in samples for pair in sample["filtered_resps"]]


def lm_eval_scores(base_url):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lines = [json.dumps({"start": start, "ends": ends, "right": right}) for start, ends, right in QUESTIONS]
        (folder / "endings.jsonl").write_text("\n".join(lines))
        os.environ["OPENAI_API_KEY"] = KEY
        ours, mine = likelihoods(
            "local-completions",
            dict(base_url=f"{base_url}/completions", model=NAME, tokenizer=str(STORY), num_concurrent=1, max_length=512, batch_size=4),
            folder,
        )
        theirs, peers = likelihoods("hf", dict(pretrained=str(STORY), device="cpu", dtype="float32", batch_size=1), folder)
    furthest = max(abs(float(a[0]) - float(b[0])) for a, b in zip(mine, peers, strict=True))
    assert furthest < 1e-3 and [a[1] for a in mine] == [b[1] for b in peers], (mine, peers)
    assert ours == theirs
    print(f"lm-eval: accuracy {ours:.2f} as transformers', {len(mine)} log-likelihoods, furthest apart by {furthest:.1e}")


def main(binary):
    with served(binary, "--precision", "f32") as (_, address):
        litellm_asks(address + "/v1")
        lm_eval_scores(address + "/v1")


if __name__ == "__main__":
    main(sys.argv[1])
