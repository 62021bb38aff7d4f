"""A load by guidellm against a running server: 8 clients at once, prompts of 64 tokens and continuations of 32.

    pip install guidellm==0.8.1
    python3 crates/regard-serve/tests/python/load.py target/release/regard

Prints what guidellm measures; no request may fail.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from server import KEY, NAME, STORY, served

CLIENTS, REQUESTS = 8, 64


def main(binary):
    with tempfile.TemporaryDirectory() as place, served(binary) as (_, address):
        report = Path(place) / "report.json"
        command = [Path(sys.executable).parent / "guidellm", "run", "--disable-progress"]
        command += ["--backend", f"kind=openai_http,target={address},model={NAME},api_key={KEY},request_format=/v1/completions"]
        command += ["--profile", f"kind=concurrent,streams={CLIENTS}", "--constraint", f"kind=max_requests,count={REQUESTS}"]
        command += ["--tokenizer", f"kind=huggingface_auto,model={STORY}"]
        command += ["--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=32"]
        command += ["--output", "kind=console", "--output", f"kind=json,path={report}"]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        counts = json.loads(report.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    assert counts["errored"] == 0 and counts["successful"] == REQUESTS, counts
    print(f"ok: {counts['successful']} requests, none failed")


if __name__ == "__main__":
    main(sys.argv[1])
