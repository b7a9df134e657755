"""Open arrays in NumPy, HDF5, MATLAB, Parquet, PyTorch and fvecs files; their values are read on request."""

from __future__ import annotations

import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.checks import RawLabels, raw_labels
from lshbench.data.columns import (
    Column,
    VectorColumn,
    is_label_name,
    list_columns,
    numbered,
    offsets_of,
    read_labels,
    rows_by_piece,
)
from lshbench.data.names import decoded, printable
from lshbench.errors import UsageError
from lshbench.files import EXPANDED, RATIO, array_bytes, check_memory, check_regular, npy_header, read_member

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

BLOCK_ROWS = 16384
"""Rows of a compressed HDF5 data set that are read in one piece."""
CHECKED = 1 << 22
"""Bytes of a member of a zip file that are checked at a time."""
MAT_HEADER, MAT_COMPRESSED = 128, 15
"""Bytes before the first array of a MATLAB file, the last two tell its byte order; the kind of a compressed array."""
Reader = Callable[[np.ndarray], np.ndarray]
SINGLE = (".npy", ".fvecs", ".bvecs", ".ivecs")
"""Files of one array, several of which a folder may hold."""
EXTENSIONS = (".npz", *SINGLE, ".parquet", ".pq", ".h5", ".hdf5", ".mat", ".pt", ".pth", ".safetensors")
NEVER_LOADED = "it holds Python objects, which are never loaded"


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
        whole: the array itself where it can be sliced in any direction, else None.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Reader
    labels: Callable[[], RawLabels]
    files: tuple[Path, ...]
    column: Column | None = None
    whole: np.ndarray | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return str(self.column)
        words = {"f": "floats", "i": "integers", "u": "integers", "b": "truth values", "U": "strings", "S": "strings"}
        return f"{printable(self.name)} ({' x '.join(map(str, self.shape))} {words.get(self.kind, 'objects')})"

    def transposed(self) -> NamedArray:
        """Return a two-dimensional array with its rows and columns exchanged, for files that keep items in columns."""
        whole, count = self.whole, self.shape[0]

        def read(rows: np.ndarray) -> np.ndarray:
            if whole is not None:
                return np.ascontiguousarray(whole[:, rows].T)
            return np.ascontiguousarray(self.read(np.arange(count))[:, rows].T)

        def labels() -> RawLabels:
            return raw_labels(self.read(np.arange(count)).T, f"{self.files[0].name}: {self.name!r}")

        return replace(self, shape=self.shape[::-1], read=read, labels=labels, whole=None)


def open_arrays(path: Path, key: str) -> list[NamedArray]:
    """Open a file, or a folder of .npy files, and return its arrays.

    Args:
        path: the file or folder.
        key: the configuration key that named it.

    Raises:
        UsageError: a format that isn't known, a damaged file, or pickled objects.
    """
    where = f"{key}={str(path)!r}"
    with _readable(where):
        arrays = _open(path, key)
    return [replace(array, read=_guarded(array.read, where), labels=_guarded(array.labels, where)) for array in arrays]


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raise UsageError for whatever a reader raises: of a damaged file, that may be anything."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{where} can't be read: {str(error) or type(error).__name__}") from error


def _guarded(read: Callable[..., Any], where: str) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        with _readable(where):
            return read(*arguments)

    return guarded


def _open(path: Path, key: str) -> list[NamedArray]:
    suffix = path.suffix.lower()
    if not path.is_dir():
        check_regular(path)
    if path.is_dir() or suffix in SINGLE:
        paths = sorted(each for each in path.iterdir() if each.suffix in SINGLE) if path.is_dir() else [path]
        if not paths:
            raise UsageError(
                f"{key}={str(path)!r}: no .npy files in this folder; expected names such as train_x.npy, "
                "train_y.npy, test_x.npy and test_y.npy, or one file"
            )
        return [_open_single(file) for file in paths]
    if suffix == ".npz":
        return _open_npz(path)
    if suffix in (".h5", ".hdf5") or (suffix == ".mat" and _is_hdf5(path)):
        return _open_hdf5(path)
    if suffix == ".mat":
        return _open_mat(path)
    if suffix in (".parquet", ".pq"):
        return _open_parquet(path)
    if suffix in (".pt", ".pth", ".safetensors"):
        return _open_torch(path)
    raise UsageError(
        f"{key}={str(path)!r}: expected a file ending in {', '.join(EXTENSIONS)}, or a folder of .npy files"
    )


def _array(name: str, values: np.ndarray | h5py.Dataset, file: Path, read: Reader | None = None) -> NamedArray:
    def labels() -> RawLabels:
        return raw_labels(np.asarray(values), f"{file.name}: {name!r}")

    whole = values if isinstance(values, np.ndarray) else None
    reader = read or (lambda rows: values[rows])
    return NamedArray(name, values.shape, values.dtype.kind, reader, labels, (file,), whole=whole)


