"""Ranking by Hamming distance against sorting, faiss and itself."""

from __future__ import annotations

import subprocess
import sys

import faiss
import numpy as np
import pytest
from brute_force import hamming_matrix, nearest, random_codes, random_labels, ranking, read, relevant_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.kernels.words import code_words
from lshbench.metrics.measures import concatenate, measure
from lshbench.ranking import hamming
from lshbench.ranking.hamming import CodeGallery, hamming_blocks, hamming_neighbors
from lshbench.types import Codes, Relevance

WIDTHS = (1, 7, 8, 63, 64, 65, 127, 128, 129, 192, 255, 256, 1000, 4096)


def check_blocks(queries: Codes, gallery: Codes, relevance: Relevance, limit: int | None = None) -> None:
    distances, relevant = hamming_matrix(queries, gallery), relevant_matrix(relevance)
    expected = [ranking(*pair) for pair in zip(distances, relevant, strict=True)]
    blocks = list(hamming_blocks(queries, gallery, relevance, positions=limit))
    groups, positions, totals, ranked = read(blocks)
    assert groups == [pair[0] for pair in expected]
    assert positions == [[p for p in pair[1] if limit is None or p <= limit] for pair in expected]
    assert totals == relevant.sum(1).tolist()
    assert ranked == [len(gallery)] * len(queries)
    within = np.concatenate([block.within for block in blocks])
    steps = np.arange(queries.bits + 1)
    assert np.array_equal(within, (distances[:, :, None] <= steps).sum(1))


def check_neighbors(queries: Codes, gallery: Codes, k: int) -> None:
    distances = hamming_matrix(queries, gallery)
    found = hamming_neighbors(queries, gallery, k)
    assert found.ids.shape == found.distances.shape == (len(queries), k)
    assert found.candidates.tolist() == [len(gallery)] * len(queries)
    for i, row in enumerate(distances):
        expected = nearest(row, k)
        assert found.ids[i, : len(expected)].tolist() == expected.tolist()
        assert found.distances[i, : len(expected)].tolist() == row[expected].tolist()
        assert (found.ids[i, len(expected) :] == -1).all()
        assert np.isinf(found.distances[i, len(expected) :]).all()


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_groups_and_positions_are_those_of_a_stable_sort_at_any_width(bits: int, multiple: bool) -> None:
    random = np.random.default_rng(bits)
    queries, gallery = random_codes(random, 7, bits), random_codes(random, 333, bits)
    check_blocks(queries, gallery, random_labels(random, 7, 333, multiple=multiple))


@pytest.mark.parametrize("bits", WIDTHS)
def test_neighbours_are_those_of_a_stable_sort_at_any_width(bits: int) -> None:
    random = np.random.default_rng(bits)
    queries, gallery = random_codes(random, 5, bits), random_codes(random, 1500, bits)
    for k in (1, 10, 100, 1500, 1503):
        check_neighbors(queries, gallery, k)


@pytest.mark.parametrize(
    ("bits", "multiple"), [(16, True), (64, False), (64, True), (100, False), (128, True), (200, False)]
)
def test_galleries_of_several_tiles_are_counted_in_full(bits: int, multiple: bool) -> None:
    # Wide enough for the table of pairs and for several tiles of the gallery.
    random = np.random.default_rng(0)
    count = 70_001
    queries, gallery = random_codes(random, 35, bits), random_codes(random, count, bits)
    relevance = random_labels(random, 35, count, multiple=multiple)
    check_blocks(queries.__class__(queries.packed[:2], bits), gallery, relevance.rows(0, 2))
    distances, relevant = hamming_matrix(queries, gallery), relevant_matrix(relevance)
    (block,) = hamming_blocks(queries, gallery, relevance, positions=0)
    for i in range(len(queries)):
        counts = np.bincount(distances[i], minlength=bits + 1)
        hits = np.bincount(distances[i][relevant[i]], minlength=bits + 1)
        rows = slice(block.offsets[i], block.offsets[i + 1])
        assert np.array_equal(block.within[i], np.cumsum(counts))
        assert np.array_equal(block.size[rows], counts[hits > 0])
        assert np.array_equal(block.relevant[rows], hits[hits > 0])
    check_neighbors(Codes(queries.packed[:3], bits), gallery, 50)


