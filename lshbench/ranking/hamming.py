"""Ranking by Hamming distance, without a distance matrix and without a sort.

Label metrics need, of a query's ranking, how many items and how many relevant items stand at each distance
(:class:`lshbench.types.RankedBlock`): two histograms over ``bits + 1`` distances.  With single labels the gallery is
sorted by label once, so that a query's relevant items are a slice and each item is counted once; with multiple labels
bit masks tell which are relevant.  The positions of relevant items in the stable order (distance, then gallery row)
take a second pass with a running counter for each distance; top-k search takes one pass, which keeps the items below a
falling threshold.

Kernels are in :mod:`lshbench.kernels.hamming`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lshbench.kernels import hamming as kernels
from lshbench.kernels.labels import Labels, LabelTable
from lshbench.kernels.words import code_words
from lshbench.ranking.listed import judged, left_out_of
from lshbench.types import Codes, Neighbors, RankedBlock, Relevance

BLOCK_BYTES = 1 << 26
"""Bytes of the rankings of one block of queries, about."""

FEW_WORDS = 1 << 19
"""Words compared in the time that starting other threads takes, about 0.1 ms: smaller searches use one thread."""


@dataclass(frozen=True)
class CodeGallery:
    """Gallery codes as words, prepared once for repeated searches.

    Attributes:
        words: uint64 ``(ceil(bits / 64), n)``.
        bits: the code's length.
    """

    words: np.ndarray
    bits: int

    @classmethod
    def from_codes(cls, codes: Codes) -> CodeGallery:
        """Prepare codes: a view for codes of exactly 64 bits that are writable, else a copy."""
        return cls(code_words(codes), codes.bits)

    def __len__(self) -> int:
        return self.words.shape[1]


def hamming_blocks(
    queries: Codes, gallery: Codes | CodeGallery, relevance: Relevance, *, positions: int | None = None
) -> Iterator[RankedBlock]:
    """Rank the whole gallery for every query, a block of queries at a time.

    Args:
        queries: codes of the queries.
        gallery: codes of the gallery, of the same length.
        relevance: labels of both, in the same order.
        positions: the last position of relevant items in the stable order to give; 0 for none, None for all.  They
            take a second pass, which is cheaper for a low one in a large gallery.

    Yields:
        Rankings with ``within``, some tens of MB at a time.

    Raises:
        ValueError: codes of different lengths, or labels that don't match them in number.
    """
    gallery = _checked(queries, gallery)
    if len(relevance.queries) != len(queries) or len(relevance.gallery) != len(gallery):
        raise ValueError(
            f"{len(relevance.queries)} and {len(relevance.gallery)} labels for {len(queries)} and {len(gallery)} codes"
        )
    return _blocks(queries, gallery, relevance, positions)


def _blocks(queries: Codes, gallery: CodeGallery, relevance: Relevance, positions: int | None) -> Iterator[RankedBlock]:
    bits = queries.bits
    words = np.ascontiguousarray(code_words(queries).T)
    labels = LabelTable.from_relevance(relevance)
    listed = relevance.listed
    most_left_out = relevance.most_left_out
    # Of rows that are left out, some stand before the position asked for.
    last = positions if positions is None or positions == 0 else positions + most_left_out
    totals = labels.totals
    sliced = not (labels.multiple or labels.listed)
    by_label = np.ascontiguousarray(gallery.words[:, labels.order]) if sliced else gallery.words
    most = int(totals.max(initial=0))
    a_query = 16 * (bits + 1) + 32 * min(bits + 1, most) + (0 if positions == 0 else 8 * most)
    step = max(1, BLOCK_BYTES // a_query)
    step = step - step % kernels.CHUNK or step
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        rows = slice(start, stop)
        counts = np.zeros((stop - start, bits + 1), np.uint32)
        relevant = np.zeros_like(counts)
        own_labels = labels.of_queries(start, stop)
        order = np.empty(0, np.int64)
        if labels.multiple:
            kernels.masked_histograms(words[rows], by_label, own_labels, bits, counts, relevant)
        elif labels.listed:
            nowhere = np.zeros(stop - start, np.int64)
            kernels.slice_histograms(words[rows], by_label, nowhere, nowhere, bits, counts, relevant)
            order = _listed(words[rows], by_label, own_labels, relevant)
        else:
            first, behind = labels.slices
            kernels.slice_histograms(words[rows], by_label, first[rows], behind[rows], bits, counts, relevant)
        block = _with_positions(words[rows], gallery.words, own_labels, counts, relevant, totals[rows], last)
        if listed is not None and labels.listed:
            block = judged(block, order, listed.queries(start, stop), positions)
        elif listed is not None:
            left_out = LabelTable.of_listed(listed.queries(start, stop), len(gallery))
            marked = np.zeros_like(counts)
            order = _listed(words[rows], gallery.words, left_out.labels, marked)
            arrays = (words[rows], gallery.words, left_out.labels, counts, marked, left_out.totals)
            block = left_out_of(block, _with_positions(*arrays, last), order, relevance.rows(start, stop), positions)
        yield block


def _listed(words: np.ndarray, gallery: np.ndarray, labels: Labels, relevant: np.ndarray) -> np.ndarray:
    """Count the distances of listed rows in the histograms, and return the order of each query's rows by distance."""
    distances = np.empty(labels.offsets[-1] - labels.offsets[0], np.int64)
    kernels.listed_histograms(words, gallery, labels, relevant, distances)
    return np.lexsort((distances, np.repeat(np.arange(len(words)), np.diff(labels.offsets))))


