"""Rankings by lists of relevant rows, and rankings from which rows are left out.

A ranking finds where each listed row stands, as it does for relevant ones, so that it costs what relevance by labels
costs.  What is left out of a ranking (junk, or the query itself) stands in it at first; the places of all others are
then put right, which takes time in proportion to what is listed, not to the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lshbench.types import Gains, Listed, Neighbors, RankedBlock, Relevance

FAR = np.iinfo(np.int64).max
"""The position of an item behind the last one that is asked for."""


@dataclass(frozen=True)
class Places:
    """Where listed rows stand in the rankings of a block of queries, nearest first, ties by row.

    Attributes:
        query: int64 ``(m,)``, ascending, counted from the block's first.
        entry: int64 ``(m,)``, the place in the lists.
        before: int64 ``(m,)``, items ranked before the row's group of ties.
        size: int64 ``(m,)``, items in that group.
        position: int64 ``(m,)``, from 1, in the order (distance, gallery row); :data:`FAR` if it is not known; None
            if positions are not.
    """

    query: np.ndarray
    entry: np.ndarray
    before: np.ndarray
    size: np.ndarray
    position: np.ndarray | None

    @classmethod
    def of(cls, block: RankedBlock, order: np.ndarray) -> Places:
        """Return the places of all rows that are listed and ranked.

        Args:
            block: rankings in which every listed row counts as relevant.
            order: int64, the places of ranked rows in the lists, nearest first, ties by row, query by query.
        """
        group = np.repeat(np.arange(len(block.before)), block.relevant)
        query = np.repeat(np.arange(len(block)), np.diff(block.offsets))[group]
        position = None
        if block.positions is not None and block.position_offsets is not None:
            # Positions stop at a limit, and so may be known of each query's first rows only.
            position = np.full(len(order), FAR)
            begins = np.searchsorted(query, np.arange(len(block)))
            known = np.diff(block.position_offsets)
            ranks = np.arange(len(block.positions)) - np.repeat(block.position_offsets[:-1], known)
            position[np.repeat(begins, known) + ranks] = block.positions
        return cls(query, order, block.before[group], block.size[group], position)

    def only(self, chosen: np.ndarray) -> Places:
        """Return some of the places, given bool ``(m,)``."""
        position = None if self.position is None else self.position[chosen]
        return Places(self.query[chosen], self.entry[chosen], self.before[chosen], self.size[chosen], position)


def judged(block: RankedBlock, order: np.ndarray, listed: Listed, limit: int | None) -> RankedBlock:
    """Return rankings by lists, from those in which every listed row counts as relevant.

    Args:
        block, order: as for :meth:`Places.of`.
        listed: of the block's queries.
        limit: the last position to keep; None for all.
    """
    places = Places.of(block, order)
    relevant, left_out = listed.relevant, listed.left_out
    gains = _gains(places, listed) if listed.graded else None
    if not relevant.all():
        block = _of_relevant(block, places.only(relevant[places.entry]), _counts(listed, relevant))
    block = replace(block, gains=gains)
    if not left_out.any():
        return block
    out = places.only(left_out[places.entry])
    return _cut(without(block, out, np.zeros(len(out.query), np.bool_)), limit)


def left_out_of(
    block: RankedBlock, left_out: RankedBlock, order: np.ndarray, relevance: Relevance, limit: int | None
) -> RankedBlock:
    """Return rankings by labels without the rows that lists leave out.

    Args:
        block: the rankings, with those rows.
        left_out, order: of those rows, as for :meth:`Places.of`.
        relevance: of the block's queries.
        limit: the last position to keep; None for all.
    """
    listed = relevance.listed
    assert listed is not None
    places = Places.of(left_out, order)
    query = np.repeat(np.arange(len(listed)), np.diff(listed.offsets))
    relevant = relevant_pairs(relevance, query, listed.rows)
    found = without(block, places, relevant[places.entry])
    total = found.total_relevant - np.bincount(query[relevant], minlength=len(block))
    return _cut(replace(found, total_relevant=total), limit)


def relevant_results(relevance: Relevance, ids: np.ndarray) -> np.ndarray:
    """Return which results are relevant, bool ``(q, k)``; gallery rows int64 ``(q, k)``, -1 where there is none."""
    query, column = np.nonzero(ids >= 0)
    found = np.zeros(ids.shape, np.bool_)
    found[query, column] = relevant_pairs(relevance, query, ids[query, column])
    return found


def relevant_pairs(relevance: Relevance, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return whether gallery rows are relevant to queries, bool ``(m,)``; both int64 ``(m,)``."""
    if relevance.by_lists:
        assert relevance.listed is not None
        listed, items = relevance.listed, len(relevance.gallery)
        keys = (_owners(listed.offsets) * items + listed.rows)[listed.relevant]
        return np.isin(queries * items + rows, keys)
    asked, items = relevance.queries[queries], relevance.gallery[rows]
    if asked.ndim == 1:
        return asked == items
    if relevance.subset:
        return asked.any(axis=1) & ~(asked & ~items).any(axis=1)
    return (asked & items).any(axis=1)


