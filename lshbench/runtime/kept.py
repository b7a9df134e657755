"""Results in the cache: computed once, also by processes at the same time, and again where one is damaged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from lshbench.runtime import scratch

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


def kept(
    path: Path, name: str, compute: Callable[[], Arrays], is_whole: Callable[[Arrays], bool] = lambda _: True
) -> Arrays:
    """Return a cache entry's arrays, which are computed and kept if it is not there; a read-only cache will do.

    Args:
        path: of the entry, ending in ``.npz``; its name says what it depends on.
        name: what it is, for messages.
        compute: gives the arrays.
        is_whole: whether arrays that were read can be the entry's.
    """
    if (found := _read(path, is_whole, logging.WARNING)) is not None:
        return found
    with _locked(path, name) as writable:
        if writable and (found := _read(path, is_whole, logging.DEBUG)) is not None:
            return found
        result = compute()
        if writable:
            _write(path, name, result)
    return result


def content_digest(*arrays: np.ndarray) -> str:
    """Return a digest of the content, types and shapes of arrays."""
    import xxhash

    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        rows = np.atleast_1d(array)
        step = max(1, scratch.BLOCK_BYTES // max(1, rows[:1].nbytes))
        for start in range(0, len(rows), step):
            digest.update(np.ascontiguousarray(rows[start : start + step]).data)
            scratch.release(array)
    return digest.hexdigest()


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove files that killed processes were writing, by a pattern of names; nobody may be writing such ones now."""
    for leftover in folder.glob(pattern):
        with suppress(OSError):  # it may be another user's
            leftover.unlink()


@contextmanager
def _locked(path: Path, name: str) -> Iterator[bool]:
    """Hold an entry's lock; yield whether it can be had, and so the entry be written."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        _not_kept(name, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _read(path: Path, is_whole: Callable[[Arrays], bool], level: int) -> Arrays | None:
    """Return an entry's arrays, or None if it is not there, or damaged (logged at ``level``)."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = dict(stored)  # whose checksums are looked at
        if is_whole(found):
            return found
        fault: object = "its arrays don't fit"
    except Exception as error:  # of a damaged file, the readers raise anything: EOFError, BadZipFile, MemoryError, ...
        fault = error
    log.log(level, "%s is damaged (%s) and is computed again", path, fault)
    return None


def _write(path: Path, name: str, arrays: Arrays) -> None:
    """Write an entry in one step; where that fails, the next run computes it, too."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        remove_leftovers(path.parent, f".{path.name}.*.partial")  # the lock is held here
        with temporary.open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _not_kept(name, error)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _not_kept(name: str, error: OSError) -> None:
    log.warning("%s: not kept for the next run: %s", name, error)
