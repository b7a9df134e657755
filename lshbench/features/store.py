"""The store of features on disk, by key, filled shard by shard.

An entry is a folder ``features/<sha256 of its key>`` below the cache folder:

- ``features.npy`` (float32 or float16) and ``digests.npy`` (uint64) have room for all rows from the start; a shard is a
  range of their rows;
- ``layout.json`` says how large they and the shards are;
- ``shards/00012.json`` has a shard's checksums; it is written when the shard's rows are on the disk;
- ``shards/00012.lock`` is held by the process that makes the shard;
- ``meta.json``, the manifest, is written last: the key, and the notes of all shards.

Any number of processes fill an entry together, and each may be killed at any moment: what has a note is kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from lshbench import __version__
from lshbench.errors import UsageError

log = logging.getLogger(__name__)

FEATURES, DIGESTS, LAYOUT, SHARDS, META, LOCK = (
    "features.npy", "digests.npy", "layout.json", "shards", "meta.json", "lock",
)  # fmt: skip
SHARD = 1024
"""Rows of a shard by default."""
HEADER = 4096
"""Bytes before the first row: shards of 1,024 rows then begin and end at the pages of a file."""
CHUNK = 1 << 22
SLACK = 1 << 20
"""Bytes beyond the features that an entry may take."""
FULL = (errno.ENOSPC, errno.EDQUOT)
TRIES = 3
"""Times that an entry is filled which can't be read afterwards."""
INTERVAL = 0.2
"""Seconds between two looks at the shards that other processes have in hand."""
UNUSED_DAYS = 30
"""Days after which an unfinished entry that nobody went on with is deleted."""

NAMES = {"float32": "<f4", "float16": "<f2"}


class ArrayFile:
    """A .npy file that is filled block by block, in any order, from any thread and any process.

    Blocks are written, not mapped: a full disk is then an error, where a map would end the process.

    Args:
        path: made if it is not there; what it holds already stays, whatever its size.
        shape: ``(n, d)`` or ``(n,)``.
        dtype: such as ``<f4``.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._dtype = np.dtype(dtype)
        self._row = math.prod(shape[1:]) * self._dtype.itemsize
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", 0)
        try:
            header = _header(shape, dtype)
            if self._file.read(HEADER) != header:
                self._file.seek(0)
                self._file.write(header)
            size = HEADER + shape[0] * self._row
            if self._file.seek(0, os.SEEK_END) != size:
                self._file.truncate(size)
        except BaseException:
            self._file.close()
            raise

    def write(self, start: int, block: np.ndarray) -> None:
        """Write rows from ``start`` on."""
        content = np.ascontiguousarray(block, self._dtype).data.cast("B")
        with self._lock:
            self._file.seek(HEADER + start * self._row)
            while content:  # a disk that is nearly full takes a part
                content = content[self._file.write(content) :]

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass
class Made:
    """A shard whose features are written.

    Attributes:
        rows: its rows.
        digests: uint64 ``(len(rows),)``, hashes of the items' content.
        unreadable: the row and fault of each image that could not be read, ascending; its features are NaN.
    """

    rows: range
    digests: np.ndarray
    unreadable: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A complete entry: stored features and the digests of their items.

    Attributes:
        x: float32 or float16 ``(n, d)``, a read-only memory map.
        digests: uint64 ``(n,)``.
        unreadable: positions and faults of images that could not be read, whose rows are NaN.
        folder: where it lies.
    """

    x: np.ndarray
    digests: np.ndarray
    unreadable: list[tuple[int, str]]
    folder: Path


