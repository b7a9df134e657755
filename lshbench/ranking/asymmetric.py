"""Ranking by asymmetric distance: real-valued queries against what a quantiser stores.

The score of a gallery item is the inner product of the query's real values with the vector that the item decodes to;
its last number, which the query's 1 is multiplied with, can make that the order of Euclidean distances.  Of many
queries the scores come from matrix products, for which no more than a tile of the gallery is decoded at a time; the
nearest items of a few come from the stored bytes (:mod:`lshbench.ranking.quantised_scores`), as decoding takes much
longer than one product.  The distance is one minus the cosine that the score estimates.

**Items that are stored alike tie exactly**, however BLAS rounds: all take the score of the first.  Binary codes have a
ranking of their own (:mod:`lshbench.ranking.asymmetric_codes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lshbench.kernels import cosine_nearest
from lshbench.kernels.quantised import share_scores
from lshbench.kernels.topk import new_collections
from lshbench.ranking.cosine import MOST_QUERIES, TILE, padded_to_eight, product_blocks
from lshbench.ranking.quantised_scores import write_scores
from lshbench.ranking.repeats import Repeats
from lshbench.types import ByteTables, Decode, Neighbors, RankedBlock, Relevance, Vectors

DECODED_BYTES = 1 << 27
"""Bytes of a decoded tile, at most, unless sixteen rows have more."""

MOST_ASKED, MOST_DECODED = 1e9, 1e22
"""Magnitudes of queries and decoded vectors up to which their products are finite, whatever their width."""

FEW_QUERIES = 16
"""Queries up to which scores come from the stored bytes."""


@dataclass(frozen=True)
class DecodedGallery:
    """Gallery of what a quantiser stores, decoded a tile at a time.

    Attributes:
        stored: uint8 ``(n, bytes)``.
        decode: gives the vectors of some of them.
        width: numbers of a decoded vector.
    """

    stored: np.ndarray
    decode: Decode
    width: int

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def tile(self) -> int:
        """Items decoded at a time."""
        most = max(16, min(TILE, DECODED_BYTES // (4 * self.width)))
        tiles = max(1, -(-len(self) // most))
        return max(16, -(-len(self) // (16 * tiles)) * 16)

    @cached_property
    def inverse_norms(self) -> np.ndarray:
        """What products are multiplied by: ones, as they are the scores."""
        return np.ones(len(self), np.float32)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return decoded vectors, float32 ``(stop - start, d)``, zeros beyond the last.

        Raises:
            ValueError: the codes are not such as the quantiser stores.
        """
        decoded = self.decode(self.stored[start:stop])
        if decoded.shape[1] != self.width:
            raise ValueError(f"codes decode to {decoded.shape[1]} numbers, not {self.width}")
        if not (np.abs(decoded) <= MOST_DECODED).all():
            raise ValueError("codes decode to NaN or infinite numbers, or to such as products with them would be")
        if len(decoded) == stop - start:
            return decoded
        padded = np.zeros((stop - start, self.width), np.float32)
        padded[: len(decoded)] = decoded
        return padded

    @cached_property
    def last_numbers(self) -> np.ndarray:
        """The last number of each decoded vector, float32 ``(n,)``; the same of items that are stored alike.

        Every item is decoded once for it, so that none is anything but the quantiser's.

        Raises:
            ValueError: as :meth:`rows`.
        """
        numbers = np.empty(len(self), np.float32)
        for start in range(0, len(self), self.tile):
            stop = min(start + self.tile, len(self))
            numbers[start:stop] = self.rows(start, stop)[:, -1]
        rows, kinds, kind = self.repeats
        numbers[rows] = numbers[kinds[kind]]
        return numbers

    @cached_property
    def repeats(self) -> Repeats:
        """Items that are stored as an earlier one is."""
        return Repeats.of(self.stored)

    def equate(self, scores: np.ndarray) -> None:
        """Give items that are stored alike one score; ``scores`` are float32 ``(tiles, q, tile)``."""
        tile = scores.shape[2]
        kept = self.scores_to_share(scores.shape[1])
        for number, own in enumerate(scores):
            self.equate_tile(own, number * tile, kept)

    def scores_to_share(self, queries: int) -> np.ndarray:
        """Return room for scores that items stored alike share, of so many queries (:meth:`equate_tile`)."""
        return np.empty((queries, len(self.repeats.kinds)), np.float32)

    def equate_tile(self, scores: np.ndarray, first: int, kept: np.ndarray) -> None:
        """Give items of a tile that are stored as an earlier one is its score; tiles come in their order.

        Args:
            scores: float32 ``(q, tile)``.
            first: the tile's first row.
            kept: of :meth:`scores_to_share`.
        """
        rows, kinds, kind = self.repeats
        ends = first, first + scores.shape[1]
        own, (start, stop) = slice(*np.searchsorted(rows, ends)), np.searchsorted(kinds, ends)
        if start < stop or own.start < own.stop:
            share_scores(scores, first, kinds[start:stop], start, rows[own], kind[own], kept)


