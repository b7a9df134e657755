"""Features with their labels, numbers and names as Parquet files, which `datasets` and ``dataset=features`` read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lshbench.data.base import Split
from lshbench.types import Progress

ROWS = 4096
"""Rows of a row group."""


def write_parquet(
    path: Path, split: Split, rows: np.ndarray, x: np.ndarray, unreadable: np.ndarray, progress: Progress
) -> int:
    """Write a split's rows: columns ``features``, ``label``, ``id`` (the row in the split) and ``name``.

    The file appears under its name in one step.

    Args:
        path: of the file; its folder is made.
        split: that they are of.
        rows: int64 ``(n,)``.
        x: their features, float32 or float16 ``(n, d)``.
        unreadable: positions that are left out.
        progress: receives the number of items written.

    Returns:
        The number of items written.
    """
    import pyarrow as pa
    import pyarrow.parquet
    from datasets import ClassLabel, Features, Sequence, Value

    one = ClassLabel(names=[str(name) for name in split.class_names]) if split.class_names else Value("int64")
    many = split.labels.ndim == 2
    columns = {
        "features": Sequence(Value(str(x.dtype)), length=x.shape[1]),
        "label": Sequence(one) if many else one,
        "id": Value("int64"),
        "name": Value("string"),
    }
    schema = Features(columns).arrow_schema
    kept = np.setdiff1d(np.arange(len(rows)), unreadable)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with (
            pyarrow.parquet.ParquetWriter(temporary, schema) as writer,
            progress(f"writing {path.name}", total=len(kept), unit="items") as advance,
        ):
            for start in range(0, len(kept), ROWS):
                taken = kept[start : start + ROWS]
                numbers, vectors = rows[taken], np.ascontiguousarray(x[taken])
                labels = split.labels[numbers]
                arrays = [
                    pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), x.shape[1]),
                    pa.array([np.flatnonzero(row) for row in labels] if many else labels),
                    pa.array(numbers),
                    pa.array([split.describe(int(number)) for number in numbers]),
                ]
                cast = [array.cast(kind) for array, kind in zip(arrays, schema.types, strict=True)]
                writer.write_table(pa.Table.from_arrays(cast, schema=schema))
                advance(len(taken))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(kept)
