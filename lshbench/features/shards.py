"""The files of a store's entry: what lies where, and whether a shard is what was written.

An entry is a folder ``features/<sha256 of its key>`` below the cache folder:

- ``features.npy`` (float32 or float16) and ``digests.npy`` (uint64) have room for all rows from the start; a shard is a
  range of their rows;
- ``layout.json`` says how large they and the shards are;
- ``shards/00012.json`` has a shard's checksums; it is written when the shard's rows are on the disk;
- ``shards/00012.lock`` is held by the process that makes the shard;
- ``meta.json``, the manifest, is written last: the key, and the notes of all shards.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

FEATURES, DIGESTS, LAYOUT, SHARDS, META, LOCK = (
    "features.npy", "digests.npy", "layout.json", "shards", "meta.json", "lock",
)  # fmt: skip
HEADER = 4096
"""Bytes before the first row: shards of 1,024 rows then begin and end at the pages of a file."""
UNNAMED = ".*.json.*"
"""Names of files that :func:`write_json` is writing, and no others: on NFS, locks make hidden ones, too."""
CHUNK = 1 << 22

NAMES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True)
class Layout:
    """Sizes of an entry's arrays.

    Attributes:
        rows, dim: of the features.
        dtype: ``float32`` or ``float16``.
        shard: rows of a shard; the last one may be shorter.
    """

    rows: int
    dim: int
    dtype: str
    shard: int

    def shards(self) -> list[range]:
        return [range(start, min(start + self.shard, self.rows)) for start in range(0, self.rows, self.shard)]

    def files(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Return the name, shape and type of the array in each file."""
        return (FEATURES, (self.rows, self.dim), NAMES[self.dtype]), (DIGESTS, (self.rows,), "<u8")


def fault_of(folder: Path, layout: Layout, shard: range, note: dict[str, Any]) -> str:
    """Return what is wrong with a shard, empty where it is what its note says."""
    if note["rows"] != [shard.start, shard.stop]:
        return f"its note is that of rows {note['rows']}"
    found = checksums(folder, layout, shard)
    return (
        "" if all(note[name] == value for name, value in found.items()) else "it has other checksums than when written"
    )


def checksums(folder: Path, layout: Layout, shard: range) -> dict[str, str]:
    """Return the XXH3 hashes of a shard's bytes in each file.

    Read in chunks, not through a map, so that the content does not count as this process's memory.
    """
    found = {}
    for name, shape, dtype in layout.files():
        digest, row = xxhash.xxh3_64(), math.prod(shape[1:]) * np.dtype(dtype).itemsize
        left = len(shard) * row
        with (folder / name).open("rb", buffering=0) as file:
            file.seek(HEADER + shard.start * row)
            while left and (content := file.read(min(CHUNK, left))):
                digest.update(content)
                left -= len(content)
        found[name] = f"xxh3:{digest.hexdigest()}"
    return found


def read_layout(folder: Path, rows: int) -> Layout | None:
    """Return an entry's layout, None where there is none that can be used."""
    try:
        layout = Layout(**json.loads((folder / LAYOUT).read_bytes()))
        sizes = (layout.dim, layout.shard)
        if layout.rows == rows and layout.dtype in NAMES and all(type(size) is int and size > 0 for size in sizes):
            return layout
    except (OSError, ValueError, TypeError):
        pass
    return None


def array_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the first bytes of a .npy file, filled up with blanks."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    magic = np.lib.format.magic(1, 0)
    length = HEADER - len(magic) - 2
    return magic + length.to_bytes(2, "little") + header.ljust(length - 1) + b"\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that appears under its name in one step, and is on the disk by then."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
