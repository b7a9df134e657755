"""Parquet files read row group by row group, on a disk or on the Hub, without a copy of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from lshbench.data.columns import nested_column, offsets_of
from lshbench.data.pieces import READERS, Pieces
from lshbench.data.stored_file import StoredFile
from lshbench.errors import UsageError
from lshbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Result = TypeVar("Result")


class ParquetFiles:
    """Parquet files of the same columns, whose footers are read when they are needed.

    Args:
        files: in the order of their rows.
        where: names them together in messages.
    """

    def __init__(self, files: Sequence[StoredFile], where: str) -> None:
        self.files, self.where = files, where
        self._footers: dict[int, pq.FileMetaData] = {}
        self._lock = threading.Lock()

    def schema(self) -> pa.Schema:
        """Return the columns of the first file."""
        return self.footer(0).schema.to_arrow_schema()

    def footer(self, file: int) -> pq.FileMetaData:
        """Return what a file says of its row groups.

        Raises:
            UsageError: it is no Parquet file.
        """
        import pyarrow.parquet

        with self._lock:
            known = self._footers.get(file)
        if known is None:
            known = self._opened(file, pyarrow.parquet.read_metadata)
            with self._lock:
                self._footers[file] = known
        return known

    def column(self, file: int, group: int, name: str) -> pa.ChunkedArray:
        """Return a column of a row group; of images with their paths, the bytes alone.

        Of a column within records, such as ``objects.category``, the records are read whole.

        Raises:
            UsageError: it is not there, or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet

        footer = self.footer(file)
        schema = footer.schema.to_arrow_schema()
        outer = name if name in schema.names else name.partition(".")[0]
        if outer not in schema.names:
            raise UsageError(f"{self.where}: {self.files[file].name} has no column {name!r}, which other files have")
        kind = schema.field(outer).type
        is_image = outer == name and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        leaf = f"{name}.bytes" if is_image else outer

        def read(opened: BinaryIO) -> pa.ChunkedArray:
            parquet = pyarrow.parquet.ParquetFile(opened, metadata=footer)
            return nested_column(parquet.read_row_group(group, columns=[leaf], use_threads=False), name)

        found = self._opened(file, read)
        return pa.chunked_array([chunk.field("bytes") for chunk in found.chunks]) if is_image else found

    def _opened(self, file: int, read: Callable[[BinaryIO], Result]) -> Result:
        import pyarrow as pa

        with closing(self.files[file].open()) as opened:
            try:
                return read(opened)
            except (pa.ArrowException, OSError) as error:
                named = f"{self.where}: {self.files[file].name}"
                raise UsageError(f"{named} is damaged, or no Parquet file: {error}") from error


@dataclass(frozen=True)
class RowGroups:
    """Where the rows of Parquet files lie.

    Attributes:
        places: int64 ``(groups, 2)``, the file and the number within it of each row group.
        rows, sizes: int64 ``(groups,)``, its rows, and the bytes of its items' column.
        outside: images that lie in files of their own, which the column only names.
    """

    places: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray
    outside: int


def survey(files: ParquetFiles, column: str, label: str, progress: Progress) -> tuple[RowGroups, pa.ChunkedArray]:
    """Return where the rows lie, and their labels, of which nothing but their column is read.

    Row groups that hold one label only, as most do where a data set is ordered by class, are not read at all: the
    files' footers say which it is.

    Args:
        files: the files.
        column: of the items.
        label: the column of labels.
        progress: shown while footers and labels are read.
    """
    import pyarrow as pa

    readers = READERS if any(file.remote for file in files.files) else 2

    def of_group(place: tuple[int, int]) -> pa.ChunkedArray:
        footer = files.footer(place[0])
        group = footer.row_group(place[1])
        kind = footer.schema.to_arrow_schema().field(label).type if label in footer.schema.names else pa.null()
        if pa.types.is_integer(kind) and (only := _only_value(group, label)) is not None:
            return pa.chunked_array([pa.array(np.full(group.num_rows, only)).cast(kind)])
        return files.column(*place, label)

    with ThreadPoolExecutor(readers) as pool:
        numbers = range(len(files.files))
        with progress(f"opening {files.where}", total=len(numbers), unit="files") as advance:
            footers = list(_counted(pool.map(files.footer, numbers), advance))
        places = [(file, group) for file, footer in enumerate(footers) for group in range(footer.num_row_groups)]
        groups = [footers[file].row_group(group) for file, group in places]
        with progress(f"reading labels of {files.where}", total=len(places), unit="parts") as advance:
            parts = list(_counted(pool.map(of_group, places), advance))
    leaves = [[group.column(leaf) for leaf in range(group.num_columns)] for group in groups]
    named = [leaf for of_one in leaves for leaf in of_one if leaf.path_in_schema == f"{column}.bytes"]
    found = RowGroups(
        np.array(places, np.int64).reshape(-1, 2),
        np.array([group.num_rows for group in groups], np.int64),
        np.array([_bytes_of(of_one, column) for of_one in leaves], np.int64),
        sum(leaf.statistics.null_count or 0 for leaf in named if leaf.statistics is not None),
    )
    chunks = [chunk for part in parts for chunk in part.chunks]
    return found, pa.chunked_array(chunks, None if chunks else pa.int64())


def _counted(results: Iterator[Result], advance: Callable[[int], None]) -> Iterator[Result]:
    for result in results:
        advance(1)
        yield result


def _bytes_of(leaves: list[Any], column: str) -> int:
    return sum(leaf.total_compressed_size for leaf in leaves if leaf.path_in_schema.split(".")[0] == column)


def _only_value(group: Any, column: str) -> int | None:
    """Return the value of all rows of a row group where its footer says that there is one only, else None."""
    for number in range(group.num_columns):
        leaf = group.column(number)
        if leaf.path_in_schema == column:
            known = leaf.statistics
            if known is not None and known.has_min_max and known.null_count == 0 and known.min == known.max:
                return int(known.min)
    return None


class ParquetPieces(Pieces):
    """A column of Parquet files, of which a piece is a row group.

    Args:
        files: the files.
        column: the items' column.
        groups: where its rows lie.
    """

    def __init__(self, files: ParquetFiles, column: str, groups: RowGroups) -> None:
        self.files, self.column, self.places = files, column, groups.places
        self.starts, self.sizes = offsets_of(groups.rows), groups.sizes
        self.remote = any(file.remote for file in files.files)

    def values(self, piece: int) -> pa.ChunkedArray:
        """Return the column's values of a piece."""
        file, group = map(int, self.places[piece])
        return self.files.column(file, group, self.column)

    def read(self, piece: int) -> Sequence[bytes]:
        return [value or b"" for value in self.values(piece).to_pylist()]  # an empty image is named when it is decoded
