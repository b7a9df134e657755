"""Extractions that are killed: when, and what they had written and kept by then."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

Rows = set[tuple[str, int]]
"""Rows of the store, each by the name of its entry and its number."""


def content(cache: Path) -> dict[str, bytes]:
    """Return the files of all entries but locks."""
    files = (path for path in (cache / "features").rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def notes(cache: Path) -> int:
    return len(list(cache.glob("features/*/shards/*.json")))


def kept(cache: Path) -> int:
    """Return how much of a job on tar files is kept: what is known of each file, and each shard."""
    return len(list(cache.glob("tars/*.npz"))) + notes(cache)


def rows_noted(cache: Path) -> Rows:
    """Return the rows of the shards that have a note."""
    shards = [(note, json.loads(note.read_bytes())["rows"]) for note in cache.glob("features/*/shards/*.json")]
    return {(note.parts[-3], row) for note, (start, stop) in shards for row in range(start, stop)}


def die(after: int) -> None:
    """Have this process kill itself when the rows of a shard after so many are written, and its note is not."""
    from lshbench.features.filling import Filling, Made

    finish, finished = Filling._finish, 0

    def finish_or_die(self: Filling, made: Made) -> None:
        nonlocal finished
        if finished == after:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(self, made)
        finished += 1

    Filling._finish = finish_or_die


def observe(log: Path, prepare: Callable[[], object] = int) -> None:
    """Have this process note its id, and each block of rows before it writes them."""
    from lshbench.features.filling import Filling

    file, write = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), Filling.write

    def observed_write(self: Filling, start: int, block: np.ndarray) -> None:
        os.write(file, f"{self.folder.name} {start} {len(block)}\n".encode())
        write(self, start, block)

    Filling.write = observed_write
    prepare()
    os.write(file, f"{os.getpid()}\n".encode())


def process_of(log: Path) -> Path:
    """Return the folder below /proc of a process that is observed, once it has begun."""
    return Path("/proc") / wait_for(lambda: log.exists() and log.read_text().partition("\n")[0], 120, "nothing begins")


def kill(process: Path, cache: Path, moment: float) -> None:
    """Kill a process that has just begun when so much is kept, and a little later where the number is not whole."""
    begun = kept(cache)

    def is_time() -> bool:
        return kept(cache) >= int(moment) and (kept(cache) > begun or has_lock(process, cache))

    wait_for(is_time, 60, "it stands still", pause=0.001)
    time.sleep(moment % 1 * 0.02)  # a shard takes a hundredth of a second
    os.kill(int(process.name), signal.SIGKILL)


def rows_written(log: Path) -> Rows:
    """Return the rows that an observed process has written."""
    blocks = [line.split() for line in log.read_text().splitlines()[1:]]
    return {(entry, int(start) + row) for entry, start, count in blocks for row in range(int(count))}


def has_lock(process: Path, folder: Path) -> bool:
    """Whether a process has a lock below a folder open: it makes something that is kept there."""
    with suppress(OSError):  # one that has ended
        files = [file.readlink() for file in (process / "fd").iterdir()]
        return any(file.is_relative_to(folder) and file.suffix == ".lock" for file in files)
    return False


def processes() -> list[Path]:
    own = str(os.getpid())
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal() and path.name != own]


def wait_for(condition: Callable[[], Any], seconds: float, what: str, pause: float = 0.02) -> Any:
    """Return the first true value of a condition."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, what
        time.sleep(pause)
    return found
