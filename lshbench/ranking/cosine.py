"""Ranking by cosine similarity, without the full matrix and without sorting what isn't needed.

Similarities come from blocked matrix products.  Of a query's similarities only those of the relevant items are sorted;
every other item is then placed among them: a table over evenly spaced bins narrows its place down to a few groups, and
exact comparisons decide.  Ties are exactly equal float32 similarities.

All products have the same shapes (the last tile of the gallery is padded with zeros, queries to a multiple of eight),
because BLAS may round a product differently at a matrix's edge.  A gallery in another order of rows gives
the same similarities: to the last bit, where BLAS rounds alike all over a matrix (MKL, OpenBLAS for AVX-512), else
within float32's rounding (OpenBLAS for AVX2).

The nearest items of a few queries, and those among narrow vectors, are found without a matrix product.  Where an item
stands makes no difference then, whatever BLAS does; rounding may differ from that among many queries, or in a ranking.

Kernels are in :mod:`lshbench.kernels.cosine`, :mod:`lshbench.kernels.cosine_nearest` and
:mod:`lshbench.kernels.products`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import get_num_threads

from lshbench.kernels import cosine as kernels
from lshbench.kernels import cosine_nearest
from lshbench.kernels.labels import LabelTable
from lshbench.kernels.lanes import EIGHT
from lshbench.kernels.products import PANEL_ROWS, SIX, pack
from lshbench.kernels.topk import new_collections, room_for
from lshbench.ranking.groups import GroupRoom
from lshbench.ranking.listed import judged, left_out_of
from lshbench.types import Neighbors, RankedBlock, Relevance

TILE = 1 << 14
"""Gallery items in one matrix product, at most: with fewer, products get slower."""

BLOCK_BYTES = 1 << 28
"""Bytes for the similarities of one block of queries, about; more where that would be too few queries."""

FEWEST_QUERIES, MOST_QUERIES = 128, 1024
"""Queries of a block: fewer make products slow, more don't make them faster."""

FEW_QUERIES = 8
"""Queries up to which their nearest items are found without a matrix product."""

GROUP_BYTES = 16 << 20
"""Bytes of the rankings yielded at a time, about: below 32 MB malloc reuses memory instead of returning it to the
system, and the first touch of new memory costs more than all other work on it."""

NARROW_DIMENSIONS = 128
"""Dimensions up to which the nearest items of many queries are found without matrix products: with more, finding takes
little beside multiplying."""

LEAST_PRODUCT = 1 << 20
"""Multiplications from which on they are: fewer take hardly any time, and OpenBLAS rounds such products otherwise."""

LEAST_NORM, GREATEST_NORM = 1e-15, 1e30
"""Norms with which products of unscaled rows keep their precision in float32."""


class Gallery(Protocol):
    """What rankings by inner products need of a gallery: vectors, a tile at a time."""

    def __len__(self) -> int: ...

    @property
    def tile(self) -> int:
        """Rows of one product."""

    @property
    def inverse_norms(self) -> np.ndarray:
        """What the products with an item are multiplied by, float32 ``(n,)``."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, float32 ``(stop - start, d)``, padded with zeros beyond the last."""

    def equate(self, scores: np.ndarray) -> None:
        """Let items tie that do by definition, in products ``(tiles, q, tile)``."""


