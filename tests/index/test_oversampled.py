"""More candidates than results by code, rescored by features: what is rescored, in what order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.index.base import Index
from lshbench.index.binary_engines import BinaryIvfEngine
from lshbench.index.binary_graphs import BinaryHnswEngine
from lshbench.index.binary_usearch import UsearchEngine
from lshbench.index.buckets import BucketsIndex
from lshbench.index.compressed_engines import HnswSqEngine
from lshbench.index.engines import HnswEngine
from lshbench.index.flat import FlatIndex
from lshbench.index.ivf import IvfIndex
from lshbench.index.oversampled import OversampledIndex, as_bytes
from lshbench.metrics.measures import measure
from lshbench.ranking.cosine import VectorGallery, cosine_neighbors
from lshbench.types import RESULTS, Codes, Encoded, Relevance


def sides(items: int = 700, queries: int = 9, dim: int = 12, bits: int = 10) -> tuple[Encoded, Encoded]:
    generator = np.random.default_rng(1)
    plane = generator.standard_normal((dim, bits)).astype(np.float32)
    made = [generator.standard_normal((count, dim)).astype(np.float32) for count in (items, queries)]
    gallery, asked = (Encoded(x, Codes(Codes.from_signs(x @ plane).packed, bits, x @ plane)) for x in made)
    return gallery, asked


def test_the_nearest_by_code_are_ordered_by_cosine_and_nothing_else_is_retrieved() -> None:
    gallery, queries = sides()
    found = OversampledIndex(FlatIndex(), 4).build(gallery).search(queries, 5)
    first = FlatIndex().build(gallery).search(queries, 20).ids
    units = gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True)
    for row, query in enumerate(queries.features):
        distances = 1 - units @ (query / np.linalg.norm(query))
        expected = first[row][np.argsort(distances[first[row]], kind="stable")][:5]
        assert found.ids[row].tolist() == expected.tolist()
        assert found.distances[row] == pytest.approx(distances[expected], abs=1e-6)
    assert found.candidates.tolist() == [len(gallery)] * len(queries)


def test_with_everything_rescored_it_is_exact_cosine_and_with_bytes_nearly_so() -> None:
    gallery, queries = sides()
    exact = cosine_neighbors(queries.features, gallery.features, 10)
    found = OversampledIndex(FlatIndex(), 70).build(gallery).search(queries, 10)
    assert np.array_equal(found.ids, exact.ids)
    nearly = OversampledIndex(FlatIndex(), 70, "int8").build(gallery).search(queries, 10)
    assert (nearly.ids == exact.ids).mean() > 0.8
    assert np.abs(nearly.distances - exact.distances).max() < 0.01


def test_hash_tables_rescore_as_many_as_a_shortlist_of_that_length() -> None:
    gallery, queries = sides()
    keys = {"tables": 3, "bits_per_table": 3, "probes": 2, "seed": 4}
    shortlist = BucketsIndex(**keys, shortlist=30).build(gallery).search(queries, 10)
    found = OversampledIndex(BucketsIndex(**keys), [1, 3]).build(gallery).search(queries, 10)
    assert np.array_equal(found.ids, shortlist.ids)
    assert found.distances == pytest.approx(shortlist.distances, abs=1e-6)
    assert np.array_equal(found.candidates, shortlist.candidates)


def test_complete_rankings_hold_what_a_run_rescores() -> None:
    gallery, queries = sides()
    labels = np.arange(700) % 3
    index = OversampledIndex(FlatIndex(), [1, 2]).build(gallery)
    relevance = Relevance(np.arange(9) % 3, labels)
    for point in index.points():
        index.set_point(point)
        blocks = list(index.rank(queries, relevance, positions=0))
        assert np.concatenate([block.ranked for block in blocks]).tolist() == [point["oversample"] * RESULTS] * 9
        hits = labels[index.search(queries, RESULTS).ids[:, :10]] == relevance.queries[:, None]
        assert measure(blocks[0])["P@10"] == pytest.approx(hits.mean(axis=1))


def test_a_graph_s_candidate_list_is_as_long_as_what_is_rescored_and_its_point_stays() -> None:
    gallery, queries = sides()
    graphs: list[tuple[Index, Index]] = [
        (BinaryHnswEngine(m=8, ef_search=5), BinaryHnswEngine(m=8, ef_search=40)),
        (HnswSqEngine(m=8, ef_search=5), HnswSqEngine(m=8, ef_search=40)),
        (UsearchEngine(expansion_search=5), UsearchEngine(expansion_search=40)),
    ]
    for short, long in graphs:
        found = [OversampledIndex(inner, 4).build(gallery).search(queries, 10) for inner in (short, long)]
        assert np.array_equal(found[0].ids, found[1].ids)
        assert (found[0].ids >= 0).all()
        assert found[0].candidates.sum() == found[1].candidates.sum() >= 9 * 40
        assert (short.search(queries, 10).ids[:, 5:] == -1).all(), "without rescoring ef_search is the most"


def test_settings_are_those_of_the_index_inside_with_each_number_of_candidates() -> None:
    gallery, queries = sides()
    index = OversampledIndex(BinaryIvfEngine(nlist=8, nprobe=[1, 8]), [2, 1]).build(gallery)
    assert index.points() == [{"nprobe": probes, "oversample": times} for probes in (1, 8) for times in (1, 2)]
    index.set_point({"nprobe": 1, "oversample": 1})
    assert index.inner.value == 1
    few = index.search(queries, 10)
    assert (few.candidates < len(gallery)).all()
    index.set_point(index.points()[-1])
    assert (index.search(queries, 10).candidates == len(gallery)).all()


@pytest.mark.parametrize("rescore_with", ["float32", "int8"])
def test_a_saved_one_answers_alike_and_bytes_need_no_features(tmp_path: Path, rescore_with: str) -> None:
    gallery, queries = sides()
    index = OversampledIndex(BucketsIndex(tables=2, bits_per_table=3), [1, 4], rescore_with).build(gallery)
    index.save(tmp_path)
    features = gallery.features if index.ranks_features else None
    assert (features is None) == (rescore_with == "int8")
    made = OversampledIndex(BucketsIndex(tables=2, bits_per_table=3), [1, 4], rescore_with)
    found, expected = made.reopened(tmp_path, features).search(queries, 5), index.search(queries, 5)
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.distances, expected.distances)
    with pytest.raises(ValueError, match="queries of 5 numbers"):
        index.search(Encoded(queries.features[:, :5], queries.codes), 5)


def test_features_that_are_rescored_count_beside_the_codes() -> None:
    gallery, _ = sides()
    codes = FlatIndex().build(gallery)
    for rescore_with, width in (("float32", 4), ("int8", 1)):
        index = OversampledIndex(FlatIndex(), 2, rescore_with).build(gallery)
        assert (index.code_bytes, index.feature_bytes) == (700 * 2, width * 700 * 12)
        assert index.bytes == codes.bytes + 4 * 700, "and a norm each"
    tables = BucketsIndex(tables=2, bits_per_table=3).build(gallery)
    assert (tables.code_bytes, tables.feature_bytes) == (0, gallery.features.nbytes)
    tables = BucketsIndex(tables=2, bits_per_table=3, rescore="hamming").build(gallery)
    assert (tables.code_bytes, tables.feature_bytes) == (700 * 2, 0)


def test_vectors_of_extreme_length_and_zeros_are_rescored_too() -> None:
    gallery, queries = sides()
    scaled = Encoded(np.ascontiguousarray(gallery.features * np.float32(1e25)), gallery.codes)
    scaled.features[3] = 0
    for rescore_with in ("float32", "int8"):
        found = OversampledIndex(FlatIndex(), 70, rescore_with).build(scaled).search(queries, 10)
        exact = cosine_neighbors(queries.features, scaled.features, 10)
        assert found.distances == pytest.approx(exact.distances, abs=0.01)
    vectors, norms = as_bytes(VectorGallery.from_vectors(scaled.features))
    assert not vectors[3].any()
    assert norms[3] == 0
    assert (np.abs(vectors).max(axis=1) == np.where(np.arange(700) == 3, 0, 127)).all()


@pytest.mark.parametrize(
    ("inner", "oversample", "message"),
    [
        (FlatIndex(gives="nothing"), 2, r"index.oversample=2: expected null with index=flat, which compares features"),
        (IvfIndex(gives="nothing", clusters=4), 2, r"index.oversample=2: expected null with index=ivf"),
        (HnswEngine(), [1, 2], r"index.oversample=\[1, 2\]: expected null with index=hnsw"),
        (BucketsIndex(shortlist=5), 2, r"index.shortlist=\[5\]: expected null with index.oversample"),
        (FlatIndex(), 0, r"index.oversample=0: expected at least 1"),
        (FlatIndex(), [1, "x"], "index.oversample"),
    ],
)
def test_what_has_nothing_to_rescore_is_refused(inner: Index, oversample: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OversampledIndex(inner, oversample)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"index.rescore_with='int4': expected float32 or int8"):
        OversampledIndex(FlatIndex(), 1, "int4")
