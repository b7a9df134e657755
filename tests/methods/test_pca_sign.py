"""Signs of principal components."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sklearn.decomposition import PCA as ReferencePCA

from lshbench.errors import UsageError
from lshbench.methods.pca_sign import PcaSign
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def features(count: int = 200) -> Features:
    generator = np.random.default_rng(0)
    x = (generator.standard_normal((count, 8)) * np.arange(8, 0, -1)) @ generator.standard_normal((8, 8)) + 5
    return Features(x.astype(np.float32), np.zeros(count, np.int64), np.arange(count))


@pytest.mark.parametrize("standardize", [False, True])
def test_bits_are_the_signs_of_scikit_learns_components(standardize: bool) -> None:
    train = features()
    x = train.x.astype(np.float64)
    if standardize:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    components = ReferencePCA(6, svd_solver="full").fit_transform(x)
    encoded = PcaSign(bits=6, standardize=standardize).fit(train, silent).encode(train.x, "gallery", projections=True)
    components *= np.sign((components * encoded.projections).sum(axis=0))
    np.testing.assert_allclose(encoded.projections, components, atol=1e-3)
    clear = np.abs(components) > 1e-3
    np.testing.assert_array_equal(encoded.unpack()[clear], (components >= 0)[clear])


@pytest.mark.parametrize(("count", "limit"), [(200, 8), (5, 5)])
def test_more_bits_than_components_are_refused_with_what_is_possible(count: int, limit: int) -> None:
    message = rf"bits={limit + 1}: expected at most {limit} .* {count} training items of 8 numbers"
    with pytest.raises(UsageError, match=message):
        PcaSign(bits=limit + 1).fit(features(count), silent)
    assert PcaSign(bits=limit).fit(features(count), silent).weight.shape == (8, limit)
