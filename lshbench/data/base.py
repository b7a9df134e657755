"""Interfaces of data sets: a source opens a data set, which has two splits that are read by row."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lshbench.data.values import check_limit

if TYPE_CHECKING:
    from PIL.Image import Image

    from lshbench.types import Progress

Kind = Literal["features", "images"]

Metric = Literal["cosine", "euclidean", "inner_product"]


class Split(ABC):
    """Interface of a data set's split, which holds its labels and reads items on request.

    Attributes:
        name: the split's name in its source, such as ``train``.
        labels: int64 ``(n,)``, or bool ``(n, classes)`` where an item may have several; all valid (no -1).  Without
            any, bool ``(n, 0)`` (:func:`lshbench.types.unlabelled`).
        kind: whether items are feature vectors or images.
        class_names: a name for each label, or None.
        remote: whether reading items takes a network.
        on_disk: whether its features are to be mapped from the cache, however quickly they are read.
        full_size: items that the split is known to have, of which a copy may hold a part; None where that is not known.
    """

    name: str
    labels: np.ndarray
    kind: Kind
    class_names: Sequence[str] | None = None
    remote: bool = False
    on_disk: bool = False
    full_size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        """Return ``sha256:...`` of the content that the rows (all by default) come from, labels included.

        Computed over whole files, which may hold other rows too.
        """

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        """Return the feature vectors of the rows, float32 ``(len(rows), d)`` (``kind == "features"``).

        Raises:
            UsageError: a value is NaN or infinite (how many, the first row), or widths differ.
        """
        raise TypeError(f"{type(self).__name__} holds images, not features")

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        """Yield each row's image, in order: an encoded file, or a decoded uint8 array ``(h, w)`` or ``(h, w, 3)``.

        (``kind == "images"``.)  Decoding is left to the reader, so that it can be spread over processes or threads.
        """
        raise TypeError(f"{type(self).__name__} holds features, not images")

    def bytes_of(self, rows: np.ndarray) -> int | None:
        """Return how many bytes are read to get the rows' items, or None where that is not known."""
        return None

    def describe(self, row: int) -> str:
        """Return a name of the row for messages and pages, such as a file name."""
        return f"{self.name}[{row}]"


@dataclass(frozen=True)
class Judgments:
    """Judged pairs of a query and another item, as qrels list them; a pair that isn't listed is not relevant.

    Attributes:
        queries, items: int64 ``(p,)``, item numbers in the data set (gallery split first, then query split).
        grades: float32 ``(p,)``: above 0 relevant, 0 judged not relevant, below 0 junk, which counts neither way.
    """

    queries: np.ndarray
    items: np.ndarray
    grades: np.ndarray


@dataclass(frozen=True)
class GivenNeighbors:
    """True neighbours that come with a data set.

    Attributes:
        rows: int64 ``(q, k)``, rows of the gallery split for each row of the query split, nearest first.
        distances: float32 ``(q, k)``, or None.
        metric: what is nearest.
    """

    rows: np.ndarray
    distances: np.ndarray | None
    metric: Metric


