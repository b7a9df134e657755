"""The store of features on disk, by key.

An entry (:mod:`lshbench.features.shards`) is filled by any number of processes (:mod:`lshbench.features.filling`), and
is found once its manifest is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.errors import UsageError
from lshbench.features.filling import Filling, no_space
from lshbench.features.shards import HEADER, META, SHARDS, Layout, array_header, fault_of

log = logging.getLogger(__name__)

SHARD = 1024
"""Rows of a shard by default."""
FULL = (errno.ENOSPC, errno.EDQUOT)
TRIES = 3
"""Times that an entry is filled which can't be read afterwards."""
UNUSED_DAYS = 30
"""Days after which an unfinished entry that nobody went on with is deleted."""


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
                folder.mkdir(parents=True, exist_ok=True)
                os.utime(folder)  # somebody goes on with it, however old it is
                self._delete_unused()
                with Filling(folder, rows, shard) as filling:
                    if filling.missing:
                        fill(filling)
                    filling.complete(key, details)
                    made += filling.made
        except OSError as error:
            if error.errno in FULL:
                raise no_space(self.folder, error.strerror or "the disk is full") from error
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
                    log.info("%s: unfinished features of more than %d days ago are deleted", folder, UNUSED_DAYS)
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
            if file.read(HEADER) != array_header(shape, dtype):
                raise ValueError(f"{name} is no array of {' x '.join(map(str, shape))} {dtype}")
    shards = layout.shards()
    notes = zip(shards, meta["shards"], strict=True)
    if faulty := [i for i, (shard, note) in enumerate(notes) if fault_of(folder, layout, shard, note)]:
        raise ValueError(f"shards {', '.join(map(str, faulty))} of {len(shards)} are not what was written")
    x, digests = (np.memmap(folder / name, dtype, "r", HEADER, shape) for name, shape, dtype in layout.files())
    unreadable = [(int(row), str(fault)) for note in meta["shards"] for row, fault in note["unreadable"]]
    return Entry(x, np.array(digests), unreadable, folder)


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _name(key: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(key).encode()).hexdigest()
