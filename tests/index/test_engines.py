"""faiss's own indexes against brute force over what they visit, and every index's YAML against its class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lshbench.config import options
from lshbench.errors import UsageError
from lshbench.index.binary_engines import BinaryHashEngine, BinaryIvfEngine, BinaryMultiHashEngine
from lshbench.index.engines import Engine, HnswEngine, LshEngine, spread
from lshbench.ranking.cosine import cosine_neighbors
from lshbench.ranking.hamming import hamming_blocks, hamming_neighbors
from lshbench.system import build_index
from lshbench.types import Codes, Encoded, RankedBlock, Relevance
from tests.options import composed

ITEMS, ASKED, DIM = 400, 25, 12


def sides(bits: int = 21, seed: int = 0, items: int = ITEMS) -> tuple[Encoded, Encoded, Relevance]:
    """Return a gallery, of which the last items are copies of the first, and queries near some of it."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((items, DIM)).astype(np.float32)
    x[3 * items // 4 :] = x[: items - 3 * items // 4]
    q = (x[generator.integers(0, items, ASKED)] + 0.5 * generator.standard_normal((ASKED, DIM))).astype(np.float32)
    plane = generator.standard_normal((DIM, bits)).astype(np.float32)
    gallery, queries = (Encoded(side, Codes.from_signs(side @ plane)) for side in (x, q))
    return gallery, queries, Relevance(generator.integers(0, 3, ASKED), generator.integers(0, 3, items))


def hamming(gallery: Encoded, queries: Encoded) -> np.ndarray:
    return (queries.codes.unpack()[:, None] != gallery.codes.unpack()).sum(axis=2)


def in_buckets(gallery: Encoded, queries: Encoded, tables: int, size: int, nflip: int) -> np.ndarray:
    """Return which items differ from a query in at most ``nflip`` of a table's bits, for any of the tables."""
    differing = queries.codes.unpack()[:, None] != gallery.codes.unpack()
    return np.any(
        [differing[:, :, table * size : (table + 1) * size].sum(axis=2) <= nflip for table in range(tables)], axis=0
    )


def check_finds_the_same(opened: Engine, index: Engine, queries: Encoded) -> None:
    """Compare what an opened index and the one that was saved find at every point."""
    for point in index.points():
        index.set_point(point)
        opened.set_point(point)
        found, expected = opened.search(queries, 15), index.search(queries, 15)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.distances, expected.distances)
        np.testing.assert_array_equal(found.candidates, expected.candidates)


def check_candidates(index: Engine, visited: np.ndarray, exact: np.ndarray, sides: tuple) -> None:
    """Compare results, complete rankings and counts with the items that each query should be compared with."""
    _, queries, relevance = sides
    found = index.search(queries, 7)
    everything = index.search(queries, ITEMS + 5)
    np.testing.assert_array_equal(everything.candidates, visited.sum(axis=1))
    assert found.candidates.sum() == visited.sum()
    assert ((found.candidates == 0) == ~visited.any(axis=1)).all()
    for query, (rows, distances) in enumerate(zip(visited, exact, strict=True)):
        rows = np.flatnonzero(rows)
        rows = rows[np.lexsort((rows, distances[rows]))]
        np.testing.assert_array_equal(everything.ids[query, : len(rows)], rows)
        np.testing.assert_array_equal(everything.distances[query, : len(rows)], distances[rows])
        assert (everything.ids[query, len(rows) :] == -1).all()
        assert np.isinf(everything.distances[query, len(rows) :]).all()
        kept = min(7, len(rows))
        np.testing.assert_array_equal(found.distances[query, :kept], distances[rows][:kept])
        assert index.search(queries[query : query + 1], 3).candidates[0] == len(rows)
    ranked, positions = flattened(index.rank(queries, relevance))
    np.testing.assert_array_equal(ranked, visited.sum(axis=1))
    for query, found_at in enumerate(positions):
        rows = everything.ids[query, : ranked[query]]
        right = relevance.gallery[rows] == relevance.queries[query]
        np.testing.assert_array_equal(found_at, np.flatnonzero(right) + 1)


