"""Kernels over many queries, or other independent parts of the work, that run on all threads.

They are threads of Python's, each of which runs the same machine code for its own part, without the interpreter's lock.
A parallel loop of numba's takes two to four times as long to compile: its body is compiled by itself, once more for its
threads, and again in the function around it.  But numba's threads wake in some microseconds, Python's in some ten: what
takes less than a millisecond for all threads together (the candidates of one query, products of narrow vectors) keeps
numba's loops.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import wraps
from typing import Any

from numba import config, get_num_threads

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Frame

_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    """Return the threads beside the caller's, which start with their first work."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(config.NUMBA_NUM_THREADS, "lshbench-kernel")
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


def threaded_kernel(function: Callable | None = None, *, rounds: Callable[..., int] | None = None) -> Any:
    """Compile a function like :func:`lshbench.kernels.compilation.kernel`, and run it on all threads at once.

    The function's first two arguments are the number of its part and how many parts there are (:func:`own_part`);
    callers leave them out.  Frames are passed as they are, and reach the function as their numbers.  A call returns
    what each part returns, once all are done; an error or an interrupt is raised after that, too.

    Its attribute ``compiled`` is what :func:`numba.njit` makes of the function.

    Args:
        rounds: how many rounds of the loop there are, from the other arguments: no more threads are used.
    """
    if function is None:
        return lambda decorated: threaded_kernel(decorated, rounds=rounds)
    compiled = kernel(function, nogil=True)

    @wraps(function)
    def run(*arguments: Any) -> list[Any]:
        parts = get_num_threads()
        if rounds is not None:
            parts = max(1, min(parts, rounds(*arguments)))

        def run_part(part: int) -> Any:  # holds the arguments, frames with the arrays behind their numbers
            numbers = (each.numbers if isinstance(each, Frame) else each for each in arguments)
            return compiled(part, parts, *numbers)

        others: list[Future] = []
        try:
            for part in range(1, parts):
                try:
                    others.append(_threads().submit(run_part, part))
                except RuntimeError:  # the interpreter is shutting down
                    if others:
                        raise
                    return [run_part(each) for each in range(parts)]
            first = run_part(0)
        finally:
            wait(others)
        return [first, *(other.result() for other in others)]

    run.compiled = compiled  # type: ignore[attr-defined]
    return run
