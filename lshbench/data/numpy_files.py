"""Open arrays in NumPy files, .npy and .npz."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from lshbench.data.checks import RawLabels
from lshbench.data.named_array import NamedArray, object_array, plain_array
from lshbench.errors import UsageError
from lshbench.files import array_bytes, npy_header, read_member

CHECKED = 1 << 22
"""Bytes of a member of a zip file that are checked at a time."""


def open_npz(path: Path) -> list[NamedArray]:
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, _, dtype = npy_header(file)
            if dtype.hasobject:
                arrays.append(object_array(name, shape, path))
                continue
            if member.compress_type == zipfile.ZIP_STORED:
                arrays.append(_stored_member(name, path, member))
                continue
            with archive.open(member) as file:
                arrays.append(plain_array(name, read_member(file, member.file_size), path))
    return arrays


def _stored_member(name: str, path: Path, member: zipfile.ZipInfo) -> NamedArray:
    """Map an array that lies uncompressed in a zip file; its checksum is checked when its values are first read."""
    values = _map_member(path, member)

    @cache
    def check() -> None:
        with zipfile.ZipFile(path) as archive, archive.open(member) as content:
            while content.read(CHECKED):  # zip's own reader compares at the end
                pass

    def read(rows: np.ndarray) -> np.ndarray:
        _checked(check, path, name)
        return values[rows]

    array = plain_array(name, values, path, read)

    def labels() -> RawLabels:
        _checked(check, path, name)
        return array.labels()

    return replace(array, labels=labels, whole=None)


def _checked(check: Callable[[], None], path: Path, name: str) -> None:
    try:
        check()
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: {name!r} is damaged, or changed while it was read: {error}") from error


def _map_member(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    """Map an array that lies uncompressed in a zip file: its values follow two headers."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        first = file.tell()
        shape, fortran, dtype = npy_header(file)
        if file.tell() - first + array_bytes(shape, dtype) != member.file_size:
            raise ValueError(f"{member.filename} of {member.file_size:,} bytes is not an array {shape} of {dtype}")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
