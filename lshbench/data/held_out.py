"""Make a data set of two splits with matching labels, or of one split, of which queries are held out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np

from lshbench.data.base import Dataset, Source, Split
from lshbench.data.checks import RawLabels, check_dataset, has_unlabelled, match_labels
from lshbench.data.fingerprint import bytes_digest, combine
from lshbench.data.split_names import find_splits
from lshbench.data.subset import held_out_rows
from lshbench.data.values import check_fraction, check_name, check_number
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress, unlabelled

log = logging.getLogger(__name__)


class RawSplit(Split):
    """A split whose labels are not numbered like those of the other split yet.

    Attributes:
        raw: the labels as read.
    """

    raw: RawLabels


@dataclass(eq=False)
class PartOfSplit(Split):
    """Some rows of another split.

    Args:
        whole: the split that the rows are of.
        rows: their numbers, int64, ascending.
        name: the part's name.
    """

    whole: Split
    rows: np.ndarray
    name: str

    def __post_init__(self) -> None:
        self.kind = self.whole.kind
        self.labels = self.whole.labels[self.rows]
        self.class_names = self.whole.class_names
        self.width = getattr(self.whole, "width", None)
        self.remote, self.on_disk = self.whole.remote, self.whole.on_disk

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        picked = self.rows if rows is None else self.rows[rows]
        part = bytes_digest(np.ascontiguousarray(self.rows, "<i8").tobytes())
        return combine("part", self.whole.fingerprint(picked), part)

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        return self.whole.read_features(self.rows[rows], progress)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        return self.whole.image_bytes(self.rows[rows])

    def bytes_of(self, rows: np.ndarray) -> int | None:
        return self.whole.bytes_of(self.rows[rows])

    def describe(self, row: int) -> str:
        return self.whole.describe(int(self.rows[row]))


@dataclass
class HeldOutSource(Source):
    """Base class of sources that may have to hold out a part of the gallery as queries.

    Args:
        query_fraction: the share of every class held out as queries where there is one split only.
        split_seed: decides which items are held out.
    """

    _: KW_ONLY
    query_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("dataset.query_fraction", self.query_fraction)
        check_number("dataset.split_seed", self.split_seed, 0)

    def dataset(
        self,
        gallery: RawSplit,
        query: RawSplit | None = None,
        train: RawSplit | None = None,
        *,
        train_in_gallery: np.ndarray | None = None,
    ) -> Dataset:
        """Return the data set of its splits, or of one, of which a fraction of every class is held out as queries.

        Args:
            gallery: the gallery split.
            query: the query split; None holds out a part of the gallery.
            train: a training set's items that are in neither, or None; only beside queries.
            train_in_gallery: int64, gallery rows of the training set, or None; only beside queries.

        Raises:
            UsageError: splits that don't go together, or labels that can't be used.
        """
        splits = [split for split in (gallery, query, train) if split is not None]
        labels, names = match_labels(*(split.raw for split in splits))
        if not self.labels_needed and labels[0].ndim == 1 and (labels[0] == labels[0][:1]).all():
            log.info("%s: all items of the gallery have one label, which is not used", self.name)
            labels, names = [unlabelled(len(split.raw)) for split in splits], None
        for split, numbers in zip(splits, labels, strict=True):
            split.labels, split.class_names = numbers, names
        if query is not None:
            return check_dataset(Dataset(self.name, gallery, query, train=train, train_in_gallery=train_in_gallery))
        check_dataset(Dataset(self.name, gallery, gallery))
        whole, part = gallery.name, self.query_fraction
        log.info("%s has the split %r only: %g of every class are held out as queries", self.name, whole, part)
        kept, held_out = held_out_rows(gallery.labels, part, self.split_seed)
        return check_dataset(
            Dataset(
                self.name,
                PartOfSplit(gallery, kept, f"{whole}[gallery]"),
                PartOfSplit(gallery, held_out, f"{whole}[queries]"),
            )
        )


@dataclass
class SplitSource(HeldOutSource):
    """Base class of sources whose data may have splits of its own.

    Args:
        gallery_split: the split that is the gallery, or ``auto`` for a usual name, such as train.
        query_split: the split that is the queries, ``auto`` for a usual name, such as test, or None to hold out a
            part of the gallery.
        train_split: a split to train on, or None to train on the gallery; only beside queries of a split.
    """

    _: KW_ONLY
    gallery_split: str | None = "auto"
    query_split: str | None = "auto"
    train_split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("gallery_split", "query_split", "train_split"):
            if getattr(self, key) is not None:
                check_name(f"dataset.{key}", getattr(self, key))
        if self.train_split is None:
            return
        if self.train_split in ("auto", self.gallery_split, self.query_split):
            raise wrong_value("dataset.train_split", self.train_split, "a split that is neither gallery nor queries")
        if self.query_split is None or self.gallery_split is None:
            key = "query_split" if self.query_split is None else "gallery_split"
            raise wrong_value("dataset.train_split", self.train_split, f"null, or dataset.{key} beside it")

    def of_splits(self, there: Iterable[str], opened: Callable[[str], RawSplit]) -> Dataset:
        """Return the data set of the splits that are found by name, or of one, of which queries are held out.

        Of the splits that ``query_split=auto`` finds, the first whose items all have labels is taken.

        Args:
            there: the splits' names.
            opened: opens one.

        Raises:
            UsageError: splits that are not there, that could be meant in two ways, or that don't go together.
        """
        gallery_name, query_names = find_splits(self.without_train(there), self.gallery_split, self.query_split)
        gallery = opened(gallery_name)
        self.require_queries(bool(query_names))
        if not query_names:
            return self.dataset(gallery)
        query = gallery
        if query_names != [gallery_name]:
            for query_name in query_names:
                query = opened(query_name)
                if not has_unlabelled(query.raw):
                    break
                if query_name != query_names[-1]:
                    log.info("the split %r has items without a label (-1) and is passed over", query_name)
        return self.dataset(gallery, query, None if self.train_split is None else opened(self.train_split))

    def without_train(self, there: Iterable[str]) -> list[str]:
        """Return the names of the splits that may be gallery or queries: all but the one to train on.

        Raises:
            UsageError: the split to train on is not there.
        """
        names = list(there)
        if self.train_split is not None and self.train_split not in names:
            listed = ", ".join(names) or "none"
            raise UsageError(f"dataset.train_split={self.train_split!r}: there is no such split; there are: {listed}")
        return [name for name in names if name != self.train_split]

    def require_queries(self, found: bool) -> None:
        """Refuse a training set where there are no queries of their own.

        Raises:
            UsageError: there are none, and a split to train on was named.
        """
        if self.train_split is not None and not found:
            expected = "null, or splits of gallery and queries beside it (dataset.gallery_split, dataset.query_split)"
            raise wrong_value("dataset.train_split", self.train_split, expected)
