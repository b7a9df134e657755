"""Ranking of binary codes by asymmetric distance: a query's projections against the bits of the gallery.

The distance of a code is the sum of the magnitudes of the query's projections over the bits in which query and item
differ: the Hamming distance, each bit weighted by how sure the query is of it.  It orders items as the inner product of
the projections with codes of -1 and 1 does.

**Equal codes tie exactly**: a query's projections are rounded to whole numbers, scaled so that their magnitudes add up
to nearly 2^24.  That changes no more than float32's own rounding of such a sum would, and every distance is a whole
number, exact in whichever order it is added up.  A ranking is then counted: into bins by the high bits of distances,
and only where a bin has relevant items, by all bits.

Kernels are in :mod:`lshbench.kernels.asymmetric_sums`, :mod:`lshbench.kernels.asymmetric` and
:mod:`lshbench.kernels.asymmetric_nearest`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import get_num_threads

from lshbench.kernels import asymmetric as kernels
from lshbench.kernels import asymmetric_nearest
from lshbench.kernels.labels import LabelTable
from lshbench.kernels.lanes import EIGHT, SIXTEEN
from lshbench.ranking.groups import GroupRoom
from lshbench.ranking.listed import judged, left_out_of
from lshbench.types import Codes, Neighbors, RankedBlock, Relevance

GROUP_BYTES = 16 << 20
"""Bytes of the rankings yielded at a time, about."""

PAIRS = 1 << 14
"""Pairs of a query and a gallery row whose distances are computed one by one at a time."""

WIDE_DISTANCES = 1 << 21
"""Distances that a thread may hold at once for sixteen queries (8 MB): with more items it takes eight queries."""

FEWEST_QUERIES, MOST_QUERIES = 8, 1024
"""Queries that are ranked, and searched, at a time."""

FEW_BYTES = 1 << 19
"""Bytes of codes, eight queries at a time, up to which one thread is hardly slower than others that have to wake."""

SPLIT_QUERIES = 16
"""Queries from which threads divide them rather than the gallery."""


def asymmetric_code_blocks(
    projections: np.ndarray, gallery: Codes, relevance: Relevance, *, positions: int | None = None
) -> Iterator[RankedBlock]:
    """Rank the whole gallery for every query, a block of queries at a time.

    Args:
        projections: of the queries, float32 ``(q, bits)``.
        gallery: codes as long.
        relevance: labels of both, in the same order.
        positions: 0 for none; else all positions of the relevant items in the stable order are given.

    Raises:
        ValueError: codes of another length, labels that don't match them in number, or projections that are not finite.
    """
    projections = _checked(projections, gallery)
    if len(relevance.queries) != len(projections) or len(relevance.gallery) != len(gallery):
        raise ValueError(
            f"{len(relevance.queries)} and {len(relevance.gallery)} labels "
            f"for {len(projections)} queries and {len(gallery)} codes"
        )
    return _blocks(projections, gallery, relevance, positions != 0)


def _blocks(projections: np.ndarray, gallery: Codes, relevance: Relevance, positions: bool) -> Iterator[RankedBlock]:
    labels = LabelTable.from_relevance(relevance)
    left_out = None
    if relevance.listed is not None and not labels.listed:
        left_out = LabelTable.of_listed(relevance.listed, len(gallery))
    step = GROUP_BYTES // (32 * max(1, int(labels.totals.max(initial=0))))
    step = min(max(step, FEWEST_QUERIES), MOST_QUERIES)
    for start in range(0, len(projections), step):
        stop = min(start + step, len(projections))
        asked, part = projections[start:stop], relevance.rows(start, stop)
        block, order = _ranked(asked, gallery, labels, start, stop, positions)
        if part.listed is not None and left_out is None:
            block = judged(block, order, part.listed, None)
        elif left_out is not None:
            block = left_out_of(block, *_ranked(asked, gallery, left_out, start, stop, positions), part, None)
        yield block


def _ranked(
    projections: np.ndarray, gallery: Codes, table: LabelTable, start: int, stop: int, positions: bool
) -> tuple[RankedBlock, np.ndarray]:
    """Return rankings of queries ``start`` to ``stop``, and the places of listed rows, if any, in their order."""
    totals = table.totals[start:stop]
    none = np.zeros(0, np.int64)
    room = GroupRoom.of(totals, positions)
    units = np.empty(stop - start)
    kernels.rank(
        projections,
        gallery.packed,
        table.of_queries(start, stop),
        none if table.multiple else table.order,
        none if table.multiple else table.slices[0][start:stop],
        room.slots,
        positions,
        _together(stop - start, len(gallery)),
        units,
        room.counts,
        room.groups,
        room.positions,
    )
    _refuse(units, start)
    block = room.block(totals, positions, len(gallery))
    if not table.listed:
        return block, none
    query = np.repeat(np.arange(stop - start), totals)
    rows = table.order[slice(*table.labels.offsets[[start, stop]])]
    return block, np.lexsort((_distances(projections, units, gallery, query, rows), query))


def _together(queries: int, items: int) -> int:
    """Return how many of so many queries a thread ranks at once, eight or sixteen, which is faster for each."""
    wide = queries >= SIXTEEN * get_num_threads() and SIXTEEN * items <= WIDE_DISTANCES
    return SIXTEEN if wide else EIGHT


def _distances(
    projections: np.ndarray, units: np.ndarray, gallery: Codes, queries: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Return distances of pairs of a query and a gallery row, whole numbers in the query's unit, float64 ``(m,)``."""
    magnitudes = np.rint(np.abs(projections.astype(np.float64)) / units[:, None])
    own = projections >= 0
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        pairs = slice(start, start + PAIRS)
        bits = np.unpackbits(gallery.packed[rows[pairs]], axis=1, count=gallery.bits)
        found[pairs] = np.where(bits != own[queries[pairs]], magnitudes[queries[pairs]], 0).sum(axis=1)
    return found


