"""faiss's indexes over compressed features, and graphs over codes, against brute force over what they visit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.index.binary_graphs import BinaryHnswEngine
from lshbench.index.compressed_engines import (
    CompressedEngine,
    HnswSqEngine,
    IvfPqEngine,
    IvfRabitqEngine,
    PqFastScanEngine,
    Reduction,
)
from lshbench.index.engines import Engine
from lshbench.index.ivf import directions
from lshbench.index.oversampled import OversampledIndex
from lshbench.ranking.cosine import cosine_neighbors
from lshbench.ranking.hamming import hamming_neighbors
from lshbench.types import Encoded
from tests.index.test_engines import DIM, ITEMS, check_finds_the_same, flattened, sides

COMPRESSED: list[CompressedEngine] = [
    PqFastScanEngine(nbits=24, seed=3),
    IvfPqEngine(nbits=24, nlist=12, nprobe=[1, 4, 12]),
    IvfRabitqEngine(nbits=72, nlist=12, nprobe=[3, 12]),
    HnswSqEngine(m=8, ef_construction=40, ef_search=[20, ITEMS]),
    HnswSqEngine(dim=6, bits_per_dimension=4, m=8, ef_construction=40, ef_search=ITEMS),
]


def usearch(**keys: Any) -> Engine:
    pytest.importorskip("usearch", reason="the extra lshbench[usearch] is not installed")
    from lshbench.index.binary_usearch import UsearchEngine

    return UsearchEngine(**keys)


def check_saved(index: Engine, gallery: Encoded, queries: Encoded, folder: Path) -> None:
    """Save an index, open it, and compare what both find at every point."""
    index.save(folder)
    (file,) = folder.glob("engine.*")
    file.write_bytes(b"never read")
    opened = type(index).open(folder)
    assert (opened.bytes, opened.code_bytes, len(opened)) == (index.bytes, index.code_bytes, len(gallery))
    check_finds_the_same(opened, index, queries)


@pytest.mark.parametrize("index", COMPRESSED, ids=lambda index: index.option)
def test_codes_have_their_bytes_and_a_saved_index_finds_the_same(index: CompressedEngine, tmp_path: Path) -> None:
    gallery, queries, relevance = sides()
    index.build(gallery)
    size = {"pq_fastscan": 3, "ivf_pq": 3, "ivf_rabitq": 9}.get(index.option)
    if isinstance(index, HnswSqEngine):
        size = DIM if index.dim is None else index.dim // 2
    assert size is not None
    assert index.code_bytes == size * ITEMS
    assert index.bytes > index.code_bytes
    assert (index.ranking, index.feature_bytes, index.ranks_features) == ("asymmetric", 0, False)
    check_saved(index, gallery, queries, tmp_path)
    for point in index.points():
        index.set_point(point)
        everything = index.search(queries, ITEMS)
        ranked, positions = flattened(index.rank(queries, relevance))
        np.testing.assert_array_equal(ranked, (everything.ids >= 0).sum(axis=1))
        for query, places in enumerate(positions):
            rows = everything.ids[query, : ranked[query]]
            right = relevance.gallery[rows] == relevance.queries[query]
            np.testing.assert_array_equal(places, np.flatnonzero(right) + 1)
        if not isinstance(index, HnswSqEngine):
            np.testing.assert_array_equal(everything.candidates, ranked)
    assert (ranked >= 0.9 * ITEMS).all(), "all lists, or all items in view"


@pytest.mark.parametrize("index", COMPRESSED, ids=lambda index: index.option)
def test_bytes_are_fixed_or_grow_with_the_items(index: CompressedEngine) -> None:
    gallery, _, _ = sides()
    told = index.build(gallery).bytes_per_item(2 * ITEMS)
    fixed, own = index.fixed_bytes, index.bytes_per_item()
    assert own == index.bytes / ITEMS > told
    twice = Encoded(np.tile(gallery.features, (2, 1)))
    assert index.build(twice).fixed_bytes == fixed > 0
    # faiss's file has a head, lanes of codes are filled up, and few items have links above the lowest layer.
    assert abs(told - index.bytes_per_item()) < 2


@pytest.mark.parametrize("index", COMPRESSED, ids=lambda index: index.option)
def test_distances_estimate_one_minus_the_cosine_and_rescoring_finds_its_first(index: CompressedEngine) -> None:
    gallery, queries, _ = sides()
    index.build(gallery)
    found = index.search(queries, ITEMS)
    asked, kept = index._reduction(queries.features), index._reduction(gallery.features)
    squared = ((asked[:, None] - kept) ** 2).sum(axis=2)
    if kept.shape[1] == DIM:
        cosines = directions(queries.features) @ directions(gallery.features).T
        np.testing.assert_allclose(squared / 2, 1 - cosines, atol=1e-5)
    is_there = found.ids >= 0
    lost = np.abs(found.distances - np.take_along_axis(squared, found.ids, axis=1) / 2)[is_there].mean()
    assert lost < {"ivf_rabitq": 0.2, "pq_fastscan": 0.1, "ivf_pq": 0.1}.get(index.option, 0.03) * squared.mean()
    exact = cosine_neighbors(queries.features, gallery.features, 10)
    rescored = OversampledIndex(index, 20).build(gallery).search(queries, 10)
    shared = np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(rescored.ids, exact.ids, strict=True)])
    assert shared > 0.95


def test_lookups_in_registers_find_what_faiss_s_plain_product_quantiser_does() -> None:
    gallery, queries, _ = sides()
    index = PqFastScanEngine(nbits=24).build(gallery)
    reduced, asked = (index._reduction(side.features) for side in (gallery, queries))
    plain = faiss.IndexPQ(12, 6, 4)
    faiss.copy_array_to_vector(index._centroids, plain.pq.centroids)
    plain.is_trained = True
    plain.add(reduced)
    distances, _ = plain.search(asked, 10)
    np.testing.assert_allclose(index.search(queries, 10).distances, distances / 2, atol=0.02)


def test_a_reduction_keeps_lengths_of_all_axes_and_spreads_variance_over_a_few() -> None:
    generator = np.random.default_rng(0)
    x = (generator.standard_normal((500, 20)) * np.geomspace(5, 0.1, 20)).astype(np.float32)
    whole, few = Reduction.learn(x, 20, 0), Reduction.learn(x, 4, 0)
    centred = directions(x) - directions(x).mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(whole(x), axis=1), np.linalg.norm(centred, axis=1), rtol=1e-4)
    best = np.linalg.svd(centred, compute_uv=False)[:4]
    assert (few(x) ** 2).sum() == pytest.approx((best**2).sum(), rel=1e-4), "no four axes keep more"
    assert not np.allclose(Reduction.learn(x, 4, 1).weight, few.weight), "the seed decides the rotation"


@pytest.mark.parametrize("kind", ["binary_hnsw", "binary_usearch"])
def test_a_graph_over_codes_finds_more_with_more_in_view_and_is_made_again(kind: str, tmp_path: Path) -> None:
    gallery, queries, relevance = sides(bits=33)
    keys: dict[str, Any] = {"m": 8, "ef_search": [5, ITEMS]}
    if kind == "binary_usearch":
        keys = {"connectivity": 8, "expansion_search": [5, ITEMS]}
    make = BinaryHnswEngine if kind == "binary_hnsw" else usearch
    index = make(**keys).build(gallery)
    exact = hamming_neighbors(queries.codes, gallery.codes, 5)
    np.testing.assert_array_equal(index.search(queries, 5).distances, exact.distances)
    ranked, _ = flattened(index.rank(queries, relevance))
    assert (ranked > 0.9 * ITEMS).all()
    thorough = index.search(queries, 5).candidates.sum()
    index.set_point(index.points()[0])
    few = index.search(queries, 20)
    assert ((few.ids >= 0).sum(axis=1) == 5).all(), "no more results than are kept in view"
    assert few.candidates.sum() < thorough
    assert index.search(queries[:1], 3).ids.shape == (1, 3)
    assert (flattened(index.rank(queries, relevance))[0] == 5).all()
    assert index.code_bytes == 5 * ITEMS < index.bytes
    check_saved(index, gallery, queries, tmp_path)


def test_usearch_s_scan_is_exact_and_holds_codes_alone(tmp_path: Path) -> None:
    gallery, queries, relevance = sides(bits=21)
    index = usearch(exact=True).build(gallery)
    exact = hamming_neighbors(queries.codes, gallery.codes, ITEMS + 1)
    np.testing.assert_array_equal(index.search(queries, ITEMS + 1).ids, exact.ids)
    np.testing.assert_array_equal(index.search(queries[:1], 7).distances, exact.distances[:1, :7])
    assert (index.search(queries, 3).candidates == ITEMS).all()
    assert index.bytes == index.code_bytes == 3 * ITEMS
    assert (flattened(index.rank(queries, relevance))[0] == ITEMS).all()
    check_saved(index, gallery, queries, tmp_path)


def test_usearch_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from lshbench.index.binary_usearch import UsearchEngine

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"usearch is not installed: pip install 'lshbench\[usearch\]'"):
        UsearchEngine()


def equal_items() -> Encoded:
    return Encoded(np.tile(sides()[0].features[:1], (90, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PqFastScanEngine(nbits=20), r"index\.nbits=20: expected a multiple of 8 from 8"),
        (lambda: IvfPqEngine(nbits=0), r"index\.nbits=0: expected a multiple of 8"),
        (lambda: IvfRabitqEngine(nbits=64), r"index\.nbits=64: expected a multiple of 8 from 72"),
        (lambda: IvfRabitqEngine(query_bits=9), r"index\.query_bits=9: expected a number from 0 to 8"),
        (lambda: IvfPqEngine(nlist=4, nprobe=5), r"index\.nprobe=5: expected at most 4"),
        (lambda: IvfPqEngine(nlist=500).build(sides()[0]), r"index\.nlist=500: expected at most 400"),
        (lambda: IvfPqEngine(nlist=2, nprobe=1).build(sides()[0][:200]), "200 gallery items: expected at least 256"),
        (lambda: PqFastScanEngine().build(sides()[0]), r"index\.nbits=64: expected at most 48: 16 parts .* 12 numbers"),
        (lambda: IvfRabitqEngine(nlist=9).build(sides()[0]), r"index\.nbits=128: expected at most 72 for features of"),
        (lambda: HnswSqEngine(bits_per_dimension=6), r"index\.bits_per_dimension=6: expected 4 or 8"),
        (lambda: HnswSqEngine(dim=0), r"index\.dim=0: expected null, or a number"),
        (lambda: HnswSqEngine(gives="quantised"), "index='hnsw_sq': expected .* or method=none with index=hnsw_sq"),
        (lambda: PqFastScanEngine(ranking="cosine"), "ranking='cosine': expected asymmetric or auto"),
        (lambda: BinaryHnswEngine(gives="quantised"), "index='binary_hnsw': expected flat for a quantiser"),
        (lambda: BinaryHnswEngine(ef_search=0), r"index\.ef_search=0: expected at least 1"),
        (lambda: HnswSqEngine(m=4097), r"index\.m=4097: expected at most 4096"),
        (lambda: PqFastScanEngine(nbits=48).build(equal_items()), "index=pq_fastscan: expected items that differ"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_key(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