def adversarial(name: str) -> tuple[Codes, Codes, Relevance]:
    random = np.random.default_rng(1)
    zeros = Codes(np.zeros((90, 8), np.uint8), 64)
    match name:
        case "all ties":
            return Codes(np.full((3, 8), 255, np.uint8), 64), zeros, random_labels(random, 3, 90, multiple=False)
        case "no relevant items":
            return zeros, random_codes(random, 50, 64), Relevance(np.full(90, 7), np.zeros(50, np.int64))
        case "all relevant":
            return random_codes(random, 4, 64), zeros, Relevance(np.ones(4, np.int64), np.ones(90, np.int64))
        case "one item":
            one = random_codes(random, 1, 64)
            return random_codes(random, 2, 64), one, Relevance(np.array([0, 1]), np.array([1]))
        case "duplicate codes":
            few = random_codes(random, 4, 64)
            gallery = Codes(few.packed[random.integers(0, 4, 500)], 64)
            return few, gallery, random_labels(random, 4, 500, multiple=False)
        case "labels beyond 32 bits":
            labels = random.choice([-(2**62), 2**40, 5], 90)
            return Codes(zeros.packed[:3], 64), zeros, Relevance(np.array([2**40, 5, -1]), labels)
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    ["all ties", "no relevant items", "all relevant", "one item", "duplicate codes", "labels beyond 32 bits"],
)
def test_adversarial_galleries_rank_as_a_stable_sort_does(name: str) -> None:
    queries, gallery, relevance = adversarial(name)
    for limit in (None, 1, 20):
        check_blocks(queries, gallery, relevance, limit)
    for k in (1, 30, len(gallery) + 3):
        check_neighbors(queries, gallery, k)


def test_ties_that_reach_over_blocks_of_the_gallery_go_to_the_smaller_rows() -> None:
    gallery = Codes(np.zeros((5000, 8), np.uint8), 64)
    found = hamming_neighbors(Codes(gallery.packed[:1], 64), gallery, 1700)
    assert found.ids[0].tolist() == list(range(1700))


def test_falling_distances_displace_all_that_was_kept() -> None:
    bits = 256
    rows = np.tri(bits + 1, bits, -1, dtype=np.uint8)[::-1].repeat(40, axis=0)
    gallery = Codes(np.packbits(rows, axis=1), bits)
    check_neighbors(Codes(np.zeros((2, 32), np.uint8), bits), gallery, 100)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_small_input_ranks_as_a_stable_sort_does(data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, 140))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 200))
    pool = random_codes(random, data.draw(st.integers(1, 40)), bits).packed
    queries, gallery = (Codes(pool[random.integers(0, len(pool), size)], bits) for size in sizes)
    relevance = random_labels(random, *sizes, multiple=data.draw(st.booleans()))
    check_blocks(queries, gallery, relevance, data.draw(st.sampled_from([None, 1, 5, 50])))
    check_neighbors(queries, gallery, data.draw(st.integers(1, 210)))


@pytest.mark.parametrize("bits", [8, 64, 256])
def test_neighbours_agree_with_faiss_up_to_ties(bits: int) -> None:
    random = np.random.default_rng(2)
    queries, gallery = random_codes(random, 40, bits), random_codes(random, 3000, bits)
    index = faiss.IndexBinaryFlat(bits)
    index.add(gallery.packed)
    distances, ids = index.search(queries.packed, 25)
    ours = hamming_neighbors(queries, gallery, 25)
    assert np.array_equal(ours.distances, distances)
    nearer = distances < distances[:, -1:]
    for i in range(len(queries)):
        assert set(ours.ids[i][nearer[i]]) == set(ids[i][nearer[i]])


def test_a_gallery_in_another_order_gives_the_same_expected_measures_to_the_last_bit() -> None:
    random = np.random.default_rng(3)
    queries, gallery = random_codes(random, 50, 32), random_codes(random, 2000, 32)
    relevance = random_labels(random, 50, 2000, multiple=False)
    order = random.permutation(2000)
    shuffled = Codes(gallery.packed[order], 32)
    first, second = (
        concatenate([measure(block) for block in blocks])
        for blocks in (
            hamming_blocks(queries, gallery, relevance),
            hamming_blocks(queries, shuffled, Relevance(relevance.queries, relevance.gallery[order])),
        )
    )
    for key in ("AP", "AP_optimistic", "AP_pessimistic", "P@10"):
        assert np.array_equal(first[key], second[key]), key


