"""Ranking by asymmetric distance: real-valued queries against what a quantiser stores, decoded in blocks.

The score of a gallery item is the inner product of the query's real values with the vector that the item decodes to.
No more than a tile of the gallery is decoded at a time.  The distance is one minus the cosine that the score estimates.

**Items that are stored alike tie exactly**, however BLAS rounds: all take the score of the first.  Binary codes have a
ranking of their own (:mod:`lshbench.ranking.asymmetric_codes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lshbench.kernels import cosine_nearest
from lshbench.kernels.topk import NO_LIMIT, room_for
from lshbench.ranking.cosine import MOST_QUERIES, TILE, padded_to_eight, product_blocks
from lshbench.types import Decode, Neighbors, RankedBlock, Relevance, Vectors

DECODED_BYTES = 1 << 27
"""Bytes of a decoded tile, at most, unless sixteen rows have more."""


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
        if decoded.shape[1] != self.width or not np.isfinite(decoded).all():
            raise ValueError(f"codes decode to {decoded.shape[1]} numbers, not {self.width}, or to infinite ones")
        if len(decoded) == stop - start:
            return decoded
        padded = np.zeros((stop - start, self.width), np.float32)
        padded[: len(decoded)] = decoded
        return padded

    @cached_property
    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """Items that are stored as an earlier one is, ascending, and the first of each one's kind: int64 ``(r,)``."""
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        whole = np.ascontiguousarray(self.stored).view(np.dtype((np.void, self.stored.shape[1])))[:, 0]
        _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
        first = first[kind.reshape(-1)]
        rows = np.flatnonzero(first != np.arange(len(self)))
        return rows, first[rows]

    def equate(self, scores: np.ndarray) -> None:
        """Give items that are stored alike one score; ``scores`` are float32 ``(tiles, q, tile)``."""
        rows, first = self.repeats
        if len(rows):
            tile = scores.shape[2]
            for own in scores.swapaxes(0, 1):
                own[rows // tile, rows % tile] = own[first // tile, first % tile]


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
        ValueError: labels that don't match queries and gallery in number.
    """
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
    """
    results = Neighbors.unfilled(np.full(len(queries), len(gallery), np.int64), k)
    nearest = min(k, len(gallery))
    rows, firsts = gallery.repeats
    kinds, kind = np.unique(firsts, return_inverse=True)
    tile = gallery.tile
    for start in range(0, len(queries) if nearest else 0, MOST_QUERIES):
        stop = min(start + MOST_QUERIES, len(queries))
        asked = padded_to_eight(queries.x[start:stop])
        rooms = np.empty((stop - start, room_for(nearest)), np.uint64)
        counts = np.zeros(stop - start, np.int64)
        limits = np.full(stop - start, NO_LIMIT)
        scores = np.empty((len(asked), tile), np.float32)
        kept = np.empty((len(asked), len(kinds)), np.float32)  # scores of items that others are stored like
        for first in range(0, len(gallery), tile):
            np.matmul(asked, gallery.rows(first, first + tile).T, out=scores)
            here = slice(*np.searchsorted(kinds, (first, first + tile)))
            kept[:, here] = scores[:, kinds[here] - first]
            here = slice(*np.searchsorted(rows, (first, first + tile)))
            scores[:, rows[here] - first] = kept[:, kind[here]]
            cosine_nearest.collect_tile(scores, gallery.inverse_norms, first, first, nearest, rooms, counts, limits)
        found = slice(start, stop)
        cosine_nearest.write_nearest(rooms, counts, nearest, results.ids[found], results.distances[found])
    results.distances[:, :nearest] -= queries.offset[:, None]  # kernels write 1 - score
    return results
