"""Measures of rankings: every measure of each query, and their means, which ``metrics.json`` holds.

measures = concatenate([measure(block) for block in index.rank(queries, relevance)])
summary = summarise(measures)      # "metrics", "ties", "definitions", "counts"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from lshbench.metrics.average_precision import precision_sums, trapezoid_precision
from lshbench.metrics.definitions import (
    DEFINITIONS,
    Definition,
    hits_average_precision,
    number_in,
    short_last_precision,
    template,
)
from lshbench.metrics.graded import graded_ndcg
from lshbench.metrics.groups import Bounds, ratio, retrieved
from lshbench.metrics.precision import ndcg_at, precision_at, r_precision, recall_at
from lshbench.metrics.radius import within_radius
from lshbench.metrics.reciprocal_rank import reciprocal_rank
from lshbench.types import RankedBlock

CUTOFFS = (10, 50)
"""Ranks of P@k, recall@k and nDCG@k."""

AP_CUTOFFS = (50, 1000, 5000)
"""Ranks of the published AP@k: 50 for candidates of LSH tables, 1000 for ImageNet, 5000 for NUS-WIDE."""

RADII = (2,)
"""Hamming radii: 2 is what papers report."""

_MEANS = {"AP": "mAP", "RR": "MRR"}


class Summary(TypedDict):
    """Means over queries for ``metrics.json``; one over no query, or one that can't be computed, is None.

    Attributes:
        metrics: the expected mAP, MRR, P@k, ... over every query.
        ties: the same keys, each with ``expected``, ``optimistic`` and ``pessimistic``.
        definitions: the keys of :data:`lshbench.metrics.definitions.DEFINITIONS` for every rank and radius measured.
        counts: queries, those without a relevant item in the gallery (which score 0), those without a candidate.
    """

    metrics: dict[str, float | None]
    ties: dict[str, dict[str, float | None]]
    definitions: dict[str, float | None]
    counts: dict[str, int]


def measure(
    block: RankedBlock,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    ap_cutoffs: Sequence[int] = AP_CUTOFFS,
    radii: Sequence[int] = RADII,
) -> dict[str, np.ndarray]:
    """Return every per-query measure.

    Keys, all float64 ``(q,)``; ``k`` runs over ``cutoffs``, ``K`` over ``ap_cutoffs``, ``r`` over ``radii``:

    - ``AP``, ``P@k``, ``recall@k``, ``nDCG@k``, ``R-precision``, ``RR``: expected over ties; each also with
      ``_optimistic`` and ``_pessimistic`` appended; where relevance is graded, nDCG goes by grades, and there is
      ``nDCG`` of the whole ranking, too;
    - ``AP@K/trec``, ``AP@K/min``, ``AP@candidates/hits``, ``AP@all/trapezoid``, ``P@k/short_relevant``,
      ``P@k/short_ranked``: expected; ``AP@K/hits``, ``P@k/short_last``: on the stable order, NaN if it isn't
      known (see :mod:`lshbench.metrics.definitions`);
    - ``precision@radiusr``, ``recall@radiusr``, ``empty@radiusr`` (1 or 0): NaN for rankings without Hamming distances;
    - ``candidates``: items ranked; ``relevant``: R.
    """
    measures: dict[str, np.ndarray] = {}

    def add(key: str, bounds: Bounds) -> None:
        measures[key] = bounds.expected
        measures[f"{key}_optimistic"] = bounds.optimistic
        measures[f"{key}_pessimistic"] = bounds.pessimistic

    total = block.total_relevant
    sums, *cut_sums = precision_sums(block, ap_cutoffs)
    add("AP", sums.over(total))
    for cutoff in cutoffs:
        add(f"P@{cutoff}", precision_at(block, cutoff))
        add(f"recall@{cutoff}", recall_at(block, cutoff))
        add(f"nDCG@{cutoff}", ndcg_at(block, cutoff) if block.gains is None else graded_ndcg(block.gains, cutoff))
    if block.gains is not None:
        add("nDCG", graded_ndcg(block.gains))
    add("R-precision", r_precision(block))
    add("RR", reciprocal_rank(block))

    for cutoff, cut in zip(ap_cutoffs, cut_sums, strict=True):
        measures[f"AP@{cutoff}/trec"] = ratio(cut.expected, total)
        measures[f"AP@{cutoff}/min"] = ratio(cut.expected, np.minimum(total, cutoff))
    if ap_cutoffs:
        for cutoff, values in zip(ap_cutoffs, hits_average_precision(block, ap_cutoffs), strict=True):
            measures[f"AP@{cutoff}/hits"] = values
    measures["AP@candidates/hits"] = ratio(sums.expected, retrieved(block))
    measures["AP@all/trapezoid"] = trapezoid_precision(block, sums.expected)
    for cutoff in cutoffs:
        hits = measures[f"P@{cutoff}"] * cutoff
        measures[f"P@{cutoff}/short_relevant"] = ratio(hits, np.minimum(total, cutoff))
        measures[f"P@{cutoff}/short_ranked"] = ratio(hits, np.minimum(block.ranked, cutoff))
        measures[f"P@{cutoff}/short_last"] = short_last_precision(block, cutoff)

    found = within_radius(block, np.array(radii, np.int64)) if block.within is not None else None
    for column, radius in enumerate(radii):
        missing = np.full(len(block), np.nan)
        measures[f"precision@radius{radius}"] = found.precision[:, column] if found else missing
        measures[f"recall@radius{radius}"] = found.recall[:, column] if found else missing
        measures[f"empty@radius{radius}"] = (found.items[:, column] == 0).astype(float) if found else missing
    measures["candidates"] = block.ranked.astype(np.float64)
    measures["relevant"] = total.astype(np.float64)
    return measures


def concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the measures of all queries from those of blocks, in their order."""
    if not parts:
        return {}
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def summarise(measures: Mapping[str, np.ndarray]) -> Summary:
    """Return the means over queries, under the names that ``metrics.json`` has.

    Args:
        measures: what :func:`measure` and :func:`concatenate` give.
    """
    ties: dict[str, dict[str, float | None]] = {}
    for key in measures:
        if f"{key}_optimistic" in measures:
            ties[_MEANS.get(key, key)] = {
                "expected": _mean(measures[key]),
                "optimistic": _mean(measures[f"{key}_optimistic"]),
                "pessimistic": _mean(measures[f"{key}_pessimistic"]),
            }
    definitions = {
        name.replace("{k}", str(number)).replace("{r}", str(number)): _mean(
            values[_counted(definition, number, measures)]
        )
        for name, definition in DEFINITIONS.items()
        for key, values in measures.items()
        if template(key) == definition.measure
        for number in [number_in(key)]
    }
    return {
        "metrics": {key: values["expected"] for key, values in ties.items()},
        "ties": ties,
        "definitions": definitions,
        "counts": {
            "queries": len(measures["relevant"]),
            "queries_without_relevant": int((measures["relevant"] == 0).sum()),
            "queries_without_candidates": int((measures["candidates"] == 0).sum()),
        },
    }


def _counted(definition: Definition, number: int | None, measures: Mapping[str, np.ndarray]) -> np.ndarray | slice:
    """Return which queries a definition's mean counts."""
    if definition.over == "nonempty":
        return measures["candidates"] > 0
    if definition.over == "hits":
        return measures[f"AP@{number}/hits"] != 0  # NaN stays in: what isn't known has no mean
    if definition.over == "within":
        return measures[f"empty@radius{number}"] != 1
    return slice(None)


def _mean(values: np.ndarray) -> float | None:
    if not len(values):
        return None
    mean = float(np.mean(values))
    return mean if np.isfinite(mean) else None
