"""Kernels over many queries, or other independent parts of the work, that run on all threads.

They are threads of Python's, each of which runs the same machine code for its own part, without the interpreter's lock.
A parallel loop of numba's takes two to four times as long to compile: its body is compiled by itself, once more for its
threads, and again in the function around it.  It wakes threads faster, and is left to what takes a millisecond or less:
a single query, and products of narrow vectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from numba import config, get_num_threads

from lshbench.kernels.compilation import kernel

_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    """Return the threads beside the caller's, which start with their first work."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, config.NUMBA_NUM_THREADS - 1), "lshbench-kernel")
    return _pool


def _forget_threads() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)  # a forked process has none of its parent's threads


@kernel
def own_part(count: int, part: int, parts: int) -> range:
    """Return which of ``count`` rounds of a loop are those of one part of it: as many as another has, or one more."""
    return range(count * part // parts, count * (part + 1) // parts)


def threaded_kernel(function: Callable) -> Callable[..., list[Any]]:
    """Compile a function like :func:`lshbench.kernels.compilation.kernel`, and run it on all threads at once.

    The function's first two arguments are the number of its part and how many parts there are (:func:`own_part`);
    callers leave them out.  A call returns what each part returns.
    """
    compiled = kernel(function, nogil=True)

    @wraps(function)
    def run(*arguments: Any) -> list[Any]:
        parts = get_num_threads()
        others = [_threads().submit(compiled, part, parts, *arguments) for part in range(1, parts)]
        return [compiled(0, parts, *arguments), *(other.result() for other in others)]

    return run
