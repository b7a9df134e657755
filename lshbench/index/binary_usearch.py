"""A neighbour graph over codes by the package usearch, and its scan of all codes, by Hamming distance."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import faiss
import numpy as np

from lshbench.errors import UsageError
from lshbench.index.binary_engines import BinaryEngine
from lshbench.index.engines import spread
from lshbench.index.files import Stored
from lshbench.index.graphs import MOST_IN_VIEW, MOST_LINKS
from lshbench.ranking.lists import as_lists
from lshbench.types import Encoded, Neighbors


def _write(engine: Any, path: str) -> None:
    """Write a graph to a file, or codes that are scanned."""
    if isinstance(engine, np.ndarray):
        engine.tofile(path)
    else:
        engine.save(path)


@dataclass(kw_only=True, eq=False)
class UsearchEngine(BinaryEngine):
    """usearch's graph over bits (HNSW), or its scan of all codes.

    A saved graph is built again of its codes when it is opened, as usearch's own file can't be checked.

    Args:
        connectivity: links of an item in each layer above the lowest, which has twice as many.
        expansion_add: length of the candidate list while an item is inserted.
        expansion_search: length of a query's candidate list, and so the most results that it has; or a list of numbers.
            Where results are rescored, the list is at least as long as what is rescored.
        exact: compare a query with all codes; there is no graph then, and the keys above say nothing.

    Raises:
        UsageError: usearch is not installed.
    """

    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int | list[int] = 100
    exact: bool = False
    option = "binary_usearch"
    query_key = "expansion_search"
    least: ClassVar = {"connectivity": 2, "expansion_add": 1}
    most: ClassVar = {"connectivity": MOST_LINKS, "expansion_add": MOST_LINKS}
    file = "engine.usearch"
    _write = staticmethod(_write)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("usearch") is None:
            raise UsageError("index='binary_usearch': usearch is not installed: pip install 'lshbench[usearch]'")
        super().__post_init__()

    def points(self) -> list[dict[str, int]]:
        return [{}] if self.exact else super().points()

    def set_point(self, point: Mapping[str, int]) -> None:
        if point:
            super().set_point(point)

    def __len__(self) -> int:
        return len(self._added)

    def _size(self) -> int:
        return self._added.nbytes if self.exact else self._engine.serialized_length

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        from usearch.index import Index

        return Index(
            ndim=8 * packed.shape[1],
            metric="hamming",
            dtype="b1",
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
        )

    def _filled(self, engine: Any) -> Any:
        if self.exact:
            return self._added
        # On one thread, as the graph of several would differ from run to run.
        engine.add(np.arange(len(self._added)), self._added, threads=1)
        return engine

    def _set_value(self, value: int) -> None:
        if not self.exact:
            super()._set_value(value)

    def _stored_empty(self, stored: Stored) -> Any:
        if max(self.connectivity, self.expansion_add) > MOST_LINKS or self.values[-1] > max(stored.items, MOST_IN_VIEW):
            raise ValueError(f"connectivity={self.connectivity}, expansion_search={self.values[-1]}")
        return self._empty(stored.dim, self._added)

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._walk(asked, k if self.exact else min(k, self.value))

    def _walk(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Do as :meth:`_find`; usearch lengthens the candidate list beyond the point's for more results."""
        from usearch.index import MetricKind, search

        threads = faiss.omp_get_max_threads()
        found: Any
        if self.exact:
            found = search(self._added, asked, k, MetricKind.Hamming, exact=True, threads=threads)
        else:
            found = self._engine.search(asked, k, threads=threads)
        # Results of one query are no matrix, and only as many as were found.
        ids, distances = np.atleast_2d(found.keys.astype(np.int64)), np.atleast_2d(found.distances)
        if len(asked) > 1:
            ids[np.arange(ids.shape[1]) >= found.counts[:, None]] = -1
        return distances, ids, spread(np.zeros(len(asked), np.int64), found.computed_distances, np.arange(len(asked)))

    def search_for_rescoring(self, queries: Encoded, k: int) -> Neighbors:
        return self._found_by(self._walk, queries, k)

    def _most_results(self) -> int:
        return len(self) if self.exact else self.value

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return as_lists(*self._find(asked, min(self._most_results(), len(self)))[:2])
