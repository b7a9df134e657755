"""Products of narrow rows against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from lshbench.kernels.compilation import kernel
from lshbench.kernels.products import NARROW, PANEL_ROWS, SIX, pack, write_narrow_products, write_similarities


@kernel
def narrow_products(query: np.ndarray, rows: np.ndarray, products: np.ndarray) -> None:
    for i in range(0, len(rows), 4):
        write_narrow_products(query, rows, i, products)


@kernel
def similarities_of(queries: np.ndarray, panels: np.ndarray, similarities: np.ndarray) -> None:
    for query in range(0, len(queries), 6):
        for panel in range(len(panels)):
            write_similarities(queries, query, panels, panel, similarities, query)


def whole_numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Return numbers whose products have exact sums, in whatever order they are added."""
    return random.integers(-9, 10, shape).astype(np.float32)


@pytest.mark.parametrize("step", [1, 3])
def test_four_narrow_rows_are_multiplied_at_once(step: int) -> None:
    random = np.random.default_rng(0)
    query, rows = whole_numbers(random, NARROW), whole_numbers(random, 20 * step, NARROW)[::step]
    products = np.empty(20, np.float32)
    narrow_products(query, rows, products)
    assert np.array_equal(products, rows @ query)


def test_a_narrow_row_has_the_same_product_wherever_it_stands() -> None:
    random = np.random.default_rng(1)
    query, row = (random.standard_normal(NARROW).astype(np.float32) for _ in range(2))
    products = np.empty(8, np.float32)
    narrow_products(query, np.tile(row, (8, 1)), products)
    assert np.array_equal(products, np.full(8, products[0]))
    np.testing.assert_allclose(products[0], row.astype(np.float64) @ query, atol=1e-5)


@pytest.mark.parametrize("dimensions", [1, 7, 8, 64, 100])
@pytest.mark.parametrize("items", [1, 15, 16, 50])
def test_panels_hold_rows_and_norms_and_zeros_beyond(items: int, dimensions: int) -> None:
    random = np.random.default_rng(2)
    rows, norms = whole_numbers(random, items, dimensions), whole_numbers(random, items)
    for laid in (rows, np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        panels = np.full((5, dimensions + 1, PANEL_ROWS), np.nan, np.float32)
        pack(laid, norms, panels)
        found = panels.transpose(0, 2, 1).reshape(5 * PANEL_ROWS, dimensions + 1)
        assert np.array_equal(found[:items], np.column_stack([rows, norms]))
        assert not found[items:].any()


@pytest.mark.parametrize("dimensions", [1, 7, 64, 100])
def test_six_queries_are_multiplied_with_a_panel_and_its_norms(dimensions: int) -> None:
    random = np.random.default_rng(3)
    queries, rows = whole_numbers(random, 2 * SIX, dimensions), whole_numbers(random, 40, dimensions)
    norms = whole_numbers(random, 40)
    panels = np.empty((3, dimensions + 1, PANEL_ROWS), np.float32)
    pack(rows, norms, panels)
    similarities = np.empty((2 * SIX, 3 * PANEL_ROWS), np.float32)
    similarities_of(queries, panels, similarities)
    assert np.array_equal(similarities[:, :40], (queries @ rows.T) * norms)
