"""The reference beside every run: exact cosine ranking of the same features, kept in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lshbench.evaluation.evaluate import evaluate
from lshbench.ranking.cosine import cosine_blocks, cosine_neighbors
from lshbench.ranking.listed import first_kept
from lshbench.runtime import scratch
from lshbench.runtime.kept import Arrays, content_digest, kept
from lshbench.types import Features, Progress, Relevance

NEIGHBORS = 100

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


def cosine_reference(
    gallery: Features, queries: Features, relevance: Relevance, cache: Path, progress: Progress
) -> Reference:
    """Return the reference of these features, from the cache if it is there.

    Args:
        gallery, queries: features, which with what is relevant are the key.
        relevance: of the gallery to the queries.
        cache: the cache folder.
        progress: reports the queries ranked.
    """
    sides = (content_digest(gallery.x), content_digest(queries.x), content_of(relevance))
    key = hashlib.sha256(f"{VERSION} {' '.join(sides)}".encode()).hexdigest()
    path = cache / "references" / f"{key}.npz"

    def compute() -> Arrays:
        reference = _compute(gallery, queries, relevance, progress)
        return vars(reference) | {"metrics": np.array(json.dumps(reference.metrics))}

    found = kept(path, "the reference", compute, lambda arrays: _is_whole(arrays, len(queries)))
    scratch.release(gallery.x)
    return Reference(**(found | {"metrics": json.loads(str(found["metrics"]))}))


def _compute(gallery: Features, queries: Features, relevance: Relevance, progress: Progress) -> Reference:
    blocks = cosine_blocks(queries.x, gallery.x, relevance, positions=0)
    result = evaluate(blocks, len(queries), progress, "ranking by exact cosine, the reference")
    return Reference(
        result.summary["metrics"],
        result.curves.precision,
        result.curves.precision_at_k,
        first_kept(
            cosine_neighbors(queries.x, gallery.x, NEIGHBORS + relevance.most_left_out), relevance, NEIGHBORS
        ).ids,
    )


def content_of(relevance: Relevance) -> str:
    """Return a hash of what is relevant, for keys of the cache."""
    content = f"{content_digest(relevance.gallery, relevance.queries)} {relevance.subset}"
    if (listed := relevance.listed) is not None:
        content += f" {content_digest(listed.offsets, listed.rows, listed.grades)} {listed.threshold} {listed.graded}"
    return content


def _is_whole(arrays: Arrays, queries: int) -> bool:
    """Return whether arrays are those of a reference."""
    names = {field.name for field in fields(Reference)}
    return arrays.keys() == names and len(arrays["neighbors"]) == queries and json.loads(str(arrays["metrics"]))
