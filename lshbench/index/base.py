"""What an index is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from lshbench.types import Encoded, Neighbors, RankedBlock, Relevance


class Index(ABC):
    """How queries find their candidates and in which order.

    The constructor takes the keys of the option's YAML; :meth:`check` runs before any data is read.

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
        """Bytes that searching needs, beyond the features themselves."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into an existing folder, as NumPy arrays, JSON or a faiss file; no pickle."""
