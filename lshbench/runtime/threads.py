"""One number of threads for every numerical library, those that are imported later included."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import threadpoolctl

SETTERS = {
    "torch": lambda torch, count: torch.set_num_threads(count),
    "faiss": lambda faiss, count: faiss.omp_set_num_threads(count),
    "numba": lambda numba, count: numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS)),
}


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None) -> int:
    """Set the threads of torch, faiss, numba and the BLAS libraries, and return their number.

    Imports none of them, as torch alone takes seconds: one that is not there yet is set when it is imported.

    Args:
        count: None takes the cores that the process may use.
    """
    count = count or available_cores()
    for name in SETTERS.keys() & sys.modules.keys():
        SETTERS[name](sys.modules[name], count)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _SetWhenImported)]
    sys.meta_path.insert(0, _SetWhenImported(count))
    return count


class _SetWhenImported(MetaPathFinder):
    """Import hook that sets a library's threads as soon as it is loaded."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Limits hold as long as the object lives.
        self.limits = threadpoolctl.threadpool_limits(count)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in SETTERS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            load: Any = spec.loader.exec_module

            def load_and_set(module: ModuleType) -> None:
                load(module)
                SETTERS[fullname](module, self.count)
                self.limits = threadpoolctl.threadpool_limits(self.count)

            spec.loader.exec_module = load_and_set  # type: ignore[method-assign]
        return spec
