"""What the documentation shows runs: the tour of README.md from top to bottom, and every example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
EXAMPLES = sorted((HERE.parent / "examples").glob("*.py"))
NEEDS = {"torch": "torch", "transformers": "transformers", "onnx": "onnx", "multi_head": "torch"}


def run(script: Path) -> str:
    """What a script prints, in a process of its own that finds the package where this one did."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=[script.stem for script in EXAMPLES])
def test_examples_run_and_say_something(script: Path) -> None:
    for word, package in NEEDS.items():
        if script.stem.startswith(word):
            pytest.importorskip(package)
    assert len(run(script).splitlines()) >= 2


def test_the_tour_runs(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnx"):
        pytest.importorskip(package)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    script = tmp_path / "tour.py"
    script.write_text("\n".join(blocks))
    run(script)


def test_the_package_needs_numpy_alone() -> None:
    """`import regard` must not import PyTorch, nor the others."""
    code = (
        "import sys, regard; print([name for name in ('torch', 'jax', 'onnx', 'transformers', 'ml_dtypes') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
