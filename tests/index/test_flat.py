"""Exhaustive search: which ranking, what is found, what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.index.flat import FlatIndex
from lshbench.types import Codes, Encoded, Relevance

BITS = 13


def sides(seed: int = 0) -> tuple[Encoded, Encoded, Relevance]:
    generator = np.random.default_rng(seed)
    embeddings = [generator.standard_normal((count, BITS)).astype(np.float32) for count in (90, 12)]
    gallery, queries = (
        Encoded(np.zeros((len(e), 3), np.float32), codes=Codes.from_signs(e), embedding=e) for e in embeddings
    )
    return gallery, queries, Relevance(generator.integers(0, 3, 12), generator.integers(0, 3, 90))


def distances(gallery: Encoded, queries: Encoded, ranking: str) -> np.ndarray:
    if ranking == "hamming":
        return (queries.codes.unpack()[:, None] != gallery.codes.unpack()).sum(axis=2).astype(np.float64)
    first, second = (
        e.embedding.astype(np.float64) / np.linalg.norm(e.embedding, axis=1, keepdims=True) for e in (queries, gallery)
    )
    return 1 - first @ second.T


def test_auto_is_hamming_and_both_rankings_can_be_asked_for() -> None:
    index = FlatIndex()
    assert [index.check("binary", ranking) for ranking in ("auto", "hamming", "cosine")] == [
        "hamming", "hamming", "cosine",
    ]  # fmt: skip
    assert index.exhaustive


def test_clusters_are_refused_with_the_index_that_takes_them() -> None:
    with pytest.raises(UsageError, match="index='flat': expected ivf for a method that gives clusters"):
        FlatIndex().check("clusters", "auto")


@pytest.mark.parametrize("ranking", ["hamming", "cosine"])
def test_the_nearest_are_those_of_brute_force(ranking: str) -> None:
    gallery, queries, _ = sides()
    found = FlatIndex().build(gallery, ranking).search(queries, 10)
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
    for block in FlatIndex().build(gallery, ranking).rank(queries, relevance):
        assert (block.ranked == 90).all()
        positions += np.split(block.positions, block.position_offsets[1:-1])
    assert len(positions) == len(queries)
    for query, found in enumerate(positions):
        order = np.argsort(exact[query], kind="stable")
        expected = np.flatnonzero(relevance.gallery[order] == relevance.queries[query]) + 1
        np.testing.assert_array_equal(found, expected)


def test_saved_codes_open_in_faiss_and_find_the_same(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = FlatIndex().build(gallery, "hamming")
    index.save(tmp_path)
    described = json.loads((tmp_path / "index.json").read_text())
    expected = {"index": "flat", "ranking": "hamming", "bits": 13, "items": 90, "file": "codes.faiss"}
    assert described == expected | {"words": "words.npy"}
    opened = faiss.read_index_binary(str(tmp_path / "codes.faiss"))
    assert isinstance(opened, faiss.IndexBinaryFlat)
    np.testing.assert_array_equal(
        opened.search(queries.codes.packed, 5)[0], index.search(queries, 5).distances.astype(np.int32)
    )
    assert index.bytes == 90 * 8, "13 bits are searched as one word of 64"


def test_saved_embeddings_are_a_plain_array(tmp_path: Path) -> None:
    gallery, _, _ = sides()
    index = FlatIndex().build(gallery, "cosine")
    index.save(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["file"] == "embeddings.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "embeddings.npy", mmap_mode="r"), gallery.embedding)
    assert index.bytes == gallery.embedding.nbytes + 4 * 90


def test_what_a_ranking_needs_must_be_there() -> None:
    vectors = np.zeros((4, 3), np.float32)
    for ranking, message in (("hamming", "takes codes"), ("cosine", "takes embeddings")):
        with pytest.raises(ValueError, match=message):
            FlatIndex().build(Encoded(vectors), ranking)


@pytest.mark.parametrize("ranking", ["hamming", "cosine"])
def test_a_saved_index_opens_without_features_and_finds_the_same(ranking: str, tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = FlatIndex().build(gallery, ranking)
    index.save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    found, expected = opened.search(queries, 90), index.search(queries, 90)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert opened.bytes == index.bytes


@pytest.mark.parametrize("bits", [13, 64, 100])
def test_saved_codes_are_searched_where_they_lie(bits: int, tmp_path: Path) -> None:
    embedding = np.random.default_rng(0).standard_normal((50, bits))
    gallery = Encoded(np.zeros((50, 3), np.float32), codes=Codes.from_signs(embedding))
    FlatIndex().build(gallery, "hamming").save(tmp_path)
    opened = FlatIndex.open(tmp_path)
    assert isinstance(opened.codes.words.base, np.memmap)
    assert Path(opened.codes.words.base.filename) == tmp_path / "words.npy"
    found = opened.search(gallery, 1)
    assert (found.distances == 0).all()
    (tmp_path / "again").mkdir()
    opened.save(tmp_path / "again")
    assert (tmp_path / "again" / "codes.faiss").read_bytes() == (tmp_path / "codes.faiss").read_bytes()
    np.save(tmp_path / "words.npy", opened.codes.words[:, 1:])
    with pytest.raises(ValueError, match="codes of 50 items"):
        FlatIndex.open(tmp_path)


def test_codes_of_an_earlier_version_open_too(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = FlatIndex().build(gallery, "hamming")
    index.save(tmp_path)
    (tmp_path / "words.npy").unlink()
    described = json.loads((tmp_path / "index.json").read_text())
    del described["words"]
    (tmp_path / "index.json").write_text(json.dumps(described))
    np.testing.assert_array_equal(FlatIndex.open(tmp_path).search(queries, 9).ids, index.search(queries, 9).ids)


def test_another_kind_of_index_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"index": "ivf"}')
    with pytest.raises(ValueError, match="of the kind ivf, not flat"):
        FlatIndex.open(tmp_path)


def test_features_are_ranked_by_cosine_whatever_the_method(tmp_path: Path) -> None:
    from lshbench.ranking.cosine import cosine_neighbors

    generator = np.random.default_rng(0)
    x, q = (generator.standard_normal((count, 5)).astype(np.float32) for count in (90, 12))
    index = FlatIndex(vectors="features")
    assert [index.check(kind, "auto") for kind in ("binary", "clusters")] == ["cosine", "cosine"]
    assert index.ranks_features
    assert (index.uses_method, FlatIndex().uses_method) == (False, True)
    assert not index.wants_embedding("query", "cosine")
    index.build(Encoded(x), "cosine").save(tmp_path)
    found, exact = index.search(Encoded(q), 90), cosine_neighbors(q, x, 90)
    np.testing.assert_array_equal(found.ids, exact.ids)
    assert index.bytes == 4 * 90, "norms; features are kept once for all runs"
    np.testing.assert_array_equal(FlatIndex.open(tmp_path, x).search(Encoded(q), 90).distances, found.distances)
    with pytest.raises(ValueError, match="takes the gallery's vectors"):
        FlatIndex.open(tmp_path)
    with pytest.raises(UsageError, match=r"ranking='hamming': expected cosine or auto with index\.vectors=features"):
        index.check("binary", "hamming")
    with pytest.raises(UsageError, match=r"index\.vectors='x': expected embedding or features"):
        FlatIndex(vectors="x")
