"""Gaussian clusters of any size, of which single rows can be generated on request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset, Source, Split
from lshbench.data.checks import check_dataset, read_features
from lshbench.data.fingerprint import combine
from lshbench.data.values import check_number
from lshbench.errors import wrong_value
from lshbench.types import Progress

GENERATOR_VERSION = 1
"""Part of the fingerprint, so that a change of the generator doesn't find older features."""
BLOCK = 1024
"""Rows that share a random generator: small, so that a scattered subset wastes little."""


@dataclass(eq=False)
class SyntheticSplit(Split):
    """The gallery or the queries: each item is its cluster's centre plus Gaussian noise."""

    kind = "features"
    name: str
    side: int
    items: int
    centres: np.ndarray
    spread: float
    seed: int
    on_disk: bool = False

    def __post_init__(self) -> None:
        self.width = self.centres.shape[1]
        classes = np.arange(self.items) % len(self.centres)
        self.labels = np.random.default_rng([self.seed, self.side]).permutation(classes)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        shape = self.centres.shape
        return combine(
            "synthetic", GENERATOR_VERSION, self.side, len(self), *shape, float(np.float32(self.spread)), self.seed
        )

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        return read_features(rows, self.width, self._make, f"synthetic items ({self.name})", progress)

    def _make(self, rows: np.ndarray) -> np.ndarray:
        """Return ascending rows, float32 ``(len(rows), dim)``."""
        out = np.empty((len(rows), self.width), np.float32)
        blocks, starts = np.unique(rows // BLOCK, return_index=True)
        for block, start, stop in zip(blocks, starts, [*starts[1:], len(rows)], strict=True):
            generator = np.random.default_rng([self.seed, self.side, 1 + int(block)])
            within = rows[start:stop] - block * BLOCK
            # The last row wanted decides how much is drawn: a block's rows don't depend on those after them.
            noise = generator.standard_normal((int(within[-1]) + 1, self.width), np.float32)
            np.multiply(noise[within], np.float32(self.spread), out=out[start:stop])
        out += self.centres[self.labels[rows]]
        return out


@dataclass
class SyntheticSource(Source):
    """Isotropic Gaussian clusters around Gaussian centres of unit variance (``dataset=synthetic``).

    Args:
        items: gallery items.
        queries: queries.
        dim: values an item.
        classes: clusters, each a class, of equal size to within one.
        spread: standard deviation of the noise a value, where the centres' is 1.
        data_seed: decides centres and noise.
        on_disk: whether items are written to the cache once and mapped from there, as features of real data are.
    """

    name = "synthetic"
    items: int = 10000
    queries: int = 1000
    dim: int = 128
    classes: int = 10
    spread: float = 3.0
    data_seed: int = 0
    on_disk: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = {"classes": 2, "items": self.classes, "queries": 2, "dim": 1, "data_seed": 0}
        for key, least in smallest.items():
            check_number(f"dataset.{key}", getattr(self, key), least)
        if isinstance(self.spread, bool) or not isinstance(self.spread, int | float) or not 0 <= self.spread < 1e6:
            raise wrong_value("dataset.spread", self.spread, "a number from 0: the noise where centres vary by 1")

    def open(self, cache: Path, progress: Progress) -> Dataset:
        generator = np.random.default_rng([self.data_seed, 2])
        centres = generator.standard_normal((self.classes, self.dim), np.float32)
        return check_dataset(
            Dataset(
                self.name,
                SyntheticSplit("gallery", 0, self.items, centres, self.spread, self.data_seed, self.on_disk),
                SyntheticSplit("queries", 1, self.queries, centres, self.spread, self.data_seed, self.on_disk),
            )
        )
