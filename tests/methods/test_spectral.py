"""Spectral hashing: the order of eigenfunctions, and bits on a line worked out by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.methods.spectral import Spectral, lowest_modes
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def features(x: np.ndarray) -> Features:
    return Features(x.astype(np.float32), np.zeros(len(x), np.int64), np.arange(len(x)))


def test_the_smoothest_eigenfunctions_come_first() -> None:
    # Frequencies over pi: 1, 2, 3, ... along the first axis, 2, 4, ... along the second.
    axis, frequency = lowest_modes(np.array([1.0, 0.5]), 5)
    np.testing.assert_array_equal(axis, [0, 0, 1, 0, 0])
    np.testing.assert_allclose(frequency / np.pi, [1, 2, 2, 3, 4])


def test_no_lower_eigenfunction_is_left_out() -> None:
    widths = np.random.default_rng(0).uniform(0.05, 1, 9)
    _, frequency = lowest_modes(widths, 40)
    every = np.sort((np.pi * np.arange(1, 1000)[:, None] / widths).ravel())
    np.testing.assert_allclose(frequency, every[:40])


def test_an_axis_without_width_gives_no_bits() -> None:
    axis, _ = lowest_modes(np.array([1.0, 0.0]), 6)
    assert set(axis) == {0}
    with pytest.raises(UsageError, match="all the same features"):
        Spectral(bits=3).fit(features(np.ones((20, 4))), silent)


def test_bits_on_a_line_are_halves_and_outer_quarters() -> None:
    x = np.linspace(0, 8, 81)[:, None]
    method = Spectral(bits=2, quantile=0).fit(features(x), silent)
    asked = np.array([[0.5], [1.5], [3.0], [5.0], [6.5], [7.5]])
    bits = method.encode(asked.astype(np.float32), "query").unpack()
    np.testing.assert_array_equal(bits[:, 0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(bits[:, 1], [1, 1, 0, 0, 1, 1])


def test_quantiles_keep_an_outlier_from_stretching_the_box() -> None:
    x = np.append(np.linspace(0, 8, 801), 1000)[:, None]
    bits = {}
    for quantile in (0, 0.01):
        method = Spectral(bits=1, quantile=quantile).fit(features(x), silent)
        bits[quantile] = method.encode(x.astype(np.float32), "gallery").unpack()[:-1].mean()
    assert bits[0] == 1
    assert bits[0.01] == pytest.approx(0.5, abs=0.02)


def test_a_code_may_be_longer_than_features_are_wide() -> None:
    x = np.random.default_rng(0).uniform(size=(500, 3))
    codes = Spectral(bits=50).fit(features(x), silent).encode(x.astype(np.float32), "gallery")
    assert codes.bits == 50
    assert len(np.unique(codes.packed, axis=0)) > 400


@pytest.mark.parametrize("quantile", [-0.1, 0.5, 1])
def test_a_quantile_out_of_range_is_refused_at_once(quantile: float) -> None:
    with pytest.raises(UsageError, match=rf"method\.quantile={quantile}: expected from 0 to below 0\.5"):
        Spectral(bits=8, quantile=quantile)
