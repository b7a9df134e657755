"""Sets of images: how they are drawn, what their labels, features and pictures are, and a run on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lshbench.data.base import Dataset
from lshbench.data.sets import SetSplit
from lshbench.errors import UsageError
from lshbench.features.backbone import PixelBackbone
from lshbench.features.load import load_split_features
from lshbench.features.store import FeatureStore
from lshbench.protocols.containment import ContainmentProtocol
from lshbench.types import unlabelled
from tests.conftest import Command
from tests.features.images import MemorySplit, no_progress
from tests.protocols.test_protocols import LabelledSplit, dataset

KEYS = {"query_images": [1, 2], "set_images": [2, 5], "train_share": 0.5, "pooling": "max"}


def arranged(data: Dataset, **keys: object) -> tuple[SetSplit, SetSplit, SetSplit]:
    """Return the sets of gallery, queries and training that the protocol makes of a data set's images."""
    made = ContainmentProtocol(**KEYS | keys).arrange(data)  # type: ignore[arg-type]
    sides = made.gallery, made.query, made.train
    assert all(isinstance(side, SetSplit) for side in sides)
    return sides  # type: ignore[return-value]


def test_every_image_is_in_one_set_at_most_and_roles_share_none() -> None:
    gallery, queries, train = arranged(dataset(1000, 300))
    for side, fewest, most in ((gallery, 2, 5), (queries, 1, 2)):
        sizes = np.diff(side.offsets)
        assert set(sizes) == set(range(fewest, most + 1))
        assert len(np.unique(side.members)) == len(side.members)
    assert set(np.diff(train.offsets)[0::2]) == {1, 2}, "every other one is as small as a query"
    assert set(np.diff(train.offsets)[1::2]) == {2, 3, 4, 5}
    used = np.concatenate([gallery.members, train.members])
    assert len(np.unique(used)) == len(used) >= 1000 - 2 * 4, "fewer are left over than make a set"
    assert 490 < len(train.members) <= 500


def test_sets_are_drawn_by_their_own_seed() -> None:
    first, same, other = (arranged(dataset(200, 60), split_seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.members, same.members)
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("several", [False, True])
def test_a_set_has_its_images_labels_and_no_others(several: bool) -> None:
    data = dataset(200, 60)
    if several:
        for split in (data.gallery, data.query):
            split.labels = split.labels[:, None] == np.arange(7)
    for side in arranged(data):
        assert side.labels.shape == (len(side), 7 if several else 5)
        for number in range(len(side)):
            labels = side.whole.labels[side.members[side.offsets[number] : side.offsets[number + 1]]]
            found = np.flatnonzero(labels.any(0)) if several else np.unique(labels)
            np.testing.assert_array_equal(np.flatnonzero(side.labels[number]), found)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_features_are_the_largest_or_the_mean_of_the_images_features(pooling: str) -> None:
    side = arranged(dataset(200, 60), pooling=pooling)[0]
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    rows = np.array([0, 3, 4, len(side) - 1])
    combine = np.max if pooling == "max" else np.mean
    expected = [combine(x[side.members[side.offsets[row] : side.offsets[row + 1]]], axis=0) for row in rows]
    np.testing.assert_allclose(side.pool(x, rows), expected, rtol=1e-6)


def test_images_are_extracted_once_for_all_sets_and_an_unreadable_one_spoils_its_set_alone(tmp_path: Path) -> None:
    shades = np.arange(20, dtype=np.uint8)
    images = MemorySplit([np.full((4, 4, 3), 10 * shade, np.uint8) for shade in shades])
    images.images[7] = b"no image"
    offsets = np.arange(0, 22, 2)
    members = np.random.default_rng(0).permutation(20)
    side = SetSplit(images, members, offsets, 5, "max", "sets")
    backbone = PixelBackbone(image_size=8, unreadable="skip")

    def load(rows: list[int]) -> np.ndarray:
        loaded = load_split_features(
            side, np.array(rows), backbone, store=FeatureStore(tmp_path), device="cpu", threads=1, progress=no_progress
        )
        spoilt = [place for place, row in enumerate(rows) if 7 in members[2 * row : 2 * row + 2]]
        np.testing.assert_array_equal(loaded.unreadable, spoilt)
        return np.delete(loaded.x, loaded.unreadable, axis=0)

    whole = load(list(range(10)))
    reads = images.reads
    assert len(whole) == 9
    assert len(load([1, 4])) == 2 - any(7 in members[2 * row : 2 * row + 2] for row in (1, 4))
    assert images.reads == reads


def test_a_set_is_shown_as_the_tiles_of_its_images() -> None:
    images = MemorySplit([np.full((2, 3, 3), shade, np.uint8) for shade in (10, 20, 30)])
    side = SetSplit(images, np.array([2, 0, 1]), np.array([0, 3]), 5, "max", "sets")
    (picture,) = side.image_bytes(np.array([0]))
    np.testing.assert_array_equal(picture[:, :, 0], np.kron([[30, 10], [20, 255]], np.ones((2, 3))))
    assert side.describe(0) == " + ".join(images.describe(row) for row in (2, 0, 1))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"query_images": [2, 1]}, r"protocol.query_images=\[2, 1\]"),
        ({"set_images": 3}, "protocol.set_images=3"),
        ({"set_images": [0, 2]}, "protocol.set_images"),
        ({"train_share": 1.0}, "protocol.train_share=1.0"),
        ({"split_seed": -1}, "protocol.split_seed=-1"),
        ({"pooling": "sum"}, "protocol.pooling='sum': expected max or mean"),
    ],
)
def test_values_that_cannot_be_used_are_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        ContainmentProtocol(**KEYS | keys)  # type: ignore[arg-type]


def test_data_of_which_no_sets_can_be_made_is_refused() -> None:
    with pytest.raises(UsageError, match="no labels"):
        arranged(Dataset("made", LabelledSplit("a", unlabelled(20)), LabelledSplit("b", unlabelled(20))))
    with pytest.raises(UsageError, match="two splits and no training set"):
        arranged(dataset(names=("a", "a")))
    with pytest.raises(UsageError, match="1 images are too few for sets"):
        arranged(dataset(gallery=2))


def test_a_run_asks_for_the_sets_that_have_all_of_a_querys_labels(lshbench: Command, tmp_path: Path) -> None:
    lshbench(
        "run", "dataset=synthetic", "dataset.items=600", "dataset.queries=60", "protocol=containment", "bits=16",
        "relevance.kind=subset", "method=random_projection", "evaluation.plots=false", "reference.time=false",
    )  # fmt: skip
    (run,) = (path.parent for path in (tmp_path / "outputs").rglob("metrics.json"))
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    sizes = found["dataset"]
    assert 60 < sizes["gallery"] < 150
    assert 30 <= sizes["queries"] <= 60
    assert 90 < sizes["train"] < 200
    protocol = found["protocol"]
    assert [protocol[f"{pair}_overlap"] for pair in ("query_gallery", "query_train", "train_gallery")] == [0, 0, 0]
    assert found["relevance"]["rule"] == "all labels of the query"
    queries, gallery = (np.load(run / f"codes/{side}_labels.npy") for side in ("query", "gallery"))
    answered = ~(queries[:, None] & ~gallery).any(2)
    assert found["relevance"]["mean"] == pytest.approx(answered.sum(1).mean(), abs=1e-12)
