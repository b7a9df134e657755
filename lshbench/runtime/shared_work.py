"""Work that many runs have in common, such as principal axes: done once, also by runs at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import xxhash

from lshbench.runtime.environment import processor
from lshbench.runtime.kept import Arrays, kept

WORTH = 2e10
"""Floating-point operations from which on work is shared: about a second's."""
BLOCK_ROWS = 4096
VERSION = 1
"""Part of the key: after a change to what is computed, older results are not found."""

_place: ContextVar[tuple[Path, int] | None] = ContextVar("place", default=None)


@contextmanager
def sharing(folder: Path, threads: int) -> Iterator[None]:
    """Have work within the ``with`` block shared by way of a folder.

    Args:
        folder: where results are kept.
        threads: of the numerical libraries: the last bits of a result may depend on them.
    """
    token = _place.set((folder, threads))
    try:
        yield
    finally:
        _place.reset(token)


def once(name: str, inputs: Arrays, operations: float, compute: Callable[[], Arrays], *setting: object) -> Arrays:
    """Return what a computation gives, from the folder of :func:`sharing` if it is there; else it is computed.

    Args:
        name: of the computation.
        inputs: all arrays that it depends on.
        operations: floating-point operations that it takes, roughly.
        compute: gives the results, the same ones, bit for bit, for the same inputs and setting.
        setting: what else it depends on.
    """
    place = _place.get()
    if place is None or operations < WORTH:
        return compute()
    folder, threads = place
    machine = processor(), np.__version__, threads
    digest = hashlib.sha256(repr((VERSION, name, setting, machine)).encode())
    for key, array in inputs.items():
        digest.update(f"{key} {array.dtype} {array.shape} {_content(array)}\n".encode())
    path = folder / f"{name}-{digest.hexdigest()}.npz"
    return kept(path, name, compute)


def _content(array: np.ndarray) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, len(array), BLOCK_ROWS):  # which may be a part of a memory map larger than memory
        digest.update(np.ascontiguousarray(array[start : start + BLOCK_ROWS]).data)
    return digest.hexdigest()
