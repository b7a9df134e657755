"""Opening files that somebody else may have written: what a file is, and how much it takes, is seen before it is read.

All functions raise ValueError for a file that is not what it should be, or OSError; callers name the file in messages.
Nothing here is ever unpickled.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

LONGEST_HEADER = 10_000
"""Bytes of a .npy header at most: NumPy's own limit, which it checks once it has read the header."""

SMALL = 64 << 20
"""Bytes of a file of text at most."""

EXPANDED, RATIO = 1 << 30, 20
"""A compressed file may expand to this many bytes, or to this many times its size."""


def check_regular(path: Path, inside: Path | None = None) -> int:
    """Check that a path is a file with content of its own, no device or pipe; return its size.

    Args:
        path: of the file.
        inside: a folder that the file has to lie in, where it or a folder on the way to it is a link.
    """
    found = path.lstat()
    linked = stat.S_ISLNK(found.st_mode)
    if inside is not None:
        on_the_way = path.relative_to(inside).parents
        linked = linked or any((inside / folder).is_symlink() for folder in on_the_way if folder.name)
        # Unlike `resolve`, it takes links that lead to themselves, which `stat` then refuses.
        if linked and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(inside)):
            raise ValueError("it is a link that leads out of the folder, or lies in one")
    if linked:
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"it is {_kind(found.st_mode)}, and no file")
    return found.st_size


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")


def read_small(path: Path, most: int = SMALL) -> bytes:
    """Return the content of a file that is small by its nature."""
    if (size := check_regular(path)) > most:
        raise ValueError(f"{size:,} bytes, where at most {most:,} are expected")
    return path.read_bytes()


def check_memory(size: int, what: str) -> None:
    """Refuse what doesn't fit into memory, before the system takes it from other programs."""
    if size > (free := free_memory()):
        raise ValueError(f"{what} takes {size:,} bytes of memory, of which {max(free, 0):,} are free")


def free_memory() -> int:
    """Return how many bytes of memory can be taken: what the system says, or a container's limit if that is less."""
    found = sys.maxsize
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    with suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found = min(found, limit - used + int(counted["inactive_file"]))  # files that can be read again
    return found


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read a .npy header; return shape, whether the order is Fortran's, and dtype."""
    version = np.lib.format.read_magic(file)
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    if len(length) < width or (size := int.from_bytes(length, "little")) > LONGEST_HEADER:
        raise ValueError("no array: its header has no length, or a senseless one")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(io.BytesIO(length + file.read(size)))
    if any(extent < 0 for extent in shape):
        raise ValueError(f"no array: a shape of {shape}")
    return shape, fortran, dtype


def array_bytes(shape: Sequence[int], dtype: np.dtype) -> int:
    """Return how many bytes an array takes; Python's integers don't overflow, as NumPy's would."""
    size = dtype.itemsize
    for extent in shape:
        size *= int(extent)
    return size


def _whole_array(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Read the header of an array that fills a file of so many bytes; return it and where the values begin."""
    shape, fortran, dtype = npy_header(file)
    start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if start + array_bytes(shape, dtype) != size:
        raise ValueError(f"{size:,} bytes are not an array {shape} of {dtype}")
    return shape, fortran, dtype, start


def fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Return whether a shape is the expected one, in which None stands for any extent."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(wanted in (None, extent) for extent, wanted in pairs)


def open_npy(path: Path, mode: Any = "r") -> np.ndarray:
    """Return the array of a .npy file as a memory map, whose size is the file's.

    Args:
        path: of the file.
        mode: of the map: ``r``, or ``c`` to let what is written to it stay in memory.
    """
    size = check_regular(path)
    with path.open("rb") as file:
        shape, fortran, dtype, start = _whole_array(file, size)
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode, start, shape, "F" if fortran else "C")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file by name; zip's checksums are checked on the way."""
    most = max(EXPANDED, RATIO * check_regular(path))
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if (total := sum(member.file_size for member in members)) > most:
            raise ValueError(f"its members expand to {total:,} bytes")
        for member in members:
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = read_member(file, member.file_size)
    return arrays


def read_member(file: IO[bytes], size: int) -> np.ndarray:
    """Return the array that an open member of a zip file holds, which expands to so many bytes."""
    shape, fortran, dtype, start = _whole_array(file, size)
    if size > 1 << 20:  # a report reads thousands of smaller ones
        check_memory(size, f"an array {shape} of {dtype}")
    values = np.empty(size - start, np.uint8)
    filled = 0
    while filled < len(values):
        block = file.read(min(1 << 24, len(values) - filled))
        if not block:
            raise ValueError("a member is cut off")
        values[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
        filled += len(block)
    if file.read(1):  # reading to the end is what checks the checksum
        raise ValueError("a member is longer than it says")
    return values.view(dtype).reshape(shape, order="F" if fortran else "C")