def asymmetric_code_neighbors(projections: np.ndarray, gallery: Codes, k: int) -> Neighbors:
    """Return the exact k nearest gallery items of each query by asymmetric distance, ties by the smaller gallery row.

    Args:
        projections: of the queries, float32 ``(q, bits)``.
        gallery: codes as long.
        k: how many; beyond the gallery's size, rows are padded with -1 and infinity.

    Raises:
        ValueError: codes of another length, projections that are not finite, or k below 1.
    """
    projections = _checked(projections, gallery)
    results = Neighbors.unfilled(np.full(len(projections), len(gallery), np.int64), k)
    nearest = min(k, len(gallery))
    for start in range(0, len(projections) if nearest else 0, MOST_QUERIES):
        rows = slice(start, start + MOST_QUERIES)
        asked = projections[rows]
        units = np.empty(len(asked))
        ids, distances = results.ids[rows], results.distances[rows]
        if -(-len(asked) // EIGHT) * gallery.packed.size < FEW_BYTES:  # one query costs as much as eight
            search = asymmetric_nearest.nearest_serial
        elif len(asked) < SPLIT_QUERIES:
            search = asymmetric_nearest.nearest_of_few
        else:
            search = asymmetric_nearest.nearest_parallel
        search(asked, gallery.packed, nearest, units, ids, distances)
        _refuse(units, start)
    return results


def _checked(projections: np.ndarray, gallery: Codes) -> np.ndarray:
    """Return projections in the layout that kernels are compiled for."""
    if projections.shape[1] != gallery.bits:
        raise ValueError(f"projections of {projections.shape[1]} numbers for codes of {gallery.bits} bits")
    return np.require(projections, np.float32, ["C", "W"])


def _refuse(units: np.ndarray, first: int) -> None:
    wrong = np.flatnonzero(np.isnan(units))
    if len(wrong):
        raise ValueError(f"projections of query {first + wrong[0]} hold NaN or infinite values")