def test_one_label_an_item_ranks_alike_as_numbers_and_as_masks() -> None:
    random = np.random.default_rng(4)
    queries, gallery = random_codes(random, 20, 48), random_codes(random, 700, 48)
    numbers = Relevance(random.integers(0, 9, 20), random.integers(0, 9, 700))
    masks = Relevance(np.eye(9, dtype=bool)[numbers.queries], np.eye(9, dtype=bool)[numbers.gallery])
    assert read(hamming_blocks(queries, gallery, numbers)) == read(hamming_blocks(queries, gallery, masks))


@pytest.mark.parametrize("classes", [1, 63, 64, 65, 128, 200])
def test_masks_of_any_number_of_classes_tell_who_shares_a_label(classes: int) -> None:
    random = np.random.default_rng(classes)
    relevance = Relevance(random.random((9, classes)) < 2 / classes, random.random((300, classes)) < 2 / classes)
    check_blocks(random_codes(random, 9, 24), random_codes(random, 300, 24), relevance)


def test_blocks_of_queries_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    queries, gallery = random_codes(random, 90, 64), random_codes(random, 400, 64)
    relevance = random_labels(random, 90, 400, multiple=False)
    whole = list(hamming_blocks(queries, gallery, relevance))
    monkeypatch.setattr(hamming, "BLOCK_BYTES", 200_000)
    parts = list(hamming_blocks(queries, gallery, relevance))
    assert len(whole) == 1
    assert len(parts) > 1
    assert read(whole) == read(parts)


def test_a_prepared_gallery_gives_what_codes_give() -> None:
    random = np.random.default_rng(6)
    for bits in (64, 100):
        queries, gallery = random_codes(random, 3, bits), random_codes(random, 200, bits)
        prepared = CodeGallery.from_codes(gallery)
        assert np.array_equal(hamming_neighbors(queries, gallery, 9).ids, hamming_neighbors(queries, prepared, 9).ids)


def test_spare_bits_never_count() -> None:
    packed = np.array([[0b1010_0000], [0b1011_1111]], np.uint8)
    assert np.array_equal(*np.split(code_words(Codes(packed, 3)), 2, axis=1))


def test_no_query_gives_no_block() -> None:
    random = np.random.default_rng(7)
    none = Codes(np.empty((0, 8), np.uint8), 64)
    gallery = random_codes(random, 10, 64)
    assert list(hamming_blocks(none, gallery, Relevance(np.empty(0, np.int64), np.zeros(10, np.int64)))) == []
    assert hamming_neighbors(none, gallery, 3).ids.shape == (0, 3)


def test_mismatched_input_is_refused_before_any_work() -> None:
    random = np.random.default_rng(8)
    queries, gallery = random_codes(random, 2, 64), random_codes(random, 5, 32)
    with pytest.raises(ValueError, match="queries have 64 bits, the gallery 32"):
        hamming_neighbors(queries, gallery, 1)
    labels = Relevance(np.zeros(2, np.int64), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="labels"):
        hamming_blocks(queries, random_codes(random, 5, 64), labels)
    with pytest.raises(ValueError, match="k=0"):
        hamming_neighbors(queries, queries, 0)


@pytest.mark.slow
def test_a_second_process_finds_the_kernels_compiled() -> None:
    program = """
import numpy as np, sys
from lshbench.ranking.hamming import hamming_blocks, hamming_neighbors
from lshbench.ranking.cosine import cosine_blocks, cosine_neighbors
from lshbench.kernels import cosine, cosine_nearest, hamming, products
from lshbench.types import Codes, Relevance
codes = Codes(np.arange(800, dtype=np.uint8).reshape(100, 8), 64)
labels = Relevance(np.zeros(100, np.int64), np.zeros(100, np.int64))
list(hamming_blocks(codes, codes, labels))
hamming_neighbors(codes, codes, 5)
vectors = codes.unpack().astype(np.float32)
list(cosine_blocks(vectors, vectors, labels))
cosine_neighbors(vectors, vectors, 5)
cosine_neighbors(vectors.repeat(2, 0), vectors, 5)
kernels = [hamming.slice_histograms, hamming.fill_positions, hamming.nearest_serial,
           cosine.rank, cosine.close_gaps, cosine.squared_norms, cosine_nearest.collect_tile,
           cosine_nearest.write_nearest, cosine_nearest.unit_queries, cosine_nearest.search_panels, products.pack]
compiled = [getattr(kernel, "compiled", kernel) for kernel in kernels]
print(sum(sum(kernel.stats.cache_misses.values()) for kernel in compiled))
"""
    misses = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert int(misses[1]) == 0
