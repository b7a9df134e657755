"""One number of threads for every numerical library."""

from __future__ import annotations

import os
import sys

import threadpoolctl

_limits: object = None


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None) -> int:
    """Set the threads of those of torch, faiss, numba and the BLAS libraries that are loaded; return their number.

    Call it once a run's parts are made: what they compute with is loaded by then, and nothing else need be.

    Args:
        count: None takes the cores that the process may use.
    """
    global _limits
    count = count or available_cores()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(count)
    if numba := sys.modules.get("numba"):
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    # Limits hold as long as the object lives.
    _limits = threadpoolctl.threadpool_limits(count)
    return count
