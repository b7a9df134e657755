"""The Fourier map against closed forms and independently computed values (float64)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lshbench.methods.fourier.map import (
    FourierMap,
    MapLayer,
    density,
    imaginary_part,
    normaliser,
    real_part,
    sample_frequencies,
)

OMEGA = [0.5, -1.2, 2.0]
# name: (frequencies of each dimension, query, gallery item, inner product, swapped inner product)
MAPS = {
    "one dimension": ([OMEGA], [0.3], [-0.4], 42.713178378641345, 41.33272422383529),
    "three dimensions": (
        [[w] for w in OMEGA],
        [0.2, -0.5, 1.0],
        [0.1, 0.4, -0.3],
        125.94535628909479,
        -13.381001667453704,
    ),
    "two dimensions": ([OMEGA, OMEGA], [0.7, -0.2], [0.1, 0.6], 90.79141466845356, 77.1577108949282),
}


def four_blocks(frequencies: np.ndarray, x: list[list[float]], side: str, band: float = 100.0) -> np.ndarray:
    """Return one side's map as its definition has it, for T = 3; :class:`MapLayer` never makes it."""
    flat = np.asarray(frequencies).ravel()
    angles = (np.asarray(x)[:, :, None] * frequencies).reshape(len(x), -1)
    cosine, sine = np.cos(angles), np.sin(angles)
    real, imaginary, chance = real_part(flat, 3.0), imaginary_part(flat, 3.0), density(flat, 3.0, band)
    first, second = np.sqrt(np.abs(real) / chance), np.sqrt(np.abs(imaginary) / chance)
    if side == "gallery":
        return np.hstack([first * cosine, first * sine, second * cosine, second * sine])
    first, second = np.sign(real) * first, np.sign(imaginary) * second
    return np.hstack([first * cosine, first * sine, -second * sine, second * cosine])


@pytest.mark.parametrize(
    ("frequency", "real", "imaginary", "chance"),
    [
        (1.0, 2.4133525207800473, 3.111097497861204, 0.09416642029059426),
        (0.5, 9.702021112953515, 3.5655567364100005, 0.22615107527185593),
        (-1.2, 0.21089223643936084, -1.9345901774361653, 0.03657059038082704),
        (2.0, -0.40916581896098025, -1.5101093045252805, 0.03271479827342896),
        (0.001, 13.49998312500197, 0.008999991900509485, 0.23026592286876268),
        (10.0, -0.28795200172673435, -0.056155751207203834, 0.005865451796774309),
        (100.0, -0.029890465535106613, 0.0005629229943704033, 0.0005190899680263209),
    ],
)
def test_the_transform_and_its_density_have_the_reference_values(
    frequency: float, real: float, imaginary: float, chance: float
) -> None:
    at = np.array([frequency])
    assert real_part(at, 3.0)[0] == pytest.approx(real, rel=1e-12, abs=1e-15)
    assert imaginary_part(at, 3.0)[0] == pytest.approx(imaginary, rel=1e-9, abs=1e-15)
    assert density(at, 3.0, 100.0)[0] == pytest.approx(chance, rel=1e-9)


def test_the_transform_has_its_limits_at_zero() -> None:
    assert real_part(np.array([0.0]), 3.0)[0] == 13.5
    assert imaginary_part(np.array([0.0]), 3.0)[0] == 0.0


@pytest.mark.parametrize(
    ("threshold", "band", "expected"),
    [
        (3.0, 100.0, 58.666879356706914),
        (1.0, 100.0, 16.758435003370394),
        (2.0, 100.0, 37.04540467410091),
        (6.0, 100.0, 127.92451322632097),
        (3.0, 10.0, 41.06128895230341),
        (3.0, 20.0, 46.369930565980056),
        (38.0, 100.0, 988.7995994986936),
    ],
)
def test_the_normaliser_is_the_integral_between_the_zeros(threshold: float, band: float, expected: float) -> None:
    assert normaliser(threshold, band) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (-3.0, 1.4999891424737264),
        (-1.0, 2.997684905251654),
        (0.5, 2.500774590234538),
        (3.0, 0.004762362613418226),
    ],
)
def test_integrating_the_transform_back_gives_the_band_limited_dominance(difference: float, expected: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(16)
    middles = np.arange(-99.75, 100, 0.5)[:, None]
    at, weights = (middles + nodes / 4).ravel(), np.tile(weights / 4, len(middles))
    values = real_part(at, 3.0) * np.cos(at * difference) - imaginary_part(at, 3.0) * np.sin(at * difference)
    assert (values * weights).sum() / (2 * np.pi) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("frequencies", "query", "item", "inner", "swapped"), MAPS.values(), ids=MAPS)
