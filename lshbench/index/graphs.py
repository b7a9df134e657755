"""Neighbour graphs of faiss (HNSW) as arrays: saved, checked, and made again without building."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

from lshbench.index.files import Stored, check_range

MOST_LINKS, MOST_IN_VIEW = 1 << 12, 1 << 20
"""Largest ``m``, and ``ef_search`` beyond the number of items, of an opened graph."""


def graph_arrays(graph: Any) -> dict[str, np.ndarray]:
    """Return the arrays that :func:`restore_graph` takes."""
    return {
        "levels": faiss.vector_to_array(graph.levels),
        "links": faiss.vector_to_array(graph.neighbors),
        "entry": np.array([graph.entry_point], np.int32),
    }


def restore_graph(graph: Any, stored: Stored, m: int, most_in_view: int) -> None:
    """Give a new graph the links of a saved one.

    Every link is checked, and that an item linked to in a layer is in that layer: faiss would read beyond them.

    Args:
        graph: ``hnsw`` of a faiss index, of ``m`` links.
        stored: the saved arrays.
        m: links of an item.
        most_in_view: the longest candidate list that it will be searched with.

    Raises:
        ValueError: the arrays are not those of such a graph.
    """
    if m > MOST_LINKS or most_in_view > max(stored.items, MOST_IN_VIEW):
        raise ValueError(f"m={m} and ef_search={most_in_view} for {stored.items} items")
    starts = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    levels = stored.array("levels", np.int32, (stored.items,))
    check_range("levels.npy", levels, 1, len(starts) - 1)
    offsets = np.concatenate([[0], np.cumsum(starts[levels])])
    links = stored.array("links", np.int32, (int(offsets[-1]),))
    check_range("links.npy", links, -1, stored.items - 1)
    (entry,) = stored.array("entry", np.int32, (1,)).tolist()
    highest = int(levels.max(initial=0))
    if stored.items and not (0 <= entry < stored.items and levels[entry] == highest):
        raise ValueError(f"entry.npy names item {entry}, which is not in the highest layer")
    for layer in range(1, highest):
        (members,) = np.nonzero(levels > layer)
        own = offsets[members, None] + np.arange(starts[layer], starts[layer + 1])
        linked = links[own]
        if (levels[linked[linked >= 0]] <= layer).any():
            raise ValueError(f"links.npy leads to items that are not in layer {layer}")
    for target, values in (
        (graph.levels, levels),
        (graph.offsets, offsets.astype(np.uint64)),
        (graph.neighbors, links),
    ):
        faiss.copy_array_to_vector(np.ascontiguousarray(values), target)
    graph.entry_point, graph.max_level = entry, highest - 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Build on one thread in the ``with`` block: the graph of several would differ from run to run."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
