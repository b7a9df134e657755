"""Inverted lists: against brute force over the visited clusters, at every size of block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.errors import UsageError
from lshbench.index import ivf
from lshbench.index.ivf import IvfIndex
from lshbench.types import Clusters, Encoded, Relevance


def sides(
    seed: int = 0, items: int = 120, asked: int = 15, clusters: int = 9, used: int = 7
) -> tuple[Encoded, Encoded, Relevance]:
    """Return gallery and queries of which the last clusters have no members."""
    generator = np.random.default_rng(seed)
    vectors = [(generator.standard_normal((count, 6)) + 0.5).astype(np.float32) for count in (items, asked)]
    gallery = Encoded(vectors[0], Clusters(generator.integers(0, used, (items, 1)).astype(np.int32)))
    orders = np.argsort(generator.random((asked, clusters)), axis=1).astype(np.int32)
    labels = Relevance(generator.integers(0, 3, asked), generator.integers(0, 3, items))
    return gallery, Encoded(vectors[1], Clusters(orders)), labels


def brute_force(gallery: Encoded, queries: Encoded, nprobe: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each query's candidates and their distances, nearest first."""
    first, second = (e.features.astype(np.float64) for e in (queries, gallery))
    cosines = first @ second.T
    norms = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    exact = 1 - np.divide(cosines, norms, out=np.zeros_like(cosines), where=norms > 0)
    found = []
    for query in range(len(queries)):
        rows = np.flatnonzero(np.isin(gallery.codes.numbers[:, 0], queries.codes.numbers[query, :nprobe]))
        rows = rows[np.argsort(exact[query, rows], kind="stable")]
        found.append((rows, exact[query, rows]))
    return found


@pytest.mark.parametrize("nprobe", [1, 3, 9])
@pytest.mark.parametrize(("block", "gather"), [(1 << 24, 8192), (50, 8192), (1, 3)])
def test_the_nearest_are_those_of_brute_force(
    nprobe: int, block: int, gather: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ivf, "BLOCK_CANDIDATES", block)
    monkeypatch.setattr(ivf, "GATHER_ROWS", gather)
    gallery, queries, _ = sides()
    found = IvfIndex(nprobe=nprobe).build(gallery).search(queries, 10)
    for query, (rows, exact) in enumerate(brute_force(gallery, queries, nprobe)):
        kept = min(10, len(rows))
        assert found.candidates[query] == len(rows)
        np.testing.assert_array_equal(found.ids[query, :kept], rows[:kept])
        np.testing.assert_allclose(found.distances[query, :kept], exact[:kept], atol=1e-6)
        assert (found.ids[query, kept:] == -1).all()
        assert np.isinf(found.distances[query, kept:]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40), st.integers(1, 200))
def test_relevant_items_stand_where_brute_force_puts_them(seed: int, nprobe: int, items: int, block: int) -> None:
    gallery, queries, relevance = sides(seed, items=items)
    before, ivf.BLOCK_CANDIDATES = ivf.BLOCK_CANDIDATES, block
    try:
        blocks = list(IvfIndex(nprobe=nprobe).build(gallery).rank(queries, relevance))
    finally:
        ivf.BLOCK_CANDIDATES = before
    positions = [part for b in blocks for part in np.split(b.positions, b.position_offsets[1:-1])]
    ranked = np.concatenate([b.ranked for b in blocks])
    totals = np.concatenate([b.total_relevant for b in blocks])
    for query, (rows, _) in enumerate(brute_force(gallery, queries, nprobe)):
        right = relevance.gallery == relevance.queries[query]
        np.testing.assert_array_equal(positions[query], np.flatnonzero(right[rows]) + 1)
        assert (ranked[query], totals[query]) == (len(rows), right.sum())


def test_all_clusters_make_the_exhaustive_cosine_ranking() -> None:
    from lshbench.ranking.cosine import cosine_blocks, cosine_neighbors

    gallery, queries, relevance = sides(items=400)
    index = IvfIndex(nprobe=9).build(gallery)
    ours, flat = (
        [part for b in blocks for part in np.split(b.positions, b.position_offsets[1:-1])]
        for blocks in (index.rank(queries, relevance), cosine_blocks(queries.features, gallery.features, relevance))
    )
    for first, second in zip(ours, flat, strict=True):
        np.testing.assert_array_equal(first, second)
    found, exact = index.search(queries, 20), cosine_neighbors(queries.features, gallery.features, 20)
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_allclose(found.distances, exact.distances, atol=1e-6)
    np.testing.assert_array_equal(found.candidates, exact.candidates)


def test_no_queries_have_no_results() -> None:
    gallery, queries, _ = sides()
    found = IvfIndex().build(gallery).search(queries[:0], 3)
    assert (found.ids.shape, found.distances.shape, found.candidates.shape) == ((0, 3), (0, 3), (0,))