def without(block: RankedBlock, out: Places, relevant: np.ndarray) -> RankedBlock:
    """Return rankings from which some rows are taken; ``total_relevant`` stays.

    Args:
        block: the rankings, with those rows.
        out: where these stand.
        relevant: bool ``(m,)``, which of them the rankings count as relevant.
    """
    queries = np.arange(len(block))
    taken = np.bincount(out.query, minlength=len(block))
    before, inside = _preceding(out.query, out.before, _owners(block.offsets), block.before)
    relevant_before, relevant_inside = _preceding(
        out.query[relevant], out.before[relevant], _owners(block.offsets), block.before
    )
    left = block.relevant - relevant_inside
    some = left > 0
    found = replace(
        block,
        offsets=np.concatenate([[0], np.cumsum(some)])[block.offsets],
        before=(block.before - before)[some],
        relevant_before=(block.relevant_before - relevant_before)[some],
        size=(block.size - inside)[some],
        relevant=left[some],
        ranked=block.ranked - taken,
    )
    if block.within is not None:
        # A row is within a distance where more are within it than stand before the row's group.
        bits = block.within.shape[1]
        cells = np.repeat(np.arange(len(block)), bits)
        preceding, _ = _preceding(out.query, out.before, cells, block.within.reshape(-1))
        found = replace(found, within=block.within - preceding.reshape(-1, bits))
    if block.positions is not None and block.position_offsets is not None:
        assert out.position is not None
        owners = _owners(block.position_offsets)
        earlier, itself = _preceding(out.query, out.position, owners, block.positions)
        stays = itself == 0
        offsets = np.concatenate([[0], np.cumsum(stays)])[block.position_offsets]
        positions = (block.positions - earlier)[stays].astype(block.positions.dtype)
        found = replace(found, positions=positions, position_offsets=offsets)
    if block.gains is not None:
        gains = block.gains
        is_there = gains.before >= 0
        owners = np.repeat(queries, np.diff(gains.offsets))
        before, inside = _preceding(out.query, out.before, owners, np.maximum(gains.before, 0))
        gains = replace(
            gains,
            before=np.where(is_there, gains.before - before, -1),
            size=np.where(is_there, gains.size - inside, 0),
        )
        found = replace(found, gains=gains)
    return found


