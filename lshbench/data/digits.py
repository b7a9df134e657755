"""The 1,797 digit images of 8 by 8 pixels that scikit-learn ships (UCI's handwritten digits)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset, Source, Split
from lshbench.data.checks import check_dataset
from lshbench.data.fingerprint import bytes_digest, combine
from lshbench.data.held_out import PartOfSplit
from lshbench.data.subset import balanced_rows
from lshbench.data.values import check_number
from lshbench.types import Progress

QUERIES = 360
"""A fifth: 36 of each digit."""


class DigitsSplit(Split):
    """All 1,797 digits, their grey values scaled from 0-16 to 0-255."""

    name = "digits"
    kind = "images"
    class_names = tuple("0123456789")

    def __init__(self) -> None:
        # The file itself: importing scikit-learn for its load_digits takes two seconds.
        package = find_spec("sklearn")
        assert package is not None
        assert package.origin is not None
        with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
            table = np.loadtxt(file, delimiter=",")
        self.labels = table[:, -1].astype(np.int64)
        self.images = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return combine("digits", bytes_digest(self.images.tobytes()), bytes_digest(self.labels.tobytes()))

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        return (self.images[row] for row in rows)


@dataclass
class DigitsSource(Source):
    """The digits: 1,437 gallery images and 360 queries, 36 of each digit (``dataset=digits``).

    Args:
        split_seed: decides which images are held out as queries.
        image_size: pixels of a side at which a network sees the images, unless ``backbone.image_size`` says otherwise;
            the backbones' configuration reads it, and this source only checks it.
    """

    name = "digits"
    split_seed: int = 0
    image_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("dataset.split_seed", self.split_seed, 0)
        check_number("dataset.image_size", self.image_size, 8)

    def open(self, cache: Path, progress: Progress) -> Dataset:
        whole = DigitsSplit()
        queries = balanced_rows(whole.labels, QUERIES, self.split_seed)
        gallery = np.setdiff1d(np.arange(len(whole)), queries)
        return check_dataset(
            Dataset(
                self.name,
                PartOfSplit(whole, gallery, "digits[gallery]"),
                PartOfSplit(whole, queries, "digits[queries]"),
            )
        )