def test_a_visit_to_an_empty_cluster_finds_nothing() -> None:
    gallery, queries, relevance = sides()
    last = Encoded(queries.features, Clusters(queries.codes.numbers[:, :1] * 0 + 8))
    index = IvfIndex().build(gallery)
    found = index.search(last, 3)
    assert (found.ids == -1).all()
    assert (found.candidates == 0).all()
    for block in index.rank(last, relevance):
        assert (block.ranked == 0).all()
        assert block.size.sum() == 0
        assert (block.total_relevant > 0).all()


def test_vectors_of_length_zero_are_as_far_as_orthogonal_ones() -> None:
    gallery, queries, _ = sides()
    gallery.features[:5] = 0
    queries.features[0] = 0
    found = IvfIndex(nprobe=9).build(gallery).search(queries, 120)
    assert (found.distances[0] == 1).all()
    assert (np.sort(found.distances[1])[np.isfinite(found.distances[1])] >= 0).all()
    assert (found.distances[found.ids < 5] == 1).all()


def test_equal_vectors_are_equally_far_wherever_they_stand() -> None:
    generator = np.random.default_rng(0)
    distinct = generator.standard_normal((40, 333)).astype(np.float32)
    for items in (41, 97, 250):
        number = generator.integers(0, 40, items)
        gallery = Encoded(distinct[number], Clusters((number % 3).astype(np.int32)[:, None]))
        queries = Encoded(
            generator.standard_normal((7, 333)).astype(np.float32), Clusters(np.tile(np.arange(3), (7, 1)))
        )
        found = IvfIndex(nprobe=3).build(gallery).search(queries, items)
        for query in range(7):
            for each in np.unique(number):
                assert len(set(found.distances[query, number[found.ids[query]] == each])) == 1


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_very_short_and_very_long_vectors_have_directions_too(length: float) -> None:
    gallery, queries, _ = sides()
    expected = IvfIndex(nprobe=9).build(gallery).search(queries, 20)
    gallery.features[::2] *= np.float32(length)
    queries.features[:] *= np.float32(length)
    found = IvfIndex(nprobe=9).build(gallery).search(queries, 20)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-6)


def test_a_query_alone_finds_what_it_finds_among_others() -> None:
    gallery, queries, _ = sides()
    index = IvfIndex(nprobe=3).build(gallery)
    together = index.search(queries, 10)
    for query in range(len(queries)):
        alone = index.search(queries[query : query + 1], 10)
        np.testing.assert_array_equal(alone.ids[0], together.ids[query])
        np.testing.assert_allclose(alone.distances[0], together.distances[query], atol=1e-6)


