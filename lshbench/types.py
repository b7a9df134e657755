"""Arrays that pass from features to metrics.  Imports NumPy only; every other module may import this one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

Side = Literal["gallery", "query"]
Supervision = Literal["none", "labels"]
CodeKind = Literal["binary", "clusters", "quantised", "nothing"]
"""What a method makes of an item: a binary code, the number of a cluster, bytes that stand for a vector, or nothing
(``method=none``)."""

Rows = slice | np.ndarray
"""Consecutive items, or the numbers of items, integers ``(m,)``."""

Decode = Callable[[np.ndarray], np.ndarray]
"""Callback of a quantiser: stored bytes, uint8 ``(n, bytes)``, to what they stand for, float32 ``(n, d)``."""

Terms = Callable[[np.ndarray], "ByteTables | LevelWeights | HalfPrecision"]
"""Callback of a quantiser: real values of queries, float32 ``(q, d)``, to what stored bytes add to their scores."""

MOST_BITS = 4096
"""Length of a code at most."""

RESULTS = 100
"""Results of each query that a run keeps, times, and rescores a multiple of."""


def unlabelled(count: int) -> np.ndarray:
    """Return the labels of items that have none, bool ``(count, 0)``."""
    return np.zeros((count, 0), np.bool_)


def is_unlabelled(labels: np.ndarray) -> bool:
    """Return whether labels are those of items without any."""
    return labels.ndim == 2 and labels.shape[1] == 0


class Progress(Protocol):
    """Callback for the progress of long work.

    ``with progress("training", total=10, unit="epochs") as advance: advance(1)``
    """

    def __call__(
        self, description: str, *, total: int | None, unit: str
    ) -> AbstractContextManager[Callable[[int], None]]: ...


@dataclass(frozen=True)
class Features:
    """Feature vectors of items with their labels and item numbers.

    Attributes:
        x: float32 ``(n, d)``, C-contiguous; may be a read-only memory map.
        y: labels, int64 ``(n,)``, or bool ``(n, classes)`` where an item may have several; see :func:`unlabelled`.
        ids: int64 ``(n,)``, the items' numbers in the data set (gallery split first, then query split).
    """

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Features:
        """Return a copy with the given rows, in their order."""
        return Features(np.ascontiguousarray(self.x[rows]), self.y[rows], self.ids[rows])


@dataclass(frozen=True)
class Codes:
    """Binary codes.

    Attributes:
        packed: uint8 ``(n, ceil(bits / 8))``; bit ``j`` of an item is bit ``7 - j % 8`` of byte ``j // 8``
            (NumPy's ``packbits`` order), and the unused last bits are zero.
        bits: the code's length.
        projections: float32 ``(n, bits)``, the real values whose signs are the codes; None unless asked for.
    """

    packed: np.ndarray
    bits: int
    projections: np.ndarray | None = None

    def __post_init__(self) -> None:
        width = (self.bits + 7) // 8
        if self.packed.dtype != np.uint8 or self.packed.ndim != 2 or self.packed.shape[1] != width:
            raise ValueError(
                f"codes of {self.bits} bits are uint8 (n, {width}), not {self.packed.dtype} {self.packed.shape}"
            )
        # Kernels read an item's bytes one after the other.
        object.__setattr__(self, "packed", np.ascontiguousarray(self.packed))

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, rows: Rows) -> Codes:
        """Return some items; consecutive ones are views."""
        return Codes(self.packed[rows], self.bits, None if self.projections is None else self.projections[rows])

    @classmethod
    def from_signs(cls, projections: np.ndarray) -> Codes:
        """Return the codes of real-valued projections ``(n, bits)``: a bit is set where its projection is >= 0."""
        return cls(np.packbits(projections >= 0, axis=1), projections.shape[1])

    def unpack(self) -> np.ndarray:
        """Return the bits as uint8 ``(n, bits)`` of zeros and ones."""
        return np.unpackbits(self.packed, axis=1, count=self.bits)


@dataclass(frozen=True)
class Clusters:
    """Cluster numbers.

    Attributes:
        numbers: int32 ``(n, p)``, nearest first (``p = 1`` for a gallery).
    """

    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Rows) -> Clusters:
        """Return some items; consecutive ones are views."""
        return Clusters(self.numbers[rows])


@dataclass(frozen=True)
class Quantised:
    """Gallery items as a quantiser stores them.

    Attributes:
        stored: uint8 ``(n, bytes)``.
        decode: gives the vectors that these stand for.
        codebook_bytes: of what the quantiser has learnt that scores are made with, for all items together.
        beside_bytes: of an item's number that a query alone is scored with besides what is stored
            (:attr:`ByteTables.last`).
    """

    stored: np.ndarray
    decode: Decode
    codebook_bytes: int = 0
    beside_bytes: int = 0

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Rows) -> Quantised:
        """Return some items; consecutive ones are views."""
        return replace(self, stored=self.stored[rows])


@dataclass(frozen=True)
class Vectors:
    """Queries of a quantiser, whose real values are multiplied with the vectors that gallery items decode to.

    Attributes:
        x: float32 ``(n, d)``, as wide as decoded vectors.
        offset: float32 ``(n,)``: with it, the product with a decoded vector estimates the cosine of the features, which
            is one minus half the square of their Euclidean distance at length 1.
        decode: the quantiser's.
        terms: the quantiser's, with which codes are scored as they are; None where they have to be decoded.
    """

    x: np.ndarray
    offset: np.ndarray
    decode: Decode
    terms: Terms | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Vectors:
        """Return some queries; consecutive ones are views."""
        return replace(self, x=self.x[rows], offset=self.offset[rows])


@dataclass(frozen=True)
class ByteTables:
    """Scores of codes as sums of what each byte adds.

    Attributes:
        tables: the first byte of each consecutive part of a code, and what each value of each of its bytes adds,
            float32 ``(q, b, 256)``.
        start: what sums begin with, float32 ``(q,)``.
        factors: the byte at which two little-endian float32 numbers of an item begin, ``f`` and ``g``: its score is
            ``g * sum + f * weight + added``; None where the sum is the score.
        weight, added: float32 ``(q,)``; None without factors.
        last: what the last number of an item's decoded vector is multiplied with, which no table has, float32
            ``(q,)``; None where the tables have all.
    """

    tables: tuple[tuple[int, np.ndarray], ...]
    start: np.ndarray
    factors: int | None = None
    weight: np.ndarray | None = None
    added: np.ndarray | None = None
    last: np.ndarray | None = None


@dataclass(frozen=True)
class LevelWeights:
    """Scores of codes as sums of ``v * (weight + v * square)`` over the levels ``v`` of their numbers.

    A byte is one level, from 0 to 255, or its low and its high half are one each, from 0 to 15.

    Attributes:
        weights: float32 ``(q, levels of a byte, bytes)``.
        squares: float32 ``(levels of a byte, bytes)``.
        start: what sums begin with, float32 ``(q,)``.
    """

    weights: np.ndarray
    squares: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class HalfPrecision:
    """Scores of codes as inner products with little-endian float16 numbers.

    Attributes:
        x: float32 ``(q, d)``.
    """

    x: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """Gallery items or queries, ready for an index.

    Attributes:
        features: float32 ``(n, d)``, as loaded or extracted.
        codes: what the method makes of them; None with ``method=none``.
    """

    features: np.ndarray
    codes: Codes | Clusters | Quantised | Vectors | None = None

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Rows) -> Encoded:
        """Return some items; consecutive ones are views."""
        return Encoded(self.features[rows], None if self.codes is None else self.codes[rows])

    @property
    def binary(self) -> Codes:
        """The binary codes.

        Raises:
            TypeError: the items have none.
        """
        if not isinstance(self.codes, Codes):
            raise TypeError(f"expected items with binary codes, not {type(self.codes).__name__}")
        return self.codes

    @property
    def projections(self) -> np.ndarray:
        """The projections of binary codes, float32 ``(n, bits)``.

        Raises:
            ValueError: the items were encoded without them.
        """
        if self.binary.projections is None:
            raise ValueError("expected projections: encode(..., projections=True)")
        return self.binary.projections


@dataclass(frozen=True)
class Listed:
    """Gallery rows that are listed for each query, with grades.

    Attributes:
        offsets: int64 ``(q + 1,)``; query ``i`` lists ``rows[offsets[i]:offsets[i + 1]]``.
        rows: int64 ``(p,)``, gallery rows, ascending within a query.
        grades: float32 ``(p,)``: what a row is worth; below 0 it is left out of the query's ranking.
        threshold: a row is relevant from this grade on, which is above 0.
        graded: whether nDCG goes by the grades, rather than by what is relevant.
    """

    offsets: np.ndarray
    rows: np.ndarray
    grades: np.ndarray
    threshold: float = 1.0
    graded: bool = False

    def __post_init__(self) -> None:
        query = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        if ((np.diff(self.rows) <= 0) & (np.diff(query) == 0)).any():
            raise ValueError("the rows that a query lists have to ascend, each once")
        if not self.threshold > 0:
            raise ValueError(f"threshold {self.threshold}: expected a grade above 0")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def relevant(self) -> np.ndarray:
        """Which listed rows are relevant, bool ``(p,)``."""
        return self.grades >= self.threshold

    @property
    def left_out(self) -> np.ndarray:
        """Which listed rows count neither way, bool ``(p,)``."""
        return self.grades < 0

    def of_queries(self, queries: np.ndarray) -> Listed:
        """Return what some queries list, int64 ``(m,)``, in their order."""
        counts = np.diff(self.offsets)[queries]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        own = np.repeat(self.offsets[queries] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(self, offsets=offsets, rows=self.rows[own], grades=self.grades[own])

    def queries(self, start: int, stop: int) -> Listed:
        """Return what queries ``start`` to ``stop`` list."""
        own = slice(self.offsets[start], self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - self.offsets[start]
        return replace(self, offsets=offsets, rows=self.rows[own], grades=self.grades[own])


@dataclass(frozen=True)
class Relevance:
    """Which gallery items are relevant to a query: those that share a label with it, or those that are listed for it.

    Attributes:
        queries: labels of the queries, int64 ``(q,)``, or bool ``(q, classes)`` for several labels an item.
        gallery: labels of the gallery, int64 ``(n,)``, or bool ``(n, classes)``; the same kind as ``queries``.
        subset: whether a relevant item has all of the query's labels; none is to a query without any.
        listed: for items without labels, what is relevant; else it may only leave rows out of rankings.  None where
            labels alone decide.
    """

    queries: np.ndarray
    gallery: np.ndarray
    subset: bool = False
    listed: Listed | None = None

    def __post_init__(self) -> None:
        if self.queries.ndim != self.gallery.ndim or self.queries.ndim not in (1, 2):
            raise ValueError(f"labels of shapes {self.queries.shape} and {self.gallery.shape} don't go together")
        if self.listed is None:
            return
        if len(self.listed) != len(self.queries):
            raise ValueError(f"lists of {len(self.listed)} queries for {len(self.queries)} queries")
        rows = self.listed.rows
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.gallery):
            raise ValueError(f"rows {rows.min()} to {rows.max()} are listed of a gallery of {len(self.gallery)} items")
        if not (self.by_lists or self.listed.left_out.all()):
            raise ValueError("items with labels are relevant by these: lists may only leave rows out")

    @classmethod
    def of_lists(cls, listed: Listed, items: int) -> Relevance:
        """Return relevance by lists alone, in a gallery of so many items."""
        return cls(unlabelled(len(listed)), unlabelled(items), listed=listed)

    @property
    def by_lists(self) -> bool:
        """Whether lists, not labels, say what is relevant."""
        return self.listed is not None and is_unlabelled(self.gallery)

    @property
    def most_left_out(self) -> int:
        """The most gallery rows that are left out of one query's ranking."""
        if self.listed is None:
            return 0
        before = np.concatenate([[0], np.cumsum(self.listed.left_out)])
        return int(np.diff(before[self.listed.offsets]).max(initial=0))

    def of_queries(self, queries: np.ndarray) -> Relevance:
        """Return the relevance of some queries, int64 ``(m,)``, in their order."""
        listed = None if self.listed is None else self.listed.of_queries(queries)
        return replace(self, queries=self.queries[queries], listed=listed)

    def rows(self, start: int, stop: int) -> Relevance:
        """Return the relevance of queries ``start`` to ``stop``."""
        listed = None if self.listed is None else self.listed.queries(start, stop)
        return replace(self, queries=self.queries[start:stop], listed=listed)


@dataclass(frozen=True)
class Neighbors:
    """The first ``k`` results of each query.

    Attributes:
        ids: int64 ``(q, k)``, gallery rows, nearest first, ties by the smaller row; -1 where fewer were found.
        distances: float32 ``(q, k)``: Hamming distances, 1 - cosine, or asymmetric distances
            (:mod:`lshbench.ranking.asymmetric_codes`); infinite where ``ids`` is -1.
        candidates: int64 ``(q,)``, how many gallery items were compared with each query.
        tied: int64 ``(q, k)``, how many of the items compared are at the result's distance; None where not counted.
    """

    ids: np.ndarray
    distances: np.ndarray
    candidates: np.ndarray
    tied: np.ndarray | None = None

    @classmethod
    def unfilled(cls, candidates: np.ndarray, k: int, *, certain: int = 0) -> Neighbors:
        """Return results with -1 and infinity throughout, to be filled.

        Args:
            certain: results that every query will have, up to ``k``: they hold anything until then.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        shape = (len(candidates), k)
        ids, distances = np.empty(shape, np.int64), np.empty(shape, np.float32)
        if certain < k:
            ids[:, certain:] = -1
            distances[:, certain:] = np.inf
        return cls(ids, distances, candidates)


@dataclass(frozen=True)
class Gains:
    """Gallery items that are worth something to a query, ranked or not, those worth most first.

    Attributes:
        offsets: int64 ``(q + 1,)``; those of query ``i`` are at ``offsets[i]:offsets[i + 1]``.
        gain: float64 ``(m,)``, above 0.
        before: int64 ``(m,)``, items ranked before the item's group of ties; -1 where the item was not ranked.
        size: int64 ``(m,)``, items in that group.
    """

    offsets: np.ndarray
    gain: np.ndarray
    before: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class RankedBlock:
    """Complete rankings of a run of queries, reduced to what measures need.

    A ranking is a sequence of groups of items at equal distance (ties).  Only groups with a relevant item are kept,
    in order of distance, those of query ``i`` at ``offsets[i]:offsets[i + 1]``.

    Attributes:
        offsets: int64 ``(q + 1,)``.
        before: int64 ``(g,)``, items ranked before the group (N_{t-1}).
        relevant_before: int64 ``(g,)``, relevant items ranked before it (R_{t-1}).
        size: int64 ``(g,)``, items in the group (n_t).
        relevant: int64 ``(g,)``, relevant items in the group (r_t), at least 1.
        total_relevant: int64 ``(q,)``, relevant items in the gallery, ranked or not (R).
        ranked: int64 ``(q,)``, items ranked; the rest count as never retrieved.
        positions: positions (from 1) of the relevant items in the stable order (distance, then gallery row),
            ascending within a query, int32, those of query ``i`` at ``position_offsets[i]:position_offsets[i + 1]``;
            None if not asked for.
        position_offsets: int64 ``(q + 1,)``, or None.
        position_limit: positions after this rank are left out of ``positions``; None if none is.
        within: int64 ``(q, bits + 1)``; column ``d`` counts the items ranked at Hamming distance 0 to ``d``, relevant
            or not, so that the last column equals ``ranked``.  None for rankings by a real-valued distance.
        gains: what nDCG adds up, where relevance is graded; None where it is not.
    """

    offsets: np.ndarray
    before: np.ndarray
    relevant_before: np.ndarray
    size: np.ndarray
    relevant: np.ndarray
    total_relevant: np.ndarray
    ranked: np.ndarray
    positions: np.ndarray | None = None
    position_offsets: np.ndarray | None = None
    position_limit: int | None = None
    within: np.ndarray | None = None
    gains: Gains | None = None

    def __len__(self) -> int:
        return len(self.total_relevant)
