"""Sorting of keys by buckets, whatever their values."""

from __future__ import annotations

import numpy as np
import pytest

from lshbench.kernels.topk import sort_by_buckets


@pytest.mark.parametrize("size", [0, 1, 2, 17, 500])
@pytest.mark.parametrize("most", [1, 3, 1000, 2**32])
def test_keys_are_sorted_whether_their_values_spread_or_crowd(size: int, most: int) -> None:
    random = np.random.default_rng(size)
    orders = random.integers(0, most, size).astype(np.uint64)
    orders[: size // 20] = 2**32 - 1  # far from the others
    keys = orders << np.uint64(32) | random.permutation(size).astype(np.uint64)
    expected = np.sort(keys)
    sort_by_buckets(keys)
    assert np.array_equal(keys, expected)
