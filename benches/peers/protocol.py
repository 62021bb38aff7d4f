"""What every peer of `regard bench` shares: one JSON line in, one out. See crates/regard-cli/src/bench/peer.rs."""

import ctypes
import gc
import json
import re
import sys
import time
from pathlib import Path

import numpy as np


class Unsupported(Exception):
    """A case that the peer cannot express."""


class Work:
    """A case, ready to run. `call` returns its results, which have `nbytes`; `note` says how the case is expressed."""

    def __init__(self, call, note=None):
        self.call, self.note = call, note


def status(field, file="/proc/self/status"):
    """A line of a file of the kernel's, in bytes."""
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", open(file).read(), re.M)[1])


def growth(call):
    """Bytes by which the peak of resident memory grows in one call, beyond its results."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free but still resident would hide the growth
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    results = call()
    return max(status("VmHWM") - before - sum(x.nbytes for x in results), 0)


def short(case):
    """The case on few positions: loads libraries and starts threads, which are no working memory of a call."""
    batch, q_heads, kv_heads, q_len, _, dim = case["sizes"]
    sizes = [batch, q_heads, kv_heads, min(q_len, 64), 64, dim]
    return {**case, "sizes": sizes, "window": None, "documents": None, "blocks": None, "lengths": None}


def write_outputs(outputs, case, dir):
    """Runs `outputs` on the numbers in `dir`, leaves what comes of it there; their names."""
    batch, heads, _, length, _, dim = case["sizes"]
    q, k, v = np.fromfile(dir / "inputs.f32", np.float32).reshape(3, batch, heads, length, dim)
    found = outputs(case, q, k, v)
    for name, out in found.items():
        np.asarray(out, np.float32).tofile(dir / f"{name}.f32")
    return list(found)


def serve(name, prepare, set_threads, outputs=None):
    """Answers until the input ends. `prepare` takes a case to its `Work`, `outputs` a case and its queries, keys and values to f32 arrays
    by name; both may raise `Unsupported`."""
    work = None
    threads = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "hello" in message:
                threads = message["hello"]["threads"]
                set_threads(threads)
                answer = {"name": name}
            elif "case" in message:
                case, work = message["case"], None
                set_threads(case["threads"] or threads)
                if case["kind"].startswith("memory"):
                    prepare(short(case)).call()
                work = prepare(case)
                answer = {"ready": True, "note": work.note}
            elif "outputs" in message:
                if outputs is None:
                    raise Unsupported("no outputs")
                answer = {"outputs": write_outputs(outputs, message["outputs"]["case"], Path(message["outputs"]["dir"]))}
            elif "memory" in message:
                answer = {"bytes": growth(work.call)}
            else:
                began = time.perf_counter()
                for _ in range(message["run"]):
                    work.call()
                answer = {"seconds": time.perf_counter() - began}
        except Unsupported as reason:
            answer = {"unsupported": str(reason)}
        except Exception as error:  # told to regard, which ends the run
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
