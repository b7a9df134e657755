"""Scores from stored bytes, against plain sums."""

from __future__ import annotations

import numpy as np
import pytest

from lshbench.ranking import quantised_scores
from lshbench.ranking.asymmetric import DecodedGallery
from lshbench.ranking.quantised_scores import write_scores
from lshbench.types import ByteTables, HalfPrecision, LevelWeights


@pytest.mark.parametrize("columns", [1, 8, 11, 21])
def test_tables_of_consecutive_parts_add_up_and_factors_scale_the_sum(columns: int) -> None:
    generator = np.random.default_rng(columns)
    stored = generator.integers(0, 256, (1300, columns + 13), np.uint8)
    factors = generator.standard_normal((1300, 2)).astype(np.float32)
    stored[:, -8:] = factors.view(np.uint8)
    first, second = (generator.standard_normal((3, size, 256)).astype(np.float32) for size in (columns, 2))
    start, weight, added = generator.standard_normal((3, 3)).astype(np.float32)
    plain = ByteTables(((0, first), (columns + 3, second)), start)
    scaled = ByteTables(plain.tables, start, columns + 5, weight, added)
    scores = np.empty(1300, np.float32)
    for query in range(3):
        expected = start[query] + sum(first[query, j, stored[:, j]].astype(float) for j in range(columns))
        expected += sum(second[query, j, stored[:, columns + 3 + j]] for j in range(2))
        write_scores(plain, query, stored, scores)
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        write_scores(scaled, query, stored, scores)
        np.testing.assert_allclose(
            scores, expected * factors[:, 1] + factors[:, 0] * weight[query] + added[query], atol=1e-4
        )


@pytest.mark.parametrize("levels", [1, 2])
def test_levels_of_bytes_and_their_squares_are_weighted(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(levels)
    stored = generator.integers(0, 256, (700, 37), np.uint8)
    weights = generator.standard_normal((2, levels, 37)).astype(np.float32)
    squares = generator.standard_normal((levels, 37)).astype(np.float32)
    terms = LevelWeights(weights, squares, np.array([0.5, -2], np.float32))
    found = np.empty((2, 700), np.float32)
    monkeypatch.setattr(quantised_scores, "FEW_BYTES", 0)  # threads share the codes
    for query in range(2):
        write_scores(terms, query, stored, found[query])
    values = np.stack([stored] if levels == 1 else [stored % 16, stored // 16]).astype(float)
    expected = terms.start[:, None] + np.einsum("qlb,lnb->qn", weights.astype(float), values)
    expected += np.einsum("lb,lnb->n", squares.astype(float), values**2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())


def test_half_precision_numbers_of_any_size_are_multiplied() -> None:
    numbers = np.array([0, -0.0, 1, -1, 6e-8, -5e-5, 65504, 0.1, 1 / 3], np.float16)
    scores = np.empty(len(numbers), np.float32)
    stored = np.zeros((len(numbers), 6), np.uint8)
    stored[:, 2:4] = numbers[:, None].view(np.uint8)
    write_scores(HalfPrecision(np.array([[7, 3, 5]], np.float32)), 0, stored, scores)
    np.testing.assert_array_equal(scores, 3 * numbers.astype(np.float32))


@pytest.mark.parametrize("kinds", [3, 200])
def test_scores_of_items_stored_alike_become_those_of_the_first(kinds: int) -> None:
    generator = np.random.default_rng(kinds)
    stored = generator.integers(0, 256, (kinds, 2), np.uint8)[generator.integers(0, kinds, 310)]
    gallery = DecodedGallery(stored, lambda codes: codes.astype(np.float32), 2)
    scores = generator.standard_normal((5, 9, 64)).astype(np.float32)  # 10 of the last tile are padding
    flat = scores.swapaxes(0, 1).reshape(9, -1)[:, :310]
    first = [np.flatnonzero((stored == one).all(axis=1))[0] for one in stored]
    expected = flat[:, first]
    gallery.equate(scores)
    np.testing.assert_array_equal(scores.swapaxes(0, 1).reshape(9, -1)[:, :310], expected)
