"""Open files of vectors in the format of TEXMEX: fvecs, bvecs and ivecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def map_vectors(file: Path) -> np.ndarray:
    """Map a file of vectors, each behind its width as int32: floats (.fvecs), bytes (.bvecs) or int32 (.ivecs).

    Raises:
        ValueError: it is no such file.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(4)
    width = int.from_bytes(head, "little", signed=True)
    item = np.dtype({".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}[file.suffix])
    row = 4 + width * item.itemsize
    if len(head) < 4 or not 0 < width <= 1 << 20 or size % row:
        raise ValueError(f"{size:,} bytes are no vectors, each behind its width (here {width}) as 32 bits")
    rows = np.memmap(file, "u1", "r").reshape(-1, row)
    widths = np.ndarray((len(rows),), "<i4", rows, strides=(row,))
    if (widths != width).any():
        odd = int(np.argmax(widths != width))
        raise ValueError(f"vectors of differing widths: row 0 has {width} values, row {odd} has {widths[odd]}")
    return np.ndarray((len(rows), width), item, rows, 4, strides=(row, item.itemsize))
