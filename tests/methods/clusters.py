"""Small labelled features for the tests of trained methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from lshbench.methods.base import Method
from lshbench.types import Features


@contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress display that shows nothing."""
    yield lambda count: None


def clusters(count: int, classes: int = 5, inputs: int = 12, spread: float = 1.0, seed: int = 0) -> Features:
    """Return Gaussian clusters, a class each; the same centres for every seed and count."""
    centres = np.random.default_rng(7).normal(size=(classes, inputs)) * 1.2
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % classes)
    x = (centres[labels] + spread * generator.normal(size=(count, inputs))).astype(np.float32)
    return Features(x, labels + 3, np.arange(count))


def several_labels(features: Features) -> Features:
    """Return the same items with their labels as rows of booleans."""
    return Features(features.x, features.y[:, None] == np.unique(features.y), features.ids)


def quality(method: Method, gallery: Features, queries: Features) -> float:
    """Return the share of same-class items among each query's nearest fifth of the gallery, ties by row."""
    codes = [
        method.encode(part.x, side).unpack().astype(np.int32)
        for part, side in ((queries, "query"), (gallery, "gallery"))
    ]
    distances = (codes[0][:, None] != codes[1][None]).sum(2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : len(gallery) // 5]
    return float((gallery.y[nearest] == queries.y[:, None]).mean())
