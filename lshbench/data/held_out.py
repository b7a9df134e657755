"""Part of a split as a split of its own: for data that comes in one piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lshbench.data.base import Split
from lshbench.data.fingerprint import bytes_digest, combine
from lshbench.data.subset import held_out_rows
from lshbench.types import Progress


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


def hold_out(whole: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Return a gallery and a query split: a fraction of every class is held out as queries."""
    gallery, query = held_out_rows(whole.labels, fraction, seed)
    return (
        PartOfSplit(whole, gallery, f"{whole.name}[gallery]"),
        PartOfSplit(whole, query, f"{whole.name}[queries]"),
    )
