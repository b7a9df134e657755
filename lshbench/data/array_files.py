"""Open arrays in .npz, .npy, HDF5 and Parquet files; their values are read on request."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.checks import RawLabels, raw_labels
from lshbench.data.columns import Column, VectorColumn, list_columns, offsets_of, read_labels, rows_by_piece
from lshbench.errors import UsageError

if TYPE_CHECKING:
    import h5py

BLOCK_ROWS = 16384
"""Rows of a compressed HDF5 data set that are read in one piece."""
Reader = Callable[[np.ndarray], np.ndarray]
EXTENSIONS = (".npz", ".npy", ".parquet", ".pq", ".h5", ".hdf5")


@dataclass(frozen=True)
class NamedArray:
    """An array in a file, whose values are read on request.

    Attributes:
        name: its name in the file.
        shape: its shape; ``(n, width)`` for vectors.
        kind: NumPy's kind of its values: ``f``, ``i``, ``u``, ``b``, ``U`` for strings, ``O`` for others.
        read: returns the values of ascending row numbers.
        labels: returns all values as labels.
        files: the files that hold it.
        column: the column that it is, in Parquet.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Reader
    labels: Callable[[], RawLabels]
    files: tuple[Path, ...]
    column: Column | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return str(self.column)
        words = {"f": "floats", "i": "integers", "u": "integers", "b": "truth values", "U": "strings", "S": "strings"}
        return f"{self.name} ({' x '.join(map(str, self.shape))} {words.get(self.kind, 'objects')})"


def open_arrays(path: Path, key: str) -> list[NamedArray]:
    """Open a file, or a folder of .npy files, and return its arrays.

    Args:
        path: the file or folder.
        key: the configuration key that named it.

    Raises:
        UsageError: a format that isn't known, a damaged file, or pickled objects.
    """
    suffix = path.suffix.lower()
    try:
        if path.is_dir() or suffix == ".npy":
            paths = sorted(path.glob("*.npy")) if path.is_dir() else [path]
            if not paths:
                raise UsageError(
                    f"{key}={str(path)!r}: no .npy files in this folder; expected names such as train_x.npy, "
                    "train_y.npy, test_x.npy and test_y.npy, or one file"
                )
            return [_array(file.stem, np.load(file, mmap_mode="r", allow_pickle=False), file) for file in paths]
        if suffix == ".npz":
            return _open_npz(path)
        if suffix in (".h5", ".hdf5"):
            return _open_hdf5(path)
        if suffix in (".parquet", ".pq"):
            return _open_parquet(path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{key}={str(path)!r} can't be read: {error}") from error
    raise UsageError(
        f"{key}={str(path)!r}: expected a file ending in {', '.join(EXTENSIONS)}, or a folder of .npy files"
    )


def _array(name: str, values: np.ndarray | h5py.Dataset, file: Path, read: Reader | None = None) -> NamedArray:
    def labels() -> RawLabels:
        return raw_labels(np.asarray(values), f"{file.name}: {name!r}")

    return NamedArray(name, values.shape, values.dtype.kind, read or (lambda rows: values[rows]), labels, (file,))


def _open_npz(path: Path) -> list[NamedArray]:
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            if member.compress_type == zipfile.ZIP_STORED:
                values = _map_member(path, member)
            else:
                with archive.open(member) as file:
                    values = np.lib.format.read_array(file, allow_pickle=False)
            arrays.append(_array(member.filename.removesuffix(".npy"), values, path))
    return arrays


def _map_member(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    """Map an array that lies uncompressed in a zip file: its values follow two headers."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects, which are never loaded")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _open_hdf5(path: Path) -> list[NamedArray]:
    import h5py

    file = h5py.File(path, "r")
    found: list[NamedArray] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            found.append(_hdf5_array(name, item, path))

    file.visititems(visit)
    return found


def _hdf5_array(name: str, stored: h5py.Dataset, path: Path) -> NamedArray:
    import h5py

    if h5py.check_string_dtype(stored.dtype) is not None:
        return NamedArray(
            name, stored.shape, "U", lambda rows: stored.asstr()[:][rows],
            lambda: raw_labels(np.array(stored.asstr()[:], dtype=str), f"{path.name}: {name!r}"), (path,),
        )  # fmt: skip
    sources = _hdf5_sources(stored, path)
    offset = stored.id.get_offset() if stored.chunks is None and not sources else None
    if offset is not None and stored.dtype.kind in "fiub":
        return _array(name, np.memmap(path, stored.dtype, "r", offset, stored.shape), path)

    def read(rows: np.ndarray) -> np.ndarray:
        # Fancy indexing in HDF5 costs far more a row than reading a few rows too many.
        parts = np.split(rows, np.flatnonzero(np.diff(rows // BLOCK_ROWS)) + 1)
        blocks = [stored[part[0] : part[-1] + 1][part - part[0]] for part in parts if len(part)]
        return np.concatenate(blocks) if blocks else np.empty((0, *stored.shape[1:]), stored.dtype)

    return replace(_array(name, stored, path, read), files=(path, *sources))


def _hdf5_sources(stored: h5py.Dataset, path: Path) -> list[Path]:
    """Return the other files that hold values of a data set: a virtual one's sources, and theirs; external storage.

    Raises:
        ValueError: a source is not there: HDF5 itself would read zeros in its place.
    """
    import h5py

    found = {_hdf5_neighbour(os.fsdecode(file), path, stored.name) for file, _, _ in stored.external or ()}
    for source in stored.virtual_sources() if stored.is_virtual else ():
        named = path if source.file_name == "." else _hdf5_neighbour(source.file_name, path, stored.name)
        with h5py.File(named, "r") as file:
            inner = file.get(source.dset_name)
            if inner is None:
                raise ValueError(f"{stored.name} is virtual, and {named} has no {source.dset_name}")
            found |= {*([] if source.file_name == "." else [named]), *_hdf5_sources(inner, named)}
    return sorted(found)


def _hdf5_neighbour(name: str, holder: Path, dataset: str) -> Path:
    """Return a file that a data set names, as HDF5 finds it: beside the file that names it, else as it stands."""
    if "%b" in name:
        raise ValueError(f"{dataset} takes its values from a series of files, {name}; expected single files")
    for candidate in (holder.parent / name, Path(name)):
        if candidate.is_file():
            return candidate.resolve()
    raise ValueError(f"{dataset} takes its values from {name}, which is not there")


def _open_parquet(path: Path) -> list[NamedArray]:
    import datasets
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    schema = file.schema_arrow
    try:
        columns = list_columns(datasets.Features.from_arrow_schema(schema))
    except ValueError:  # metadata of another program under the same key
        columns = list_columns(datasets.Features.from_arrow_schema(schema.remove_metadata()))
    starts = offsets_of([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    return [_parquet_array(file, column, starts, path) for column in columns]


def _parquet_array(file: Any, column: Column, starts: np.ndarray, path: Path) -> NamedArray:
    where = f"{path.name}: column {column.name!r}"
    rows_total = int(starts[-1])
    width = column.width
    if column.kind == "vector" and width is None and rows_total:
        width = VectorColumn(file.read_row_group(0, columns=[column.name]).column(0), where).width
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

    kinds = {"vector": "f", "class": "i", "integer": "i", "text": "U", "real": "f", "list": "O"}
    shape = (rows_total, width) if column.kind == "vector" and width else (rows_total,)
    return NamedArray(
        column.name, shape, kinds.get(column.kind, "O"), read,
        lambda: read_labels(file.read(columns=[column.name]).column(0), where, column.names), (path,), column,
    )  # fmt: skip
