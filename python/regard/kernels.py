"""Forced kernels: `with regard.kernel("scalar"):` computes with that one, in this thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from regard._regard import _pop_kernel, _push_kernel


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Forces a kernel for the calls that this thread makes inside the block; blocks nest, and the innermost decides.

    `name` is one of `regard.available_kernels()`: those of "amx", "avx512bf16", "avx512", "avx2" and "scalar" that this machine
    can run. `regard.explain` inside the block says what the kernel does.

    Raises `ValueError` on entry when this machine cannot run the kernel, and `TypeError` when the name is no string.
    """
    _push_kernel(name)
    try:
        yield
    finally:
        _pop_kernel()