def test_the_gallery_may_be_a_read_only_memory_map_and_stays_where_it_is(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    np.save(tmp_path / "x.npy", gallery.features)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = IvfIndex(nprobe=4).build(Encoded(mapped, gallery.codes))
    assert index.gallery.vectors is mapped
    expected = IvfIndex(nprobe=4).build(gallery).search(queries, 5)
    np.testing.assert_array_equal(index.search(queries, 5).ids, expected.ids)


def test_saved_lists_hold_every_item_in_its_cluster(tmp_path: Path) -> None:
    gallery, _, _ = sides()
    index = IvfIndex(nprobe=2).build(gallery)
    index.save(tmp_path)
    described = json.loads((tmp_path / "index.json").read_text())
    assert (described["items"], described["clusters"], described["nprobe"]) == (120, 7, [2])
    offsets, ids, norms = (np.load(tmp_path / name) for name in described["files"])
    assert sorted(ids) == list(range(120))
    for cluster in range(7):
        members = ids[offsets[cluster] : offsets[cluster + 1]]
        np.testing.assert_array_equal(members, np.flatnonzero(gallery.codes.numbers[:, 0] == cluster))
    np.testing.assert_allclose(1 / norms, np.linalg.norm(gallery.features, axis=1), rtol=1e-6)
    assert index.bytes == offsets.nbytes + ids.nbytes + norms.nbytes
    assert (index.code_bytes, index.feature_bytes) == (0, index.gallery.vectors.nbytes)


def test_only_clusters_or_features_and_only_cosine() -> None:
    assert [IvfIndex(ranking=ranking).ranking for ranking in ("auto", "cosine")] == ["cosine", "cosine"]
    with pytest.raises(UsageError, match=r"index.clusters=None: expected a number of clusters, as there is no method"):
        IvfIndex(gives="nothing")
    assert IvfIndex(clusters=3, gives="nothing").ranking == "cosine"
    with pytest.raises(UsageError, match=r"index='ivf': expected flat, .* or method=none with index=ivf"):
        IvfIndex(clusters=3, gives="binary")
    with pytest.raises(UsageError, match="ranking='hamming': expected cosine or auto"):
        IvfIndex(ranking="hamming")


def test_more_probes_than_clusters_are_refused_as_soon_as_their_number_is_known() -> None:
    with pytest.raises(UsageError, match=r"index\.nprobe=0: expected at least 1"):
        IvfIndex(nprobe=0)
    with pytest.raises(UsageError, match=r"index\.nprobe=10: expected at most 9, the number of clusters"):
        IvfIndex(nprobe=10, clusters=9)
    gallery, queries, _ = sides()
    with pytest.raises(UsageError, match=r"index\.nprobe=10: expected at most 9"):
        IvfIndex(nprobe=10).build(gallery).search(queries, 1)


def test_one_build_serves_several_numbers_of_probes() -> None:
    gallery, queries, _ = sides()
    index = IvfIndex(nprobe=[9, 1, 3]).build(gallery)
    assert index.points() == [{"nprobe": 1}, {"nprobe": 3}, {"nprobe": 9}]
    assert (index.search(queries, 5).candidates == 120).all(), "the most thorough is in effect first"
    for point in index.points():
        index.set_point(point)
        alone = IvfIndex(**point).build(gallery).search(queries, 5)
        np.testing.assert_array_equal(index.search(queries, 5).ids, alone.ids)
    with pytest.raises(UsageError, match=r"index\.nprobe=\[\]: expected at least 1"):
        IvfIndex(nprobe=[])
    with pytest.raises(UsageError, match=r"index\.nprobe=10: expected at most 9"):
        IvfIndex(nprobe=[1, 10], clusters=9)


@pytest.mark.parametrize("length", [1.0, 1e-25, 1e35])
def test_a_saved_index_opens_with_its_vectors_and_finds_the_same(length: float, tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    gallery = Encoded(gallery.features * np.float32(length), gallery.codes)
    index = IvfIndex(nprobe=[1, 3]).build(gallery)
    index.save(tmp_path)
    np.save(tmp_path / "x.npy", gallery.features)
    opened = IvfIndex.open(tmp_path, np.load(tmp_path / "x.npy", mmap_mode="r"))
    found, expected = opened.search(queries, 20), index.search(queries, 20)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert opened.points() == index.points()


def test_an_index_is_not_opened_with_vectors_that_are_not_its_gallerys(tmp_path: Path) -> None:
    gallery, _, _ = sides()
    IvfIndex().build(gallery).save(tmp_path)
    for vectors in (None, gallery.features[:-1]):
        with pytest.raises(ValueError, match="takes the gallery's features \\(120, 6\\)"):
            IvfIndex.open(tmp_path, vectors)


# Clusters of the index's own, for methods that give none


def plain(items: int = 400) -> tuple[Encoded, Encoded, Relevance]:
    gallery, queries, relevance = sides(items=items)
    return Encoded(gallery.features), Encoded(queries.features), relevance


def test_all_of_the_index_s_own_clusters_make_the_exhaustive_cosine_ranking() -> None:
    from lshbench.ranking.cosine import cosine_neighbors

    gallery, queries, relevance = plain()
    index = IvfIndex(gives="nothing", clusters=12, nprobe=[1, 12]).build(gallery)
    found, exact = index.search(queries, 20), cosine_neighbors(queries.features, gallery.features, 20)
    np.testing.assert_array_equal(found.ids, exact.ids)
    assert (found.candidates == 400).all()
    assert all((block.ranked == 400).all() for block in index.rank(queries, relevance))
    index.set_point({"nprobe": 1})
    assert (index.search(queries, 20).candidates < 400).all()


def test_an_item_lies_in_the_cluster_whose_direction_is_nearest(tmp_path: Path) -> None:
    gallery, queries, _ = plain()
    index = IvfIndex(gives="nothing", clusters=12, nprobe=2, seed=5).build(gallery)
    index.save(tmp_path)
    centroids = np.load(tmp_path / "centroids.npy")
    nearest = np.argmax(ivf.directions(gallery.features) @ centroids.T, axis=1)
    order = np.argsort(-(ivf.directions(queries.features) @ centroids.T), axis=1)[:, :2]
    found = index.search(queries, 400)
    for query, visited in enumerate(order):
        rows = found.ids[query, : found.candidates[query]]
        assert set(rows) == set(np.flatnonzero(np.isin(nearest, visited)))
    opened = IvfIndex.open(tmp_path, gallery.features)
    np.testing.assert_array_equal(opened.search(queries, 400).ids, found.ids)
    assert opened.bytes == index.bytes
    again = IvfIndex(gives="nothing", clusters=12, nprobe=2, seed=5).build(gallery)
    np.testing.assert_array_equal(again.centroids, centroids)


def test_more_clusters_than_items_are_refused() -> None:
    gallery, _, _ = plain(items=5)
    with pytest.raises(UsageError, match=r"index\.clusters=6: expected at most 5, the items of the gallery"):
        IvfIndex(gives="nothing", clusters=6).build(gallery)
    with pytest.raises(UsageError, match=r"index\.clusters=0: expected at least 1"):
        IvfIndex(gives="nothing", clusters=0)