@dataclass(frozen=True)
class Layout:
    """Sizes of an entry's arrays.

    Attributes:
        rows, dim: of the features.
        dtype: ``float32`` or ``float16``.
        shard: rows of a shard; the last one may be shorter.
    """

    rows: int
    dim: int
    dtype: str
    shard: int

    def shards(self) -> list[range]:
        return [range(start, min(start + self.shard, self.rows)) for start in range(0, self.rows, self.shard)]

    def files(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Return the name, shape and type of the array in each file."""
        return (FEATURES, (self.rows, self.dim), NAMES[self.dtype]), (DIGESTS, (self.rows,), "<u8")


class Filling:
    """An entry that is being filled, by this process and perhaps by others; to be used in a ``with`` block.

    Args:
        folder: the entry's.
        rows: that it will have.
        shard: rows of a shard, where none is there yet.

    Attributes:
        missing: shards without which the entry is not complete; all of it before :meth:`create`, if it is new.
        made: rows that this process has made.
    """

    def __init__(self, folder: Path, rows: int, shard: int) -> None:
        self.folder = folder
        self.made = 0
        self._rows, self._shard = rows, shard
        self._held = ExitStack()
        self._locks: dict[range, FileLock] = {}
        self._layout = Layout(rows, 0, "float32", shard)
        self.missing = self._layout.shards()
        if (found := _read_layout(folder, rows)) is not None:
            self._adopt(found)

    def create(self, dim: int, dtype: str = "float32") -> None:
        """Make the entry's files, if another process has not.

        Args:
            dim: numbers of a row.
            dtype: how they are stored, ``float32`` or ``float16``.

        Raises:
            UsageError: there is no room for them.
        """
        with FileLock(self.folder / LOCK):
            found = _read_layout(self.folder, self._rows)
            wanted = Layout(self._rows, dim, dtype, self._shard if found is None else found.shard)
            if found != wanted:
                _write_json(self.folder / LAYOUT, vars(wanted))
            if self._layout != wanted:
                self._adopt(wanted)
        needed = self.bytes_missing + SLACK
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise _no_space(self.folder.parent, f"{needed:,} bytes are needed and {free:,} are free")

    @property
    def rows_missing(self) -> int:
        return sum(map(len, self.missing))

    @property
    def bytes_missing(self) -> int:
        return self.rows_missing * (self._layout.dim * np.dtype(self._layout.dtype).itemsize + 8)

    def fill(
        self, make: Callable[[Iterator[range]], Iterable[Made]], advance: Callable[[int], None] = lambda _: None
    ) -> None:
        """Make the missing shards, but for those that other processes make meanwhile, and wait for these.

        Args:
            make: takes shards from an iterator, which claims each when it is asked for, writes their features by
                :meth:`write`, and yields them in that order.
            advance: is told numbers of rows that others have made.
        """
        for looks in count(1):
            for made in make(self._claims(advance)):
                self._finish(made)
            if not self.missing:
                break
            if looks == 2:  # the first one leaves shards that others had in hand and have finished since
                log.info("waiting for %d shards that other processes have in hand", len(self.missing))
            time.sleep(INTERVAL)

    def write(self, start: int, block: np.ndarray) -> None:
        """Write features from a row on; for rows of claimed shards, from any thread.

        Raises:
            UsageError: values beyond float16's, where that is how they are stored.
        """
        if self._layout.dtype == "float16":
            with np.errstate(over="ignore"):
                block = block.astype("<f2")
            if np.isinf(block).any():
                raise UsageError("backbone.stored=float16: features beyond 65,504; expected backbone.stored=float32")
        self._features.write(start, block)

    def forget(self) -> None:
        """Take back the notes of all shards: what is written is not to be used."""
        for note in (self.folder / SHARDS).glob("*.json"):
            note.unlink(missing_ok=True)

    def complete(self, key: dict[str, Any], details: dict[str, Any]) -> None:
        """Write the manifest.

        Args:
            key: the entry's.
            details: for people.

        Raises:
            UsageError: another process has taken back the notes (:meth:`forget`).
        """
        for leftover in (self.folder / SHARDS).glob(".*"):
            leftover.unlink(missing_ok=True)
        try:
            notes = [json.loads(self._note(shard).read_bytes()) for shard in self._layout.shards()]
        except FileNotFoundError as error:
            raise UsageError(
                f"the features in {self.folder} were taken back by another process, for which their data changed while "
                "it was read; expected files that nothing writes to: run again when they are complete"
            ) from error
        _write_json(
            self.folder / META,
            {"key": key, "layout": vars(self._layout), "shards": notes, "details": details, "lshbench": __version__},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._locks.values():
            lock.release()
        self._held.close()

    def _adopt(self, layout: Layout) -> None:
        """Open the entry's files, given their sizes where need be, and see which shards are whole."""
        self._layout = layout
        (self.folder / SHARDS).mkdir(exist_ok=True)
        self._features, self._digests = (
            self._held.enter_context(ArrayFile(self.folder / name, shape, dtype))
            for name, shape, dtype in layout.files()
        )
        shards = layout.shards()
        self.missing = [shard for shard in shards if not self._is_whole(shard)]
        if 0 < len(self.missing) < len(shards):
            log.info("%d of %d shards in %s are there", len(shards) - len(self.missing), len(shards), self.folder)

    def _note(self, shard: range, suffix: str = ".json") -> Path:
        return self.folder / SHARDS / f"{shard.start // self._layout.shard:05}{suffix}"

    def _is_whole(self, shard: range) -> bool:
        """Whether a shard is there and what it was when it was written; names a damaged one."""
        try:
            note = json.loads(self._note(shard).read_bytes())
            fault = _fault(self.folder, self._layout, shard, note)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            fault = f"its note can't be read ({error})"
        if fault:
            named = f"rows {shard.start:,} to {shard.stop - 1:,} in {self.folder}"
            log.warning("shard %d, %s: %s; it is made again", shard.start // self._layout.shard, named, fault)
            self._note(shard).unlink(missing_ok=True)
        return not fault

    def _claims(self, advance: Callable[[int], None]) -> Iterator[range]:
        """Yield the missing shards that nobody has in hand, each locked until it is finished."""
        for shard in list(self.missing):
            lock = FileLock(self._note(shard, ".lock"), thread_local=False)
            if not self._note(shard).exists():
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                if not self._note(shard).exists():
                    self._locks[shard] = lock
                    yield shard
                    continue
                lock.release()
            self.missing.remove(shard)
            advance(len(shard))

    def _finish(self, made: Made) -> None:
        """Note that a shard is whole, once its rows are on the disk."""
        shard = made.rows
        self._digests.write(shard.start, made.digests)
        self._features.sync()
        self._digests.sync()
        _write_json(
            self._note(shard),
            {
                "rows": [shard.start, shard.stop],
                **_checksums(self.folder, self._layout, shard),
                "unreadable": made.unreadable,
            },
        )
        self._locks.pop(shard).release()
        self.missing.remove(shard)
        self.made += len(shard)


class FeatureStore:
    """The store of features on disk.

    Args:
        cache: the cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "features"

    def find(self, key: dict[str, Any]) -> Entry | None:
        """Return the entry of a key, or None if it is not there, unfinished or damaged (named in the log)."""
        folder = self.folder / _name(key)
        if not (folder / META).exists():
            return None
        try:
            return _open(folder, key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the features in %s are damaged: %s; what is damaged is made again", folder, error)
            return None

    def get_or_fill(
        self, key: dict[str, Any], rows: int, fill: Callable[[Filling], None], shard: int = SHARD, **details: Any
    ) -> tuple[Entry, int]:
        """Return the entry of a key, filled where it is not complete, and how many rows this process made.

        Of several processes that ask for the same entry at once, each makes a part.

        Args:
            key: values that JSON can hold.
            rows: of the entry.
            fill: calls :meth:`Filling.create` and :meth:`Filling.fill`.
            shard: rows of a shard of a new entry.
            details: kept in the manifest for people.

        Raises:
            UsageError: no space, or no right to write.
        """
        folder, made = self.folder / _name(key), 0
        try:
            for _ in range(TRIES):
                if (found := self.find(key)) is not None:
                    return found, made
                self._delete_unused()
                folder.mkdir(parents=True, exist_ok=True)
                with Filling(folder, rows, shard) as filling:
                    if filling.missing:
                        fill(filling)
                    filling.complete(key, details)
                    made += filling.made
        except OSError as error:
            if error.errno in FULL:
                raise _no_space(self.folder, error.strerror or "the disk is full") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise UsageError(
                    f"{self.folder} can't be written ({error.strerror}); cache=DIR or LSHBENCH_CACHE choose another"
                ) from error
            raise
        finally:
            self._leave_none_empty(folder)
        if (found := self.find(key)) is None:
            raise UsageError(f"features written to {folder} are read with other content: cache=DIR on another disk?")
        return found, made

    def _leave_none_empty(self, folder: Path) -> None:
        """Remove the folder of an entry for which nothing was written."""
        with suppress(OSError):
            folder.rmdir()

    def _delete_unused(self) -> None:
        """Delete unfinished entries that nobody has gone on with."""
        oldest = time.time() - 86400 * UNUSED_DAYS
        for folder in self.folder.glob("*/"):
            with suppress(OSError):
                if (
                    not (folder / META).exists()
                    and max(path.stat().st_mtime for path in (folder, *folder.glob(SHARDS))) < oldest
                ):
                    shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path, key: dict[str, Any]) -> Entry:
    """Open a complete entry.

    Raises:
        ValueError: it is not what its manifest says.
    """
    meta = json.loads((folder / META).read_bytes())
    if _canonical(meta["key"]) != _canonical(key):
        raise ValueError(f"{META} describes something else")
    layout = Layout(**meta["layout"])
    for name, shape, dtype in layout.files():
        with (folder / name).open("rb") as file:
            if file.read(HEADER) != _header(shape, dtype):
                raise ValueError(f"{name} is no array of {' x '.join(map(str, shape))} {dtype}")
    shards = layout.shards()
    notes = zip(shards, meta["shards"], strict=True)
    if faulty := [i for i, (shard, note) in enumerate(notes) if _fault(folder, layout, shard, note)]:
        raise ValueError(f"shards {', '.join(map(str, faulty))} of {len(shards)} are not what was written")
    x, digests = (np.memmap(folder / name, dtype, "r", HEADER, shape) for name, shape, dtype in layout.files())
    unreadable = [(int(row), str(fault)) for note in meta["shards"] for row, fault in note["unreadable"]]
    return Entry(x, np.array(digests), unreadable, folder)


def _fault(folder: Path, layout: Layout, shard: range, note: dict[str, Any]) -> str:
    """Return what is wrong with a shard, empty where it is what its note says."""
    if note["rows"] != [shard.start, shard.stop]:
        return f"its note is that of rows {note['rows']}"
    found = _checksums(folder, layout, shard)
    return (
        "" if all(note[name] == value for name, value in found.items()) else "it has other checksums than when written"
    )


def _checksums(folder: Path, layout: Layout, shard: range) -> dict[str, str]:
    """Return the XXH3 hashes of a shard's bytes in each file.

    Read in chunks, not through a map, so that the content does not count as this process's memory.
    """
    found = {}
    for name, shape, dtype in layout.files():
        digest, row = xxhash.xxh3_64(), math.prod(shape[1:]) * np.dtype(dtype).itemsize
        left = len(shard) * row
        with (folder / name).open("rb", buffering=0) as file:
            file.seek(HEADER + shard.start * row)
            while left and (content := file.read(min(CHUNK, left))):
                digest.update(content)
                left -= len(content)
        found[name] = f"xxh3:{digest.hexdigest()}"
    return found


def _read_layout(folder: Path, rows: int) -> Layout | None:
    """Return an entry's layout, None where there is none that can be used."""
    try:
        layout = Layout(**json.loads((folder / LAYOUT).read_bytes()))
        sizes = (layout.dim, layout.shard)
        if layout.rows == rows and layout.dtype in NAMES and all(type(size) is int and size > 0 for size in sizes):
            return layout
    except (OSError, ValueError, TypeError):
        pass
    return None


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the first bytes of a .npy file, filled up with blanks."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    magic = np.lib.format.magic(1, 0)
    length = HEADER - len(magic) - 2
    return magic + length.to_bytes(2, "little") + header.ljust(length - 1) + b"\n"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that appears under its name in one step, and is on the disk by then."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _name(key: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(key).encode()).hexdigest()


def _no_space(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"no space left for features in {folder}: {what}; cache=DIR or LSHBENCH_CACHE choose another folder. What is "
        "done is kept: with more space, the same command goes on from there"
    )
