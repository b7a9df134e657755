"""Fill an entry of the store, shard by shard, by any number of processes, each of which may be killed at any moment.

What has a note (:mod:`lshbench.features.shards`) is kept.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from lshbench import __version__
from lshbench.errors import UsageError
from lshbench.features.shards import (
    HEADER,
    LAYOUT,
    LOCK,
    META,
    SHARDS,
    UNNAMED,
    Layout,
    array_header,
    checksums,
    fault_of,
    read_layout,
    write_json,
)
from lshbench.runtime.kept import remove_leftovers

log = logging.getLogger(__name__)

SLACK = 1 << 20
"""Bytes beyond the features that an entry may take."""
INTERVAL = 0.2
"""Seconds between two looks at the shards that other processes have in hand."""


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
            header = array_header(shape, dtype)
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
        if (found := read_layout(folder, rows)) is not None:
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
            found = read_layout(self.folder, self._rows)
            wanted = Layout(self._rows, dim, dtype, self._shard if found is None else found.shard)
            if found != wanted:
                write_json(self.folder / LAYOUT, vars(wanted))
            if self._layout != wanted:
                self._adopt(wanted)
        needed = self.bytes_missing + SLACK
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise no_space(self.folder.parent, f"{needed:,} bytes are needed and {free:,} are free")

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
        try:
            notes = [json.loads(self._note(shard).read_bytes()) for shard in self._layout.shards()]
        except FileNotFoundError as error:
            raise UsageError(
                f"the features in {self.folder} were taken back by another process, for which their data changed while "
                "it was read; expected files that nothing writes to: run again when they are complete"
            ) from error
        layout = vars(self._layout)
        manifest = {"key": key, "layout": layout, "shards": notes, "details": details, "lshbench": __version__}
        with FileLock(self.folder / LOCK):  # another process's manifest under way is no leftover
            for folder in (self.folder, self.folder / SHARDS):
                remove_leftovers(folder, UNNAMED)
            write_json(self.folder / META, manifest)

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
            fault = fault_of(self.folder, self._layout, shard, note)
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
        write_json(
            self._note(shard),
            {
                "rows": [shard.start, shard.stop],
                **checksums(self.folder, self._layout, shard),
                "unreadable": made.unreadable,
            },
        )
        self._locks.pop(shard).release()
        self.missing.remove(shard)
        self.made += len(shard)


def no_space(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"no space left for features in {folder}: {what}; cache=DIR or LSHBENCH_CACHE choose another folder. What is "
        "done is kept: with more space, the same command goes on from there"
    )
