"""Atomic writing of files, and messages for errors of the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lshbench.errors import UsageError, wrong_value
from lshbench.run_folder.contents import temporary_name

UNUSABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT,
)  # fmt: skip


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name, whole, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(key: str, path: Path) -> None:
    """Check that a file can be written, before the work whose result it will hold; missing folders will be made.

    Raises:
        UsageError: it lies below a file, in a folder that can't be written, or is a folder.
    """
    try:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        fault = "that is a folder" if path.is_dir() else "" if above.is_dir() else f"{above} is no folder"
        fault = fault or ("" if os.access(above, os.W_OK) else f"{above} can't be written")
    except OSError as error:
        fault = error.strerror or str(error)
    if fault:
        raise wrong_value(key, str(path), f"a file that can be written; {fault}")


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Raise UsageError for a full or read-only disk."""
    try:
        yield
    except OSError as error:
        # NumPy reports a short write without an error number.
        short = error.errno is None and "written" in str(error)
        if short or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"no space left for the run's files in {folder}: free some, or choose another place with "
                "output= or hydra.run.dir="
            ) from error
        if error.errno in UNUSABLE:
            raise UsageError(f"hydra.run.dir={folder}: expected a folder that can be written ({error})") from error
        raise


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows has no such call for folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
