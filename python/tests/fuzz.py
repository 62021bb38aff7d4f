"""Drives the package with random arguments, most of them wrong: every call must return or raise, and none may crash.

    python python/tests/fuzz.py [seconds] [--seed N]

A second process makes the calls, each from a seed of its own. It fails where it dies by a signal or hangs, and where a call panics;
each failure is printed with the seed that makes it again (`--seed N` makes that call alone, in this process).
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HANG = 60  # seconds that one call may take on a busy machine
MEMORY = 4 << 30  # bytes that the calls may take: no call may bring down the machine
CALLS = 8000  # that one process makes: JAX keeps what it compiled for each shape, some 150 kB a call
MOST = 20  # failures after which there is no point in going on


def calls(first: int, seconds: float, log: Path) -> None:
    """The second process: calls from `first` on, each seed written to a file before its call and the outcome after it."""
    prepare()
    seed, end = first, time.monotonic() + seconds
    with log.open("w") as file:
        while time.monotonic() < end and seed < first + CALLS:
            file.write(f"{seed} ")
            file.flush()
            file.write(f"{outcome(seed)}\n")
            seed += 1


def prepare() -> None:
    """This process tells where it dies, and may take little more memory: an abort is then its own, and not the system's."""
    import fuzz_calls  # noqa: F401  what it imports takes memory of its own

    faulthandler.enable()
    if sys.platform != "linux":
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def outcome(seed: int) -> str:
    """Makes the calls of one seed: the type of what was raised, or "returned"."""
    from fuzz_calls import call

    try:
        call(seed)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic is one of these
        return type(error).__name__
    return "returned"


def watch(first: int, seconds: float) -> tuple[int, collections.Counter[str], list[str]]:
    """Runs the second process: the last seed, the outcomes, and the failures."""
    with tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder, "log"), Path(folder, "errors")
        log.touch()
        command = [sys.executable, __file__, "--calls", str(first), str(seconds), str(log)]
        with errors.open("w") as file:
            status = wait(subprocess.Popen(command, stderr=file), log)
        lines = [line.split() for line in log.read_text().splitlines()]
        failures = [f"panic: seed {seed}" for seed, *what in lines if what == ["PanicException"]]
        if status != 0:
            failures.append(f"{status}: seed {lines[-1][0] if lines else first}\n{errors.read_text()[:1000]}")
        counts = collections.Counter(what[0] if what else "died" for _, *what in lines)
        return int(lines[-1][0]) if lines else first, counts, failures


def wait(child: subprocess.Popen[bytes], log: Path) -> int | str:
    """The exit status of a process, which is ended when its log has not grown for too long."""
    size, since = 0, time.monotonic()
    while True:
        try:
            return child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            if log.stat().st_size != size:
                size, since = log.stat().st_size, time.monotonic()
            elif time.monotonic() - since > HANG:
                child.kill()
                child.wait()
                return f"no end after {HANG} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="make the call of this seed alone, in this process")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--calls", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.calls:
        first, seconds, log = arguments.calls
        calls(int(first), float(seconds), Path(log))
        return 0
    if arguments.seed is not None:
        prepare()
        from fuzz_calls import call

        call(arguments.seed, show=True)
        return 0
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    seed, end = arguments.first, time.monotonic() + arguments.seconds
    while (left := end - time.monotonic()) > 0 and len(failures) < MOST:
        last, more, failed = watch(seed, left)
        seed, counts, failures = last + 1, counts + more, failures + failed
    for what, count in counts.most_common():
        print(f"{count:8} {what}")
    print(f"{counts.total()} calls, {len(failures)} failures")
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
