"""A server under hours of bad manners, in minutes: aborts, disconnects and bad requests at random among good ones.

    python3 crates/regard-serve/tests/python/soak.py target/release/regard [--seconds 600] [--seed 1]

At the end no page is held, memory is where it was after the first tenth, and greedy answers are those of the start. Needs Python alone.
"""

import argparse
import asyncio
import json
import random
import time
import urllib.request
from pathlib import Path

from server import KEY, NAME, served

CLIENTS = 24
PROMPTS = ["Once upon a time", "The fox said to the", "There was a king who had three daughters", "In the deep forest " * 12]


def greedy(prompt):
    return {"model": NAME, "prompt": prompt, "max_tokens": 24, "temperature": 0}


BAD = [
    b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"prompt": 5}', b'{"prompt": "x", "n": -1}', b'{"prompt": "x", "max_tokens": 1e99}',
    b'{"prompt": [4294967296]}', b'{"prompt": [4096]}', b'{"prompt": ""}', b'{"prompt": "x", "logprobs": 10000}', b'{"prompt": "x", "what": 1}',
    b'{"prompt": "x", "temperature": NaN}', b"{" * 5000, json.dumps({"prompt": "word " * 50_000}).encode(),
]  # fmt: skip


def good(rng):
    prompt = rng.choice(PROMPTS) + rng.choice(["", " and", " who", " " + "long " * rng.randrange(40)])
    body = {"model": NAME, "prompt": prompt, "max_tokens": rng.randrange(1, 60), "temperature": rng.choice([0, 0.7, 1]), "seed": 1}
    kind = rng.randrange(6)
    if kind == 0:
        body |= {"n": 3, "best_of": rng.choice([3, 4])}
    elif kind == 1:
        body |= {"beam_width": rng.randrange(1, 5), "max_tokens": 8}
        del body["temperature"], body["seed"]
    elif kind == 2:
        body |= {"logprobs": 3, "echo": True}
    elif kind >= 4:
        body |= {"stream": True}
    return body


def head(path, length, key=KEY, method="POST"):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


async def ask(port, sent, leave_after=None):
    """Sends bytes and reads the answer, or goes away in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        if leave_after is None:
            return await asyncio.wait_for(reader.read(-1), 300)
        try:
            await asyncio.wait_for(reader.read(1 << 20), leave_after)
        except TimeoutError:
            pass
        return None
    except (ConnectionResetError, BrokenPipeError):
        return b""
    finally:
        writer.transport.abort()


def post(path, body, **options):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(path, len(data), **options) + data


async def client(port, rng, until, counts):
    while time.monotonic() < until:
        kind = rng.choice(["good", "good", "leave", "leave", "bad", "key", "cut", "noise"])
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "good":
            answer = await ask(port, post("/v1/completions", good(rng)))
            status = answer.split(b" ", 2)[1] if answer else b""
            assert status in (b"200", b"400", b"429", b"503"), answer[:300]
        elif kind == "leave":
            await ask(port, post("/v1/completions", {**good(rng), "max_tokens": 200, "stream": rng.random() < 0.5}), rng.random() * 0.5)
        elif kind == "bad":
            answer = await ask(port, post(rng.choice(["/v1/completions", "/v1/chat/completions"]), rng.choice(BAD)))
            assert answer.split(b" ", 2)[1][:1] == b"4", answer[:300]
        elif kind == "key":
            answer = await ask(port, post("/v1/completions", good(rng), key="wrong"))
            assert answer.startswith(b"HTTP/1.1 401"), answer[:300]
        elif kind == "cut":
            sent = post("/v1/completions", good(rng))
            await ask(port, sent[: rng.randrange(1, len(sent))], rng.random() * 0.2)
        else:
            await ask(port, rng.randbytes(rng.randrange(1, 500)), 0.1)


def metrics(address):
    request = urllib.request.Request(address + "/metrics", headers={"Authorization": f"Bearer {KEY}"})
    lines = urllib.request.urlopen(request).read().decode().splitlines()
    return {line.split("{")[0]: float(line.split()[-1]) for line in lines if line and line[0] != "#"}


def answers(port):
    async def all_of_them():
        found = await asyncio.gather(*(ask(port, post("/v1/completions", greedy(prompt))) for prompt in PROMPTS))
        return [json.loads(answer.split(b"\r\n\r\n", 1)[1])["choices"][0]["text"] for answer in found]

    return asyncio.run(all_of_them())


def memory(process):
    """Resident memory, MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def busy(port, seconds, seed, counts):
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(port, random.Random(seed * 1000 + i), until, counts) for i in range(CLIENTS)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # Few pages: requests take them from each other all the time.
    with served(options.binary, "--kv-tokens", "768", "--preemption", "swap", "--max-requests", "64") as (process, address):
        port = int(address.rsplit(":", 1)[1])
        before, counts = answers(port), {}
        asyncio.run(busy(port, options.seconds / 10, options.seed, counts))
        early = memory(process)
        asyncio.run(busy(port, options.seconds * 9 / 10, options.seed + 1, counts))
        time.sleep(1)
        late, told = memory(process), metrics(address)
        after = answers(port)
        held = told["regard:kv_cache_pages"] - told["regard:kv_cache_pages_free"] - told["regard:kv_cache_pages_cached"]
        print(f"{options.seconds:.0f} s, {counts}; {told['regard:num_preemptions_total']:.0f} preemptions")
        print(f"pages held {held:.0f}, memory {early:.1f} MiB after a tenth and {late:.1f} MiB at the end")
        assert held == 0 and told["regard:num_requests_running"] == 0 and told["regard:engine_faults_total"] == 0, told
        assert late < early + 16, "memory grows"
        assert after == before, (before, after)
    print("ok")


if __name__ == "__main__":
    main()
