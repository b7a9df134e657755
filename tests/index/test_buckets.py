"""Hash tables against a reference that sorts all buckets, builds sets, and compares everything in them."""

from __future__ import annotations

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.errors import UsageError
from lshbench.index import buckets, tables
from lshbench.index.buckets import BucketsIndex
from lshbench.index.flat import FlatIndex
from lshbench.types import Codes, Encoded, Neighbors, Relevance

RESCORE = ("cosine", "hamming", "embedding")


def encoded(x: np.ndarray, plane: np.ndarray) -> Encoded:
    projections = (x @ plane).astype(np.float32)
    return Encoded(x, replace(Codes.from_signs(projections), projections=projections))


def sides(
    seed: int = 0, items: int = 300, asked: int = 20, bits: int = 13, dim: int = 6
) -> tuple[Encoded, Encoded, Relevance]:
    """Return a gallery of which a third are copies, and queries near some of it."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((items, dim)).astype(np.float32)
    x[2 * items // 3 :] = x[: items - 2 * items // 3]
    q = x[generator.integers(0, items, asked)] + 0.4 * generator.standard_normal((asked, dim))
    plane = generator.standard_normal((dim, bits))
    labels = Relevance(generator.integers(0, 3, asked), generator.integers(0, 3, items))
    return encoded(x, plane), encoded(q.astype(np.float32), plane), labels


def key(bits: np.ndarray, columns: np.ndarray) -> int:
    return int("".join(str(bit) for bit in bits[columns]), 2)


def visited(query: np.ndarray, projections: np.ndarray | None, columns: np.ndarray, probes: int) -> list[set[int]]:
    """Return the keys that a query visits in each table, by sorting every set of bits that can be turned."""
    if projections is None:
        costs = np.ones(len(query), np.int64)
    else:
        squares = projections.astype(np.float64) ** 2
        costs = (squares * (2.0**40 / squares.max() if squares.max() > 0 else 0)).astype(np.int64)
    size = columns.shape[1]
    found: list[set[int]] = [{key(query, own)} for own in columns]
    others = []
    for table, own in enumerate(columns):
        order = np.argsort(costs[own], kind="stable")
        for mask in range(1, 1 << size):
            turned = [order[j] for j in range(size) if mask >> j & 1]
            bits = query.copy()
            bits[own[turned]] ^= 1
            others.append((int(costs[own[turned]].sum()), mask, table, key(bits, own)))
    for _, _, table, number in sorted(others)[: (probes - 1) * len(columns)]:
        found[table].add(number)
    return found


def exact_distances(gallery: Encoded, queries: Encoded, rescore: str) -> np.ndarray:
    if rescore == "hamming":
        return (queries.codes.unpack()[:, None] != gallery.codes.unpack()).sum(2).astype(np.float64)
    if rescore == "cosine":
        first, second = queries.features.astype(np.float64), gallery.features.astype(np.float64)
    else:
        first, second = queries.codes.projections.astype(np.float64), 2.0 * gallery.codes.unpack() - 1
    norms = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    products = first @ second.T
    return 1 - np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def candidates_of(gallery: Encoded, queries: Encoded, columns: np.ndarray, probes: int, directed: bool) -> list[set]:
    """Return each query's candidates, as sets of rows."""
    bits, asked = gallery.codes.unpack(), queries.codes.unpack()
    keys = [[key(item, own) for own in columns] for item in bits]
    found = []
    for i, query in enumerate(asked):
        wanted = visited(query, queries.codes.projections[i] if directed else None, columns, probes)
        rows = {row for row, own in enumerate(keys) if any(k in w for k, w in zip(own, wanted, strict=True))}
        found.append(rows)
    return found


def shortlisted(sets: list[set], far: np.ndarray, shortlist: int | None) -> list[set]:
    """Return the candidates of each query that are nearest by Hamming distance, ties by the smaller row."""
    return [
        set(sorted(rows, key=lambda row, own=own: (own[row], row))[:shortlist])
        for rows, own in zip(sets, far, strict=True)
    ]


