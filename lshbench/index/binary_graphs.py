"""faiss's neighbour graph over codes, by Hamming distance.

Many items have the same distance, so that a walk ends among ties: which of the items at a distance it finds is luck.
Runs say what that does to recall (:mod:`lshbench.evaluation.code_recall`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from lshbench.index.binary_engines import BinaryEngine
from lshbench.index.engines import GraphEngine
from lshbench.index.files import Stored
from lshbench.index.graphs import restore_graph
from lshbench.types import CodeKind


@dataclass(kw_only=True, eq=False)
class BinaryHnswEngine(GraphEngine, BinaryEngine):
    """``IndexBinaryHNSW``: a graph over codes, of which equal ones slow its building."""

    gives: CodeKind = "binary"
    option = "binary_hnsw"

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        return faiss.IndexBinaryHNSW(8 * packed.shape[1], self.m)

    def _filled(self, engine: Any) -> Any:
        return self._grown(engine, self._added)

    def _arrays(self) -> dict[str, np.ndarray]:
        return BinaryEngine._arrays(self) | super()._arrays()

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        self._take_codes(stored)
        engine = self._stored_empty(stored)
        restore_graph(engine.hnsw, stored, self.m, self.values[-1])
        engine.storage.add(self._added)
        engine.ntotal = stored.items
        return engine
