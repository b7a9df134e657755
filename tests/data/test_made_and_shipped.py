"""The digits that scikit-learn ships, and clusters made on the fly."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lshbench.data.digits import DigitsSource
from lshbench.data.synthetic import SyntheticSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress


def test_the_digits_are_divided_evenly(silent: Progress) -> None:
    data = DigitsSource().open(cache_dir(), silent)
    assert (data.kind, len(data.gallery), len(data.query)) == ("images", 1437, 360)
    np.testing.assert_array_equal(np.bincount(data.query.labels), [36] * 10)
    assert not data.same_split


def test_every_digit_is_there_once_and_spread_to_the_full_range(silent: Progress) -> None:
    data = DigitsSource().open(cache_dir(), silent)
    images = [image for split in (data.gallery, data.query) for image in split.image_bytes(np.arange(len(split)))]
    labels = np.concatenate([data.gallery.labels, data.query.labels])
    assert all(isinstance(image, np.ndarray) and image.dtype == np.uint8 for image in images)
    assert (np.min(images), np.max(images)) == (0, 255)
    original = load_digits()
    order = np.lexsort([*np.reshape(images, (1797, 64)).T, labels])
    expected = np.lexsort([*original.data.T, original.target])
    np.testing.assert_allclose(np.reshape(images, (1797, 64))[order] * (16 / 255), original.data[expected], atol=0.05)
    np.testing.assert_array_equal(labels[order], original.target[expected])


def test_the_split_seed_decides_which_digits_are_queries(silent: Progress) -> None:
    fingerprints = {DigitsSource(split_seed=seed).open(cache_dir(), silent).query.fingerprint() for seed in (0, 0, 1)}
    assert len(fingerprints) == 2


def test_any_rows_of_the_clusters_are_those_of_the_whole(silent: Progress) -> None:
    gallery = SyntheticSource(items=5000, dim=6, classes=3).open(cache_dir(), silent).gallery
    whole = gallery.read_features(np.arange(5000), silent)
    rows = np.random.default_rng(0).permutation(5000)[:700]
    np.testing.assert_array_equal(gallery.read_features(rows, silent), whole[rows])
    np.testing.assert_array_equal(gallery.read_features(np.array([4999]), silent), whole[4999:])


def test_clusters_have_their_spread_and_their_centres(silent: Progress) -> None:
    data = SyntheticSource(items=20000, queries=20000, dim=8, classes=4, spread=0.5).open(cache_dir(), silent)
    means = []
    for split in (data.gallery, data.query):
        x = split.read_features(np.arange(20000), silent)
        np.testing.assert_array_equal(np.bincount(split.labels), [5000] * 4)
        centres = np.stack([x[split.labels == label].mean(axis=0) for label in range(4)])
        assert (x - centres[split.labels]).std() == pytest.approx(0.5, rel=0.02)
        means.append(centres)
    np.testing.assert_allclose(means[0], means[1], atol=0.05)
    assert not np.array_equal(data.gallery.labels, data.query.labels)


def test_a_few_rows_of_three_million_cost_little_memory(silent: Progress) -> None:
    gallery = SyntheticSource(items=3_000_000, dim=128).open(cache_dir(), silent).gallery
    tracemalloc.start()
    gallery.read_features(np.arange(0, 3_000_000, 30_000), silent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_fingerprint_of_clusters_follows_what_makes_them(silent: Progress) -> None:
    keys: list[dict[str, Any]] = [
        {}, {"items": 9999}, {"dim": 64}, {"classes": 5}, {"spread": 2.0}, {"data_seed": 1}, {"spread": 3},
    ]  # fmt: skip
    made = [SyntheticSource(**key).open(cache_dir(), silent).gallery.fingerprint() for key in keys]
    assert len(set(made)) == 6
    assert made[0] == made[-1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"classes": 1}, "dataset.classes=1: expected a whole number from 2"),
        ({"items": 5, "classes": 10}, "dataset.items=5: expected a whole number from 10"),
        ({"dim": 0}, "dataset.dim=0"),
        ({"spread": -1}, "dataset.spread=-1"),
        ({"data_seed": 0.5}, "dataset.data_seed=0.5"),
        ({"max_queries": 0}, "dataset.max_queries=0"),
    ],
)
def test_wrong_keys_are_refused_at_once(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SyntheticSource(**keys)
