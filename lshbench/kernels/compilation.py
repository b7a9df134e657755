"""Compilation of kernels, and where their machine code is kept: ``<cache>/kernels/<digest>``.

numba's cache checks only the file that defines a function, and misses edits of functions in other files that it calls
(numba#1833).  Hence the digest of all kernels' source: after an edit anywhere in this package, every kernel is compiled
again.  ``$NUMBA_CACHE_DIR``, where it is set, replaces ``<cache>/kernels``.

numba's files are pickles that it reads as they are, and machine code that it runs.  Here each begins with a checksum: a
damaged one is deleted, and its kernel compiled again.  This is no defence against who can write into the cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import xxhash
from filelock import FileLock
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.serialize import dumps

from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir

UNUSED_DAYS = 30
"""Days without use after which the machine code of other versions of the kernels is deleted."""

OTHER_LOOPS = ("comprehension", "fusion", "inplace_binop", "numpy", "reduction", "setitem", "stencil")
LOOPS_ONLY = {"prange": True, **dict.fromkeys(OTHER_LOOPS, False)}
"""Only explicit loops are parallel: numba would make array expressions parallel loops too, slow to compile."""


def source_digest() -> str:
    """Return a digest of the source of all kernels and of numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()[:16]


def _find_folder() -> tuple[Path | None, bool]:
    """Return the folder of machine code, made if need be, and whether it can be written; None if it can't be made."""
    try:
        parent = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else cache_dir() / "kernels"
        folder = parent / source_digest()
        if folder.is_dir() and not os.access(folder, os.W_OK):
            return folder, False
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _delete_unused(parent)
        with FileLock(folder / "lock"):
            os.utime(folder)  # the time of its last use
    except (OSError, UsageError) as error:
        logging.getLogger(__name__).warning("kernels are compiled in every process: %s", error)
        return None, False
    return folder, True


def _delete_unused(parent: Path) -> None:
    oldest = time.time() - 86400 * UNUSED_DAYS
    for lock in parent.glob("*/lock"):  # only such folders hold a lock
        with suppress(OSError):
            if lock.parent.stat().st_mtime < oldest:
                shutil.rmtree(lock.parent, ignore_errors=True)


FOLDER, WRITABLE = _find_folder()


def _lock() -> AbstractContextManager:
    """Return the folder's lock: a new object each time, as a process must not use one inherited through a fork."""
    return FileLock(f"{FOLDER}/lock") if WRITABLE else nullcontext()


@cache
def _say_that_it_takes_time() -> None:
    kept = f"once: they are kept in {FOLDER}" if WRITABLE else "in this process alone"
    logging.getLogger(__name__).info("compiling kernels, %s", kept)


class _Locator(UserProvidedCacheLocator):
    """Finds machine code in the folder; numba's own would pass over one that can't be written."""

    def ensure_cache_path(self) -> None:
        if WRITABLE:
            with suppress(OSError):
                super().ensure_cache_path()


class _FolderCacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


def _checksum(path: Path, content: bytes | memoryview) -> bytes:
    """Return the checksum of a file's content and name: a file in another's place counts as damaged."""
    return xxhash.xxh3_128_digest(content, seed=xxhash.xxh3_64_intdigest(path.name.encode()))


def _read(path: Path) -> Any:
    """Return the object in a file; None if it is not there, or damaged: then it is deleted."""
    try:
        stored = memoryview(path.read_bytes())
        if stored[:16] != _checksum(path, stored[16:]):
            raise ValueError("its checksum does not fit")
        return pickle.loads(stored[16:])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a pickle of other libraries' objects raises anything
        _discard(path, error)
        return None


def _write(path: Path, content: Any) -> None:
    """Write an object into a file in one step; under the lock, so that what another process left there is replaced."""
    pickled = dumps(content)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(_checksum(path, pickled) + pickled)
    partial.replace(path)


@cache
def _say_that_it_is_damaged(path: Path, reason: str) -> None:
    logging.getLogger(__name__).warning("%s is damaged (%s): its kernel is compiled again", path, reason)


def _discard(path: Path, error: Exception) -> None:
    _say_that_it_is_damaged(path, getattr(error, "strerror", None) or str(error) or type(error).__name__)
    if WRITABLE:
        with suppress(OSError):
            path.unlink()


class _CheckedFiles:
    """One function's files: machine code for each key (signature and processor), and an index of their names by key.

    Code is written before the index names it, and holds its key: an index never leads to another key's code.
    """

    def __init__(self, folder: Path, base: str, stamp: Any) -> None:
        self.index, self.base, self.stamp = folder / f"{base}.nbi", base, stamp

    def load(self, key: Any) -> Any:
        if (name := self._names().get(key)) is None or (stored := _read(path := self.index.with_name(name))) is None:
            return None
        if stored[0] == key:
            return stored[1]
        _discard(path, ValueError("it is for other arguments or another processor"))
        return None

    def save(self, key: Any, data: Any) -> None:
        names = self._names()
        name = names.setdefault(key, f"{self.base}.{len(names) + 1}.nbc")
        _write(self.index.with_name(name), (key, data))
        _write(self.index, (self.stamp, names))

    def flush(self) -> None:
        _write(self.index, (self.stamp, {}))

    def _names(self) -> dict[Any, str]:
        stamp, names = _read(self.index) or (None, {})
        return names if stamp == self.stamp else {}  # of another version of the function


class _LockedCache(FunctionCache):
    """numba's cache in checked files, one process at a time: two that save at once would take the same file name."""

    _impl_class = _FolderCacheImpl

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _CheckedFiles(Path(self.cache_path), self._impl.filename_base, locator.get_source_stamp())

    def load_overload(self, signature: Any, context: Any) -> Any:
        found = None
        with suppress(OSError), _lock():
            try:
                found = super().load_overload(signature, context)
            except Exception as error:  # it is what was written, but the libraries that are here can't take it
                _discard(self._cache_file.index, error)
        if found is None:
            _say_that_it_takes_time()
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        if WRITABLE:
            with suppress(OSError), _lock():
                super().save_overload(signature, compiled)  # a full disk is no reason to fail


def kernel(function: Callable | None = None, *, parallel: bool = False, **options: Any) -> Any:
    """Compile a function with :func:`numba.njit` and cache its machine code; for functions of this package only.

    Args:
        parallel: spread explicit loops (``prange``) over threads.
        options: further ones of :func:`numba.njit`.
    """
    if function is None:
        return lambda decorated: kernel(decorated, parallel=parallel, **options)
    dispatcher = numba.njit(parallel=LOOPS_ONLY if parallel else False, **options)(function)
    compiled_for = dispatcher.compile
    # A constant argument would get a version of its own, which is the same machine code.
    dispatcher.compile = lambda arguments: compiled_for(tuple(map(numba.types.unliteral, arguments)))
    if FOLDER:
        elsewhere = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(FOLDER)
        try:
            dispatcher._cache = _LockedCache(function)
        finally:
            numba.config.CACHE_DIR = elsewhere
    return dispatcher


@kernel(inline="always")
def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Fill a vector with the first numbers of another, at least as long.

    To assign one slice to another is no faster, and takes two seconds to compile, with the text of its error message.
    """
    for i in range(len(target)):
        target[i] = source[i]
