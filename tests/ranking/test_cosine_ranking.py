"""Ranking by cosine against sorting, float64 and itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import faiss
import numba
import numpy as np
import pytest
from brute_force import nearest, random_labels, ranking, read, relevant_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.measures import concatenate, measure
from lshbench.ranking import cosine as real
from lshbench.ranking.cosine import VectorGallery, cosine_blocks, cosine_neighbors
from lshbench.types import Neighbors, Relevance


def exact_cosine(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return cosines in float64, 0 for zero vectors."""
    ours, theirs = queries.astype(np.float64), gallery.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1)[:, None] * np.linalg.norm(theirs, axis=1)
    return np.divide(ours @ theirs.T, norms, out=np.zeros(norms.shape), where=norms > 0)


def check(queries: np.ndarray, gallery: np.ndarray, relevance: Relevance, k: int) -> None:
    """Hold groups, positions and neighbours against sorts of the same float32 similarities."""
    prepared = VectorGallery.from_vectors(gallery)
    assert len(gallery) <= prepared.tile
    products = real._units(queries, real._norms(queries, "query")) @ prepared.rows(0, prepared.tile).T
    similarity = products[: len(queries), : len(gallery)] * prepared.inverse_norms + np.float32(0)
    assert np.abs(similarity - exact_cosine(queries, gallery)).max() < 2e-6
    relevant = relevant_matrix(relevance)
    expected = [ranking(-row, own) for row, own in zip(similarity, relevant, strict=True)]
    groups, positions, totals, ranked = read(cosine_blocks(queries, gallery, relevance))
    assert groups == [pair[0] for pair in expected]
    assert positions == [pair[1] for pair in expected]
    assert totals == relevant.sum(1).tolist()
    assert ranked == [len(gallery)] * len(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real, "FEW_QUERIES", 0)
        found = cosine_neighbors(queries, gallery, k)
    for i, row in enumerate(similarity):
        first = nearest(-row, k)
        assert found.ids[i, : len(first)].tolist() == first.tolist()
        assert (found.ids[i, len(first) :] == -1).all()
        assert np.isinf(found.distances[i, len(first) :]).all()
    check_few(queries[: real.FEW_QUERIES], gallery, similarity, k)


def check_few(queries: np.ndarray, gallery: np.ndarray, similarity: np.ndarray, k: int) -> None:
    """Hold what is found without a matrix product against similarities that may be rounded otherwise."""
    found = cosine_neighbors(queries, gallery, k)
    kept = min(k, len(gallery))
    assert (found.ids[:, kept:] == -1).all()
    assert np.isinf(found.distances[:, kept:]).all()
    for ids, distances, row in zip(found.ids[:, :kept], found.distances[:, :kept], similarity, strict=False):
        np.testing.assert_allclose(1 - distances, row[ids], rtol=0, atol=2e-6)
        assert len(set(ids.tolist())) == kept
        assert (np.diff(distances) >= 0).all()
        same = (gallery[ids[1:]] == gallery[ids[:-1]]).all(1)
        assert (ids[1:] > ids[:-1])[same].all(), "ties are in order of rows"
        left = np.delete(np.arange(len(gallery)), ids)
        assert row[left].max(initial=-2) <= row[ids].min(initial=2) + 4e-6
        alike = left[(gallery[left] == gallery[ids[-1]]).all(1)]
        assert (alike > ids[-1]).all(), "of equal items the first are found"


def grid(random: np.random.Generator, items: int, dimensions: int) -> np.ndarray:
    """Return vectors of one axis each, or zero: cosines are -1, 0 or 1 exactly, so that ties abound."""
    rows = np.zeros((items, dimensions), np.float32)
    rows[np.arange(items), random.integers(0, dimensions, items)] = random.choice([-2, 0, 1, 4], items)
    return rows


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("items", [1, 5, 300, 5000])
def test_tied_similarities_rank_as_a_stable_sort_does(items: int, multiple: bool) -> None:
    random = np.random.default_rng(items)
    queries, gallery = grid(random, 20, 4), grid(random, items, 4)
    check(queries, gallery, random_labels(random, 20, items, multiple=multiple), 7)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_small_input_with_ties_ranks_as_a_stable_sort_does(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    items, dimensions = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 5))
    relevance = random_labels(random, 4, items, multiple=data.draw(st.booleans()))
    queries, gallery = grid(random, 4, dimensions), grid(random, items, dimensions)
    check(queries, gallery, relevance, data.draw(st.integers(1, 130)))


