"""One number of threads for every numerical library."""

from __future__ import annotations

import os
import sys

_limits: object = None


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's and OpenBLAS's threads sleep soon when they have no work, unless the environment says otherwise.

    torch and faiss each bring an OpenMP runtime with threads of its own, NumPy and SciPy an OpenBLAS, which by default
    wait by spinning: those of the one then take the cores from those of the other, and a query that torch encodes and
    faiss searches takes several times as long as both alone.  But to be woken takes longer than many an operation, of
    which a training step has hundreds: OpenMP's threads spin for a fraction of a millisecond before they sleep.  Heeded
    by libraries that are not loaded yet.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # spins of 2^4 cycles, the least there is, instead of 2^26


def set_threads(count: int | None) -> int:
    """Set the threads of those of torch, faiss, numba and the BLAS libraries that are loaded; return their number.

    Call it once a run's parts are made: what they compute with is loaded by then, and nothing else need be.

    Args:
        count: None takes the cores that the process may use.
    """
    import threadpoolctl

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
