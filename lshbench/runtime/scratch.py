"""Large arrays that a process needs until its end: in files of the cache folder, which memory need not hold."""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

LARGE_BYTES = 1 << 30
"""Arrays of at least so many bytes lie in files."""
BLOCK_BYTES = 32 << 20
"""Bytes of rows that are copied at once."""

_folder: Path | None = None


def use_folder(folder: Path) -> None:
    """Have this process's large arrays in files of a folder, which is there; until then they are in memory."""
    global _folder
    _folder = folder


def empty(shape: tuple[int, ...], dtype: np.dtype | type = np.float32) -> np.ndarray:
    """Return an array to be filled: a large one is the map of a file without a name, which goes with the process.

    Where there is no room for the file, or no right to write it, the array is in memory after all.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if _folder is None or size < LARGE_BYTES:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=_folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would end the process
            else:
                file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        log.warning("%s: no room for %.1f GB beside the features (%s): they are in memory", _folder, size / 1e9, error)
        return np.empty(shape, dtype)


def copy_rows(x: np.ndarray, rows: np.ndarray, into: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
    """Copy rows of one array into another block by block, and return the other.

    Args:
        x: ``(n, d)``, which may be a map larger than memory.
        rows: int64 ``(m,)``, of ``x``.
        into: ``(k, d)``, of any type.
        places: int64 ``(m,)``, its rows; None for all of them in order.
    """
    step = max(1, BLOCK_BYTES // max(1, x.shape[1] * x.itemsize))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        into[part if places is None else places[part]] = x[rows[part]]
        release(x, into)
    return into


def release(*arrays: np.ndarray) -> None:
    """Let go of the pages of arrays that are maps of files: what was written stays, in the system's cache of files."""
    for array in arrays:
        # A private map ("c") would lose what was written; a copy of a map (no mode) is none.
        if isinstance(array, np.memmap) and array.mode not in ("c", None) and hasattr(mmap, "MADV_DONTNEED"):
            array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def trim() -> None:
    """Give memory that was freed back to the system, which glibc else keeps for this process."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