def first_kept(found: Neighbors, relevance: Relevance, k: int) -> Neighbors:
    """Return the k nearest results that are not left out of rankings, padded with -1 where there are fewer.

    Args:
        found: results of each query, as many more than k as are left out of any ranking, or the whole gallery.
        relevance: of the gallery to the same queries.
        k: how many.
    """
    listed = relevance.listed
    if not relevance.most_left_out or listed is None:
        return found
    items = len(relevance.gallery)
    out = (_owners(listed.offsets) * items + listed.rows)[listed.left_out]
    keys = np.arange(len(listed))[:, None] * items + found.ids
    is_out = np.isin(keys, out) & (found.ids >= 0)  # -1 stands for no result
    # A stable sort moves what is left out behind the rest, and leaves that in its order.
    order = np.argsort(is_out, axis=1, kind="stable")[:, :k]
    left = Neighbors.unfilled(found.candidates, k)
    stays = ~np.take_along_axis(is_out, order, axis=1)
    places = (np.arange(len(order))[:, None], np.arange(order.shape[1]))
    left.ids[places] = np.where(stays, np.take_along_axis(found.ids, order, axis=1), -1)
    left.distances[places] = np.where(stays, np.take_along_axis(found.distances, order, axis=1), np.inf)
    if found.tied is None:
        return left
    same = (found.distances[:, :, None] == found.distances[:, None, :]) & is_out[:, None, :]
    tied = np.zeros(left.ids.shape, found.tied.dtype)
    tied[places] = np.where(stays, np.take_along_axis(found.tied - same.sum(axis=2), order, axis=1), 0)
    return replace(left, tied=tied)


def _owners(offsets: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _preceding(
    queries: np.ndarray, values: np.ndarray, owners: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of a query's values are below each of its limits, and how many equal it, int64 ``(m,)`` each.

    Args:
        queries, values: int64 ``(n,)``, by query, a query's values ascending.
        owners, limits: ``(m,)``, by query.
    """
    if not len(queries):
        none = np.zeros(len(owners), np.int64)
        return none, none
    # One search for all queries: the largest value is cut to what keeps queries apart.
    span = int(max(limits.max(initial=0), 0)) + 2
    keys = queries * span + np.minimum(values, span - 1)
    wanted = owners * span + limits.astype(np.int64)
    first = np.searchsorted(keys, owners * span)
    low, high = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    return low - first, high - low


def _counts(listed: Listed, chosen: np.ndarray) -> np.ndarray:
    """Return how many of the chosen rows each query lists, int64 ``(q,)``."""
    return np.diff(np.concatenate([[0], np.cumsum(chosen)])[listed.offsets])


def _of_relevant(block: RankedBlock, places: Places, totals: np.ndarray) -> RankedBlock:
    """Return rankings in which the rows at some places alone are relevant."""
    # Rows of one group follow each other, and no two groups of a query have as many items before them.
    new = np.ones(len(places.query), np.bool_)
    new[1:] = (np.diff(places.query) != 0) | (np.diff(places.before) != 0)
    first = np.flatnonzero(new)
    edges = np.arange(len(block) + 1)
    begins = np.searchsorted(places.query, edges)
    positions, position_offsets = block.positions, block.position_offsets
    if places.position is not None:
        known = places.position < FAR
        positions = places.position[known].astype(np.int32)
        position_offsets = np.concatenate([[0], np.cumsum(known)])[begins]
    return replace(
        block,
        offsets=np.searchsorted(places.query[first], edges),
        before=places.before[first],
        relevant_before=first - begins[places.query[first]],
        size=places.size[first],
        relevant=np.diff(first, append=len(new)),
        total_relevant=totals,
        positions=positions,
        position_offsets=position_offsets,
    )


def _gains(places: Places, listed: Listed) -> Gains:
    """Return what rows are worth to each query, those worth most first, and where they stand."""
    query = _owners(listed.offsets)
    before, size = np.full(len(query), -1), np.zeros(len(query), np.int64)
    before[places.entry], size[places.entry] = places.before, places.size
    # Among rows worth the same, by where they stand: sums then don't depend on the order of the gallery.
    order = np.lexsort((before, -listed.grades, query))
    order = order[listed.grades[order] > 0]
    offsets = np.searchsorted(query[order], np.arange(len(listed) + 1))
    return Gains(offsets, listed.grades[order].astype(np.float64), before[order], size[order])


def _cut(block: RankedBlock, limit: int | None) -> RankedBlock:
    """Return rankings without the positions after a rank, up to which all are known."""
    if limit is None or block.positions is None or block.position_offsets is None:
        return block
    kept = block.positions <= limit
    offsets = np.concatenate([[0], np.cumsum(kept)])[block.position_offsets]
    return replace(block, positions=block.positions[kept], position_offsets=offsets, position_limit=limit)
