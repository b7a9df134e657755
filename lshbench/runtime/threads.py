"""One number of threads for every library."""

from __future__ import annotations

import os

_limits: object = None


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None) -> int:
    """Set the threads of torch, faiss, numba and the BLAS libraries, and return their number.

    Args:
        count: None takes the cores that the process may use.
    """
    import faiss
    import numba
    import threadpoolctl
    import torch

    global _limits
    count = count or available_cores()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    # Limits hold as long as the object lives.
    _limits = threadpoolctl.threadpool_limits(count)
    return count
