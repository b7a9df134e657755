"""Splits of images in tar files, which are read where they lie: nothing is extracted to a disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from lshbench.data.checks import RawLabels
from lshbench.data.columns import Column, offsets_of
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.folder import image_extensions
from lshbench.data.held_out import RawSplit
from lshbench.data.names import decoded, printable
from lshbench.data.pieces import READERS, Pieces, ReadAhead
from lshbench.data.stored_file import PART, DiskFile, StoredFile
from lshbench.data.tar_fields import Fields, find_fields, look
from lshbench.data.tar_index import index
from lshbench.data.tar_samples import LeftOut
from lshbench.errors import UsageError
from lshbench.runtime.kept import Arrays, kept
from lshbench.types import Progress, unlabelled

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the name of what is kept of a tar file, so that a change of its making doesn't find older ones."""
GAP = 1 << 16
"""Bytes between two images that are read with them: headers and labels, around which a second reading takes longer."""


class TarSplit(RawSplit):
    """A split of images in tar files.

    Args:
        name: the split's name.
        files: its files.
        indexes: where the images of each lie (:func:`lshbench.data.tar_index.index`).
        raw: the labels.
        items: the field of images.
        label: the field of labels, or None.
        where: names the split in messages.
        cache: the cache folder, for hashes of files.
    """

    kind = "images"

    def __init__(
        self,
        name: str,
        files: Sequence[StoredFile],
        indexes: Sequence[Arrays],
        raw: RawLabels,
        items: Column,
        label: Column | None,
        where: str,
        cache: Path,
    ) -> None:
        self.name, self.files, self.raw, self.where, self.cache = name, files, raw, where, cache
        self.items, self.label = items, label
        self.remote = any(file.remote for file in files)
        self._first = offsets_of([len(found["starts"]) for found in indexes])
        self._starts = np.concatenate([found["starts"] for found in indexes])
        self._sizes = np.concatenate([found["sizes"] for found in indexes])
        self._names = [(found["names"], found["name_stops"]) for found in indexes]

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        files = np.arange(len(self.files)) if rows is None else np.unique(self._files_of(rows))
        taken = [self.files[int(file)] for file in files]
        on_disk = [file.path for file in taken if isinstance(file, DiskFile)]
        # Of files on a disk, as they are now: they may have changed since the split was opened.
        digests = file_digests(on_disk, self.cache) if on_disk else [file.sha256 for file in taken]
        label = None if self.label is None else self.label.name
        return combine("webdataset", self.items.name, label, self._first[files].tolist(), digests)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        pieces = _Stretches(self.files, self._files_of(rows), self._starts[rows], self._sizes[rows], self.where)
        return ReadAhead(pieces).rows(np.arange(len(rows)))

    def bytes_of(self, rows: np.ndarray) -> int:
        return int(self._sizes[rows].sum())

    def describe(self, row: int) -> str:
        file = int(self._files_of(np.array([row]))[0])
        names, stops = self._names[file]
        place = row - self._first[file]
        name = names[stops[place] : stops[place + 1]].tobytes()
        return f"{printable(self.files[file].name)}: {printable(decoded(name))}"

    def _files_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, rows, side="right") - 1


class _Stretches(Pieces):
    """Images by stretches of a file: those that follow each other are read at once.

    Args:
        files: the files.
        numbers: int64 ``(n,)``, the file of each image.
        starts, sizes: int64 ``(n,)``, where each image lies in it.
        where: names the split in messages.
    """

    def __init__(
        self, files: Sequence[StoredFile], numbers: np.ndarray, starts: np.ndarray, sizes: np.ndarray, where: str
    ) -> None:
        self._files, self._where = files, where
        self._numbers, self._begins, self._stops = numbers, starts, starts + sizes
        between = starts[1:] - self._stops[:-1]
        apart = (np.diff(numbers) != 0) | (between < 0) | (between > GAP)
        opens = np.concatenate([[True], apart])[: len(starts)]
        # Long stretches are cut at every so many bytes.
        first = starts[np.flatnonzero(opens)][np.cumsum(opens) - 1]
        part = (starts - first) // PART
        opens[1:] |= np.diff(part) != 0
        begins = np.flatnonzero(opens)
        self.starts = np.concatenate([begins, [len(starts)]])
        self.sizes = self._stops[self.starts[1:] - 1] - starts[begins]
        self.remote = any(file.remote for file in files)

    def read(self, piece: int) -> Sequence[bytes]:
        rows = range(self.starts[piece], self.starts[piece + 1])
        file = self._files[self._numbers[rows[0]]]
        begin, size = int(self._begins[rows[0]]), int(self.sizes[piece])
        try:
            with closing(file.open()) as opened:
                opened.seek(begin)
                content = opened.read(size)
        except OSError as error:
            raise UsageError(f"{self._where}: {printable(file.name)} can't be read: {error.strerror}") from error
        if len(content) < size:
            raise UsageError(
                f"{self._where}: {printable(file.name)} has become shorter since it was opened; expected a file that "
                "nothing writes to"
            )
        return [content[self._begins[row] - begin : self._stops[row] - begin] for row in rows]


