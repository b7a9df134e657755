"""Rankings by sorting full distance matrices: slow, short, and plainly right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lshbench.types import Codes, RankedBlock, Relevance

Groups = list[tuple[int, int, int, int]]


def relevant_matrix(relevance: Relevance) -> np.ndarray:
    """Return bool ``(q, n)``."""
    if relevance.subset and relevance.queries.ndim == 2:
        lacking = relevance.queries.astype(int) @ (~relevance.gallery).T.astype(int)
        return relevance.queries.any(axis=1, keepdims=True) & (lacking == 0)
    if relevance.queries.ndim == 1:
        return relevance.queries[:, None] == relevance.gallery
    return relevance.queries.astype(int) @ relevance.gallery.T.astype(int) > 0


def hamming_matrix(queries: Codes, gallery: Codes) -> np.ndarray:
    """Return int64 ``(q, n)`` from unpacked bits."""
    ours, theirs = queries.unpack().astype(np.int64), gallery.unpack().astype(np.int64)
    return ours.sum(1)[:, None] + theirs.sum(1) - 2 * ours @ theirs.T


def ranking(distances: np.ndarray, relevant: np.ndarray) -> tuple[Groups, list[int]]:
    """Return one query's groups (before, relevant before, size, relevant) and its relevant items' positions."""
    order = np.argsort(distances, kind="stable")
    distances, relevant = distances[order], relevant[order]
    groups = []
    for value in np.unique(distances[relevant]):
        before, equal = distances < value, distances == value
        groups.append((int(before.sum()), int(relevant[before].sum()), int(equal.sum()), int(relevant[equal].sum())))
    return groups, (np.flatnonzero(relevant) + 1).tolist()


def nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the nearest ``k``, ties by the smaller row."""
    return np.argsort(distances, kind="stable")[:k]


def read(blocks: Iterable[RankedBlock]) -> tuple[list[Groups], list[list[int]], list[int], list[int]]:
    """Return each query's groups, positions, relevant items and ranked items."""
    groups, positions, totals, ranked = [], [], [], []
    for block in blocks:
        for i in range(len(block)):
            rows = slice(block.offsets[i], block.offsets[i + 1])
            columns = (block.before, block.relevant_before, block.size, block.relevant)
            groups.append(list(zip(*(column[rows].tolist() for column in columns), strict=True)))
            if block.positions is not None and block.position_offsets is not None:
                own = slice(block.position_offsets[i], block.position_offsets[i + 1])
                positions.append(block.positions[own].tolist())
        totals += block.total_relevant.tolist()
        ranked += block.ranked.tolist()
    return groups, positions, totals, ranked


def random_labels(random: np.random.Generator, queries: int, gallery: int, *, multiple: bool) -> Relevance:
    """Return labels of which some queries' are in no gallery item."""
    if multiple:
        return Relevance(random.random((queries, 70)) < 0.03, random.random((gallery, 70)) < 0.03)
    return Relevance(random.integers(-1, 6, queries), random.integers(-1, 5, gallery))


def random_codes(random: np.random.Generator, items: int, bits: int) -> Codes:
    """Return codes of independent bits."""
    return Codes(np.packbits(random.integers(0, 2, (items, bits), np.uint8), axis=1), bits)
