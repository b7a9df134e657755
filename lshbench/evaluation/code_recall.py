"""What ties do to indexes that find some of the items at a code's distance: recall counted by item and by distance.

A code has few distances, so that many items share that of the tenth neighbour.  An index that stops among them may give
other items than an exhaustive ranking, all of them as near.
"""

from __future__ import annotations

import numpy as np

from lshbench.evaluation.tradeoff import Measured, overlap
from lshbench.index.base import Index
from lshbench.index.flat import FlatIndex
from lshbench.index.oversampled import OversampledIndex
from lshbench.ranking.listed import first_kept
from lshbench.types import Encoded, Neighbors, Relevance

FIRST = 10

ROUNDING = 1e-6
"""Difference of distances, rescored, that is none."""


def code_recall(
    index: Index, measured: Measured, gallery: Encoded, queries: Encoded, relevance: Relevance
) -> dict[str, float | None] | None:
    """Return how many of the first ten by exact Hamming distance are found; None where an index misses none.

    Args:
        index: whose results these are; other kinds than those that skip codes by Hamming distance give None.
        measured: the index, at its last query settings.
        gallery, queries: encoded.
        relevance: of the gallery to the queries; rows that are left out of rankings count neither way.

    Returns:
        ``item``: share of the exact first ten, ties by the smaller gallery row, that are among the first ten;
        ``distance``: share of the first ten that are no further than the tenth of the exact ones.  ``rescored_item``
        and ``rescored_distance``: the same after rescoring, against an exhaustive ranking's results that are rescored
        alike; None where nothing is rescored.
    """
    rescoring = index if isinstance(index, OversampledIndex) else None
    inner = index if rescoring is None else rescoring.inner
    if inner.gives != "binary" or inner.ranking != "hamming" or inner.exhaustive:
        return None

    def found_by(index: Index, k: int) -> Neighbors:
        return first_kept(index.search(queries, min(k + relevance.most_left_out, len(gallery))), relevance, k)

    exact = FlatIndex().build(gallery)
    given = measured.search.neighbors
    item, distance = _shares(found_by(inner, FIRST) if rescoring else given, found_by(exact, FIRST), 0)
    shares: dict[str, float | None] = {"item": item, "distance": distance}
    if rescoring is None:
        return shares | {"rescored_item": None, "rescored_distance": None}
    item, distance = _shares(given, found_by(rescoring.around(exact), given.ids.shape[1]), ROUNDING)
    return shares | {"rescored_item": item, "rescored_distance": distance}


def _shares(found: Neighbors, exact: Neighbors, rounding: float) -> tuple[float, float]:
    """Return the share of the exact first ten that were found, by item and by distance."""
    is_there = exact.ids[:, :FIRST] >= 0
    furthest = exact.distances[:, :FIRST].max(axis=1, keepdims=True, where=is_there, initial=-np.inf)
    as_near = (found.ids[:, :FIRST] >= 0) & (found.distances[:, :FIRST] <= furthest + np.float32(rounding))
    return overlap(found.ids, exact.ids, FIRST), float(as_near.sum() / is_there.sum())
