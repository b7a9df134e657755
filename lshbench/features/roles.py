"""The features of a run's items, by role: gallery, queries and training set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset
from lshbench.errors import UsageError
from lshbench.features.backbone import Backbone
from lshbench.features.load import SplitFeatures, load_split_features
from lshbench.features.store import FeatureStore
from lshbench.runtime import scratch
from lshbench.types import Features, Progress


@dataclass(frozen=True)
class Roles:
    """Features of gallery, queries and training items.

    Roles with the same items share one array, and a role that is a whole split is that split's memory map.  What has to
    be copied or converted is done so in blocks, into a file where it is large (:mod:`lshbench.runtime.scratch`).

    Attributes:
        digests: for each role, uint64 hashes of its items' content.
        seconds_extracting: time that the network and its data took; 0 if all features were in the cache.
    """

    gallery: Features
    queries: Features
    train: Features
    digests: dict[str, np.ndarray]
    seconds_extracting: float


def load_roles(
    dataset: Dataset,
    items: dict[str, np.ndarray],
    backbone: Backbone | None,
    *,
    cache: Path,
    device: str,
    threads: int,
    progress: Progress,
    fingerprints: dict[str, str] | None = None,
) -> Roles:
    """Return the features of a run's items: from the cache, else read or extracted and cached.

    Args:
        dataset: an opened data set.
        items: item numbers of ``gallery``, ``queries`` and ``train``, int64, ascending.
        backbone: encodes images; not used for ready features.
        cache: the cache folder.
        device: as configured, such as ``auto`` or ``cuda:1``.
        threads: number of threads of an extraction.
        progress: receives the progress of extraction and downloads.
        fingerprints: of the items' rows by the splits' names, where they have just been found.

    Raises:
        UsageError: an image that can't be read (named), features with NaN or infinite values or of differing widths,
            no disk space, weights that can't be had.
    """
    store, labels = FeatureStore(cache), dataset.labels
    needed = np.unique(np.concatenate(list(items.values())))
    parts = []
    for split, rows, places in dataset.split_rows(needed):
        loaded = load_split_features(
            split,
            rows,
            backbone,
            store=store,
            device=device,
            threads=threads,
            progress=progress,
            fingerprint=(fingerprints or {}).get(split.name),
        )
        parts.append((needed[places], loaded))
        if len(loaded.unreadable):
            unreadable = needed[places][loaded.unreadable]
            items = {role: numbers[~np.isin(numbers, unreadable)] for role, numbers in items.items()}
    for role, numbers in items.items():
        if not len(numbers):
            raise UsageError(f"no {role} item of {dataset.name} is left: expected images that can be read")
    first, last = parts[0][1].x.shape[1], parts[-1][1].x.shape[1]
    if first != last:
        raise UsageError(
            f"{dataset.name}: features of {first} numbers in {dataset.gallery.name} and of {last} in "
            f"{dataset.query.name}: expected the same width"
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
        if np.array_equal(available, numbers) and loaded.x.dtype == np.float32:
            return loaded.x, loaded.digests
    x = scratch.empty((len(numbers), parts[0][1].x.shape[1]))
    digests = np.empty(len(numbers), np.uint64)
    for available, loaded in parts:
        here = np.flatnonzero(np.isin(numbers, available, assume_unique=True))
        rows = np.searchsorted(available, numbers[here])
        scratch.copy_rows(loaded.x, rows, x, here)
        digests[here] = loaded.digests[rows]
    return x, digests