def _objects(name: str, shape: tuple[int, ...], file: Path) -> NamedArray:
    """Return an array of Python objects: it can be named, and is refused where it is asked for."""

    def refuse(*_: object) -> Any:
        raise UsageError(f"{file.name}: {name!r} can't be read: {NEVER_LOADED}")

    return NamedArray(name, shape, "O", refuse, refuse, (file,))


def _open_single(file: Path) -> NamedArray:
    check_regular(file)
    if file.suffix != ".npy":
        return _array(file.stem, _map_vectors(file), file)
    with file.open("rb") as opened:
        shape, _, dtype = npy_header(opened)
    if dtype.hasobject:
        return _objects(file.stem, shape, file)
    return _array(file.stem, np.load(file, mmap_mode="r", allow_pickle=False), file)


def _map_vectors(file: Path) -> np.ndarray:
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


def _open_mat(path: Path) -> list[NamedArray]:
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
        _objects(name, value.shape, path) if value.dtype.hasobject else _array(name, value, path)
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


def _open_torch(path: Path) -> list[NamedArray]:
    """Open a tensor, or a dictionary or list of tensors, that PyTorch saved; no code in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except SafetensorError as error:
            raise ValueError(error) from error
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, ...
            raise ValueError(
                "expected tensors, or a dictionary or list of them; anything else in such a file could run code, and "
                f"is never loaded ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            ) from error
    found: list[NamedArray] = []

    def visit(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{name}/{key}" if name else str(key), inner)
        elif isinstance(value, torch.Tensor):
            dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            narrow = dense.dtype in (torch.bfloat16,)
            found.append(_array(name or path.stem, (dense.float() if narrow else dense).numpy(), path))
        elif isinstance(value, list | tuple) and value:
            if all(isinstance(inner, str | int) for inner in value):
                found.append(_array(name or path.stem, np.array(value), path))
            else:
                for place, inner in enumerate(value):
                    visit(f"{name}/{place}" if name else str(place), inner)

    visit("", content)
    return found


def _open_npz(path: Path) -> list[NamedArray]:
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, _, dtype = npy_header(file)
            if dtype.hasobject:
                arrays.append(_objects(name, shape, path))
                continue
            if member.compress_type == zipfile.ZIP_STORED:
                arrays.append(_stored_member(name, path, member))
                continue
            with archive.open(member) as file:
                arrays.append(_array(name, read_member(file, member.file_size), path))
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

    array = _array(name, values, path, read)

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


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _open_hdf5(path: Path) -> list[NamedArray]:
    import h5py

    file = h5py.File(path, "r")
    found: list[NamedArray] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape or name.startswith("#refs#"):
            return
        array = _hdf5_array(name, item, path)
        if "MATLAB_class" in item.attrs and len(array.shape) == 2:
            # MATLAB writes columns first, and gives every vector two dimensions.
            array = array.transposed()
            log.info("%s: %s is MATLAB's, and read with its rows as there", path.name, array)
        found.append(array)

    file.visititems(visit)
    return found


def _hdf5_array(name: str, stored: h5py.Dataset, path: Path) -> NamedArray:
    import h5py

    if h5py.check_string_dtype(stored.dtype) is not None:

        def strings() -> np.ndarray:
            return np.array([decoded(value) for value in np.ravel(stored[:])], dtype=str).reshape(stored.shape)

        return NamedArray(
            name, stored.shape, "U", lambda rows: strings()[rows],
            lambda: raw_labels(strings(), f"{path.name}: {name!r}"), (path,),
        )  # fmt: skip
    if stored.dtype.hasobject:
        return _objects(name, stored.shape, path)
    sources = _hdf5_sources(stored, path)
    offset = stored.id.get_offset() if stored.chunks is None and not sources else None
    if offset is not None and stored.dtype.kind in "fiub":
        return _array(name, np.memmap(path, stored.dtype, "r", offset, stored.shape), path)

    def read(rows: np.ndarray) -> np.ndarray:
        check_memory(array_bytes((len(rows), *stored.shape[1:]), stored.dtype), name)
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
    folder = holder.resolve().parent
    for candidate in (holder.parent / name, Path(name)):
        if candidate.is_file():
            if not (found := candidate.resolve()).is_relative_to(folder):
                raise ValueError(f"{dataset} takes its values from {name}; expected a file in or below {folder}")
            return found
    raise ValueError(f"{dataset} takes its values from {name}, which is not there")


def _open_parquet(path: Path) -> list[NamedArray]:
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
    elif column.kind == "list" and rows_total and column.names is None and not is_label_name(column.name):
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

    kinds = {"class": "i", "integer": "i", "text": "U", "real": "f", "list": "O"}
    shape = (rows_total, width) if vector and width else (rows_total,)
    return NamedArray(
        column.name, shape, kind if vector else kinds.get(column.kind, "O"), read,
        lambda: read_labels(file.read(columns=[column.name]).column(0), where, column.names), (path,), column,
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