@dataclass(frozen=True)
class VectorGallery:
    """Gallery vectors and their norms, prepared once for repeated searches.

    Attributes:
        vectors: float32 ``(n, d)`` as given; may be a memory map, and is never copied whole.
        inverse_norms: float32 ``(n,)``, 1 / norm; 0 for a zero vector, whose cosine is 0 by definition.
        scaled: whether rows have to be scaled before the product, because some norms are extreme.
    """

    vectors: np.ndarray
    inverse_norms: np.ndarray
    scaled: bool

    @classmethod
    def from_vectors(cls, vectors: np.ndarray) -> VectorGallery:
        """Prepare a gallery; reads all of it once.

        Raises:
            ValueError: not float32 ``(n, d)``, or a row with a NaN or an infinity.
        """
        norms = _norms(vectors, "gallery")
        some = norms[norms > 0]
        extreme = bool(len(some)) and (some.min() < LEAST_NORM or some.max() > GREATEST_NORM)
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        if extreme:
            inverse = (norms > 0).astype(np.float64)
        return cls(vectors, inverse.astype(np.float32), extreme)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def tile(self) -> int:
        """Rows of one product."""
        tiles = max(1, -(-len(self) // TILE))
        return max(16, -(-len(self) // (16 * tiles)) * 16)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, padded with zeros beyond the last."""
        rows = self.vectors[start:stop]
        if self.scaled:
            rows = _scaled(rows, _norms(rows, "gallery"))
        if len(rows) < stop - start:
            rows = np.concatenate([rows, np.zeros((stop - start - len(rows), rows.shape[1]), np.float32)])
        return rows

    def equate(self, scores: np.ndarray) -> None:
        """Leave the products as they are: equal vectors have equal ones, as far as BLAS rounds alike."""


def cosine_blocks(
    queries: np.ndarray, gallery: np.ndarray | VectorGallery, relevance: Relevance, *, positions: int | None = None
) -> Iterator[RankedBlock]:
    """Rank the whole gallery for every query, a block of queries at a time.

    Args:
        queries: float32 ``(q, d)``.
        gallery: float32 ``(n, d)``.
        relevance: labels of both, in the same order.
        positions: 0 for none; else all positions of the relevant items in the stable order are given.

    Yields:
        Rankings, some tens of MB at a time.

    Raises:
        ValueError: vectors of different widths or not finite, or labels that don't match them in number.
    """
    gallery, norms = _prepared(queries, gallery), _norms(queries, "query")
    if len(relevance.queries) != len(queries) or len(relevance.gallery) != len(gallery):
        raise ValueError(
            f"{len(relevance.queries)} and {len(relevance.gallery)} labels "
            f"for {len(queries)} and {len(gallery)} vectors"
        )
    return product_blocks(queries, gallery, relevance, positions != 0, norms)


def product_blocks(
    queries: np.ndarray, gallery: Gallery, relevance: Relevance, positions: bool, norms: np.ndarray | None = None
) -> Iterator[RankedBlock]:
    """Rank the whole gallery for every query by descending products, a block of queries at a time.

    Args:
        queries: float32 ``(q, d)``.
        gallery: of vectors as wide.
        relevance: labels of both, in the same order.
        positions: whether the positions of the relevant items in the stable order are given.
        norms: of the queries, float64 ``(q,)``, to scale them to length 1; None to take them as they are.
    """
    labels = LabelTable.from_relevance(relevance)
    left_out = None
    if relevance.listed is not None and not labels.listed:
        left_out = LabelTable.of_listed(relevance.listed, len(gallery))
    most = max(1, int(labels.totals.max(initial=0)))
    ranked_at_once = max(1, GROUP_BYTES // (32 * most))
    step = min(max(BLOCK_BYTES // (4 * max(len(gallery), 1)), FEWEST_QUERIES), MOST_QUERIES)
    step = -(-len(queries) // -(-len(queries) // step)) if len(queries) else step  # blocks of one size
    tile = gallery.tile
    tiles = -(-len(gallery) // tile)
    last = gallery.rows((tiles - 1) * tile, tiles * tile)  # a copy, where it has to be padded
    similarities = np.empty((tiles, -(-step // 8) * 8, tile), np.float32)
    for first in range(0, len(queries), step):
        asked = queries[first : first + step]
        units = padded_to_eight(asked) if norms is None else _units(asked, norms[first : first + step])
        for number in range(tiles):
            rows = last if number == tiles - 1 else gallery.rows(number * tile, (number + 1) * tile)
            np.matmul(units, rows.T, out=similarities[number, : len(units)])
        gallery.equate(similarities[:, : len(units)])
        end = min(first + step, len(queries))
        for start in range(first, end, ranked_at_once):
            stop = min(start + ranked_at_once, end)
            part = relevance.rows(start, stop)
            block, order = _ranked(similarities, first, gallery, labels, start, stop, positions)
            if part.listed is not None and left_out is None:
                block = judged(block, order, part.listed, None)
            elif left_out is not None:
                out = _ranked(similarities, first, gallery, left_out, start, stop, positions)
                block = left_out_of(block, *out, part, None)
            yield block


def _ranked(
    similarities: np.ndarray, first: int, gallery: Gallery, table: LabelTable, start: int, stop: int, positions: bool
) -> tuple[RankedBlock, np.ndarray]:
    """Return rankings of queries ``start`` to ``stop``, and the places of listed rows, if any, in their order.

    Args:
        similarities: float32 ``(tiles, q, tile)`` of query ``first`` and those behind it.
    """
    totals = table.totals[start:stop]
    none = np.zeros(0, np.int64)
    room = GroupRoom.of(totals, positions)
    kernels.rank(
        similarities,
        start - first,
        gallery.inverse_norms,
        table.of_queries(start, stop),
        none if table.multiple else table.order,
        np.zeros(stop - start, np.int64) if table.multiple else table.slices[0][start:stop],
        room.slots,
        positions,
        room.counts,
        room.groups,
        room.positions,
    )
    block = room.block(totals, positions, len(gallery))
    if not table.listed:
        return block, none
    rows = table.order[slice(*table.labels.offsets[[start, stop]])]
    query = np.repeat(np.arange(stop - start), totals)
    tile = similarities.shape[2]
    scores = similarities[rows // tile, start - first + query, rows % tile] * gallery.inverse_norms[rows]
    return block, np.lexsort((-scores, query))


def cosine_neighbors(queries: np.ndarray, gallery: np.ndarray | VectorGallery, k: int) -> Neighbors:
    """Return the exact k nearest gallery items of each query by cosine, ties by the smaller gallery row.

    Args:
        queries: float32 ``(q, d)``.
        gallery: float32 ``(n, d)``; a :class:`VectorGallery` saves taking its norms again.
        k: how many; beyond the gallery's size, rows are padded with -1 and infinity.

    Returns:
        Neighbours with distances 1 - cosine.

    Raises:
        ValueError: vectors of different widths or not finite, or k below 1.
    """
    gallery = _prepared(queries, gallery)
    asked, items = len(queries), len(gallery.vectors)
    nearest = min(k, items)
    candidates = np.empty(asked, np.int64)
    candidates.fill(items)
    results = Neighbors.unfilled(candidates, k, certain=nearest)
    few = 0 < asked <= FEW_QUERIES and nearest and not gallery.scaled
    if few and cosine_nearest.nearest_of_few(
        np.array(queries, order="C"), gallery.vectors, gallery.inverse_norms, nearest, results.ids, results.distances
    ):
        return results
    if few or not nearest or not asked:
        _norms(queries, "query")  # says which query isn't finite
        return results
    dimensions = queries.shape[1]
    narrow = dimensions <= NARROW_DIMENSIONS and asked * items * dimensions >= LEAST_PRODUCT
    search, padded = (_search_panels, SIX) if narrow else (_search_products, EIGHT)
    # Little is kept of a query, so that blocks can be large and the gallery is read few times.
    step = max(1, min(4 * MOST_QUERIES, BLOCK_BYTES // (8 * room_for(nearest) + 4 * gallery.tile)))
    for start in range(0, asked, step):
        part = np.array(queries[start : start + step], order="C")
        units = np.zeros((-(-len(part) // padded) * padded, dimensions), np.float32)
        if not cosine_nearest.unit_queries(part, units):
            _norms(queries, "query")
        stop = start + len(part)
        search(units, gallery, nearest, results.ids[start:stop], results.distances[start:stop])
    return results


def _search_products(
    units: np.ndarray, gallery: VectorGallery, nearest: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write the nearest items of queries ``(q, nearest)``, by matrix products."""
    rooms, counts, limits = new_collections(len(ids), nearest)
    tile = gallery.tile
    # The last tile overlaps the one before it rather than being padded, which would copy it; a gallery of one tile is.
    starts = [*range(0, len(gallery) - tile, tile), max(len(gallery) - tile, 0)]
    similarities = np.empty((len(units), tile), np.float32)
    seen = 0
    for first in starts:
        np.matmul(units, gallery.rows(first, first + tile).T, out=similarities)
        cosine_nearest.collect_tile(similarities, gallery.inverse_norms, first, seen, nearest, rooms, counts, limits)
        seen = first + tile
    cosine_nearest.write_nearest(rooms, counts, nearest, ids, distances)


def _search_panels(
    units: np.ndarray, gallery: VectorGallery, nearest: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write the nearest items of queries ``(q, nearest)`` in a gallery of narrow vectors, without matrix products."""
    items, tile = len(gallery), gallery.tile
    collections = new_collections(len(ids), nearest)
    parts = min(get_num_threads(), len(units) // SIX)
    panels = np.empty((tile // PANEL_ROWS, units.shape[1] + 1, PANEL_ROWS), np.float32)
    for first in range(0, items, tile):
        stop = min(first + tile, items)
        pack(gallery.rows(first, stop), gallery.inverse_norms[first:stop], panels)
        cosine_nearest.search_panels(units, parts, panels, items, first, nearest, *collections, ids, distances)


def _prepared(queries: np.ndarray, gallery: np.ndarray | VectorGallery) -> VectorGallery:
    """Return the gallery prepared, where queries are vectors of its width."""
    if not isinstance(gallery, VectorGallery):
        gallery = VectorGallery.from_vectors(gallery)
    _check_kind(queries, "query")
    if queries.shape[1] != gallery.vectors.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the gallery {gallery.vectors.shape[1]}")
    return gallery


def _check_kind(vectors: np.ndarray, what: str) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"{what} vectors are float32 (n, d), not {vectors.dtype} {vectors.shape}")


def _norms(vectors: np.ndarray, what: str) -> np.ndarray:
    """Return norms, float64 ``(n,)``, every row summed in the same order."""
    _check_kind(vectors, what)
    squares = np.empty(len(vectors))
    kernels.squared_norms(vectors, squares)
    wrong = np.flatnonzero(~np.isfinite(squares))
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {len(vectors)} {what} vectors hold NaN or infinite values; the first is row {wrong[0]}"
        )
    return np.sqrt(squares)


def _scaled(rows: np.ndarray, norms: np.ndarray) -> np.ndarray:
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return (rows * inverse[:, None]).astype(np.float32)


def _units(queries: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Return queries scaled to length 1, padded with zero rows to a multiple of eight."""
    return padded_to_eight(_scaled(queries, norms))


def padded_to_eight(queries: np.ndarray) -> np.ndarray:
    """Return queries, float32, padded with zero rows to a multiple of eight."""
    padded = np.zeros((-(-len(queries) // 8) * 8, queries.shape[1]), np.float32)
    padded[: len(queries)] = queries
    return padded