def test_maps_have_the_reference_products_and_change_with_the_sides(
    frequencies: list[list[float]], query: list[float], item: list[float], inner: float, swapped: float
) -> None:
    at = np.array(frequencies)
    products = four_blocks(at, [query], "query") @ four_blocks(at, [item], "gallery").T
    assert products.item() == pytest.approx(inner, rel=1e-9)
    products = four_blocks(at, [item], "query") @ four_blocks(at, [query], "gallery").T
    assert products.item() == pytest.approx(swapped, rel=1e-9)


def test_a_map_has_the_reference_entries() -> None:
    at = np.array([OMEGA])
    expected_query = [
        6.476308582231508, 2.2474616189077925, -2.91882552856715, 0.9787983097883667, -0.8459509623128996,
        -1.996875981220183, -0.5933702645169842, -2.562178495366854, 3.8362386084619757, 3.9260886518727394,
        -6.8070113820592955, -5.607414426013408,
    ]  # fmt: skip
    expected_item = [
        6.419295356495106, 2.130028647045105, 2.463925332228715, -1.3012555896557794, 1.1089160120897152,
        -2.536952523755813, 3.891525910501139, 6.4513356413154614, 4.733496509927253, -0.7888513555006049,
        3.358635294386394, -4.873790516284432,
    ]  # fmt: skip
    np.testing.assert_allclose(four_blocks(at, [[0.3]], "query")[0], expected_query, rtol=1e-5)
    np.testing.assert_allclose(four_blocks(at, [[-0.4]], "gallery")[0], expected_item, rtol=1e-5)


def test_both_maps_have_the_same_norm_whatever_the_input() -> None:
    generator = np.random.default_rng(0)
    at = sample_frequencies(20, 3.0, 100.0, generator).reshape(5, 4)
    x = generator.normal(size=(6, 5))
    for side in ("gallery", "query"):
        np.testing.assert_allclose((four_blocks(at, x, side) ** 2).sum(1), 20 * 58.666879356706914)


def test_the_products_estimate_the_dominance_similarity() -> None:
    at = sample_frequencies(80_000, 3.0, 100.0, np.random.default_rng(0)).reshape(4, 20_000)
    q, c = np.array([[0.5, -0.2, 1.0, 0.3]]), np.array([[0.1, 0.4, -0.3, 0.2]])
    exact = (3 - np.maximum(q - c, 0)).sum()
    estimate = (four_blocks(at, q, "query") @ four_blocks(at, c, "gallery").T).item() / (2 * np.pi * 20_000)
    # One frequency of one dimension has a deviation of some 5.4.
    assert estimate == pytest.approx(exact, abs=4 * 5.4 * np.sqrt(4 / 20_000))


def test_frequencies_follow_their_density() -> None:
    drawn = sample_frequencies(200_000, 3.0, 100.0, np.random.default_rng(0))
    assert np.abs(drawn).max() <= 100
    assert (np.abs(drawn) > 1).mean() == pytest.approx(0.59, abs=0.01)
    assert (np.abs(drawn) > 10).mean() == pytest.approx(0.30, abs=0.01)


def test_the_gain_multiplies_the_map() -> None:
    at = sample_frequencies(6, 3.0, 1.0, np.random.default_rng(0)).reshape(6, 1)
    x, layer = torch.randn(4, 6), MapLayer(4 * 6, 5)
    whole, tenth = (
        layer(fourier, fourier.waves(x), "query")
        for fourier in (FourierMap(at, 3.0, 1.0), FourierMap(at, 3.0, 1.0, 0.1))
    )
    torch.testing.assert_close(tenth - layer.bias, 0.1 * (whole - layer.bias))


@pytest.mark.parametrize("side", ["gallery", "query"])
def test_a_collapsed_layer_equals_one_on_the_four_part_map(side: str) -> None:
    # Frequencies that float32, in which the map is kept, has exactly.
    at = sample_frequencies(15, 3.0, 10.0, np.random.default_rng(0)).reshape(5, 3).astype(np.float32)
    fourier, layer = FourierMap(at, 3.0, 10.0).double(), MapLayer(4 * 15, 7).double()
    x = np.random.default_rng(1).normal(size=(4, 5))
    with torch.no_grad():
        collapsed = layer(fourier, fourier.waves(torch.from_numpy(x)), side)
        whole = four_blocks(at.astype(np.float64), x, side, 10.0) @ layer.weight.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(collapsed, whole, rtol=1e-6, atol=1e-6)