@pytest.mark.parametrize("k", [3, 40, 700])
def test_items_that_tie_in_different_tiles_are_found_in_order_of_rows(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    random = np.random.default_rng(k)
    queries, gallery = grid(random, 20, 4), grid(random, 5000, 4)
    whole = cosine_neighbors(queries, gallery, k)
    monkeypatch.setattr(real, "TILE", 1664)
    assert VectorGallery.from_vectors(gallery).tile < len(gallery) / 3
    parts = cosine_neighbors(queries, gallery, k)
    few = [cosine_neighbors(queries[i : i + 5], gallery, k).ids for i in range(0, 20, 5)]
    assert np.array_equal(whole.ids, np.argsort(-exact_cosine(queries, gallery), axis=1, kind="stable")[:, :k])
    assert np.array_equal(parts.ids, whole.ids)
    assert np.array_equal(np.concatenate(few), whole.ids)


def adversarial(name: str) -> tuple[np.ndarray, np.ndarray, Relevance]:
    random = np.random.default_rng(7)
    queries, gallery = (random.standard_normal((n, 12)).astype(np.float32) for n in (5, 4200))
    some = Relevance(random.integers(0, 4, 5), random.integers(0, 4, 4200))
    match name:
        case "all ties":
            gallery[:] = gallery[0]
        case "all zero":
            gallery[:] = 0
        case "no relevant items":
            some = Relevance(np.full(5, 7), np.zeros(4200, np.int64))
        case "all relevant":
            some = Relevance(np.ones(5, np.int64), np.ones(4200, np.int64))
        case "one item":
            return queries[:2], gallery[:1], Relevance(np.array([0, 1]), np.array([1]))
        case "duplicates":
            gallery = gallery[random.integers(0, 40, 4200)]
        case "one of the relevant items far from the rest":
            gallery = gallery * np.float32(1e-3) + queries[0]
            gallery[np.flatnonzero(some.gallery == some.queries[0])[3]] = -queries[0]
        case "relevant items alike, others near":
            own = some.gallery == some.queries[0]
            gallery[own] = queries[0]
            gallery[~own] = queries[0] + gallery[~own] * np.float32(1e-6)
    return queries, gallery, some


@pytest.mark.parametrize(
    "name",
    [
        "all ties",
        "all zero",
        "no relevant items",
        "all relevant",
        "one item",
        "duplicates",
        "one of the relevant items far from the rest",
        "relevant items alike, others near",
    ],
)
def test_adversarial_galleries_rank_as_a_stable_sort_does(name: str) -> None:
    queries, gallery, relevance = adversarial(name)
    for k in (1, 30, len(gallery) + 3):
        check(queries, gallery, relevance, k)


def test_neighbours_agree_with_faiss_up_to_rounding() -> None:
    random = np.random.default_rng(8)
    queries, gallery = (random.standard_normal((n, 64)).astype(np.float32) for n in (30, 3000))
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, gallery)]
    index = faiss.IndexFlatIP(64)
    index.add(units[1])
    similarity, ids = index.search(units[0], 25)
    ours = cosine_neighbors(queries, gallery, 25)
    np.testing.assert_allclose(1 - ours.distances, similarity, rtol=0, atol=1e-6)
    for i in range(len(queries)):
        surely = similarity[i] > similarity[i, -1] + 2e-6
        assert set(ids[i][surely]) <= set(ours.ids[i])


