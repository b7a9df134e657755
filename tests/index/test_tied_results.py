"""Ties in results for people: broken by a finer measure over all items that are so near, and counted."""

from __future__ import annotations

import numpy as np
import pytest

from lshbench.index.base import Index
from lshbench.index.binary_engines import BinaryIvfEngine
from lshbench.index.buckets import BucketsIndex
from lshbench.index.flat import FlatIndex
from lshbench.index.ties import by_cosine, by_projections, untied
from lshbench.types import Codes, Encoded


def sides(items: int = 500, queries: int = 70, dim: int = 6, bits: int = 5) -> tuple[Encoded, Encoded]:
    generator = np.random.default_rng(3)
    plane = generator.standard_normal((dim, bits)).astype(np.float32)
    made = []
    for count in (items, queries):
        x = generator.standard_normal((count, dim)).astype(np.float32)
        made.append(Encoded(x, Codes(Codes.from_signs(x @ plane).packed, bits, x @ plane)))
    return made[0], made[1]


def brute_force(gallery: Encoded, query: Encoded, closeness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows by distance, then closeness, and how many items share each one's distance."""
    distances = (gallery.binary.unpack() != query.binary.unpack()).sum(axis=1)
    order = np.lexsort((-closeness, distances))
    return order, np.bincount(distances)[distances[order]]


@pytest.mark.parametrize("index", [FlatIndex(), BucketsIndex(tables=1, bits_per_table=1, probes=2, rescore="hamming"),
                                   BinaryIvfEngine(nlist=4, nprobe=4)])  # fmt: skip
@pytest.mark.parametrize("by", ["cosine", "projections"])
def test_all_items_at_the_last_distance_are_looked_at_and_counted(index: Index, by: str) -> None:
    gallery, queries = sides(bits=5 if by == "cosine" else 12)
    index.build(gallery)
    if by == "cosine":
        closeness = by_cosine(queries.features, gallery.features)
        units = gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True)
        expected = queries.features @ units.T
    else:
        closeness = by_projections(queries.projections, gallery.binary.packed)
        expected = queries.projections @ (2.0 * gallery.binary.unpack() - 1).T
    found = untied(index, queries, 3, closeness)
    plain = index.search(queries, 3)
    assert found.tied is not None
    assert np.array_equal(found.distances, plain.distances)
    assert (found.ids != plain.ids).any(), "or there is nothing to see here"
    for row in range(len(queries)):
        order, shared = brute_force(gallery, queries[row : row + 1], expected[row].astype(np.float64))
        assert found.tied[row].tolist() == shared[:3].tolist()
        if by == "cosine":
            assert found.ids[row].tolist() == order[:3].tolist()
        else:  # equal codes are equally close: by row
            np.testing.assert_allclose(expected[row, found.ids[row]], expected[row, order[:3]], rtol=1e-5)


def test_without_a_finer_measure_ties_stay_and_are_counted_and_fewer_results_are_none() -> None:
    gallery, queries = sides(items=7)
    index = FlatIndex().build(gallery)
    found, plain = untied(index, queries, 9, None), index.search(queries, 9)
    assert np.array_equal(found.ids, plain.ids)
    assert found.tied is not None
    assert (found.tied[:, 7:] == 0).all()
    assert (found.tied[:, :7] > 0).all()


def test_a_ranking_without_ties_comes_as_it_is() -> None:
    gallery, queries = sides()
    index = FlatIndex(ranking="cosine").build(gallery)
    found = untied(index, queries, 5, by_cosine(queries.features, gallery.features))
    assert np.array_equal(found.ids, index.search(queries, 5).ids)
    assert (found.tied == 1).all()
