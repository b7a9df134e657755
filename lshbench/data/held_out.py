"""Data sets out of one split or two: labels matched, queries held out where there is one split only."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from lshbench.data.base import Dataset, Split
from lshbench.data.checks import RawLabels, check_dataset, match_labels
from lshbench.data.fingerprint import bytes_digest, combine
from lshbench.data.subset import held_out_rows
from lshbench.types import Progress

log = logging.getLogger(__name__)


class RawSplit(Split):
    """A split whose labels are not yet matched with those of the other.

    Attributes:
        raw: the labels as read.
    """

    raw: RawLabels


class PartOfSplit(Split):
    """Some rows of another split.

    Args:
        whole: the split that the rows are of.
        rows: their numbers, int64, ascending.
        name: the part's name.
    """

    def __init__(self, whole: Split, rows: np.ndarray, name: str) -> None:
        self.whole = whole
        self.rows = rows
        self.name = name
        self.kind = whole.kind
        self.labels = whole.labels[rows]
        self.class_names = whole.class_names
        self.width = getattr(whole, "width", None)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        picked = self.rows if rows is None else self.rows[rows]
        part = bytes_digest(np.ascontiguousarray(self.rows, "<i8").tobytes())
        return combine("part", self.whole.fingerprint(picked), part)

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        return self.whole.read_features(self.rows[rows], progress)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        return self.whole.image_bytes(self.rows[rows])

    def describe(self, row: int) -> str:
        return self.whole.describe(int(self.rows[row]))


def matched(name: str, gallery: RawSplit, query: RawSplit) -> Dataset:
    """Return the data set of two splits, their labels in the same numbers.

    Raises:
        UsageError: splits that don't go together, or labels that can't be used.
    """
    gallery.labels, query.labels, names = match_labels(gallery.raw, query.raw)
    gallery.class_names = query.class_names = names
    return check_dataset(Dataset(name, gallery, query))


def hold_out(name: str, whole: Split, fraction: float, seed: int) -> Dataset:
    """Return the data set of one split: a fraction of every class is held out as queries."""
    check_dataset(Dataset(name, whole, whole))
    log.info("%s has the split %r only: %g of every class are held out as queries", name, whole.name, fraction)
    gallery, query = held_out_rows(whole.labels, fraction, seed)
    return check_dataset(
        Dataset(
            name,
            PartOfSplit(whole, gallery, f"{whole.name}[gallery]"),
            PartOfSplit(whole, query, f"{whole.name}[queries]"),
        )
    )