@pytest.mark.parametrize("kind", ["gaussian", "clustered", "outlier", "all equal", "tiny and huge"])
def test_similarities_of_any_distribution_are_placed_exactly(kind: str) -> None:
    random = np.random.default_rng(1)
    queries, gallery = (random.standard_normal((count, 24)).astype(np.float32) for count in (9, 4500))
    if kind == "clustered":
        gallery = gallery * 1e-4 + queries[0]
    elif kind == "outlier":
        # All but one relevant item fall into the same bin.
        gallery = gallery * 1e-5 + queries[0]
        gallery[17] = -queries[0]
    elif kind == "all equal":
        gallery[:] = gallery[0]
    elif kind == "tiny and huge":
        gallery = (gallery.astype(np.float64) * 10.0 ** random.integers(-35, 30, (4500, 1))).astype(np.float32)
    relevance = random_labels(random, 9, 4500, multiple=False)
    relevant = relevant_matrix(relevance)
    blocks = list(cosine_blocks(queries, gallery, relevance))
    groups, positions, _, _ = read(blocks)
    cosine = exact_cosine(queries, gallery)
    for i in range(9):
        assert sum(group[3] for group in groups[i]) == relevant[i].sum() == len(positions[i])
        assert positions[i] == sorted(set(positions[i]))
        assert all(0 <= group[0] <= 4500 - group[2] for group in groups[i])
        # Rounding may swap neighbours, but not items whose cosines differ by more than it.
        best = np.sort(cosine[i])[::-1]
        own = np.sort(cosine[i][relevant[i]])[::-1]
        assert np.abs(best[np.array(positions[i], int) - 1] - own).max(initial=0) < 1e-5


def _rounds_alike() -> bool:
    """Return whether NumPy's BLAS gives equal columns equal products wherever they stand in a matrix."""
    queries = np.random.default_rng(0).standard_normal((24, 64)).astype(np.float32)
    products = queries @ np.tile(queries[:1], (1008, 1)).T
    return bool((products == products[:, :1]).all())


BLAS_ROUNDS_ALIKE = _rounds_alike()


