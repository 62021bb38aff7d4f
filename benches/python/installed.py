"""PyTorch's attention beside itself with regard under it: the cases of `regard bench` through `regard.torch.install()`, alternating.

    python3 -m pip install . torch
    python3 benches/python/installed.py [--case NAME] [--runs 5] [--threads 2]

Prints the ratio of PyTorch's time to regard's, median and range of the runs, as rows of a table in Markdown.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import tomllib
import torch

import regard
import regard.torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/peers"))

from protocol import Unsupported  # noqa: E402
from pytorch import prepare  # noqa: E402

DEFAULTS = {
    "dtype": "f32",
    "causal": False,
    "window": None,
    "documents": None,
    "blocks": None,
    "page": None,
    "lengths": None,
    "threads": None,
}


def cases(names):
    """The cases that PyTorch's attention can express, of those that are asked for."""
    table = tomllib.loads((ROOT / "crates/regard-cli/src/bench/cases.toml").read_text())["case"]
    for case in table:
        wanted = case["name"] in names if names else not case.get("slow")
        if wanted and case["kind"] in ("forward", "backward") and not case.get("versus") and not case.get("page"):
            yield {**DEFAULTS, **case}


def seconds(call, at_least=0.2):
    """The time of one call, as the mean of enough of them."""
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < at_least:
        call()
        calls += 1
    return (time.perf_counter() - began) / calls


def ratios(call, runs):
    """PyTorch's time over regard's, run by run."""
    found = []
    for _ in range(runs + 1):
        theirs = seconds(call)
        regard.torch.install()
        try:
            found.append(theirs / seconds(call))
        finally:
            regard.torch.uninstall()
    return found[1:]  # the first warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    regard.set_num_threads(arguments.threads)
    print(
        f"| case | PyTorch {torch.__version__} / installed regard {regard.__version__} ({regard.available_kernels()[0]}) |\n|---|---|"
    )
    for case in cases(arguments.case):
        torch.manual_seed(1)
        try:
            found = ratios(prepare(case).call, arguments.runs)
        except Unsupported as reason:
            print(f"| {case['name']} | {reason} |", flush=True)
            continue
        print(f"| {case['name']} | {statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
