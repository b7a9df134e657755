"""Open arrays in MATLAB files of before version 7.3."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from lshbench.data.named_array import NamedArray, object_array, plain_array
from lshbench.files import EXPANDED, RATIO, check_memory

MAT_HEADER, MAT_COMPRESSED = 128, 15
"""Bytes before the first array of a MATLAB file, the last two tell its byte order; the kind of a compressed array."""


def open_mat(path: Path) -> list[NamedArray]:
    """Open a MATLAB file of before version 7.3, whose arrays are read whole."""
    from scipy.io import loadmat

    _check_inflated(path)
    try:
        found = loadmat(path, chars_as_strings=True)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file, the reader raises anything: IndexError, zlib.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from error
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    return [
        object_array(name, value.shape, path) if value.dtype.hasobject else plain_array(name, value, path)
        for name, value in arrays.items()
    ]


def _check_inflated(path: Path) -> None:
    """Refuse a MATLAB file whose compressed arrays take far more than the file: SciPy would inflate them whole."""
    most = max(EXPANDED, RATIO * path.stat().st_size)
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(MAT_HEADER)[-2:])
        if order is None:  # of version 4, which compresses nothing
            return
        total = 0
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            if kind != MAT_COMPRESSED:
                file.seek(size, os.SEEK_CUR)
                continue
            inflater, left = zlib.decompressobj(), size
            while left and (block := file.read(min(left, 1 << 16))):
                left -= len(block)
                while block:
                    total += len(inflater.decompress(block, 1 << 20))
                    if total > most:
                        raise ValueError(f"its arrays inflate to more than {most:,} bytes")
                    block = inflater.unconsumed_tail
        check_memory(total, "its compressed arrays")
