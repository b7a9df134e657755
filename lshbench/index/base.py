"""Interface of an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.types import CodeKind, Encoded, Neighbors, RankedBlock, Relevance, Side

NAMED = {
    "binary": "binary codes",
    "clusters": "cluster numbers",
    "quantised": "what quantisers store",
    "nothing": "no codes",
}

Ranking = Literal["hamming", "cosine", "asymmetric"]


class Index(ABC):
    """Finds each query's candidates in the gallery and ranks them.

    The constructor takes the keys of the option's YAML, the ranking asked for, and the kind of codes that the method
    gives; it refuses what doesn't go together before any data is read.  Keys that concern queries alone, the query
    settings, may take lists: one build then serves every combination of their values (:meth:`points`), of which
    :meth:`set_point` chooses one.  Until then, and in a saved index, the last point is in effect.

    Args:
        gives: what the method gives for an item.
        ranking: ``hamming``, ``cosine``, ``asymmetric``, or ``auto`` for the one that the index computes by default.

    Attributes:
        option: the index's name, as in ``index=``.
        takes: kinds of codes that the index can hold.
        exhaustive: whether every query is compared with the whole gallery, so that nothing can be missed.
        gives: the kind of codes that it holds.
        ranking: the kind of distance that it ranks by.

    Raises:
        UsageError: the index can't hold what the method gives, or can't rank it that way; says what would be right.
    """

    option: ClassVar[str]
    takes: ClassVar[frozenset[CodeKind]]
    exhaustive: ClassVar[bool] = False
    ranking: Ranking

    def __init__(self, gives: CodeKind = "binary", ranking: str = "auto") -> None:
        if gives not in self.takes:
            raise self._refused(gives)
        self.gives = gives
        possible = self.rankings()
        if ranking == "auto":
            self.ranking = possible[0]
        elif ranking in possible:
            self.ranking = possible[possible.index(ranking)]  # the same word, with the type of a ranking
        else:
            right = " or ".join([*possible, "auto"])
            raise wrong_value("ranking", ranking, f"{right} with index={self.option}{self.ranked_by()}")

    def _refused(self, gives: CodeKind) -> Exception:
        takes = " or ".join(NAMED[kind] for kind in NAMED if kind in self.takes)
        right = {
            "nothing": "flat, or another index that takes no codes, with method=none",
            "clusters": "ivf for a method that gives cluster numbers",
            "quantised": "flat for a quantiser",
            "binary": "flat, buckets or another index of binary codes",
        }[gives]
        if gives != "nothing" and "nothing" in self.takes:
            right += f"; or method=none with index={self.option}: the method would have no part in its ranking"
        return wrong_value("index", self.option, f"{right} ({self.option} takes {takes})")

    @abstractmethod
    def rankings(self) -> list[Ranking]:
        """Return the rankings that are possible with the constructor's keys, the default first."""

    def ranked_by(self) -> str:
        """Return which key decides the ranking, for messages, such as `` and index.rescore=hamming``."""
        return ""

    def points(self) -> list[dict[str, int]]:
        """Return the query settings to measure, the most thorough last: its figures are the run's headline.

        A point maps names of keys without ``index.`` (``probes``) to values; every point has the same names.
        """
        return [{}]

    def set_point(self, point: Mapping[str, int]) -> None:
        """Search at one of the :meth:`points` from now on; nothing is built again."""
        if point:
            raise ValueError(f"{type(self).__name__} has no query settings, but was given {dict(point)}")

    @property
    def ranks_features(self) -> bool:
        """Whether distances are those of the original features, so that recall is relative to exact cosine ranking."""
        return False

    def ranked_by_code(self, oversample: object) -> Index:
        """Return the index whose results are rescored by features: this one, if it doesn't compare features itself.

        Raises:
            UsageError: it does; says so of the key ``index.oversample``, whose value was given.
        """
        if self.ranks_features:
            raise wrong_value("index.oversample", oversample, f"null with index={self.option}, which compares features")
        return self

    @property
    def code_ranking(self) -> Ranking:
        """How the codes alone rank the whole gallery, which the index's own results are compared with."""
        return "hamming"

    def needs_projections(self, side: Side) -> bool:
        """Return whether :meth:`build` or :meth:`search` reads the projections of one side's binary codes."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Return how many items the gallery has."""

    @abstractmethod
    def build(self, gallery: Encoded) -> Self:
        """Index the gallery."""

    @abstractmethod
    def search(self, queries: Encoded, k: int) -> Neighbors:
        """Return the ``k`` nearest gallery items of each query: what is timed."""

    def search_for_rescoring(self, queries: Encoded, k: int) -> Neighbors:
        """Return what :meth:`search` does, but as many as are asked for where the point would bound them."""
        return self.search(queries, k)

    @abstractmethod
    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        """Yield the complete rankings of all queries, in order, block by block.

        Args:
            queries: encoded as the gallery was.
            relevance: the labels of both sides.
            positions: the last position of relevant items in the stable order that is needed (see
                :class:`lshbench.types.RankedBlock`); 0 for none, None for all.  An index may give more.
        """

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes that searching needs at the point in effect, beyond :attr:`feature_bytes`."""

    @property
    def code_bytes(self) -> int:
        """Bytes of these that are the items' codes: whole bytes of bits, or what else the method gives to be compared.

        Words that are filled up, copies, tables, links, norms and numbers of items are the index.
        """
        return 0

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features that searching reads besides, in memory or where they lie."""
        return 0

    @property
    def fixed_bytes(self) -> int:
        """Bytes of :attr:`bytes` that are the same for a gallery of any size: codebooks and centroids."""
        return 0

    def bytes_per_item(self, items: int | None = None) -> float:
        """Return the bytes that searching needs, features included, for an item.

        Args:
            items: of a gallery that they are to be told of, with what grows growing as it does here; None for this one.
        """
        growing = self.bytes + self.feature_bytes - self.fixed_bytes
        items = len(self) if items is None else items
        return (growing * items / len(self) + self.fixed_bytes) / items

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into an existing folder, as NumPy arrays and JSON; no pickle."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        """Return a saved index at its most thorough point, its arrays as memory maps where they can be.

        The files may be damaged, or somebody else's: whatever compiled code reads is checked first.  What faiss keeps
        is made in memory.

        Args:
            folder: where :meth:`save` wrote.
            features: the gallery's features, float32 ``(n, d)``, if :attr:`ranks_features`; may be a memory map.

        Raises:
            ValueError: it is no saved index of this kind, or the features are not its gallery's.
        """

    def reopened(self, folder: Path, features: np.ndarray | None = None) -> Index:
        """Return a saved index that was made with this one's keys (:meth:`open`)."""
        return self.open(folder, features)


def query_values(key: str, value: object, least: int = 1) -> list[int]:
    """Return the values of a query setting, ascending, without duplicates.

    Args:
        key: the dotted configuration key, such as ``index.probes``.
        value: what was given: one number or a list of them.
        least: the smallest number allowed.

    Raises:
        UsageError: not whole numbers of at least ``least``.
    """
    values = value if isinstance(value, list | tuple) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
        raise wrong_value(key, value, f"at least {least}: one whole number, or a list of them such as [1,2,4]")
    return sorted(set(values))
