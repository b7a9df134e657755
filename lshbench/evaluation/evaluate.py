"""Evaluation of the complete rankings of all queries, block by block: measures and curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lshbench.metrics.curves import CurveAccumulator, Curves
from lshbench.metrics.measures import Summary, concatenate, measure, summarise
from lshbench.types import Progress, RankedBlock


@dataclass(frozen=True)
class Evaluation:
    """Measures of each query, their means, and curves.

    Attributes:
        measures: of each query, float64 ``(q,)`` each (:func:`lshbench.metrics.measures.measure`).
        summary: their means, under the names in ``metrics.json``.
        curves: precision over recall, P@k over k, and distances, over all queries.
    """

    measures: dict[str, np.ndarray]
    summary: Summary
    curves: Curves


def evaluate(blocks: Iterable[RankedBlock], queries: int, progress: Progress, description: str) -> Evaluation:
    """Reduce rankings to measures and curves, in memory that does not grow with the gallery.

    Args:
        blocks: the rankings of consecutive queries.
        queries: how many there are in all.
        progress: reports the queries evaluated.
        description: of the work, for ``progress``.
    """
    parts, curves = [], CurveAccumulator()
    with progress(description, total=queries, unit="queries") as advance:
        for block in blocks:
            parts.append(measure(block))
            curves.add(block)
            advance(len(block))
    measures = concatenate(parts)
    return Evaluation(measures, summarise(measures), curves.means())