def open_tars(
    name: str,
    files: Sequence[StoredFile],
    columns: list[Column],
    image: str,
    label: str,
    where: str,
    cache: Path,
    progress: Progress,
    *,
    labels_needed: bool,
) -> TarSplit:
    """Return a split of tar files; where their images lie, and their labels, are kept in the cache.

    Args:
        name: the split's name.
        files: its files, in order.
        columns: the fields that there are (:func:`fields_of`).
        image: the configured ``dataset.image_column``.
        label: the configured ``dataset.label_column``.
        where: names the split in messages.
        cache: the cache folder.
        progress: shown while headers are read.
        labels_needed: whether labels have to be there.

    Raises:
        UsageError: a file that is no whole tar file, or fields that are not there, ambiguous, or hold no labels.
    """
    items, found, fields = find_fields(columns, image, label, needed=labels_needed)
    indexes = _indexed(files, fields, where, cache, progress)
    _log_left_out(files, indexes, where)
    if not sum(len(one["starts"]) for one in indexes):
        raise UsageError(f"{where}: {len(files):,} tar files without an image; expected members such as KEY.jpg")
    if found is None:
        raw = RawLabels(unlabelled(sum(len(one["starts"]) for one in indexes)), where)
    else:
        raw = _labels(files, indexes, f"{where}: field {found.name!r}")
    return TarSplit(name, files, indexes, raw, items, found, where, cache)


def fields_of(files: Sequence[StoredFile], where: str, cache: Path) -> list[Column]:
    """Return the fields of a split's samples, those of the first samples of the first file that has any.

    Args:
        files: the split's, in order.
        where: names the split in messages.
        cache: the cache folder, where they are kept.
    """

    def of_file(file: StoredFile) -> list[Column]:
        def compute() -> Arrays:
            return {"columns": np.array(json.dumps([vars(column) for column in look(file, where)]))}

        found = kept(_entry(cache, file, "fields"), "the fields of a tar file", compute)
        return [Column(**column) for column in json.loads(str(found["columns"]))]

    return next(filter(None, map(of_file, files)), [])


def _entry(cache: Path, file: StoredFile, *of_what: object) -> Path:
    """Return where something is kept that depends on a file's content alone."""
    content = combine(VERSION, sorted(image_extensions()), file.sha256, *of_what).removeprefix("sha256:")
    return cache / "tars" / f"{content[:32]}.npz"


def _indexed(files: Sequence[StoredFile], fields: Fields, where: str, cache: Path, progress: Progress) -> list[Arrays]:
    """Return where the images of each file lie, and their labels, from the cache where they are there."""

    def of_file(file: StoredFile) -> Arrays:
        place = _entry(cache, file, fields.image, fields.label, fields.path)
        return kept(place, "where images lie in a tar file", lambda: index(file, fields, where))

    readers = READERS if any(file.remote for file in files) else 2
    with ThreadPoolExecutor(readers) as pool, progress(f"indexing {where}", total=len(files), unit="files") as advance:
        found = []
        try:
            for arrays in pool.map(of_file, files):
                found.append(arrays)
                advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _log_left_out(files: Sequence[StoredFile], indexes: Sequence[Arrays], where: str) -> None:
    """Name and count what is not used."""
    total = LeftOut()
    for file, found in zip(files, indexes, strict=True):
        for kind, (count, first) in json.loads(str(found["left_out"])).items():
            total.add(kind, f"{file.name}: {first}", count)
    for kind, (count, first) in total.found.items():
        log.warning("%s: left out: %d %s (the first: %s)", where, count, kind, first)


def _labels(files: Sequence[StoredFile], indexes: Sequence[Arrays], where: str) -> RawLabels:
    """Return the labels of all files.

    Raises:
        UsageError: those of one are numbers, of another text.
    """
    filled = [(file, found) for file, found in zip(files, indexes, strict=True) if len(found["labels"])]
    for file, found in filled[1:]:
        if found["labels"].dtype.kind != filled[0][1]["labels"].dtype.kind:
            raise UsageError(
                f"{where}: {printable(file.name)} has labels of another kind than {printable(filled[0][0].name)}: "
                "expected numbers in all, or text in all"
            )
    values = np.concatenate([found["labels"] for _, found in filled]) if filled else np.empty(0, np.int64)
    stops = offsets_of(np.concatenate([np.diff(found["label_stops"]) for found in indexes]))
    return RawLabels(values, where, offsets=stops if any(found["listed"] for found in indexes) else None)
