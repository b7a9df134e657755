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


class Split(ABC):
    """Interface of a data set's split, which holds its labels and reads items on request.

    Attributes:
        name: the split's name in its source, such as ``train``.
        labels: int64 ``(n,)``, or bool ``(n, classes)`` where an item may have several; all valid (no -1).
        kind: whether items are feature vectors or images.
        class_names: a name for each label, or None.
        remote: whether reading items takes a network.
        full_size: items that the split is known to have, of which a copy may hold a part; None where that is not known.
    """

    name: str
    labels: np.ndarray
    kind: Kind
    class_names: Sequence[str] | None = None
    remote: bool = False
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
class Dataset:
    """An opened data set.

    Items are numbered through: gallery split first, then query split (``Features.ids``).

    Attributes:
        name: as shown in results.
        gallery: the split that galleries are drawn from by default.
        query: the split that queries are drawn from by default.
    """

    name: str
    gallery: Split
    query: Split

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
    def labels(self) -> np.ndarray:
        """Labels of all items in the order of their numbers, int64 ``(n,)`` or bool ``(n, classes)``."""
        splits = [self.gallery] if self.same_split else [self.gallery, self.query]
        return np.concatenate([split.labels for split in splits])

    def locate(self, item: int) -> tuple[Split, int]:
        """Return the split and row of an item number."""
        if item < len(self.gallery):
            return self.gallery, item
        return self.query, item - len(self.gallery)

    def split_rows(self, items: np.ndarray) -> list[tuple[Split, np.ndarray, np.ndarray]]:
        """Return, for each split that holds some of the items, the split, their rows, and their places in ``items``.

        Args:
            items: int64 ``(n,)``, item numbers.
        """
        later = items >= len(self.gallery)
        parts = [(self.gallery, ~later, 0), (self.query, later, len(self.gallery))]
        return [(split, items[mask] - first, np.flatnonzero(mask)) for split, mask, first in parts if mask.any()]

    def split_fingerprints(self, items: np.ndarray) -> dict[str, str]:
        """Return, for the name of each split that holds some of the items, the fingerprint of their rows."""
        return {split.name: split.fingerprint(rows) for split, rows, _ in self.split_rows(items)}

    def fingerprint(self, items: np.ndarray, known: dict[str, str] | None = None) -> str:
        """Return ``sha256:...`` of the content that the items come from, labels included.

        Args:
            items: int64 ``(n,)``, item numbers.
            known: what :meth:`split_fingerprints` gave for them, which takes long where there are many files.
        """
        digest = hashlib.sha256(self.kind.encode())
        for fingerprint in (known or self.split_fingerprints(items)).values():
            digest.update(fingerprint.encode())
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
    """

    name: str = field(init=False)
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
