"""True neighbours that files of vectors bring: ann-benchmarks' and vibe's HDF5, TEXMEX' ivecs."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np

from lshbench.data.base import GivenNeighbors, Metric
from lshbench.data.hdf5_files import stored_distance
from lshbench.data.named_array import NamedArray
from lshbench.errors import UsageError
from lshbench.files import array_bytes, check_memory

log = logging.getLogger(__name__)

NEIGHBOR_WORDS = {"neighbors", "neighbours", "groundtruth", "gt"}
DISTANCES: dict[str, Metric] = {
    "angular": "cosine", "cosine": "cosine", "normalized": "cosine",
    "euclidean": "euclidean", "l2": "euclidean",
    "ip": "inner_product", "dot": "inner_product", "inner_product": "inner_product", "mip": "inner_product",
}  # fmt: skip
"""What files call their distance."""


def find_given_neighbors(
    arrays: Sequence[NamedArray], gallery: NamedArray, queries: NamedArray, metric: str
) -> tuple[GivenNeighbors, list[NamedArray]] | None:
    """Return the true neighbours among some arrays, and the arrays that hold them; None if there are none.

    Args:
        arrays: what the file holds.
        gallery: the gallery's features.
        queries: the queries' features.
        metric: what is nearest, or ``auto``: the distance that the file names; TEXMEX' files are Euclidean.

    Raises:
        UsageError: rows that the gallery does not have, or no word on what is nearest.
    """
    count, items = queries.shape[0], gallery.shape[0]
    found = [array for array in arrays if _lists_neighbors(array, count, alone=len(arrays) == 1)]
    if len(found) != 1:
        return None
    listed = found[0]
    where = f"{listed.files[0].name}: {listed}"
    chosen = _metric(listed, queries, metric, where)
    if chosen is None:
        return None
    check_memory(2 * array_bytes(listed.shape, np.dtype(np.int64)), "true neighbours")
    rows = listed.read(np.arange(count)).astype(np.int64)
    if rows.min(initial=0) < 0 or rows.max(initial=0) >= items:
        first = int(np.argmax(((rows < 0) | (rows >= items)).any(axis=1)))
        raise UsageError(
            f"{where} names items {rows.min()} to {rows.max()} (the first beyond is in row {first}), but the gallery "
            f"{gallery} has rows 0 to {items - 1}"
        )
    distances = [array for array in arrays if "distances" in _words(array) and array.shape == listed.shape]
    values = distances[0].read(np.arange(count)).astype(np.float32) if len(distances) == 1 else None
    log.info("%s: the true neighbours of %d queries, nearest by %s", where, count, chosen.replace("_", " "))
    return GivenNeighbors(rows, values, chosen), [listed, *distances]


def _lists_neighbors(array: NamedArray, count: int, *, alone: bool) -> bool:
    whole = array.kind in "iu" and len(array.shape) == 2 and array.shape[0] == count
    return whole and (alone or bool(NEIGHBOR_WORDS & _words(array)))


def _words(array: NamedArray) -> set[str]:
    return {*re.split(r"[^a-z]+", array.name.lower())}


def _metric(listed: NamedArray, queries: NamedArray, metric: str, where: str) -> Metric | None:
    """Return what is nearest; None, with a warning, for a distance that nothing here ranks by."""
    if metric != "auto":
        return DISTANCES[metric]
    file = listed.files[0]
    if file.suffix == ".ivecs":
        return "euclidean"
    named = stored_distance(file)
    if named is None:
        raise UsageError(
            f"dataset.metric=auto: {where} does not say what is nearest; expected cosine, euclidean or inner_product"
        )
    if named.lower() == "hamming":
        # Of truth values as 1 and -1 the cosine, of zeros and ones the Euclidean distance has the same order.
        return "cosine" if queries.kind == "b" else "euclidean"
    if named.lower() not in DISTANCES:
        log.warning("%s are nearest by %s, by which nothing is ranked here: they are not used", where, named)
        return None
    return DISTANCES[named.lower()]
