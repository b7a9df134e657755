"""Where a training keeps its state, so that the same run, started again after a kill, goes on from it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

LOCK = "lock"
UNUSED_DAYS = 30
"""Days after which the state of a training that was not taken up again is deleted."""


@contextmanager
def checkpoint_file(folder: Path) -> Iterator[Path | None]:
    """Yield a file for a training's state; its folder is removed once the ``with`` block ends without an error.

    None is yielded where there can be none: to the second of two equal runs at the same time, and where the folder
    can't be written.

    Args:
        folder: of this run alone, beside those of others; made if need be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        yield None
        return
    except OSError as error:
        log.warning("training goes on without a state to resume from: %s", error)
        yield None
        return
    try:
        yield folder / "training.safetensors"
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
        _delete_unused(folder.parent)


def _delete_unused(parent: Path) -> None:
    """Delete what killed trainings left and nobody has taken up."""
    oldest = time.time() - 86400 * UNUSED_DAYS
    for folder in parent.glob("*/"):
        with suppress(OSError, Timeout):
            if folder.stat().st_mtime < oldest:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
