"""A server over the story model with a chat template, for as long as a test runs."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

KEY = "open-sesame"
NAME = "tales"
STORY = Path(__file__).resolve().parents[3] / "regard-story" / "model"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Once upon a time{% endif %}"


@contextmanager
def served(binary, *options):
    """The process and the address of `regard serve` with these options; it must stop in order."""
    with tempfile.TemporaryDirectory() as place:
        for file in STORY.iterdir():
            (Path(place) / file.name).symlink_to(file)
        (Path(place) / "chat_template.jinja").write_text(TEMPLATE)
        command = [binary, "serve", "--port", "0", "--model", place, "--name", NAME, "--no-log", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "REGARD_API_KEY": KEY})
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.terminate()
        assert process.wait(timeout=60) == 0
