"""Bytes of an item that are known before anything is fitted or built, so that what can't fit a budget costs no time."""

from __future__ import annotations

from lshbench.index.base import Index
from lshbench.index.compressed_engines import HnswSqEngine, SizedEngine
from lshbench.index.engines import GraphEngine, LshEngine
from lshbench.index.flat import FlatIndex
from lshbench.index.oversampled import OversampledIndex
from lshbench.system import System
from lshbench.tuning.candidates import WORD_BITS

LINK_BYTES = 4


def least_bytes(system: System, dim: int) -> int:
    """Return bytes of an item that are certain: its code, features that are read, and links of a graph's lowest layer.

    Args:
        system: yet to be fitted.
        dim: numbers of a feature vector.
    """
    index, features = system.index, 0
    if isinstance(index, OversampledIndex):
        features = dim if index.rescore_with == "int8" else 4 * dim
    elif index.ranks_features:
        features = 4 * dim
    inner = index.inner if isinstance(index, OversampledIndex) else index
    # faiss has room for all links that an item may have in the lowest layer.
    links = 2 * inner.m * LINK_BYTES if isinstance(inner, GraphEngine) else 0
    return features + _code_bytes(inner, system.method.bits, dim) + links


def _code_bytes(index: Index, bits: int | None, dim: int) -> int:
    """Return bytes of a code, of a method that gives ``bits`` or of an engine that makes its own of the features."""
    if isinstance(index, SizedEngine | LshEngine):
        return _whole(index.nbits, 8)
    if isinstance(index, HnswSqEngine):
        return _whole(min(index.dim or dim, dim) * index.bits_per_dimension, 8)
    if index.gives not in ("binary", "quantised") or bits is None:
        return 0
    # Hamming distances of all codes are counted over whole words.
    return _whole(bits, WORD_BITS if isinstance(index, FlatIndex) and index.ranking == "hamming" else 8)


def _whole(bits: int, unit: int) -> int:
    """Return the bytes of as many whole units as have room for some bits."""
    return -(-bits // unit) * unit // 8
