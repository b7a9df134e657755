"""Open columns of Parquet files as arrays."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.checks import RawLabels
from lshbench.data.columns import (
    Column,
    VectorColumn,
    is_label_name,
    list_columns,
    nested_column,
    numbered,
    offsets_of,
    read_labels,
    rows_by_piece,
)
from lshbench.data.named_array import NamedArray
from lshbench.errors import UsageError


def open_parquet(path: Path) -> list[NamedArray]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    columns = _columns(file.schema_arrow)
    starts = offsets_of([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    arrays = [_parquet_array(file, column, starts, path) for column in columns]
    if not any(len(array.shape) == 2 for array in arrays) and (parts := numbered(columns)):
        arrays.append(_parquet_matrix(file, parts, starts, path))
        arrays = [array for array in arrays if array.column is None or array.column not in parts]
    return arrays


def _columns(schema: Any) -> list[Column]:
    """Return a schema's columns; one of a type that can't be read is of the kind ``other``."""
    import datasets
    import pyarrow as pa

    for whole in (schema, schema.remove_metadata()):  # other programs' metadata may stand under the same key
        with suppress(ValueError, NotImplementedError, TypeError, KeyError):
            return list_columns(datasets.Features.from_arrow_schema(whole))
    columns = []
    for part in schema.remove_metadata():
        try:
            columns += list_columns(datasets.Features.from_arrow_schema(pa.schema([part])))
        except (ValueError, NotImplementedError, TypeError, KeyError):
            columns.append(Column(part.name, "other", str(part.type)))
    return columns


def _parquet_matrix(file: Any, columns: list[Column], starts: np.ndarray, path: Path) -> NamedArray:
    """Return columns of numbers that are one dimension each as one array."""
    names = [column.name for column in columns]
    name, where = f"{names[0]} to {names[-1]}", f"{path.name}: columns {names[0]!r} to {names[-1]!r}"

    def read(rows: np.ndarray) -> np.ndarray:
        blocks = [np.empty((0, len(names)))]
        for group, within in rows_by_piece(rows, starts):
            table = file.read_row_group(group, columns=names)
            if nulls := sum(table.column(each).null_count for each in names):
                raise UsageError(f"{where} have {nulls} missing values in rows from {starts[group]}")
            blocks.append(np.column_stack([table.column(each).to_numpy() for each in names])[within])
        return np.concatenate(blocks)

    def refuse() -> RawLabels:
        raise UsageError(f"{where} are numbers of several columns: labels are in one")

    return NamedArray(name, (int(starts[-1]), len(names)), "f", read, refuse, (path,))


def _parquet_array(file: Any, column: Column, starts: np.ndarray, path: Path) -> NamedArray:
    where = f"{path.name}: column {column.name!r}"
    rows_total = int(starts[-1])
    width, kind = column.width, "f"
    vector = column.kind == "vector"
    if vector and width is None and rows_total:
        width = VectorColumn(file.read_row_group(0, columns=[column.name]).column(0), where).width
    elif (
        column.kind == "list"
        and not column.nested
        and rows_total
        and column.names is None
        and not is_label_name(column.name)
    ):
        # Lists of whole numbers or truth values: vectors if all are of one length, else several labels an item.
        found = _equal_width(file.read_row_group(0, columns=[column.name]).column(0))
        if found is not None:
            vector, (width, kind) = True, found
    last: dict[int, VectorColumn] = {}

    def read(rows: np.ndarray) -> np.ndarray:
        # Row groups are the smallest pieces that can be read; ascending reads meet each of them once.
        blocks = []
        for group, within in rows_by_piece(rows, starts):
            if group not in last:
                last.clear()
                table = file.read_row_group(group, columns=[column.name])
                last[group] = VectorColumn(table.column(0), f"{where}, rows from {starts[group]}")
            blocks.append(last[group].read(within))
        return np.concatenate(blocks) if blocks else np.empty((0, width or 0), np.float32)

    def labels() -> RawLabels:
        outer = column.name.partition(".")[0] if column.nested else column.name
        return read_labels(nested_column(file.read(columns=[outer]), column.name), where, column.names)

    kinds = {"class": "i", "integer": "i", "text": "U", "real": "f", "list": "O"}
    shape = (rows_total, width) if vector and width else (rows_total,)
    return NamedArray(
        column.name, shape, kind if vector else kinds.get(column.kind, "O"), read,
        labels, (path,), column,
    )  # fmt: skip


def _equal_width(column: Any) -> tuple[int, str] | None:
    """Return the length of a column's lists, if all have it and are of numbers or truth values, and their kind."""
    import pyarrow as pa

    lists = column.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    if lists.null_count or not len(lists):
        return None
    widths = lists.value_lengths().to_numpy(zero_copy_only=False)
    inner = lists.type.value_type
    kind = "b" if pa.types.is_boolean(inner) else "u" if pa.types.is_integer(inner) else None
    return (int(widths[0]), kind) if kind and widths[0] > 1 and (widths == widths[0]).all() else None