def flattened(blocks: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    collected: list[RankedBlock] = list(blocks)
    positions = [part for block in collected for part in np.split(block.positions, block.position_offsets[1:-1])]
    return np.concatenate([block.ranked for block in collected]), positions


@pytest.mark.parametrize("bits", [8, 21, 70])
@pytest.mark.parametrize("nflip", [0, 1, 3])
def test_a_hash_table_visits_the_keys_that_differ_in_few_of_the_code_s_first_bits(bits: int, nflip: int) -> None:
    gallery, queries, relevance = sides(bits)
    index = BinaryHashEngine(b=7, nflip=nflip, bits=bits).build(gallery)
    visited = in_buckets(gallery, queries, 1, 7, nflip)
    check_candidates(index, visited, hamming(gallery, queries), (gallery, queries, relevance))


@pytest.mark.parametrize(("bits", "nhash", "b"), [(21, 3, 7), (21, 2, 9), (64, 4, 10)])
def test_several_tables_find_the_union_of_their_buckets(
    bits: int, nhash: int, b: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lshbench.index.engines.BLOCK_CANDIDATES", 3 * ITEMS)
    gallery, queries, relevance = sides(bits)
    index = BinaryMultiHashEngine(nhash=nhash, b=b, nflip=[2, 0, 1], bits=bits).build(gallery)
    assert index.points() == [{"nflip": 0}, {"nflip": 1}, {"nflip": 2}]
    for point in index.points():
        index.set_point(point)
        visited = in_buckets(gallery, queries, nhash, b, point["nflip"])
        check_candidates(index, visited, hamming(gallery, queries), (gallery, queries, relevance))


@pytest.mark.parametrize(
    "index",
    [BinaryHashEngine(b=6, nflip=6), BinaryMultiHashEngine(nhash=2, b=6, nflip=6), BinaryIvfEngine(nlist=9, nprobe=9)],
)
def test_all_buckets_or_lists_make_the_exhaustive_ranking(index: Engine) -> None:
    gallery, queries, relevance = sides()
    index.build(gallery)
    exact = hamming_neighbors(queries.codes, gallery.codes, ITEMS)
    found = index.search(queries, ITEMS)
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_array_equal(found.distances, exact.distances)
    assert (found.candidates == ITEMS).all()
    expected = flattened(hamming_blocks(queries.codes, gallery.codes, relevance))
    for ours, theirs in zip(flattened(index.rank(queries, relevance))[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_binary_lists_count_what_they_compare_and_grow_with_their_probes() -> None:
    gallery, queries, relevance = sides()
    index = BinaryIvfEngine(nlist=16, nprobe=[1, 4, 16]).build(gallery)
    exact = hamming(gallery, queries)
    before = np.zeros((ASKED, ITEMS), bool)
    for point in index.points():
        index.set_point(point)
        everything = index.search(queries, ITEMS)
        visited = np.array([np.isin(np.arange(ITEMS), ids) for ids in everything.ids])
        assert (visited | ~before).all()
        check_candidates(index, visited, exact, (gallery, queries, relevance))
        before = visited
    assert before.all()


@pytest.mark.parametrize("nbits", [16, 37])
@pytest.mark.parametrize("train_thresholds", [False, True])
def test_lsh_ranks_the_whole_gallery_by_codes_of_its_own(nbits: int, train_thresholds: bool) -> None:
    gallery, queries, relevance = sides()
    index = LshEngine(nbits=nbits, train_thresholds=train_thresholds).build(gallery)
    found = index.search(queries, ITEMS)
    assert (found.candidates == ITEMS).all()
    ranked, positions = flattened(index.rank(queries, relevance))
    assert (ranked == ITEMS).all()
    for query, places in enumerate(positions):
        right = relevance.gallery[found.ids[query]] == relevance.queries[query]
        np.testing.assert_array_equal(places, np.flatnonzero(right) + 1)
    assert found.distances.max() <= nbits
    other = LshEngine(nbits=nbits, train_thresholds=train_thresholds, seed=1).build(gallery)
    assert (other.search(queries, 5).distances != found.distances[:, :5]).any(), "the seed decides the hyperplanes"


def test_a_graph_with_everything_in_view_finds_what_exact_cosine_does() -> None:
    gallery, queries, relevance = sides()
    gallery.features[:] *= np.random.default_rng(1).uniform(0.1, 10, (ITEMS, 1)).astype(np.float32)
    index = HnswEngine(m=16, ef_construction=200, ef_search=[10, ITEMS]).build(gallery)
    exact = cosine_neighbors(queries.features, gallery.features, 20)
    found = index.search(queries, 20)
    np.testing.assert_allclose(found.distances, exact.distances, atol=1e-5)
    thorough = index.search(queries, 20).candidates.sum()
    ranked, _ = flattened(index.rank(queries, relevance))
    assert (ranked > 0.9 * ITEMS).all()
    index.set_point({"ef_search": 10})
    few = index.search(queries, 20)
    assert few.candidates.sum() < thorough
    assert ((few.ids >= 0).sum(axis=1) == 10).all(), "no more results than are kept in view"
    ranked, positions = flattened(index.rank(queries, relevance))
    assert (ranked == 10).all()
    for query, places in enumerate(positions):
        right = relevance.gallery[few.ids[query, :10]] == relevance.queries[query]
        np.testing.assert_array_equal(places, np.flatnonzero(right) + 1)


def test_a_graph_is_the_same_every_time() -> None:
    gallery, queries, _ = sides()
    first, second = (HnswEngine(m=4, ef_construction=8, ef_search=8).build(gallery) for _ in range(2))
    np.testing.assert_array_equal(first.search(queries, 8).ids, second.search(queries, 8).ids)


def test_counts_without_a_query_of_their_own_are_spread_evenly() -> None:
    np.testing.assert_array_equal(spread(np.array([2, 5, 0, 5]), 27, np.array([1, 3])), [2, 13, 0, 12])
    np.testing.assert_array_equal(spread(np.array([2, 0]), 2, np.array([], int)), [2, 0])


ENGINES = [
    LshEngine(nbits=20, train_thresholds=True, seed=3),
    HnswEngine(m=8, ef_construction=40, ef_search=[20, 40]),
    BinaryHashEngine(nflip=[0, 2], bits=21),
    BinaryMultiHashEngine(nhash=3, nflip=1),
    BinaryIvfEngine(nlist=12, nprobe=[1, 3]),
]


@pytest.mark.parametrize("index", ENGINES, ids=lambda index: index.option)
def test_a_saved_engine_is_made_again_of_its_arrays_and_finds_the_same(index: Engine, tmp_path: Path) -> None:
    import faiss

    gallery, queries, _ = sides()
    index.build(gallery)
    index.save(tmp_path)
    described = json.loads((tmp_path / "index.json").read_text())
    assert (described["index"], described["ranking"], described["items"]) == (index.option, index.distance, ITEMS)
    read = faiss.read_index_binary if "binary" in index.takes else faiss.read_index
    assert read(str(tmp_path / "engine.faiss")).ntotal == ITEMS
    size = (tmp_path / "engine.faiss").stat().st_size
    if isinstance(index, LshEngine):
        size -= (
            4 * 20 * (gallery.features.shape[1] + 1)
        )  # the rotation and the thresholds make codes: they belong to encoding
    assert index.bytes + index.feature_bytes == size, "codes, links, and the graph's copy of the features"
    assert index.fixed_bytes == (12 * 3 if isinstance(index, BinaryIvfEngine) else 0)
    assert 0 < index.bytes - index.code_bytes < size
    assert (index.code_bytes == 0) == index.ranks_features == (index.feature_bytes > 0)
    (tmp_path / "engine.faiss").write_bytes(b"never read")
    opened = type(index).open(tmp_path, gallery.features if index.ranks_features else None)
    assert opened.bytes == index.bytes
    assert opened.points() == index.points()
    check_finds_the_same(opened, index, queries)
    with pytest.raises(ValueError, match="not nothing"):
        type("Other", (LshEngine,), {"option": "nothing"}).open(tmp_path)


@pytest.mark.parametrize("index", ENGINES, ids=lambda index: index.option)
def test_one_item_is_a_gallery_and_k_must_make_sense(index: Engine) -> None:
    gallery, queries, relevance = sides()
    if isinstance(index, BinaryIvfEngine):
        index = BinaryIvfEngine(nlist=1)
    if isinstance(index, BinaryHashEngine | BinaryMultiHashEngine):
        index = type(index)()
    one = gallery[:1]
    index.build(one)
    assert set(index.search(queries, 4).ids.ravel()) <= {0, -1}
    ranked, _ = flattened(index.rank(queries, Relevance(relevance.queries, relevance.gallery[:1])))
    assert set(ranked) <= {0, 1}
    with pytest.raises(ValueError, match="k=0: expected at least 1"):
        index.search(queries, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LshEngine(nbits=0), r"index\.nbits=0: expected a number from 1"),
        (lambda: LshEngine(nbits=4097), r"index\.nbits=4097: expected a number from 1 to 4096"),
        (lambda: HnswEngine(m=1), r"index\.m=1: expected at least 2"),
        (lambda: HnswEngine(ef_construction=0), r"index\.ef_construction=0: expected at least 1"),
        (lambda: HnswEngine(ef_search=[0, 4]), r"index\.ef_search=\[0, 4\]: expected at least 1"),
        (lambda: BinaryHashEngine(b=65), r"index\.b=65: expected auto, or a number from 1 to 64"),
        (lambda: BinaryHashEngine(b=17, bits=16), r"index\.b=17: expected at most 16: 16 bits of the code"),
        (lambda: BinaryHashEngine(b=4, nflip=5, bits=16), r"index\.nflip=5: expected at most 4"),
        (lambda: BinaryHashEngine(nflip=-1), r"index\.nflip=-1: expected at least 0"),
        (lambda: BinaryMultiHashEngine(nhash=0), r"index\.nhash=0: expected at least 1"),
        (lambda: BinaryMultiHashEngine(nhash=4, b=5, bits=16), r"index\.b=5: expected at most 4: .* / 4 tables"),
        (lambda: BinaryMultiHashEngine(nhash=17, bits=16), r"index\.nhash=17: expected at most 16"),
        (lambda: BinaryIvfEngine(nlist=0), r"index\.nlist=0: expected at least 1"),
        (lambda: BinaryIvfEngine(nlist=4, nprobe=5), r"index\.nprobe=5: expected at most 4"),
        (lambda: BinaryIvfEngine(nlist=500).build(sides()[0]), r"index\.nlist=500: expected at most 400"),
        (lambda: BinaryHashEngine(gives="clusters"), "index='binary_hash': expected ivf for a method"),
        (lambda: BinaryIvfEngine(ranking="cosine"), "ranking='cosine': expected hamming or auto"),
        (lambda: HnswEngine(ranking="hamming"), "ranking='hamming': expected cosine or auto"),
        (lambda: HnswEngine(gives="binary"), "index='hnsw': expected flat, .* or method=none with index=hnsw"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_key(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("option", [name for name, _ in options("index")])
@pytest.mark.parametrize("method", ["random_projection", "kmeans", "pq", "none"])
def test_every_index_s_yaml_binds_to_its_class_and_fits_or_refuses_a_method(option: str, method: str) -> None:
    config = composed("method=none", f"index={option}")
    gives = {"random_projection": "binary", "kmeans": "clusters", "pq": "quantised", "none": "nothing"}[method]
    fits = {
        "flat": ("binary", "quantised", "nothing"),
        "ivf": ("clusters", "nothing"),
        **dict.fromkeys(("hnsw", "lsh", "pq_fastscan", "ivf_pq", "ivf_rabitq", "hnsw_sq"), ("nothing",)),
    }
    if option == "binary_usearch":
        pytest.importorskip("usearch", reason="the extra lshbench[usearch] is not installed")
    if gives not in fits.get(option, ("binary",)):
        with pytest.raises(UsageError, match=f"index='{option}': expected "):
            build_index(config, gives)
        return
    index = build_index(config, gives)
    assert index.ranking in ("hamming", "cosine", "asymmetric")
    assert all(list(point) == list(index.points()[0]) for point in index.points())
