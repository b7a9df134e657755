"""The reference beside every run: exact cosine ranking of the same features, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from filelock import FileLock

from lshbench.evaluation.evaluate import evaluate
from lshbench.ranking.cosine import cosine_blocks, cosine_neighbors
from lshbench.run_folder import atomic_file
from lshbench.types import Features, Progress, Relevance

log = logging.getLogger(__name__)

NEIGHBORS = 100

NOT_KEPT = "the reference is not kept for the next run: %s"

VERSION = 2
"""Part of the key: after a change to what is computed, older results are not found."""


@dataclass(frozen=True)
class Reference:
    """Metrics, curves and neighbours of exact cosine ranking.

    Attributes:
        metrics: the headline metrics, as in ``metrics.json``.
        precision, precision_at_k: over recall and over k, as in :class:`lshbench.metrics.curves.Curves`.
        neighbors: int64 ``(q, 100)``, gallery rows of the first hundred, nearest first.
    """

    metrics: dict[str, float | None]
    precision: np.ndarray
    precision_at_k: np.ndarray
    neighbors: np.ndarray


def cosine_reference(gallery: Features, queries: Features, cache: Path, progress: Progress) -> Reference:
    """Return the reference of these features, from the cache if it is there.

    Args:
        gallery: the gallery's features and labels, which with the queries' are the key.
        queries: the queries' features and labels.
        cache: the cache folder.
        progress: reports the queries ranked.
    """
    key = hashlib.sha256(f"{VERSION} {_hash(gallery)} {_hash(queries)}".encode()).hexdigest()
    path = cache / "references" / f"{key}.npz"
    if (found := _read(path, len(queries))) is not None:
        return found
    with _locked(path) as writable:
        if writable and (found := _read(path, len(queries), logging.DEBUG)) is not None:
            return found
        reference = _compute(gallery, queries, progress)
        if writable:
            try:
                with atomic_file(path) as file:
                    np.savez(file, allow_pickle=False, **(vars(reference) | {"metrics": json.dumps(reference.metrics)}))
            except OSError as error:
                log.warning(NOT_KEPT, error)
    return reference


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold an entry's lock; yield whether it can be had, and so the entry be written."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning(NOT_KEPT, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _compute(gallery: Features, queries: Features, progress: Progress) -> Reference:
    relevance = Relevance(queries.y, gallery.y)
    blocks = cosine_blocks(queries.x, gallery.x, relevance, positions=0)
    result = evaluate(blocks, len(queries), progress, "ranking by exact cosine, the reference")
    return Reference(
        result.summary["metrics"],
        result.curves.precision,
        result.curves.precision_at_k,
        cosine_neighbors(queries.x, gallery.x, NEIGHBORS).ids,
    )


def _hash(features: Features) -> str:
    digest = xxhash.xxh3_128()
    for array in (features.x, features.y):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path, queries: int, level: int = logging.WARNING) -> Reference | None:
    """Return an entry, or None if it is not there, or damaged (logged at ``level``)."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if len(stored["neighbors"]) == queries:
                return Reference(**(dict(stored) | {"metrics": json.loads(str(stored["metrics"]))}))
    except Exception as error:  # of a damaged file, the readers raise anything: EOFError, BadZipFile, MemoryError, ...
        log.log(level, "%s is damaged (%s) and is computed again", path, error)
        return None
    log.log(level, "%s is damaged and is computed again", path)
    return None
