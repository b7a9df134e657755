"""The features of a run's items, by what they are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lshbench.data.base import Dataset, Split
from lshbench.errors import UsageError
from lshbench.features.load import SplitFeatures
from lshbench.types import Features

Load = Callable[[Split, np.ndarray], SplitFeatures]


@dataclass(frozen=True)
class Roles:
    """Features of gallery, queries and training items; ``digests`` are uint64 hashes of each item's content.

    Roles with the same items share one array, and a role that is a whole split is that split's memory map.
    """

    gallery: Features
    queries: Features
    train: Features
    digests: dict[str, np.ndarray]
    seconds_extracting: float


def load_roles(dataset: Dataset, items: dict[str, np.ndarray], labels: np.ndarray, load: Load) -> Roles:
    """Load every item once and give it out to its roles.

    Args:
        dataset: an opened data set.
        items: item numbers of ``gallery``, ``queries`` and ``train``, int64, ascending.
        labels: labels of all items.
        load: gives the features of a split's rows.

    Raises:
        UsageError: the splits' features differ in width.
    """
    needed = np.unique(np.concatenate(list(items.values())))
    parts = []
    for split, rows, places in dataset.split_rows(needed):
        loaded = load(split, rows)
        parts.append((needed[places], loaded))
        if len(loaded.unreadable):
            unreadable = needed[places][loaded.unreadable]
            items = {role: numbers[~np.isin(numbers, unreadable)] for role, numbers in items.items()}
    for role, numbers in items.items():
        if not len(numbers):
            raise UsageError(f"no {role} item of {dataset.name} is left: expected images that can be read")
    widths = {loaded.x.shape[1] for _, loaded in parts}
    if len(widths) > 1:
        raise UsageError(
            f"{dataset.name}: features of {parts[0][1].x.shape[1]} numbers in {dataset.gallery.name} and of "
            f"{parts[-1][1].x.shape[1]} in {dataset.query.name}: expected the same width"
        )
    gathered: dict[bytes, tuple[Features, np.ndarray]] = {}
    for numbers in items.values():
        if numbers.tobytes() not in gathered:
            x, digests = _gather(parts, numbers)
            gathered[numbers.tobytes()] = (Features(x, labels[numbers], numbers), digests)
    found = {role: gathered[numbers.tobytes()] for role, numbers in items.items()}
    return Roles(
        **{role: features for role, (features, _) in found.items()},
        digests={role: digests for role, (_, digests) in found.items()},
        seconds_extracting=sum(loaded.seconds_extracting for _, loaded in parts),
    )


def _gather(parts: list[tuple[np.ndarray, SplitFeatures]], numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and digests of item numbers, without a copy where they are all that was loaded."""
    for available, loaded in parts:
        if np.array_equal(available, numbers):
            return loaded.x, loaded.digests
    x = np.empty((len(numbers), parts[0][1].x.shape[1]), np.float32)
    digests = np.empty(len(numbers), np.uint64)
    for available, loaded in parts:
        here = np.flatnonzero(np.isin(numbers, available, assume_unique=True))
        rows = np.searchsorted(available, numbers[here])
        x[here], digests[here] = loaded.x[rows], loaded.digests[rows]
    return x, digests