def _with_positions(
    words: np.ndarray,
    gallery: np.ndarray,
    labels: Labels,
    counts: np.ndarray,
    relevant: np.ndarray,
    totals: np.ndarray,
    positions: int | None,
) -> RankedBlock:
    block = _ranked(counts, relevant, totals)
    if positions == 0:
        return block
    return replace(block, **_positions(words, gallery, labels, counts, relevant, positions))


def _ranked(counts: np.ndarray, relevant: np.ndarray, totals: np.ndarray) -> RankedBlock:
    within = np.empty(counts.shape, np.int64)
    offsets = np.zeros(len(counts) + 1, np.int64)
    kernels.accumulate(counts, relevant, within, offsets[1:])
    np.cumsum(offsets, out=offsets)
    groups = np.empty((4, offsets[-1]), np.int64)
    kernels.fill_groups(counts, relevant, offsets, groups)
    return RankedBlock(
        offsets=offsets,
        before=groups[0],
        relevant_before=groups[1],
        size=groups[2],
        relevant=groups[3],
        total_relevant=totals,
        ranked=within[:, -1].copy(),
        within=within,
    )


def _positions(
    words: np.ndarray, gallery: np.ndarray, labels: Labels, counts: np.ndarray, relevant: np.ndarray, limit: int | None
) -> dict[str, Any]:
    """Return a block's fields for positions."""
    limits = np.empty(len(words), np.int64)
    offsets = np.zeros(len(words) + 1, np.int64)
    # Past this distance all ranks are beyond the limit.
    kernels.distance_limits(counts, relevant, np.iinfo(np.int64).max if limit is None else limit, limits, offsets[1:])
    np.cumsum(offsets, out=offsets)
    found = np.empty(offsets[-1], np.int32)
    kernels.fill_positions(words, gallery, labels, counts, relevant, limits, offsets, found)
    if limit is not None:
        kept = found <= limit
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        found = found[kept]
    return {"positions": found, "position_offsets": offsets, "position_limit": limit}


def hamming_neighbors(queries: Codes, gallery: Codes | CodeGallery, k: int) -> Neighbors:
    """Return the exact k nearest gallery items of each query by Hamming distance, ties by the smaller gallery row.

    Args:
        queries: codes of the queries.
        gallery: codes of the gallery, of the same length; a :class:`CodeGallery` saves preparing it again.
        k: how many; beyond the gallery's size, rows are padded with -1 and infinity.

    Raises:
        ValueError: codes of different lengths, or k below 1.
    """
    gallery = _checked(queries, gallery)
    results = Neighbors.unfilled(np.full(len(queries), len(gallery), np.int64), k)
    found = min(k, len(gallery))
    if found and len(queries):
        words = np.ascontiguousarray(code_words(queries).T)
        few = len(queries) * gallery.words.size < FEW_WORDS
        search = kernels.nearest_serial if few else kernels.nearest_parallel
        search(words, gallery.words, queries.bits, found, results.ids, results.distances)
    return results


def _checked(queries: Codes, gallery: Codes | CodeGallery) -> CodeGallery:
    if queries.bits != gallery.bits:
        raise ValueError(f"queries have {queries.bits} bits, the gallery {gallery.bits}")
    return gallery if isinstance(gallery, CodeGallery) else CodeGallery.from_codes(gallery)
