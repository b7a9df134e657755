"""Random hyperplanes: the law of collisions, nested codes, centring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lshbench.methods.random_projection import RandomProjection
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def features(x: np.ndarray) -> Features:
    return Features(x.astype(np.float32), np.zeros(len(x), np.int64), np.arange(len(x)))


def bits_of(method: RandomProjection, x: np.ndarray) -> np.ndarray:
    return method.encode(x.astype(np.float32), "gallery").unpack()


@pytest.mark.parametrize("degrees", [0, 30, 90, 120, 180])
def test_bits_differ_with_the_probability_that_the_angle_says(degrees: int) -> None:
    angle = np.deg2rad(degrees)
    pair = np.zeros((2, 24))
    pair[0, 0], pair[1, 0], pair[1, 1] = 1, 7 * np.cos(angle), 7 * np.sin(angle)
    method = RandomProjection(bits=4096, center=False).fit(features(pair), silent)
    first, second = bits_of(method, pair)
    expected = degrees / 180
    assert (first != second).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4096) * (0 < expected < 1))


def test_a_longer_code_begins_with_the_shorter_one_of_the_same_seed() -> None:
    train = features(np.random.default_rng(0).standard_normal((50, 10)))
    short, long = (RandomProjection(bits=bits, seed=3).fit(train, silent) for bits in (16, 40))
    np.testing.assert_array_equal(bits_of(long, train.x)[:, :16], bits_of(short, train.x))


def test_centred_codes_do_not_see_where_the_origin_is_and_raw_ones_do() -> None:
    x = np.random.default_rng(0).standard_normal((400, 10))
    for center, same in ((True, True), (False, False)):
        here = RandomProjection(bits=32, center=center).fit(features(x), silent)
        there = RandomProjection(bits=32, center=center).fit(features(x + 4), silent)
        assert ((bits_of(here, x) == bits_of(there, x + 4)).mean() > 0.999) == same
        balance = bits_of(there, x + 4).mean(axis=0)
        assert (np.abs(balance - 0.5).mean() < 0.05) == same


def test_standardised_codes_do_not_see_the_scale_of_features() -> None:
    x = np.random.default_rng(0).standard_normal((400, 10))
    scales = np.geomspace(0.01, 100, 10)
    plain = RandomProjection(bits=32, standardize=True).fit(features(x), silent)
    scaled = RandomProjection(bits=32, standardize=True).fit(features(x * scales), silent)
    assert (bits_of(plain, x) == bits_of(scaled, x * scales)).mean() > 0.999
