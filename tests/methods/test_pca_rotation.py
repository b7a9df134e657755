"""Rotated principal components."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.methods.linear import random_rotation
from lshbench.methods.pca_rotation import PcaRotation
from lshbench.methods.pca_sign import PcaSign
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def features() -> Features:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((500, 24)) * np.geomspace(10, 0.1, 24) + 3
    return Features(x.astype(np.float32), np.zeros(500, np.int64), np.arange(500))


def test_rotating_keeps_the_distances_of_components_and_evens_out_their_variance() -> None:
    train = features()
    plain, rotated = (
        method.fit(train, silent).encode(train.x, "gallery", projections=True).projections
        for method in (PcaSign(bits=16), PcaRotation(bits=16))
    )
    np.testing.assert_allclose(rotated @ rotated.T, plain @ plain.T, atol=0.05)
    assert (
        rotated.var(axis=0).max() / rotated.var(axis=0).min() < 0.05 * plain.var(axis=0).max() / plain.var(axis=0).min()
    )


def test_random_rotations_are_orthogonal_and_uniform() -> None:
    drawn = np.stack([random_rotation(3, np.random.default_rng(seed)) for seed in range(4000)])
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), drawn.shape), atol=1e-12)
    # An entry of a uniform rotation of 3 dimensions is uniform on [-1, 1]: mean 0, variance 1/3.
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 3, atol=0.03)


def test_more_bits_than_components_are_refused() -> None:
    with pytest.raises(UsageError, match="bits=25: expected at most 24"):
        PcaRotation(bits=25).fit(features(), silent)