@pytest.mark.parametrize("dimensions", [3, 64, 1280])
@pytest.mark.parametrize("items", [37, 999, 5003])
def test_a_gallery_in_another_order_gives_the_same_similarities(items: int, dimensions: int) -> None:
    random = np.random.default_rng(2)
    queries, gallery = (random.standard_normal((n, dimensions)).astype(np.float32) for n in (21, items))
    relevance = random_labels(random, 21, items, multiple=False)
    order = random.permutation(items)
    shuffled = Relevance(relevance.queries, relevance.gallery[order])
    first = concatenate([measure(block) for block in cosine_blocks(queries, gallery, relevance)])
    second = concatenate([measure(block) for block in cosine_blocks(queries, gallery[order], shuffled)])
    one = cosine_neighbors(queries, gallery, 30)
    two = cosine_neighbors(queries, gallery[order], 30)
    if BLAS_ROUNDS_ALIKE:
        assert np.array_equal(first["AP"], second["AP"])
        assert np.array_equal(one.distances, two.distances)
        assert np.array_equal(one.ids, order[two.ids])
    else:
        np.testing.assert_allclose(first["AP"], second["AP"], rtol=1e-4)
        np.testing.assert_allclose(one.distances, two.distances, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("items", [3, 4, 7, 3001])
def test_one_query_alone_gets_what_it_gets_among_others(items: int, threads: int) -> None:
    random = np.random.default_rng(3)
    queries, gallery = (random.standard_normal((n, 100)).astype(np.float32) for n in (50, items))
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    together = cosine_neighbors(queries, gallery, 20)
    alone = cosine_neighbors(queries[31:32], VectorGallery.from_vectors(gallery), 20)
    numba.set_num_threads(before)
    assert np.array_equal(together.ids[31:32], alone.ids)
    np.testing.assert_allclose(together.distances[31:32], alone.distances, rtol=0, atol=1e-6)


def by_products(monkeypatch: pytest.MonkeyPatch, queries: np.ndarray, gallery: np.ndarray, k: int) -> Neighbors:
    """Return what matrix products find."""
    with monkeypatch.context() as patch:
        patch.setattr(real, "NARROW_DIMENSIONS", 0)
        return cosine_neighbors(queries, gallery, k)


@pytest.mark.parametrize("k", [3, 40, 700])
@pytest.mark.parametrize(("items", "tile"), [(700, 1 << 14), (5000, 1 << 14), (5003, 1664)])
def test_ties_among_narrow_vectors_are_found_as_by_matrix_products(
    monkeypatch: pytest.MonkeyPatch, items: int, tile: int, k: int
) -> None:
    monkeypatch.setattr(real, "TILE", tile)
    monkeypatch.setattr(real, "LEAST_PRODUCT", 0)
    random = np.random.default_rng(items)
    queries, gallery = grid(random, 40, 5), grid(random, items, 5)
    found, expected = cosine_neighbors(queries, gallery, k), by_products(monkeypatch, queries, gallery, k)
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.distances, expected.distances)
    assert np.array_equal(found.ids, np.argsort(-exact_cosine(queries, gallery), axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dimensions", [37, 64, 128])
def test_narrow_vectors_are_multiplied_as_precisely_as_by_matrix_products(
    monkeypatch: pytest.MonkeyPatch, dimensions: int, threads: int
) -> None:
    random = np.random.default_rng(dimensions)
    queries, gallery = (random.standard_normal((n, dimensions)).astype(np.float32) for n in (45, 3001))
    gallery[7] = 0
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        found, expected = cosine_neighbors(queries, gallery, 100), by_products(monkeypatch, queries, gallery, 100)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=0, atol=1e-6)
    cosine = exact_cosine(queries, gallery)
    np.testing.assert_allclose(1 - found.distances, np.take_along_axis(cosine, found.ids, 1), rtol=0, atol=1e-6)
    left = cosine.copy()
    np.put_along_axis(left, found.ids, -2, 1)
    assert (left.max(1) <= 1 - found.distances[:, -1] + 1e-6).all()


def test_narrow_vectors_in_another_order_have_the_same_similarities_to_the_last_bit() -> None:
    random = np.random.default_rng(9)
    queries, gallery = (random.standard_normal((n, 37)).astype(np.float32) for n in (50, 5003))
    order = random.permutation(5003)
    first, shuffled = (cosine_neighbors(queries, rows, 30) for rows in (gallery, gallery[order]))
    assert np.array_equal(order[shuffled.ids], first.ids)
    assert np.array_equal(shuffled.distances, first.distances)
    part = cosine_neighbors(queries[11:41], gallery, 30)
    assert np.array_equal(part.distances, first.distances[11:41]), "nor do other queries matter"


def reversed_twice(rows: np.ndarray) -> np.ndarray:
    return rows[::-1].copy()[::-1]


LAYOUTS = [np.ascontiguousarray, np.asfortranarray, lambda rows: np.repeat(rows, 2, axis=0)[::2], reversed_twice]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 90])
def test_vectors_are_searched_however_they_lie_in_memory(count: int) -> None:
    random = np.random.default_rng(10)
    queries, gallery = (random.standard_normal((n, 64)).astype(np.float32) for n in (count, 999))
    expected = cosine_neighbors(queries, gallery, 20)
    for laid, gallery_laid in itertools.product(LAYOUTS, LAYOUTS):
        found = cosine_neighbors(laid(queries), gallery_laid(gallery), 20)
        assert np.array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=0, atol=1e-6)


@pytest.mark.parametrize("items", [1, 3, 5, 1030])
@pytest.mark.parametrize("count", [1, 3])
def test_equal_narrow_vectors_tie_wherever_they_stand(items: int, count: int) -> None:
    random = np.random.default_rng(12)
    queries, row = (random.standard_normal((n, 64)).astype(np.float32) for n in (count, 1))
    found = cosine_neighbors(queries, np.repeat(row, items, axis=0), items)
    assert np.array_equal(found.ids, np.tile(np.arange(items), (count, 1)))
    assert (found.distances == found.distances[:, :1]).all()


def test_narrow_vectors_of_extreme_length_are_scaled() -> None:
    random = np.random.default_rng(11)
    queries, units = (random.standard_normal((n, 24)).astype(np.float32) for n in (40, 2000))
    gallery = (units.astype(np.float64) * 10.0 ** random.integers(-33, 30, (2000, 1))).astype(np.float32)
    found = cosine_neighbors(queries, gallery, 20)
    np.testing.assert_allclose(
        1 - found.distances, np.sort(exact_cosine(queries, gallery), 1)[:, :-21:-1], rtol=0, atol=1e-6
    )