def check_search(
    found: Neighbors, sets: list[set], exact: np.ndarray, k: int, kept_of: list[set] | None = None
) -> None:
    for i, rows in enumerate(sets if kept_of is None else kept_of):
        assert found.candidates[i] == len(sets[i])
        ids, kept = found.ids[i], min(k, len(rows))
        assert (ids[kept:] == -1).all()
        assert np.isinf(found.distances[i, kept:]).all()
        ids = ids[:kept]
        assert set(ids) <= rows
        assert len(set(ids)) == kept
        expected = np.sort(exact[i, sorted(rows)])[:kept]
        np.testing.assert_allclose(found.distances[i, :kept], expected, atol=2e-6)
        np.testing.assert_allclose(exact[i, ids], expected, atol=2e-6)
        # Equal distances, such as those of copies, go by row.
        steps = np.diff(found.distances[i, :kept])
        assert (steps >= 0).all()
        assert (np.diff(ids)[steps == 0] > 0).all()


def columns_of(index: BucketsIndex, used: int | None = None) -> np.ndarray:
    return index._tables.columns[:used]


def check_all(gallery: Encoded, queries: Encoded, relevance: Relevance, directed: bool = True, **keys: Any) -> None:
    """Compare search in a batch, alone, and complete rankings with the reference, at every point."""
    index = BucketsIndex(**keys).build(gallery)
    asked = (
        queries
        if directed or keys.get("rescore") == "embedding"
        else Encoded(queries.features, replace(queries.codes, projections=None))
    )
    directed = asked.codes.projections is not None
    exact = exact_distances(gallery, queries, keys.get("rescore", "cosine"))
    far = exact_distances(gallery, queries, "hamming")
    found_by = functools.cache(  # by Python loops, and the same for every shortlist
        lambda used, probes: candidates_of(gallery, queries, columns_of(index, used), probes, directed)
    )
    for point in index.points():
        index.set_point(point)
        sets = found_by(point["tables"], point["probes"])
        kept = shortlisted(sets, far, point.get("shortlist"))
        for k in (1, 7, len(gallery) + 3):
            check_search(index.search(asked, k), sets, exact, k, kept)
        for i in range(min(3, len(queries))):
            check_search(index.search(asked[i : i + 1], 5), [sets[i]], exact[i : i + 1], 5, [kept[i]])
        start = 0
        for block in index.rank(asked, relevance):
            for i, query in enumerate(range(start, start + len(block))):
                rows = np.array(sorted(kept[query]), int)
                right = relevance.gallery == relevance.queries[query]
                assert block.ranked[i] == len(rows)
                assert block.total_relevant[i] == right.sum()
                own = slice(*block.position_offsets[i : i + 2])
                distances = exact[query, rows].round(5)
                hits = np.sort(distances)[block.positions[own] - 1]
                np.testing.assert_allclose(hits, np.sort(distances[right[rows]]), atol=2e-5)
                if keys.get("rescore") == "hamming":
                    within = [(distances <= d).sum() for d in range(gallery.codes.bits + 1)]
                    np.testing.assert_array_equal(block.within[i], within)
            start += len(block)
        assert start == len(queries)


@pytest.mark.parametrize("rescore", RESCORE)
@pytest.mark.parametrize("directed", [True, False])
def test_answers_are_those_of_the_reference(rescore: str, directed: bool) -> None:
    check_all(*sides(), directed=directed, rescore=rescore, tables=[1, 3], bits_per_table=5, probes=[1, 2, 5])


