"""Data sets in the Hub's layout: features or images, from the Hub, its cache, or a local copy."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels, read_features
from lshbench.data.columns import (
    Column,
    VectorColumn,
    find_column,
    list_columns,
    nested_column,
    offsets_of,
    read_labels,
)
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import RawSplit, SplitSource
from lshbench.data.hub_client import endpoint
from lshbench.data.judged_hub import judged_parts, open_judged
from lshbench.data.split_names import describe_unused
from lshbench.data.stored_file import StoredFile
from lshbench.data.streamed import StreamedSplit, columns_of, open_parquet
from lshbench.data.tar_split import TarSplit, fields_of, open_tars
from lshbench.data.values import check_name, check_number, existing_path
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress, unlabelled

if TYPE_CHECKING:
    import datasets

    from lshbench.data.hub_repository import HubRepository, LocalRepository

log = logging.getLogger(__name__)

STREAMED_BYTES = 2e9
"""Images in Parquet files of more bytes are streamed with ``stream=auto``."""


@dataclass(eq=False)
class HubSplit(RawSplit):
    """A split in a memory-mapped Arrow table, of which only requested rows are read; images are not decoded.

    Args:
        name: the split's name.
        table: the split, converted from the data files ``files``.
        items: the column of features or images.
        label: the column of labels, or None.
        where: names the split in messages.
        cache: the cache folder.
    """

    name: str
    table: datasets.Dataset
    files: Sequence[Path]
    items: Column
    label: Column | None
    where: str
    cache: Path

    def __post_init__(self) -> None:
        self.column = self.table.data.column(self.items.name)
        self.kind = "features" if self.items.kind in ("vector", "list") else "images"
        label, where = self.label, self.where
        if label is None:
            self.raw = RawLabels(unlabelled(len(self.column)), where)
        else:
            values = nested_column(self.table.data, label.name)
            self.raw = read_labels(values, f"{where}: column {label.name!r}", label.names)
        self.width: int | None = None
        if self.kind == "features" and len(self.column):
            self.vectors = VectorColumn(self.column, f"{where}: column {self.items.name!r}")
            self.width = self.vectors.width
        self.outside = self._outside() if self.kind == "images" else []

    def _outside(self) -> list[Path]:
        """Return the image files that the table only names, where they are no data files themselves."""
        import pyarrow as pa

        known, found = {str(path) for path in self.files}, set()
        for chunk in self.column.chunks:
            storage = getattr(chunk, "storage", chunk)
            if not pa.types.is_struct(storage.type) or not storage.field("bytes").null_count:
                continue
            rows = zip(storage.field("bytes").is_null().to_pylist(), storage.field("path").to_pylist(), strict=True)
            found |= {path for missing, path in rows if missing and path and path not in known}
        return sorted(map(Path, found))

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        # Of the files before conversion: the same for a local copy, and whatever the version of `datasets`.
        parts = [self.items.name, "" if self.label is None else self.label.name, file_digests(self.files, self.cache)]
        if self.outside:
            parts.append(file_digests(self.outside, self.cache))
        return combine("hub", *parts)

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        if self.width is None:
            return super().read_features(rows, progress)
        return read_features(rows, self.width, self.vectors.read, self.vectors.where, progress)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        if self.kind != "images":
            yield from super().image_bytes(rows)
        starts = offsets_of([len(chunk) for chunk in self.column.chunks])
        for row in rows:
            chunk = int(np.searchsorted(starts, row, side="right")) - 1
            value = self.column.chunk(chunk)[int(row - starts[chunk])].as_py()
            if isinstance(value, dict):
                content, path = value["bytes"], value["path"]
                value = Path(path).read_bytes() if content is None and path else content
            yield value if value is not None else b""  # an empty image is named by whoever decodes it

    def describe(self, row: int) -> str:
        return f"{self.where}, row {row}"


@dataclass
class HubSource(SplitSource):
    """A data set of the Hub or a local copy of one (``dataset=hub``, ``cifar10``, ``imagenet1k`` ...).

    Of the splits that ``query_split=auto`` finds, the first whose items all have labels is taken.

    Args:
        repository: ``owner/name`` on the Hub; not needed with ``path``.
        path: a local copy of a repository, used in its place, or None.
        revision: a branch, tag or commit, or None for ``main``.
        configuration: which of the repository's configurations, or None for the only one.
        features_column: a column of number lists, ``auto``, or None to use images.
        image_column: a column of images, ``auto`` (used where no features are found), or None.
        label_column: a column of labels, or ``auto``.
        stream: whether Parquet files, or tar files of images, are read in parts as items are needed, and not downloaded
            or converted first; ``auto``: images of more than 2 GB.
        full_size: items that splits are known to have, by their names, or None: what a part of them stands for is said.
        name: as shown in results.
    """

    repository: str | None = None
    path: str | None = None
    revision: str | None = None
    configuration: str | None = None
    features_column: str | None = "auto"
    image_column: str | None = "auto"
    label_column: str = "auto"
    stream: bool | str = "auto"
    full_size: dict[str, int] | None = None
    name: str = field(default="hub", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repository is None and self.path is None:
            raise wrong_value("dataset.repository", None, "owner/name on the Hub, or a folder as dataset.path")
        if self.repository is not None and (not isinstance(self.repository, str) or self.repository.count("/") != 1):
            raise wrong_value("dataset.repository", self.repository, "owner/name, such as uoft-cs/cifar10")
        if self.features_column is None and self.image_column is None:
            raise wrong_value("dataset.image_column", None, "auto or a name, as features_column is null too")
        self._folder = None if self.path is None else existing_path("dataset.path", self.path, "folder")
        for key in ("revision", "configuration", "features_column", "image_column"):
            if getattr(self, key) is not None:
                check_name(f"dataset.{key}", getattr(self, key))
        check_name("dataset.label_column", self.label_column)
        if self.stream not in (True, False, "auto"):
            raise wrong_value("dataset.stream", self.stream, "true, false or auto")
        for split, count in (self.full_size or {}).items():
            check_number(f"dataset.full_size.{split}", count, 1)
        if self.name == "hub":
            self.name = self.repository or self._folder.name  # type: ignore[union-attr]

    def open(self, cache: Path, progress: Progress) -> Dataset:
        from lshbench.data.hub_repository import HubRepository, LocalRepository

        def opened(configuration: str | None) -> HubRepository | LocalRepository:
            if self._folder is not None:
                return LocalRepository(self._folder, configuration, cache)
            return HubRepository(str(self.repository), self.revision, configuration, cache)

        try:
            repository = opened(self.configuration)
        except UsageError as error:
            # Of several configurations, one has to be named, unless they are the parts of one retrieval set; `datasets`
            # says so by a ValueError.  What is out of reach or refused is not asked for again.
            place = str(self._folder or self.repository)
            asked = self.configuration is None and isinstance(error.__cause__, ValueError)
            parts = judged_parts(place, self.revision) if asked else None
            if parts is None:
                raise
            self.labels_needed, self.stream = False, False
            repositories = {part: opened(configuration) for part, configuration in parts.items()}
            return open_judged(
                self.name, repositories, self.query_split,
                lambda held, split, progress: self._open_split(held, split, cache, progress), progress,
            )  # fmt: skip
        splits = {}

        def opened_split(name: str) -> HubSplit | StreamedSplit | TarSplit:
            split = splits[name] = self._open_split(repository, name, cache, progress)
            split.full_size = (self.full_size or {}).get(name)
            return split

        dataset = self.of_splits(repository.splits.files, opened_split)
        if (gallery := splits.get(dataset.gallery.name)) is None:  # a part of the only split
            return dataset
        query, label = dataset.query, gallery.label
        labels = "no labels" if label is None else f"labels in column {label.name!r} ({label.type})"
        log.info(
            "%s: gallery split %r (%d), query split %r (%d); %s in column %r (%s), %s",
            repository.name, gallery.name, len(gallery), query.name, len(query),
            gallery.kind, gallery.items.name, gallery.items.type, labels,
        )  # fmt: skip
        if unused := describe_unused(self.without_train(repository.splits.files), (gallery.name, query.name)):
            log.info("%s: splits that are not used: %s", repository.name, unused)
        return dataset

    def _open_split(
        self, repository: HubRepository | LocalRepository, name: str, cache: Path, progress: Progress
    ) -> HubSplit | StreamedSplit | TarSplit:
        where = f"{repository.name}, split {name!r}"
        if (of_tars := self._of_tars(repository, name, where, cache, progress)) is not None:
            return of_tars
        if (streamed := self._streamed(repository, name, where, cache, progress)) is not None:
            return streamed
        files = repository.fetch(name, progress)
        table = repository.open(name, progress)
        items, label = self._find_columns(list_columns(table.features))
        return HubSplit(name, table, files, items, label, where, cache)

    def _streamed(
        self, repository: HubRepository | LocalRepository, name: str, where: str, cache: Path, progress: Progress
    ) -> StreamedSplit | None:
        """Return a split that is read from its files as items are needed, or None if it is to be converted."""
        splits = repository.splits
        can = splits.module == "parquet" and not splits.options
        files = repository.stored(name) if can and self.stream is not False else []
        if not files:
            if self.stream is True:
                expected = f"false or auto, as {where} has no plain Parquet files, nor tar files of images"
                raise wrong_value("dataset.stream", True, expected)
            return None
        size = sum(file.size for file in files)
        if self.stream == "auto" and size <= STREAMED_BYTES:
            return None
        items, label = self._find_columns(list_columns(columns_of(files, splits.features, where, cache)))
        if self.stream == "auto" and items.kind != "image":
            return None
        if label is None:
            if self.stream is True:
                raise wrong_value("dataset.stream", True, f"false or auto, as {where} has no column of labels")
            return None
        self._log_stored(repository, files, where)
        return open_parquet(name, files, items, label, where, cache, progress)

    def _of_tars(
        self, repository: HubRepository | LocalRepository, name: str, where: str, cache: Path, progress: Progress
    ) -> TarSplit | None:
        """Return a split of images in tar files; None for other files, or where features are to be taken of them."""
        from lshbench.data.hub_repository import on_disk

        features = self.features_column
        if repository.splits.module != "webdataset" or self.image_column is None or features not in (None, "auto"):
            return None
        files = repository.stored(name) if self.stream is not False else []
        small = sum(file.size for file in files) <= STREAMED_BYTES
        if not files or (self.stream == "auto" and files[0].remote and small):
            files = on_disk(repository.fetch(name, progress), cache)
        columns = fields_of(files, where, cache)
        if not any(column.kind == "image" for column in columns) or (features and any(map(_is_array, columns))):
            return None
        self._log_stored(repository, files, where)
        fields = (columns, self.image_column, self.label_column)
        return open_tars(name, files, *fields, where, cache, progress, labels_needed=self.labels_needed)

    def _log_stored(self, repository: HubRepository | LocalRepository, files: Sequence[StoredFile], where: str) -> None:
        place = f"{endpoint()} at commit {repository.splits.commit}" if files[0].remote else "the disk"
        size = sum(file.size for file in files) / 1e6
        log.info("%s: %d files, %.1f MB, are read from %s as items are needed", where, len(files), size, place)

    def _find_columns(self, columns: list[Column]) -> tuple[Column, Column | None]:
        """Return the columns of items and of labels."""
        items = self._find_items(columns)
        kinds = ("class", "integer", "text", "list", "real")
        label = find_column(columns, self.label_column, "dataset.label_column", kinds, "labels")
        if label is None and self.labels_needed:
            there = ", ".join(map(str, columns))
            raise UsageError(f"dataset.label_column=auto: no column looks like labels; name one; there are: {there}")
        return items, label

    def _find_items(self, columns: list[Column]) -> Column:
        """Return the column of features, else the one of images; a name goes before ``auto``."""
        features, images, found = self.features_column, self.image_column, None
        if features is not None and images in (None, "auto"):
            kinds = ("vector",) if features == "auto" else ("vector", "list")
            found = find_column(columns, features, "dataset.features_column", kinds, "features")
        if found is None and images is not None:
            found = find_column(columns, images, "dataset.image_column", ("image",), "images")
        if found is None:
            key = "features_column" if features else "image_column"
            alone = "features (lists of numbers)" if features else "images"
            wanted = "features or images" if features and images else alone
            there = ", ".join(map(str, columns))
            raise UsageError(f"dataset.{key}=auto: no column holds {wanted}; there are: {there}")
        return found


def _is_array(column: Column) -> bool:
    """Whether a field of tar files holds arrays by its ending, which are taken for features."""
    return column.name.endswith(("npy", "npz", "ten", "pth"))
