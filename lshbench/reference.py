"""The reference beside every run: exact cosine ranking of the same features, kept with them in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from lshbench.metrics.measures import concatenate, measure, summarise
from lshbench.ranking.real import cosine_blocks, cosine_neighbors
from lshbench.types import Features, Progress, RankedBlock, Relevance

log = logging.getLogger(__name__)

NEIGHBORS = 100
VERSION = 1
"""Part of the key: a change to what is computed must not find older results."""


@dataclass(frozen=True)
class Reference:
    """What exact cosine ranking gives.

    Attributes:
        metrics: the headline metrics, as in ``metrics.json``.
        neighbors: int64 ``(q, 100)``, gallery rows of the first hundred, nearest first.
    """

    metrics: dict[str, float | None]
    neighbors: np.ndarray


def cosine_reference(
    gallery: Features, queries: Features, key: dict[str, str], cache: Path, progress: Progress
) -> Reference:
    """Return the reference of these features, from the cache if it is there.

    Args:
        gallery: the gallery's features.
        queries: the queries' features.
        key: what tells these features from all others (data, backbone, selection).
        cache: the cache folder.
        progress: told about the ranking.
    """
    canonical = json.dumps({**key, "version": VERSION}, sort_keys=True)
    path = cache / "references" / f"{hashlib.sha256(canonical.encode()).hexdigest()}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if (found := _read(path, canonical, len(queries))) is not None:
            return found
        relevance = Relevance(queries.y, gallery.y)
        blocks = with_progress(
            cosine_blocks(queries.x, gallery.x, relevance, positions=False),
            progress,
            "ranking by exact cosine",
            len(queries),
        )
        measures = concatenate([measure(block) for block in blocks])
        metrics = summarise(measures)["metrics"]
        neighbors = cosine_neighbors(queries.x, gallery.x, NEIGHBORS).ids
        _write(path, canonical, metrics, neighbors)
    return Reference(metrics, neighbors)


def with_progress(
    blocks: Iterator[RankedBlock], progress: Progress, description: str, total: int
) -> Iterator[RankedBlock]:
    """Pass blocks on and report their queries."""
    with progress(description, total=total, unit="queries") as advance:
        for block in blocks:
            yield block
            advance(len(block))


def _read(path: Path, key: str, queries: int) -> Reference | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) == key and len(stored["neighbors"]) == queries:
                return Reference(json.loads(str(stored["metrics"])), stored["neighbors"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    log.warning("%s is damaged and is computed again", path)
    return None


def _write(path: Path, key: str, metrics: dict[str, float | None], neighbors: np.ndarray) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, key=key, metrics=json.dumps(metrics), neighbors=neighbors)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