def test_a_few_queries_find_the_same_in_any_order_of_the_gallery() -> None:
    random = np.random.default_rng(6)
    queries, gallery = (random.standard_normal((n, 37)).astype(np.float32) for n in (3, 1001))
    order = random.permutation(1001)
    first, shuffled = (cosine_neighbors(queries, rows, 30) for rows in (gallery, gallery[order]))
    assert np.array_equal(order[shuffled.ids], first.ids)
    assert np.array_equal(shuffled.distances, first.distances), "to the last bit"


def test_blocks_of_queries_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    queries, gallery = (random.standard_normal((n, 16)).astype(np.float32) for n in (70, 500))
    relevance = random_labels(random, 70, 500, multiple=False)
    whole = list(cosine_blocks(queries, gallery, relevance))
    monkeypatch.setattr(real, "MOST_QUERIES", 13)
    parts = list(cosine_blocks(queries, gallery, relevance))
    assert len(whole) == 1
    assert len(parts) == 6
    assert read(whole) == read(parts)


def test_a_zero_vector_has_cosine_zero_and_ties_with_right_angles() -> None:
    queries = np.array([[1, 0]], np.float32)
    gallery = np.array([[0, 0], [1, 0], [0, -3], [-1, 0]], np.float32)
    relevance = Relevance(np.array([1]), np.array([1, 0, 0, 1]))
    groups, positions, _, _ = read(cosine_blocks(queries, gallery, relevance))
    assert groups == [[(1, 0, 2, 1), (3, 1, 1, 1)]]
    assert positions == [[2, 4]]
    found = cosine_neighbors(queries, gallery, 4)
    assert found.ids.tolist() == [[1, 0, 2, 3]]
    assert found.distances.tolist() == [[0, 1, 1, 2]]


def test_one_label_an_item_ranks_alike_as_numbers_and_as_masks() -> None:
    random = np.random.default_rng(5)
    queries, gallery = (random.standard_normal((n, 8)).astype(np.float32) for n in (20, 700))
    numbers = Relevance(random.integers(0, 9, 20), random.integers(0, 9, 700))
    masks = Relevance(np.eye(9, dtype=bool)[numbers.queries], np.eye(9, dtype=bool)[numbers.gallery])
    assert read(cosine_blocks(queries, gallery, numbers)) == read(cosine_blocks(queries, gallery, masks))


def test_a_read_only_memory_map_is_ranked_as_it_lies(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    gallery = random.standard_normal((3000, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", gallery)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(cosine_neighbors(gallery[:9], mapped, 5).ids, cosine_neighbors(gallery[:9], gallery, 5).ids)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["gallery", "query"])
def test_values_that_are_not_finite_are_refused_and_located(
    monkeypatch: pytest.MonkeyPatch, side: str, value: float
) -> None:
    sides = {"query": np.ones((4, 3), np.float32), "gallery": np.ones((6, 3), np.float32)}
    sides[side][2, 1] = sides[side][3, 0] = value
    message = rf"2 of \d {side} vectors hold NaN or infinite values; the first is row 2"
    with pytest.raises(ValueError, match=message):
        cosine_neighbors(sides["query"], sides["gallery"], 1)
    with pytest.raises(ValueError, match=message):
        cosine_blocks(sides["query"], sides["gallery"], Relevance(np.zeros(4, np.int64), np.zeros(6, np.int64)))
    monkeypatch.setattr(real, "FEW_QUERIES", 0)
    with pytest.raises(ValueError, match=message):
        cosine_neighbors(sides["query"], sides["gallery"], 1)


def test_mismatched_input_is_refused() -> None:
    three, four = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="queries have 3 dimensions, the gallery 4"):
        cosine_neighbors(three, four, 1)
    with pytest.raises(ValueError, match="float32"):
        cosine_neighbors(three.astype(np.float64), three, 1)
    with pytest.raises(ValueError, match="k=0"):
        cosine_neighbors(three, three, 0)
    with pytest.raises(ValueError, match="labels"):
        cosine_blocks(three, three, Relevance(np.zeros(2, np.int64), np.zeros(3, np.int64)))
