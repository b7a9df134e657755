"""Fingerprints of content: SHA-256 of files, kept in the cache as long as it is certain that nothing changed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

from lshbench.errors import UsageError
from lshbench.runtime.progress import amount
from lshbench.runtime.threads import available_cores

log = logging.getLogger(__name__)

DATABASE = "fingerprints.sqlite"
TABLE = (
    "CREATE TABLE IF NOT EXISTS digests "
    "(path BLOB PRIMARY KEY, device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, "
    "sha256 TEXT)"
)
INSERT = "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?, ?)"
LOOK_UP = 500
"""Paths asked for in one statement: SQLite allows 999 parameters everywhere."""
SETTLED_NS = 2_000_000_000
"""A file changed less than two seconds ago may change again under the same time stamp: not remembered."""
BATCH = 256
"""Files that a thread takes at a time."""
SMALL = 1 << 20
"""Bytes of a file that is read at once."""
LARGE = 16 * 1024
"""Mean bytes of files from which on several threads read them: their content is hashed side by side."""
WAITING = 2
"""Seconds that the first small files take for each second of the processor, from which on they are waited for."""
LONG_BYTES, LONG_FILES = 1 << 30, 50_000
"""Bytes or files whose hashing takes so long that the log says so."""
TRIES = 3
"""Times that a file is read which changes meanwhile."""

_Key = tuple[bytes, int, int, int, int, int]
"""Real path, device, inode, size, and the times of the last change of content and of status.

The time of status can't be set by a program: it tells a file that was rewritten under its old time stamp.  The inode
tells one that was moved into another's place.
"""


def combine(*parts: object) -> str:
    """Return ``sha256:...`` of values that JSON can hold, in their order."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def bytes_digest(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in memory, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digests(paths: Sequence[Path | str], cache: Path) -> list[str]:
    """Return the SHA-256 of each file's content, as hexadecimal digits.

    A file is not read again if it is known, with its inode, size and times of change, from a reading at which these
    times were past for a while.

    Args:
        paths: the files.
        cache: the cache folder, which keeps the digests.

    Raises:
        UsageError: a file that can't be read, or keeps changing.
    """
    keys = _keys(os.fspath(path) for path in paths)
    database = cache / DATABASE
    known = _look_up(keys, database)
    missing = list(dict.fromkeys(key for key in keys if key not in known))
    if missing:
        size = sum(key[3] for key in missing)
        if size >= LONG_BYTES or len(missing) >= LONG_FILES:
            count = f"{len(missing):,}"
            log.info("hashing %s files, %s, once: later runs go by their times", count, amount(size, None, "bytes"))
        started = time.time_ns()
        computed = _computed(missing)
        _remember({key: digest for key, digest in computed.items() if _settled(key, started)}, database)
        by_path = {key[0]: digest for key, digest in computed.items()}
        known |= {key: by_path[key[0]] for key in missing}
    return [known[key] for key in keys]


def _keys(paths: Iterable[str]) -> list[_Key]:
    """Return the key of each file; each folder's real path is found once, as there may be a million files."""
    folders: dict[str, str] = {}
    keys = []
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        if (inside := folders.get(folder)) is None:
            root = os.sep if path.startswith(os.sep) else os.curdir
            inside = folders[folder] = os.path.realpath(folder or root).rstrip(os.sep)
        real = f"{inside}{os.sep}{name}"
        try:
            status = os.lstat(real)
            if stat.S_ISLNK(status.st_mode) or name in ("", os.curdir, os.pardir):
                real = os.path.realpath(path)
                status = Path(real).stat()
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        keys.append(_key_of(os.fsencode(real), status))
    return keys


def _key_of(path: bytes, status: os.stat_result) -> _Key:
    # SQLite's integers have a sign; a network's inodes may use all 64 bits.
    inode = status.st_ino - (1 << 64) if status.st_ino >= 1 << 63 else status.st_ino
    return path, status.st_dev, inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _computed(keys: Sequence[_Key]) -> dict[_Key, str]:
    """Return the digest of each file, read by several threads where they are large or slow to come.

    Threads that read many small files at hand only take the interpreter from each other.
    """
    computed: dict[_Key, str] = {}
    if sum(key[3] for key in keys) < len(keys) * LARGE:
        tried, keys = keys[:BATCH], keys[BATCH:]
        wall, processor = time.perf_counter(), time.thread_time()
        computed = dict(map(_digest, tried))
        if time.perf_counter() - wall < WAITING * (time.thread_time() - processor):
            return computed | dict(map(_digest, keys))
    batches = (keys[first : first + BATCH] for first in range(0, len(keys), BATCH))
    with ThreadPoolExecutor(min(8, available_cores())) as pool:
        return computed | dict(chain.from_iterable(pool.map(_digests, batches)))


def _digests(keys: Sequence[_Key]) -> list[tuple[_Key, str]]:
    return list(map(_digest, keys))


def _digest(key: _Key) -> tuple[_Key, str]:
    """Return a file's digest, and what it was the digest of: the file as it was before and after reading alike."""
    path = key[0]
    try:
        for _ in range(TRIES):
            with io.FileIO(path) as file:
                before = _key_of(path, os.fstat(file.fileno()))
                digest = _content_digest(file, before[3])
                if _key_of(path, os.fstat(file.fileno())) == before:
                    return before, digest
    except OSError as error:
        raise UsageError(f"{os.fsdecode(path)} can't be read: {error.strerror}") from error
    raise UsageError(f"{os.fsdecode(path)} changes while it is read; expected a file that nothing writes to")


def _content_digest(file: io.FileIO, size: int) -> str:
    if size > SMALL:
        return hashlib.file_digest(file, "sha256").hexdigest()
    # Of many small files, most of the time would go into the buffer that `file_digest` makes for each.
    digest = hashlib.sha256()
    while content := file.read(size + 1):
        digest.update(content)
        if len(content) <= size:  # fewer than asked for: the end, without another reading
            break
    return digest.hexdigest()


def _look_up(keys: Sequence[_Key], database: Path) -> dict[_Key, str]:
    known: dict[_Key, str] = {}

    def ask(connection: sqlite3.Connection) -> None:
        for start in range(0, len(keys), LOOK_UP):
            batch = [key[0] for key in keys[start : start + LOOK_UP]]
            marks = ",".join("?" * len(batch))
            found = connection.execute(f"SELECT * FROM digests WHERE path IN ({marks})", batch)
            # A damaged page can hold anything; only what looks like a digest is believed.
            known.update((row[:6], row[6]) for row in found if len(str(row[6])) == 64)

    _with_database(database, ask)
    return known


def _settled(key: _Key, now: int) -> bool:
    """Whether a later change is certain to show in the times, however coarse the file system's clock."""
    return now - max(key[4], key[5]) > SETTLED_NS


def _remember(computed: dict[_Key, str], database: Path) -> None:
    rows = [(*key, digest) for key, digest in computed.items()]
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
