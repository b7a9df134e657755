"""Splits that are read from their files as items are needed: nothing is downloaded or converted first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.checks import RawLabels, read_features
from lshbench.data.columns import Column, VectorColumn, read_labels, rows_by_piece
from lshbench.data.fingerprint import combine
from lshbench.data.held_out import RawSplit
from lshbench.data.parquet_pieces import ParquetFiles, ParquetPieces, RowGroups, survey
from lshbench.data.pieces import Pieces, ReadAhead
from lshbench.data.stored_file import StoredFile
from lshbench.errors import UsageError
from lshbench.runtime.kept import Arrays, kept
from lshbench.types import Progress

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

VERSION = 1
"""Part of the name of what is kept of a split, so that a change of its making doesn't find older ones."""


class StreamedSplit(RawSplit):
    """A split of images, or of features in Parquet files, that is read by pieces.

    Args:
        name: the split's name.
        files: its files.
        pieces: what they hold.
        raw: the labels.
        items: the column of images or features.
        label: the column of labels.
        where: names the split in messages.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[StoredFile],
        pieces: Pieces,
        raw: RawLabels,
        items: Column,
        label: Column,
        where: str,
    ) -> None:
        self.name, self.files, self.pieces, self.raw = name, files, pieces, raw
        self.items, self.label, self.where = items, label, where
        self.kind = "images" if items.kind == "image" else "features"
        self.remote = pieces.remote
        self.width: int | None = None
        if self.kind == "features" and isinstance(pieces, ParquetPieces) and len(raw):
            self.width = self._vectors(0).width
        self._ahead = ReadAhead(pieces)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        # As of a downloaded or local copy.
        return combine("hub", self.items.name, self.label.name, [file.sha256 for file in self.files])

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        if self.width is None:
            return super().read_features(rows, progress)
        return read_features(rows, self.width, self._read, f"{self.where}: column {self.items.name!r}", progress)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        return self._ahead.rows(rows) if self.kind == "images" else super().image_bytes(rows)

    def bytes_of(self, rows: np.ndarray) -> int:
        pieces = np.unique(np.searchsorted(self.pieces.starts, rows, side="right") - 1)
        return int(self.pieces.sizes[pieces].sum())

    def describe(self, row: int) -> str:
        return f"{self.where}, row {row}"

    def _read(self, rows: np.ndarray) -> np.ndarray:
        blocks = [self._vectors(piece).read(within) for piece, within in rows_by_piece(rows, self.pieces.starts)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.width or 0), np.float32)

    def _vectors(self, piece: int) -> VectorColumn:
        assert isinstance(self.pieces, ParquetPieces)
        return VectorColumn(self.pieces.values(piece), f"{self.where}: column {self.items.name!r}, part {piece}")


def columns_of(
    files: Sequence[StoredFile], declared: Mapping[str, Any] | None, where: str, cache: Path
) -> datasets.Features:
    """Return the columns of Parquet files: as their repository declares them, else those of the first file."""
    import datasets

    if declared:
        return datasets.Features.from_dict(dict(declared))

    def look() -> Arrays:
        found = datasets.Features.from_arrow_schema(ParquetFiles(files, where).schema())
        return {"columns": np.array(json.dumps(found.to_dict()))}

    arrays = kept(cache / "hub" / f"columns-{files[0].sha256[:32]}.npz", "the columns of a split", look)
    return datasets.Features.from_dict(json.loads(str(arrays["columns"])))


def open_parquet(
    name: str, files: Sequence[StoredFile], items: Column, label: Column, where: str, cache: Path, progress: Progress
) -> StreamedSplit:
    """Return a split of Parquet files; where its rows lie, and their labels, are kept in the cache.

    Args:
        name: the split's name.
        files: its files, in order.
        items: the column of images or features.
        label: the column of labels.
        where: names the split in messages.
        cache: the cache folder.
        progress: shown while labels are read.

    Raises:
        UsageError: a file that can't be read, labels that are none, or images that lie outside of the files.
    """
    parquet = ParquetFiles(files, where)
    named = f"{where}: column {label.name!r}"

    def look() -> tuple[Arrays, pa.ChunkedArray]:
        groups, labels = survey(parquet, items.name, label.name, progress)
        return vars(groups) | {"outside": np.array(groups.outside)}, labels

    arrays, raw = _surveyed(files, (items.name, label.name), cache, named, label.names, look)
    groups = RowGroups(arrays["places"], arrays["rows"], arrays["sizes"], int(arrays["outside"]))
    if groups.outside:
        raise UsageError(
            f"{where}: {groups.outside:,} images of column {items.name!r} lie in files of their own; expected "
            "dataset.stream=false, which reads them"
        )
    return StreamedSplit(name, files, ParquetPieces(parquet, items.name, groups), raw, items, label, where)


def _surveyed(
    files: Sequence[StoredFile],
    columns: tuple[str, ...],
    cache: Path,
    where: str,
    names: tuple[str, ...] | None,
    look: Callable[[], tuple[Arrays, pa.ChunkedArray]],
) -> tuple[Arrays, RawLabels]:
    """Return what is to be known of a split before its items are read, from the cache if it is there.

    Args:
        files: the split's.
        columns: the names of those that it depends on.
        cache: the cache folder.
        where: names the labels in messages.
        names: of the classes, or None.
        look: reads the files.
    """
    content = combine(VERSION, columns, [file.sha256 for file in files]).removeprefix("sha256:")

    def compute() -> Arrays:
        arrays, column = look()
        raw = read_labels(column, where, names)
        lists = {} if raw.offsets is None else {"offsets": raw.offsets}
        return arrays | {"labels": raw.values} | lists

    arrays = kept(cache / "hub" / f"rows-{content[:32]}.npz", "the labels of a split", compute)
    return arrays, RawLabels(arrays["labels"], where, names, arrays.get("offsets"))
