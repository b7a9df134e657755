"""The cache of features on disk, by key.

An entry is a folder ``features/<sha256 of its key>`` below the cache folder: ``features.npy`` (float32),
``digests.npy`` (uint64) and ``meta.json`` (the key, and a checksum of each file).  It is built in a folder beside it
and moved into place in one step, by one process at a time; a reader never sees half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import AcquireReturnProxy, FileLock, Timeout

from lshbench import __version__
from lshbench.errors import UsageError

log = logging.getLogger(__name__)

FEATURES, DIGESTS, META = "features.npy", "digests.npy", "meta.json"
CHUNK = 1 << 22
SLACK = 1 << 20
"""Bytes beyond the features that an entry may take."""
FULL = (errno.ENOSPC, errno.EDQUOT)
BUILDING = ".building-"
LOCK = ".lock"


class ArrayFile:
    """A .npy file of float32 ``(rows, dim)`` that is filled block by block, in any order, from any thread.

    Blocks are written, not mapped: a full disk is then an error, where a map would end the process.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
        self._file = path.open("wb")
        np.lib.format.write_array_header_1_0(self._file, header)
        self._first = self._file.tell()
        self._row = dim * 4
        self._lock = threading.Lock()
        self._file.truncate(self._first + rows * self._row)

    def write(self, start: int, block: np.ndarray) -> None:
        """Write rows from ``start`` on."""
        content = np.ascontiguousarray(block, "<f4").data
        with self._lock:
            self._file.seek(self._first + start * self._row)
            self._file.write(content)

    def close(self) -> None:
        self._file.close()


@dataclass
class EntryWriter:
    """A new cache entry, which the caller fills with features and digests.

    Attributes:
        folder: the entry's folder while it is built.
        unreadable: the position and fault of each image that could not be read.
        details: kept in ``meta.json`` for people.
    """

    folder: Path
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    _files: list[ArrayFile] = field(default_factory=list)

    def create(self, rows: int, dim: int) -> ArrayFile:
        """Create and return the file of features.

        Raises:
            UsageError: there is no room for it.
        """
        needed = rows * dim * 4 + rows * 8 + SLACK
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise _no_space(self.folder.parent, f"{needed:,} bytes are needed and {free:,} are free")
        self._files.append(ArrayFile(self.folder / FEATURES, rows, dim))
        return self._files[-1]

    def write_digests(self, digests: np.ndarray) -> None:
        """Write the content hashes, uint64 ``(rows,)``."""
        np.save(self.folder / DIGESTS, digests, allow_pickle=False)

    def close(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True)
class Entry:
    """A cache entry: stored features and the digests of their items.

    Attributes:
        x: float32 ``(n, d)``, a read-only memory map.
        digests: uint64 ``(n,)``.
        unreadable: positions and faults of images that could not be read, whose rows are NaN.
        folder: where it lies.
    """

    x: np.ndarray
    digests: np.ndarray
    unreadable: list[tuple[int, str]]
    folder: Path


class FeatureStore:
    """The cache of features on disk.

    Args:
        cache: the cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "features"

    def find(self, key: dict[str, Any], level: int = logging.WARNING) -> Entry | None:
        """Return the entry of a key, or None if it is not there, or damaged (logged at ``level``)."""
        folder = self.folder / _name(key)
        if not folder.is_dir():
            return None
        try:
            return _open(folder, key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not folder.is_dir():
                return None
            log.log(level, "the features in %s are damaged (%s) and are made again", folder, error)
            return None

    def get_or_build(self, key: dict[str, Any], build: Callable[[EntryWriter], None]) -> tuple[Entry, bool]:
        """Return the entry of a key, built if it is not there, and whether it was built.

        Of several processes that ask for the same entry at once, one builds and the others wait.

        Args:
            key: values that JSON can hold.
            build: writes the features and digests.

        Raises:
            UsageError: no space, or no right to write.
        """
        if (found := self.find(key)) is not None:
            return found, False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(key):
                if (found := self.find(key, logging.DEBUG)) is not None:
                    return found, False
                self._build(key, build)
        except OSError as error:
            if error.errno in FULL:
                raise _no_space(self.folder, error.strerror or "the disk is full") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise UsageError(
                    f"{self.folder} can't be written ({error.strerror}); cache=DIR or LSHBENCH_CACHE choose another"
                ) from error
            raise
        return _open(self.folder / _name(key), key), True

    def _lock(self, key: dict[str, Any]) -> AcquireReturnProxy:
        """Acquire an entry's lock, which is released at the end of a ``with`` block."""
        lock = FileLock(self.folder / f"{_name(key)}{LOCK}")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is making the same features; waiting for it")
            return lock.acquire()

    def _sweep(self, own: str) -> None:
        """Remove what killed builders left behind: those whose lock can be had are dead."""
        for leftover in self.folder.glob(f"*{BUILDING}*"):
            name = leftover.name.partition(BUILDING)[0]
            lock = FileLock(self.folder / f"{name}{LOCK}")
            with suppress(Timeout), nullcontext() if name == own else lock.acquire(timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)

    def _build(self, key: dict[str, Any], build: Callable[[EntryWriter], None]) -> None:
        name = _name(key)
        self._sweep(name)
        building = Path(tempfile.mkdtemp(prefix=f"{name}{BUILDING}", dir=self.folder))
        writer = EntryWriter(building)
        try:
            try:
                build(writer)
            finally:
                writer.close()
            meta = {
                "key": key,
                "files": {file: checksum(building / file) for file in (FEATURES, DIGESTS)},
                "unreadable": writer.unreadable,
                "details": writer.details,
                "lshbench": __version__,
            }
            (building / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            final = self.folder / name
            if final.exists():
                # Damaged: out of the way by a rename, as a removal is no single step.
                final.replace(building.with_name(f"{building.name}.damaged"))
            building.replace(final)
        finally:
            for leftover in self.folder.glob(f"{name}{BUILDING}*"):
                shutil.rmtree(leftover, ignore_errors=True)


def checksum(path: Path) -> str:
    """Return the XXH3 hash of a file's content.

    Read in chunks, not through a map, so that the content does not count as this process's memory.
    """
    digest = xxhash.xxh3_64()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return f"xxh3:{digest.hexdigest()}"


def _open(folder: Path, key: dict[str, Any]) -> Entry:
    """Open an entry.

    Raises:
        ValueError: it is not what its description says.
    """
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    if _canonical(meta["key"]) != _canonical(key):
        raise ValueError(f"{META} describes something else")
    for file in (FEATURES, DIGESTS):
        if checksum(folder / file) != meta["files"][file]:
            raise ValueError(f"{file} has another checksum than when it was written")
    x = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)
    digests = np.load(folder / DIGESTS, allow_pickle=False)
    if x.dtype != np.float32 or x.ndim != 2 or digests.shape != (len(x),) or digests.dtype != np.uint64:
        raise ValueError("its arrays have other shapes or types than features")
    return Entry(x, digests, [(int(row), str(fault)) for row, fault in meta["unreadable"]], folder)


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _name(key: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(key).encode()).hexdigest()


def _no_space(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"no space left for features in {folder}: {what}; cache=DIR or LSHBENCH_CACHE choose another folder"
    )
