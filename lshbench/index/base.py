"""What an index is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from lshbench.types import Encoded, Neighbors, RankedBlock, Relevance, Side


class Index(ABC):
    """How queries find their candidates and in which order.

    The constructor takes the keys of the option's YAML; :meth:`check` runs before any data is read.  Keys that only
    concern queries may take lists: one build then serves every combination of their values (:meth:`points`), and
    :meth:`set_point` chooses one.  Before the first choice, and in what is saved, the last point is in effect.

    Attributes:
        exhaustive: whether every query is compared with the whole gallery, so that nothing can be missed.
    """

    exhaustive: ClassVar[bool] = False

    @abstractmethod
    def check(self, method_kind: str, ranking: str) -> str:
        """Return the ranking in effect (``hamming`` or ``cosine``) for a kind of method.

        Args:
            method_kind: ``binary`` or ``clusters``.
            ranking: ``auto``, ``hamming`` or ``cosine``.

        Raises:
            UsageError: this index can't hold what the method gives, or can't rank it that way; says which can.
        """

    def points(self) -> list[dict[str, int]]:
        """Return the query settings to measure, the most thorough last: its figures are the run's headline.

        A point maps names of keys without ``index.`` (``probes``) to values; every point has the same names.
        """
        return [{}]

    def set_point(self, point: Mapping[str, int]) -> None:
        """Search with one of the :meth:`points` from now on: quick, and without building anything again."""
        if point:
            raise ValueError(f"{type(self).__name__} has no query settings, but was given {dict(point)}")

    @property
    def ranks_features(self) -> bool:
        """Whether distances are those of the original features, so that exact cosine ranking is what can be missed."""
        return False

    @property
    def uses_method(self) -> bool:
        """Whether a built index reads what the method gives: if not, the method has no part in its figures."""
        return True

    def wants_embedding(self, side: Side, ranking: str) -> bool:
        """Whether :meth:`build` or :meth:`search` reads a binary method's real-valued projections of a side."""
        return ranking == "cosine"

    @abstractmethod
    def build(self, gallery: Encoded, ranking: str) -> Self:
        """Take in the gallery."""

    @abstractmethod
    def search(self, queries: Encoded, k: int) -> Neighbors:
        """Return the first ``k`` results of each query: what is timed."""

    @abstractmethod
    def rank(
        self,
        queries: Encoded,
        relevance: Relevance,
        *,
        positions: bool = True,
        position_limit: int | None = None,
    ) -> Iterator[RankedBlock]:
        """Yield the complete rankings of all queries, in order, block by block.

        Args:
            queries: encoded as the gallery was.
            relevance: the labels of both sides.
            positions: whether the stable order is asked for (:class:`lshbench.types.RankedBlock`).
            position_limit: the last rank of it that is needed; an index may give more.
        """

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes that searching needs at the point in effect, beyond the features themselves."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into an existing folder, as NumPy arrays, JSON or a faiss file; no pickle."""

    @classmethod
    def open(cls, folder: Path, vectors: np.ndarray | None = None) -> Self:
        """Return what :meth:`save` wrote, its arrays as memory maps where they can be, at its most thorough point.

        What faiss keeps is read into memory.

        Args:
            folder: where :meth:`save` wrote.
            vectors: the gallery's features, float32 ``(n, d)``, if :attr:`ranks_features`; may be a memory map.

        Raises:
            ValueError: it is no saved index of this kind, or the vectors are not its gallery's.
        """
        raise ValueError(f"{cls.__name__} can't be opened again")