@pytest.mark.parametrize("directed", [True, False])
def test_shortlists_are_those_of_the_reference(directed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {"tables": [1, 3], "bits_per_table": 4, "probes": [1, 5], "shortlist": [1, 2, 10, 1000]}
    check_all(*sides(), directed=directed, **keys)
    monkeypatch.setattr(buckets, "TOGETHER", 0)
    check_all(*sides(bits=70), directed=directed, **keys)


@pytest.mark.parametrize("small", [0, 12])
def test_tables_with_and_without_an_entry_for_every_key_answer_alike(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SMALL", small)
    gallery, queries, relevance = sides(items=40, bits=11)
    check_all(gallery, queries, relevance, tables=3, bits_per_table=8, probes=[1, 6])
    index = BucketsIndex(bits_per_table=8).build(gallery)
    assert (index._tables.shift < 0) == (small == 12)


@pytest.mark.parametrize("block", [1, 50])
def test_rankings_in_blocks_are_those_in_one(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BLOCK_CANDIDATES", block)
    check_all(*sides(asked=9), rescore="hamming", tables=2, bits_per_table=4, probes=2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    items=st.integers(1, 60),
    bits=st.integers(1, 20),
    count=st.integers(1, 4),
    size=st.integers(1, 6),
    probes=st.integers(1, 70),
    rescore=st.sampled_from(RESCORE),
    directed=st.booleans(),
    draw=st.sampled_from(buckets.DRAWS),
    shortlist=st.none() | st.integers(1, 70),
)
def test_any_setting_answers_as_the_reference_does(
    seed: int,
    items: int,
    bits: int,
    count: int,
    size: int,
    probes: int,
    rescore: str,
    directed: bool,
    draw: str,
    shortlist: int | None,
) -> None:
    limit = bits // count if draw == "disjoint" else bits
    if limit == 0:
        return
    check_all(
        *sides(seed, items=items, asked=4, bits=bits),
        directed=directed,
        tables=count,
        bits_per_table=min(size, limit),
        probes=probes,
        rescore=rescore,
        draw=draw,
        shortlist=shortlist if rescore == "cosine" else None,
        seed=seed,
    )


# Adversarial galleries


@pytest.mark.parametrize("rescore", RESCORE)
def test_all_items_in_one_bucket(rescore: str) -> None:
    gallery, queries, relevance = sides()
    same = np.broadcast_to(gallery.features[:1], gallery.features.shape).copy()
    plane = np.random.default_rng(0).standard_normal((6, 13))
    check_all(encoded(same, plane), queries, relevance, rescore=rescore, tables=3, bits_per_table=6, probes=[1, 4])


@pytest.mark.parametrize("rescore", RESCORE)
def test_one_item(rescore: str) -> None:
    gallery, queries, relevance = sides(items=1)
    check_all(gallery, queries, relevance, rescore=rescore, tables=2, bits_per_table=3, probes=[1, 8])


def test_queries_whose_buckets_are_empty_find_nothing() -> None:
    gallery, queries, relevance = sides()
    x = np.abs(gallery.features)
    one, other = encoded(x, np.eye(6)), encoded(-np.abs(queries.features) - 1, np.eye(6))
    index = BucketsIndex(bits_per_table=4).build(one)
    found = index.search(other, 3)
    assert (found.ids == -1).all()
    assert (found.candidates == 0).all()
    assert (index.search(other[:1], 3).ids == -1).all()
    for block in index.rank(other, relevance):
        assert (block.ranked == 0).all()
        assert (block.total_relevant > 0).all()


def test_all_probes_make_the_exhaustive_ranking() -> None:
    from lshbench.ranking.cosine import cosine_neighbors

    gallery, queries, _ = sides(items=500)
    found = BucketsIndex(tables=1, bits_per_table=4, probes=16).build(gallery).search(queries, 20)
    exact = cosine_neighbors(queries.features, gallery.features, 20)
    np.testing.assert_array_equal(found.ids, exact.ids)
    assert (found.candidates == 500).all()
    beyond = BucketsIndex(tables=1, bits_per_table=4, probes=10**6).build(gallery).search(queries, 20)
    np.testing.assert_array_equal(beyond.ids, found.ids)


@pytest.mark.parametrize(("bits", "size"), [(64, 64), (100, 63), (200, 33)])
def test_long_keys(bits: int, size: int) -> None:
    gallery, queries, _ = sides(bits=bits)
    copies = Encoded(gallery.features[:50], Codes(gallery.codes.packed[:50], bits, gallery.codes.projections[:50]))
    index = BucketsIndex(tables=3, bits_per_table=size, probes=[1, 40]).build(gallery)
    assert (index.search(copies, 1).ids[:, 0] == np.arange(50)).all()
    bits_of, asked = gallery.codes.unpack(), queries.codes.unpack()
    index.set_point({"tables": 3, "probes": 1})
    found = index.search(queries, len(gallery))
    for i, query in enumerate(asked):
        same = [(bits_of[:, own] == query[own]).all(axis=1) for own in columns_of(index)]
        assert set(found.ids[i, : found.candidates[i]]) == set(np.flatnonzero(np.any(same, axis=0)))


def test_a_batch_and_a_query_alone_find_the_same_in_a_large_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, queries, _ = sides(items=5000, asked=200, bits=32, dim=40)
    index = BucketsIndex(tables=4, bits_per_table=6, probes=4).build(gallery)
    together = index.search(queries, 10)
    for most in (buckets.TOGETHER, 0):  # one thread, then all of them
        monkeypatch.setattr(buckets, "TOGETHER", most)
        for i in range(0, 200, 17):
            alone = index.search(queries[i : i + 1], 10)
            assert alone.candidates[0] == together.candidates[i]
            np.testing.assert_allclose(alone.distances[0], together.distances[i], atol=1e-6)
            assert len(set(alone.ids[0]) & set(together.ids[i])) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("bits", [20, 130])
def test_long_runs_of_one_table_s_codes(bits: int) -> None:
    gallery, queries, _ = sides(items=3000, asked=80, bits=bits)
    index = BucketsIndex(tables=1, bits_per_table=2, probes=[1, 2, 4], rescore="hamming").build(gallery)
    exact = exact_distances(gallery, queries, "hamming")
    for point in index.points():
        index.set_point(point)
        sets = candidates_of(gallery, queries, columns_of(index), point["probes"], directed=True)
        check_search(index.search(queries, 40), sets, exact, 40)
        check_search(index.search(queries[0:1], 40), sets[:1], exact[:1], 40)


def test_zero_vectors_are_as_far_as_orthogonal_ones_and_extreme_ones_have_directions() -> None:
    gallery, queries, relevance = sides()
    gallery.features[:5] = 0
    queries.features[0] = 0
    check_all(gallery, queries, relevance, tables=2, bits_per_table=2, probes=4)
    gallery.features[::2] *= np.float32(1e-30)
    queries.features[1:] *= np.float32(1e30)
    check_all(gallery, queries, relevance, tables=2, bits_per_table=2, probes=4)


def test_queries_that_are_not_finite_are_refused() -> None:
    gallery, queries, relevance = sides()
    queries.features[3] = np.nan
    index = BucketsIndex().build(gallery)
    with pytest.raises(ValueError, match="one of them is row 3"):
        index.search(queries, 5)
    with pytest.raises(ValueError, match="NaN"):
        index.search(queries[3:4], 5)
    with pytest.raises(ValueError, match="one of them is row 3"):
        list(index.rank(queries, relevance))


# Tables


def test_fewer_bits_or_tables_are_more_cut_short_so_that_candidates_only_grow() -> None:
    long, short = tables.draw_subsets(64, 5, 20, seed=3), tables.draw_subsets(64, 3, 8, seed=3)
    np.testing.assert_array_equal(long[:3, :8], short)
    assert all(len(set(own)) == 20 for own in long)
    assert (tables.draw_subsets(64, 5, 20, seed=4) != long).any()
    gallery, queries, _ = sides()
    before = None
    for size in range(13, 0, -1):
        found = BucketsIndex(bits_per_table=size, tables=2).build(gallery).search(queries, 1).candidates
        assert before is None or (found >= before).all()
        before = found


def test_disjoint_tables_read_no_bit_twice() -> None:
    gallery, _, _ = sides(bits=13)
    columns = columns_of(BucketsIndex(draw="disjoint", tables=4).build(gallery))
    np.testing.assert_array_equal(columns, np.arange(12).reshape(4, 3))


@pytest.mark.parametrize(("items", "size"), [(1, 1), (300, 4), (5000, 8)])
def test_auto_takes_some_sixteen_items_a_bucket(items: int, size: int) -> None:
    gallery, _, _ = sides(items=items, bits=40)
    assert columns_of(BucketsIndex().build(gallery)).shape == (8, size)


def test_bytes_an_item_do_not_grow_with_the_gallery() -> None:
    sizes = []
    for items in (2000, 16000):
        for size in ("auto", 30):
            gallery, _, _ = sides(items=items, bits=40)
            index = BucketsIndex(bits_per_table=size, tables=[2, 4]).build(gallery)
            sizes.append(index.bytes / items)
            all_tables = index.bytes
            index.set_point({"tables": 2, "probes": 1})
            assert index.bytes < 0.6 * all_tables
    dense, sparse, dense_more, sparse_more = sizes
    assert dense_more <= 1.1 * dense < 4 * 6
    assert sparse_more <= 1.1 * sparse < 4 * 24


KEPT = [*({"rescore": rescore} for rescore in RESCORE), {"shortlist": [3, 9]}]


@pytest.mark.parametrize("kept", KEPT, ids=str)
@pytest.mark.parametrize("size", [4, 20])
def test_added_items_are_found_as_if_they_had_been_there(kept: dict[str, Any], size: int) -> None:
    gallery, queries, _ = sides(bits=21)
    keys = {**kept, "bits_per_table": size, "probes": 3}
    whole = BucketsIndex(**keys).build(gallery)
    parts = BucketsIndex(**keys).build(gallery[0:120]).add(gallery[120:121]).add(gallery[121:300])
    for first, second in zip(vars(whole._tables).values(), vars(parts._tables).values(), strict=True):
        if first.shape[1:] == second.shape[1:]:  # a directory keeps the size that it was made with
            np.testing.assert_array_equal(first, second)
    ours, theirs = parts.search(queries, 15), whole.search(queries, 15)
    for name in ("ids", "distances", "candidates"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    with pytest.raises(ValueError, match="codes of 13 bits"):
        whole.add(sides(bits=13)[0])


@pytest.mark.parametrize("kept", KEPT, ids=str)
@pytest.mark.parametrize("size", [4, 20])
def test_a_saved_index_opens_without_reading_it_and_finds_the_same(
    kept: dict[str, Any], size: int, tmp_path: Path
) -> None:
    gallery, queries, _ = sides(bits=21)
    keys = {**kept, "tables": [2, 5], "bits_per_table": size, "probes": [1, 2]}
    index = BucketsIndex(**keys, bits=21).build(gallery)
    index.save(tmp_path)
    described = json.loads((tmp_path / "index.json").read_text())
    assert (described["items"], described["tables"], described["bits_per_table"]) == (300, [2, 5], size)
    assert sorted(described["files"]) == sorted(path.name for path in tmp_path.glob("*.npy"))
    np.save(tmp_path / "x.npy", gallery.features)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    opened = BucketsIndex.open(tmp_path, mapped)
    assert isinstance(opened._tables.ids.base, np.memmap)
    assert opened.points() == index.points()
    for point in index.points():
        index.set_point(point)
        opened.set_point(point)
        assert opened.bytes == index.bytes
        ours, theirs = opened.search(queries, 15), index.search(queries, 15)
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.distances, theirs.distances)
    more = opened.add(queries)
    assert len(more) == 320
    assert more.search(queries, 1).candidates.min() >= 1
    np.testing.assert_array_equal(BucketsIndex.open(tmp_path, mapped)._tables.ids, index._tables.ids)


def test_an_index_is_opened_with_its_own_vectors_only(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    gallery.features[0] *= np.float32(1e-25)
    index = BucketsIndex().build(gallery)
    index.save(tmp_path)
    for vectors in (None, gallery.features[:-1], gallery.features.astype(np.float64)):
        with pytest.raises(ValueError, match=r"takes the gallery's features \(300, 6\), float32"):
            BucketsIndex.open(tmp_path, vectors)
    opened = BucketsIndex.open(tmp_path, gallery.features)
    np.testing.assert_array_equal(opened.search(queries, 9).distances, index.search(queries, 9).distances)
    (tmp_path / "index.json").write_text('{"index": "flat"}')
    with pytest.raises(ValueError, match="kind flat"):
        BucketsIndex.open(tmp_path)


def test_the_gallery_may_be_a_read_only_memory_map_and_stays_where_it_is(tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    np.save(tmp_path / "x.npy", gallery.features)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = BucketsIndex().build(Encoded(mapped, gallery.codes))
    assert index._vectors is mapped
    assert index._searched.held.gallery.vectors.ctypes.data == mapped.ctypes.data
    expected = BucketsIndex().build(gallery).search(queries, 5)
    np.testing.assert_array_equal(index.search(queries, 5).ids, expected.ids)


# Keys


def test_rescoring_decides_the_ranking() -> None:
    for rescore, ranking, right in (
        ("cosine", "cosine", "cosine"),
        ("hamming", "hamming", "hamming"),
        ("embedding", "cosine", "cosine or asymmetric"),
    ):
        found = [BucketsIndex(rescore=rescore, ranking=given) for given in ("auto", ranking)]
        assert [index.ranking for index in found] == [ranking] * 2
        assert found[0].ranks_features == (rescore == "cosine")
        other = "hamming" if ranking == "cosine" else "cosine"
        with pytest.raises(UsageError, match=f"ranking='{other}': expected {right} or auto with .* index.rescore="):
            BucketsIndex(rescore=rescore, ranking=other)
    with pytest.raises(UsageError, match="index='buckets': expected ivf for a method that gives cluster numbers"):
        BucketsIndex(gives="clusters")


def test_asymmetric_distances_are_those_of_the_whole_gallery(tmp_path: Path) -> None:
    gallery, queries, relevance = sides()
    keys = {"tables": 3, "bits_per_table": 4, "probes": 4, "rescore": "embedding"}
    index = BucketsIndex(**keys, ranking="asymmetric").build(gallery)
    assert index.ranking == index.code_ranking == BucketsIndex(**keys).code_ranking == "asymmetric"
    assert BucketsIndex().code_ranking == "hamming"
    every = FlatIndex(ranking="asymmetric").build(gallery).search(queries, len(gallery))
    found, cosine = index.search(queries, 20), BucketsIndex(**keys).build(gallery).search(queries, 20)
    assert np.array_equal(found.candidates, cosine.candidates)
    for row, ids in enumerate(found.ids):
        # The order of the whole gallery, of which tables find a part; equal codes tie exactly.
        places = [every.ids[row].tolist().index(one) for one in ids if one >= 0]
        assert places == sorted(places)
        np.testing.assert_array_equal(found.distances[row, : len(places)], every.distances[row, places])
    with_all = BucketsIndex(**keys | {"probes": 16}, ranking="asymmetric").build(gallery)
    np.testing.assert_array_equal(with_all.search(queries, 20).ids, every.ids[:, :20])
    index.save(tmp_path)
    opened = BucketsIndex.open(tmp_path)
    np.testing.assert_array_equal(opened.search(queries, 20).distances, found.distances)
    np.testing.assert_array_equal(opened.search(queries[3:4], 20).ids[0], found.ids[3])
    assert sum(len(block) for block in index.rank(queries, relevance)) == len(queries)


def test_projections_are_asked_for_where_they_are_read() -> None:
    for keys, wanted in (({}, False), ({"probes": [1, 2]}, True), ({"rescore": "embedding"}, True)):
        index = BucketsIndex(**keys)
        assert index.needs_projections("query") == wanted
        assert not index.needs_projections("gallery")
    gallery, queries, _ = sides()
    index = BucketsIndex(rescore="embedding").build(gallery)
    with pytest.raises(ValueError, match="expected projections"):
        index.search(Encoded(queries.features, replace(queries.codes, projections=None)), 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tables": 0}, r"index\.tables=0: expected at least 1"),
        ({"probes": [1, 0]}, r"index\.probes=\[1, 0\]: expected at least 1"),
        ({"probes": []}, r"index\.probes=\[\]"),
        ({"probes": 1.5}, r"index\.probes=1\.5: .*whole number"),
        ({"tables": True}, r"index\.tables=True"),
        ({"bits_per_table": 0}, r"index\.bits_per_table=0: expected auto, or a number from 1 to 64"),
        ({"bits_per_table": "many"}, r"index\.bits_per_table='many'"),
        ({"bits_per_table": 65}, r"index\.bits_per_table=65"),
        ({"draw": "some"}, r"index\.draw='some': expected subsets or disjoint"),
        ({"rescore": "dot"}, r"index\.rescore='dot': expected cosine, hamming, embedding"),
        ({"shortlist": 0}, r"index\.shortlist=0: expected at least 1"),
        ({"shortlist": 9, "rescore": "hamming"}, r"index\.shortlist=9: expected null with index\.rescore=hamming"),
        ({"bits_per_table": 20, "bits": 16}, r"index\.bits_per_table=20: expected at most 16: 16 bits of the code"),
        (
            {"bits_per_table": 5, "tables": 4, "bits": 16, "draw": "disjoint"},
            r"index\.bits_per_table=5: expected at most 4: 16 bits of the code / 4 tables",
        ),
        ({"tables": 17, "bits": 16, "draw": "disjoint"}, r"index\.tables=17: expected at most 16"),
    ],
)
def test_values_that_cannot_be_used_are_refused_before_any_data(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BucketsIndex(**keys)


def test_values_that_a_code_cannot_give_are_refused_when_it_is_there() -> None:
    with pytest.raises(UsageError, match=r"index\.bits_per_table=14: expected at most 13"):
        BucketsIndex(bits_per_table=14).build(sides()[0])


def test_a_grid_is_every_combination_the_most_thorough_last() -> None:
    index = BucketsIndex(tables=[4, 2, 2], probes=[1, 8])
    assert index.points() == [
        {"tables": 2, "probes": 1},
        {"tables": 2, "probes": 8},
        {"tables": 4, "probes": 1},
        {"tables": 4, "probes": 8},
    ]
    gallery, queries, _ = sides()
    index.build(gallery)
    last = index.search(queries, 5)
    index.set_point(index.points()[0])
    few = index.search(queries, 5)
    assert (few.candidates <= last.candidates).all()
    alone = BucketsIndex(tables=2, probes=1).build(gallery).search(queries, 5)
    np.testing.assert_array_equal(few.ids, alone.ids)
    with pytest.raises(ValueError, match="5 tables of 4"):
        index.set_point({"tables": 5, "probes": 1})


def test_one_table_of_several_answers_as_an_index_of_one() -> None:
    gallery, queries, _ = sides(bits=20)
    several = BucketsIndex(tables=[1, 3], bits_per_table=3, probes=2, rescore="hamming").build(gallery)
    single = BucketsIndex(tables=1, bits_per_table=3, probes=2, rescore="hamming").build(gallery)
    several.set_point({"tables": 1, "probes": 2})
    np.testing.assert_array_equal(several.search(queries, 9).ids, single.search(queries, 9).ids)
    assert several.bytes == single.bytes
    several.set_point({"tables": 3, "probes": 2})
    assert several.bytes > single.bytes


def test_one_query_after_the_other_at_changing_points_and_lengths() -> None:
    gallery, queries, _ = sides()
    index = BucketsIndex(tables=[1, 3], bits_per_table=4, probes=[1, 3], shortlist=[2, 40]).build(gallery)
    for point in [*index.points(), *reversed(index.points())]:
        index.set_point(point)
        for k in (3, 50):
            together = index.search(queries, k)
            for i in range(5):
                alone = index.search(queries[i : i + 1], k)
                np.testing.assert_array_equal(alone.ids[0], together.ids[i])
    index.add(queries)
    assert index.search(queries[0:1], 1).ids[0, 0] >= 0


def test_points_that_the_index_was_not_made_for_are_refused() -> None:
    plain, short = BucketsIndex().build(sides()[0]), BucketsIndex(shortlist=3).build(sides()[0])
    for index, point in (
        (plain, {"tables": 9, "probes": 1}),
        (plain, {"tables": 1, "probes": 0}),
        (plain, {"tables": 1, "probes": 1, "shortlist": 5}),
        (short, {"tables": 1, "probes": 1}),
        (short, {"tables": 1, "probes": 1, "shortlist": -1}),
    ):
        with pytest.raises(ValueError, match=r"tables of 8|expected values of at least 1 for"):
            index.set_point(point)


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_an_empty_gallery_finds_nothing_and_is_opened_again(kept: dict[str, Any], tmp_path: Path) -> None:
    gallery, queries, _ = sides()
    index = BucketsIndex(**kept).build(gallery[0:0])
    index.save(tmp_path)
    for empty in (index, BucketsIndex.open(tmp_path, gallery.features[:0])):
        for asked in (queries, queries[0:1]):
            found = empty.search(asked, 3)
            assert (found.ids == -1).all()
            assert (found.candidates == 0).all()


def test_searches_keep_to_their_point_while_another_thread_changes_it() -> None:
    gallery, queries, _ = sides(items=2000)
    points: dict[str, Any] = {"tables": [1, 64], "probes": [1, 5], "rescore": "hamming"}
    index = BucketsIndex(bits_per_table=6, **points).build(gallery)
    right = []
    for point in index.points():
        index.set_point(point)
        right.append(index.search(queries, 5).ids)
    stop = Event()
    with ThreadPoolExecutor(3) as pool:
        turning = pool.submit(_turn, index, stop)
        searching = [pool.submit(_search_again_and_again, index, queries, right) for _ in range(2)]
        for future in searching:
            future.result()
        stop.set()
        assert turning.result() > 10


def _turn(index: BucketsIndex, stop: Event) -> int:
    turns = 0
    while not stop.is_set():
        for point in index.points():
            index.set_point(point)
        turns += 1
    return turns


def _search_again_and_again(index: BucketsIndex, queries: Encoded, right: list[np.ndarray]) -> None:
    for i in range(400):
        row = i % len(queries)
        ids = index.search(queries[row : row + 1], 5).ids[0]
        assert any((ids == own[row]).all() for own in right)
        if i % 20 == 0:
            together = index.search(queries, 5).ids
            assert any((together == own).all() for own in right)