def _check_finite(queries: Vectors) -> None:
    # Compiled code finds places by comparing scores.
    if not (np.isfinite(queries.x).all() and np.isfinite(queries.offset).all()):
        raise ValueError("queries hold NaN or infinite values")
    if (np.abs(queries.x) > MOST_ASKED).any():
        raise ValueError(f"queries hold values beyond {MOST_ASKED:g}: expected features at length 1, reduced")


def asymmetric_blocks(
    queries: Vectors, gallery: DecodedGallery, relevance: Relevance, *, positions: int | None = None
) -> Iterator[RankedBlock]:
    """Rank the whole gallery for every query by descending score, a block of queries at a time.

    Args:
        queries: as wide as the gallery's decoded vectors.
        gallery: codes.
        relevance: labels of both, in the same order.
        positions: 0 for none; else all positions of the relevant items in the stable order are given.

    Raises:
        ValueError: labels that don't match queries and gallery in number, or queries that are not finite.
    """
    _check_finite(queries)
    if len(relevance.queries) != len(queries) or len(relevance.gallery) != len(gallery):
        raise ValueError(
            f"{len(relevance.queries)} and {len(relevance.gallery)} labels for {len(queries)} and {len(gallery)} items"
        )
    return product_blocks(queries.x, gallery, relevance, positions != 0)


def asymmetric_neighbors(queries: Vectors, gallery: DecodedGallery, k: int) -> Neighbors:
    """Return the exact k items of highest score of each query, ties by the smaller gallery row.

    Args:
        queries: as wide as the gallery's decoded vectors.
        gallery: codes.
        k: how many; beyond the gallery's size, rows are padded with -1 and infinity.

    Raises:
        ValueError: queries that are not finite.
    """
    _check_finite(queries)
    results = Neighbors.unfilled(np.full(len(queries), len(gallery), np.int64), k)
    nearest = min(k, len(gallery))
    for start in range(0, len(queries) if nearest else 0, MOST_QUERIES):
        asked = queries[start : start + MOST_QUERIES]
        rooms, counts, limits = new_collections(len(asked), nearest)
        few = len(asked) <= FEW_QUERIES and asked.terms is not None
        for first, scores in (_looked_up if few else _multiplied)(asked, gallery):
            cosine_nearest.collect_tile(scores, gallery.inverse_norms, first, first, nearest, rooms, counts, limits)
        found = slice(start, start + len(asked))
        cosine_nearest.write_nearest(rooms, counts, nearest, results.ids[found], results.distances[found])
    results.distances[:, :nearest] -= queries.offset[:, None]  # kernels write 1 - score
    return results


def _looked_up(queries: Vectors, gallery: DecodedGallery) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each tile's first row and scores, float32 ``(q, tile)``, from the stored bytes."""
    assert queries.terms is not None
    last_numbers = gallery.last_numbers  # before the bytes are scored, as it checks them
    stored, terms = gallery.stored, queries.terms(queries.x)
    scores = np.empty((len(queries), gallery.tile), np.float32)
    for first in range(0, len(gallery), gallery.tile):
        part = stored[first : first + gallery.tile]
        for query in range(len(queries)):
            own = scores[query, : len(part)]
            write_scores(terms, query, part, own)
            if isinstance(terms, ByteTables) and terms.last is not None:
                own += terms.last[query] * last_numbers[first : first + len(part)]
        yield first, scores


def _multiplied(queries: Vectors, gallery: DecodedGallery) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each tile's first row and scores, float32 ``(at least q, tile)``, by products with decoded vectors."""
    asked = padded_to_eight(queries.x)
    scores = np.empty((len(asked), gallery.tile), np.float32)
    kept = gallery.scores_to_share(len(asked))
    for first in range(0, len(gallery), gallery.tile):
        np.matmul(asked, gallery.rows(first, first + gallery.tile).T, out=scores)
        gallery.equate_tile(scores, first, kept)
        yield first, scores