@dataclass(frozen=True)
class Dataset:
    """An opened data set.

    Items are numbered through: gallery split first, then query split, then those that only train (``Features.ids``).

    Attributes:
        name: as shown in results.
        gallery: the split that galleries are drawn from by default.
        query: the split that queries are drawn from by default.
        judgments: judged pairs that come with it, or None.
        given_neighbors: true neighbours that come with it, or None.
        train: items of a training set of the data set's own that are in neither split, or None.
        train_in_gallery: int64, rows of the gallery split that are in that training set, or None.
    """

    name: str
    gallery: Split
    query: Split
    judgments: Judgments | None = None
    given_neighbors: GivenNeighbors | None = None
    train: Split | None = None
    train_in_gallery: np.ndarray | None = None

    @property
    def kind(self) -> Kind:
        return self.gallery.kind

    @property
    def same_split(self) -> bool:
        """Whether gallery and query split are one and the same, so that an item has one number."""
        return self.gallery.name == self.query.name

    @property
    def gallery_items(self) -> np.ndarray:
        """Item numbers of the gallery split, int64 ``(n,)``."""
        return np.arange(len(self.gallery))

    @property
    def query_items(self) -> np.ndarray:
        """Item numbers of the query split, int64 ``(n,)``."""
        return np.arange(len(self.query)) + (0 if self.same_split else len(self.gallery))

    @property
    def train_items(self) -> np.ndarray | None:
        """Item numbers of the data set's own training set, int64, ascending; None if it has none."""
        if self.train is None and self.train_in_gallery is None:
            return None
        inside = np.empty(0, np.int64) if self.train_in_gallery is None else np.unique(self.train_in_gallery)
        outside = np.empty(0, np.int64) if self.train is None else np.arange(len(self.train)) + self._first(self.train)
        return np.concatenate([inside, outside])

    @property
    def splits(self) -> list[Split]:
        """The splits in the order of their items' numbers."""
        named = [self.gallery] if self.same_split else [self.gallery, self.query]
        return named if self.train is None else [*named, self.train]

    def _first(self, split: Split) -> int:
        """Return the number of a split's first item."""
        before = self.splits[: [part is split for part in self.splits].index(True)]
        return sum(map(len, before))

    @property
    def labels(self) -> np.ndarray:
        """Labels of all items in the order of their numbers, int64 ``(n,)`` or bool ``(n, classes)``."""
        return np.concatenate([split.labels for split in self.splits])

    def locate(self, item: int) -> tuple[Split, int]:
        """Return the split and row of an item number."""
        for split in self.splits[:-1]:
            if item < len(split):
                return split, item
            item -= len(split)
        return self.splits[-1], item

    def split_rows(self, items: np.ndarray) -> list[tuple[Split, np.ndarray, np.ndarray]]:
        """Return, for each split that holds some of the items, the split, their rows, and their places in ``items``.

        Args:
            items: int64 ``(n,)``, item numbers.
        """
        parts = []
        for split in self.splits:
            first = self._first(split)
            mask = (items >= first) & (items < first + len(split))
            if mask.any():
                parts.append((split, items[mask] - first, np.flatnonzero(mask)))
        return parts

    def split_fingerprints(self, items: np.ndarray) -> dict[str, str]:
        """Return, for the name of each split that holds some of the items, the fingerprint of their rows."""
        return {split.name: split.fingerprint(rows) for split, rows, _ in self.split_rows(items)}

    def fingerprint(self, items: np.ndarray, known: dict[str, str] | None = None) -> str:
        """Return ``sha256:...`` of the content that the items come from: labels, judgments and neighbours included,
        and which gallery items the data set trains on.

        Args:
            items: int64 ``(n,)``, item numbers.
            known: what :meth:`split_fingerprints` gave for them, which takes long where there are many files.
        """
        digest = hashlib.sha256(self.kind.encode())
        for fingerprint in (known or self.split_fingerprints(items)).values():
            digest.update(fingerprint.encode())
        if self.train_in_gallery is not None:
            # They are gallery items: no split's rows tell which, nor does a list's path in the configuration.
            digest.update(b"train")
            digest.update(np.unique(self.train_in_gallery).astype("<i8").data)
        if self.judgments is not None:
            for array in (self.judgments.queries, self.judgments.items, self.judgments.grades):
                digest.update(np.ascontiguousarray(array).data)
        if self.given_neighbors is not None:
            digest.update(self.given_neighbors.metric.encode())
            digest.update(np.ascontiguousarray(self.given_neighbors.rows).data)
        return f"sha256:{digest.hexdigest()}"

    def image(self, item: int) -> Image:
        """Return one item's image as RGB, for showing it."""
        from lshbench.data.images import decode

        split, row = self.locate(item)
        return decode(next(iter(split.image_bytes(np.array([row])))), split.describe(row))


@dataclass
class Source(ABC):
    """Interface of a data set's source (``dataset=``), whose fields are the option's keys.

    ``__post_init__`` raises :class:`lshbench.errors.UsageError` for values that can't be used (a missing path, a
    negative number).  It does not touch the network or read items.

    Args:
        max_gallery: at most this many gallery items are used (class-balanced, see protocols), or None.
        max_queries: at most this many queries are used, or None.

    Attributes:
        name: as shown in results.
        own_folders: folders of lshbench's own output, which are never data.
        labels_needed: whether items without labels are refused; else they are taken without
            (:func:`lshbench.types.unlabelled`).
    """

    name: str = field(init=False)
    labels_needed: bool = field(init=False, default=True, compare=False)
    own_folders: tuple[Path, ...] = field(init=False, default=(), compare=False)
    _: KW_ONLY
    max_gallery: int | None = None
    max_queries: int | None = None

    def __post_init__(self) -> None:
        check_limit("dataset.max_gallery", self.max_gallery)
        check_limit("dataset.max_queries", self.max_queries)

    @abstractmethod
    def open(self, cache: Path, progress: Progress) -> Dataset:
        """Open the data set: find its splits and read their labels (and nothing else where the source allows).

        Args:
            cache: the cache folder, for hashes of files, listings and downloads.
            progress: receives the progress of downloads and listings.

        Raises:
            UsageError: a split or column that is not there (names those that are); labels of -1; a split of one class.
        """
