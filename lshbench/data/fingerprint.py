"""Fingerprints of content: SHA-256 of files, kept in the cache by path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from lshbench.errors import UsageError
from lshbench.runtime.threads import available_cores

log = logging.getLogger(__name__)

DATABASE = "fingerprints.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
INSERT = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"
LOOK_UP = 500
"""Paths asked for in one statement: SQLite allows 999 parameters everywhere."""
SETTLED_NS = 2_000_000_000
"""A file changed less than two seconds ago may change again under the same time stamp: not remembered."""

_Key = tuple[str, int, int]


def combine(*parts: object) -> str:
    """Return ``sha256:...`` of values that JSON can hold, in their order."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def bytes_digest(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in memory, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digests(paths: Sequence[Path], cache: Path) -> list[str]:
    """Return the SHA-256 of each file's content, as hexadecimal digits.

    A file whose real path, size and time of change are known is not read again.

    Args:
        paths: the files.
        cache: the cache folder, which keeps the digests.

    Raises:
        UsageError: a file that can't be read.
    """
    keys = [_key(path) for path in paths]
    database = cache / DATABASE
    known = _look_up(keys, database)
    missing = sorted({key for key in keys if key not in known})
    if missing:
        with ThreadPoolExecutor(min(8, available_cores())) as pool:
            computed = dict(zip(missing, pool.map(_digest, (key[0] for key in missing)), strict=True))
        _remember(computed, database)
        known |= computed
    return [known[key] for key in keys]


def _key(path: Path) -> _Key:
    try:
        real = os.path.realpath(path)
        status = Path(real).stat()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    return real, status.st_size, status.st_mtime_ns


def _digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error


def _look_up(keys: Sequence[_Key], database: Path) -> dict[_Key, str]:
    known: dict[_Key, str] = {}
    wanted = sorted(set(keys))

    def ask(connection: sqlite3.Connection) -> None:
        for start in range(0, len(wanted), LOOK_UP):
            batch = wanted[start : start + LOOK_UP]
            marks = ",".join("?" * len(batch))
            found = connection.execute(
                f"SELECT path, size, mtime_ns, sha256 FROM files WHERE path IN ({marks})", [key[0] for key in batch]
            )
            # A damaged page can hold anything; only what looks like a digest is believed.
            known.update({(path, size, mtime): digest for path, size, mtime, digest in found if len(str(digest)) == 64})

    _with_database(database, ask)
    return {key: known[key] for key in wanted if key in known}


def _remember(computed: dict[_Key, str], database: Path) -> None:
    now = time.time_ns()
    rows = [(*key, digest) for key, digest in computed.items() if now - key[2] > SETTLED_NS]

    if rows:
        _with_database(database, lambda connection: connection.executemany(INSERT, rows))


def _with_database(path: Path, work: Callable[[sqlite3.Connection], object]) -> None:
    """Do something with the database; a damaged one is replaced, an unusable one is done without."""
    for _ in range(2):
        try:
            with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
                connection.execute(TABLE)
                work(connection)
            return
        except sqlite3.OperationalError as error:
            # Locked for long, or a folder that can't be written: slower, not wrong.
            log.debug("%s can't be used: %s", path, error)
            return
        except sqlite3.DatabaseError as error:
            log.warning("%s is damaged (%s) and is built again", path, error)
            path.unlink(missing_ok=True)
