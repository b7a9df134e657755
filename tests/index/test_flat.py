"""Exhaustive search: which ranking, what is found, what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.index.flat import FlatIndex
from lshbench.methods.float16 import Float16
from lshbench.runtime.progress import silent
from lshbench.types import Codes, Encoded, Features, Relevance

BITS = 13


def sides(seed: int = 0) -> tuple[Encoded, Encoded, Relevance]:
    generator = np.random.default_rng(seed)
    embeddings = [generator.standard_normal((count, BITS)).astype(np.float32) for count in (90, 12)]
    gallery, queries = (
        Encoded(np.zeros((len(e), 3), np.float32), Codes(Codes.from_signs(e).packed, BITS, e)) for e in embeddings
    )
    return gallery, queries, Relevance(generator.integers(0, 3, 12), generator.integers(0, 3, 90))


def distances(gallery: Encoded, queries: Encoded, ranking: str) -> np.ndarray:
    if ranking == "hamming":
        return (queries.codes.unpack()[:, None] != gallery.codes.unpack()).sum(axis=2).astype(np.float64)
    first, second = (
        e.projections.astype(np.float64) / np.linalg.norm(e.projections, axis=1, keepdims=True)
        for e in (queries, gallery)
    )
    return 1 - first @ second.T


def test_auto_is_hamming_and_both_rankings_can_be_asked_for() -> None:
    found = [FlatIndex(ranking=ranking).ranking for ranking in ("auto", "hamming", "cosine")]
    assert found == ["hamming", "hamming", "cosine"]
    assert FlatIndex().exhaustive


def test_clusters_are_refused_with_the_index_that_takes_them() -> None:
    with pytest.raises(UsageError, match="index='flat': expected ivf for a method that gives cluster numbers"):
        FlatIndex(gives="clusters")


@pytest.mark.parametrize("ranking", ["hamming", "cosine"])
def test_the_nearest_are_those_of_brute_force(ranking: str) -> None:
    gallery, queries, _ = sides()
    found = FlatIndex(ranking=ranking).build(gallery).search(queries, 10)
    exact = distances(gallery, queries, ranking)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_allclose(found.distances, np.take_along_axis(exact, expected, axis=1), atol=1e-6)
    assert (found.candidates == 90).all()


@pytest.mark.parametrize("ranking", ["hamming", "cosine"])
def test_complete_rankings_place_every_relevant_item_where_brute_force_does(ranking: str) -> None:
    gallery, queries, relevance = sides()
    exact = distances(gallery, queries, ranking)
    positions = []
    for block in FlatIndex(ranking=ranking).build(gallery).rank(queries, relevance):
        assert (block.ranked == 90).all()
        positions += np.split(block.positions, block.position_offsets[1:-1])
    assert len(positions) == len(queries)
    for query, found in enumerate(positions):
        order = np.argsort(exact[query], kind="stable")
        expected = np.flatnonzero(relevance.gallery[order] == relevance.queries[query]) + 1
        np.testing.assert_array_equal(found, expected)


def test_saved_codes_are_packed_bits_and_find_what_faiss_finds(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = FlatIndex().build(gallery)
    index.save(tmp_path)
    described = json.loads((tmp_path / "index.json").read_text())
    assert described == {
        "index": "flat", "gives": "binary", "ranking": "hamming", "bits": 13, "items": 90, "file": "words.npy",
    }  # fmt: skip
    # The words of an item, end to end, are its packed bytes, filled up with zeros.
    packed = np.ascontiguousarray(np.load(tmp_path / "words.npy").T).view(np.uint8)[:, :2]
    np.testing.assert_array_equal(packed, gallery.codes.packed)
    engine = faiss.IndexBinaryFlat(16)
    engine.add(np.ascontiguousarray(packed))
    np.testing.assert_array_equal(
        engine.search(queries.codes.packed, 5)[0], index.search(queries, 5).distances.astype(np.int32)
    )
    assert index.bytes == 90 * 8, "13 bits are searched as one word of 64"
    assert (index.code_bytes, index.feature_bytes) == (90 * 2, 0)


def test_saved_projections_are_a_plain_array(tmp_path: Path) -> None:
    gallery, _, _ = sides()
    index = FlatIndex(ranking="cosine").build(gallery)
    index.save(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["file"] == "projections.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "projections.npy", mmap_mode="r"), gallery.projections)
    assert index.bytes == gallery.projections.nbytes + 4 * 90
    assert (index.code_bytes, index.feature_bytes) == (gallery.projections.nbytes, 0)


def test_what_a_ranking_needs_must_be_there() -> None:
    features = np.zeros((4, 3), np.float32)
    with pytest.raises(TypeError, match="expected items with binary codes"):
        FlatIndex().build(Encoded(features))
    with pytest.raises(ValueError, match="expected projections"):
        FlatIndex(ranking="cosine").build(Encoded(features, Codes(np.zeros((4, 1), np.uint8), 8)))


@pytest.mark.parametrize("ranking", ["hamming", "cosine"])
def test_a_saved_index_opens_without_features_and_finds_the_same(ranking: str, tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = FlatIndex(ranking=ranking).build(gallery)
    index.save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    found, expected = opened.search(queries, 90), index.search(queries, 90)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert opened.bytes == index.bytes


@pytest.mark.parametrize("bits", [13, 64, 100])
def test_saved_codes_are_searched_where_they_lie(bits: int, tmp_path: Path) -> None:
    embedding = np.random.default_rng(0).standard_normal((50, bits))
    gallery = Encoded(np.zeros((50, 3), np.float32), Codes.from_signs(embedding))
    FlatIndex().build(gallery).save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    assert isinstance(opened.codes.words.base, np.memmap)
    assert Path(opened.codes.words.base.filename) == tmp_path / "words.npy"
    found = opened.search(gallery, 1)
    assert (found.distances == 0).all()
    (tmp_path / "again").mkdir()
    opened.save(tmp_path / "again")
    assert (tmp_path / "again" / "words.npy").read_bytes() == (tmp_path / "words.npy").read_bytes()
    np.save(tmp_path / "words.npy", opened.codes.words[:, 1:])
    with pytest.raises(ValueError, match=r"words\.npy is uint64"):
        FlatIndex.open(tmp_path)


def test_another_kind_of_index_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"index": "ivf"}')
    with pytest.raises(ValueError, match="of the kind ivf, not flat"):
        FlatIndex.open(tmp_path)


def test_without_codes_features_are_ranked_by_cosine(tmp_path: Path) -> None:
    from lshbench.ranking.cosine import cosine_neighbors

    generator = np.random.default_rng(0)
    x, q = (generator.standard_normal((count, 5)).astype(np.float32) for count in (90, 12))
    index = FlatIndex(gives="nothing")
    assert (index.ranking, index.ranks_features) == ("cosine", True)
    assert not FlatIndex().ranks_features
    assert not index.needs_projections("query")
    index.build(Encoded(x)).save(tmp_path)
    found, exact = index.search(Encoded(q), 90), cosine_neighbors(q, x, 90)
    np.testing.assert_array_equal(found.ids, exact.ids)
    assert index.bytes == 4 * 90, "norms; features are kept once for all runs"
    assert (index.code_bytes, index.feature_bytes) == (0, x.nbytes)
    np.testing.assert_array_equal(FlatIndex.open(tmp_path, x).search(Encoded(q), 90).distances, found.distances)
    with pytest.raises(ValueError, match="takes the gallery's features"):
        FlatIndex.open(tmp_path)
    with pytest.raises(UsageError, match=r"ranking='hamming': expected cosine or auto with index=flat and method=none"):
        FlatIndex(gives="nothing", ranking="hamming")


@pytest.mark.parametrize("damaged", [np.zeros((90, 3), np.uint8), np.full((90, 6), 255, np.uint8)])
def test_saved_quantised_vectors_are_checked_by_the_first_query(damaged: np.ndarray, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((90, 3)).astype(np.float32)
    method = Float16().fit(Features(x, np.zeros(90, np.int64), np.arange(90)), silent)
    queries = Encoded(x[:5], method.encode(x[:5], "query"))
    index = FlatIndex(gives="quantised").build(Encoded(x, method.encode(x, "gallery")))
    index.save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    assert (opened.ranking, len(opened), opened.bytes) == ("asymmetric", 90, 540)
    found, expected = opened.search(queries, 7), index.search(queries, 7)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert found.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.save(tmp_path / "stored.npy", damaged)
    described = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(described | {"bytes": damaged.shape[1]}))
    with pytest.raises(ValueError, match=r"codes of 6 bytes, not uint8|decode to NaN or infinite numbers"):
        FlatIndex.open(tmp_path).search(queries, 7)


def test_binary_codes_ranked_by_projections_are_saved_and_come_back(tmp_path: Path) -> None:
    gallery, queries, relevance = sides()
    index = FlatIndex(ranking="asymmetric")
    assert (index.needs_projections("query"), index.needs_projections("gallery")) == (True, False)
    index.build(gallery).save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    differing = queries.codes.unpack()[:, None] != gallery.codes.unpack()
    exact = np.where(differing, np.abs(queries.projections)[:, None].astype(np.float64), 0).sum(axis=2)
    for one in (index, opened):
        found = one.search(queries, 10)
        np.testing.assert_allclose(found.distances, np.sort(exact, axis=1)[:, :10], atol=1e-5)
        assert one.bytes == 90 * 2
        assert sum(len(block) for block in one.rank(queries, relevance)) == 12
