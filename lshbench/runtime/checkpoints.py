"""Where a training keeps its state, so that the same run, started again after a kill, goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def checkpoint_file(folder: Path) -> Iterator[Path | None]:
    """Yield a file for a training's state, removed once the ``with`` block ends without an error.

    Of two equal runs at the same time only the first gets one, the other None.

    Args:
        folder: of this run alone; made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield None
        return
    try:
        yield folder / "training.safetensors"
        for file in folder.glob("training*"):
            file.unlink()
    finally:
        lock.release()
