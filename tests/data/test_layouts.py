"""What lies beside the data is never taken for it: folders, links, arrays in any order and under any usual name."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lshbench.data.arrays import ArraySource
from lshbench.data.base import Dataset
from lshbench.data.folder import FolderSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress


def images(folder: Path, count: int = 2) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(folder / f"{i}.png")


def splits(folder: Path, *names: str) -> None:
    for name, inner in itertools.product(names, "abc"):
        images(folder / name / inner, 3 if name == names[0] else 2)


def run_folder(folder: Path) -> None:
    """What a run leaves, pictures included."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".run.lock").touch()
    images(folder / "plots", 3)


def paths(data: Dataset) -> list[list[str]]:
    return [[split.describe(row) for row in range(len(split))] for split in (data.gallery, data.query)]


def opened(folder: Path, silent: Progress, **keys: Any) -> Dataset:
    return FolderSource(path=str(folder), **keys).open(cache_dir(), silent)


BESIDE: dict[str, Callable[[Path], object]] = {
    "notes of text": lambda folder: (folder / "notes").mkdir() or (folder / "notes" / "a.txt").write_text("a"),
    "an empty folder": lambda folder: (folder / "empty").mkdir(),
    "what a Mac leaves": lambda folder: (
        (folder / "__MACOSX" / "train").mkdir(parents=True)
        or (folder / "__MACOSX" / "train" / "._0.png").write_bytes(b"a")
    ),
    "screenshots": lambda folder: images(folder / "screenshots"),
    "samples by class": lambda folder: [images(folder / "sample" / name) for name in "abc"],
    "a second test set": lambda folder: [images(folder / "test_v2" / name) for name in "abc"],
    "a validation set": lambda folder: [images(folder / "val" / name) for name in "abc"],
    "outputs": lambda folder: run_folder(folder / "outputs" / "made" / "fourier" / "64-1"),
    "a run below a class": lambda folder: run_folder(folder / "train" / "a" / "run"),
    "a link to the parent": lambda folder: (folder / "train" / "a" / "up").symlink_to(".."),
    "a link to the data": lambda folder: (folder / "train" / "b" / "all").symlink_to(folder),
    "a link to the root": lambda folder: (folder / "test" / "b" / "root").symlink_to("/"),
    "a link to a class": lambda folder: (folder / "train" / "a" / "x").symlink_to(folder / "train" / "b"),
    "a link to the other split": lambda folder: (folder / "train" / "c" / "x").symlink_to(folder / "test" / "a"),
    "a link to nowhere": lambda folder: (folder / "train" / "c" / "y").symlink_to("nowhere"),
}


NAMES = [("train", "test"), ("Training", "valid"), ("gallery", "query"), ("train2017", "val")]


@pytest.mark.parametrize("names", NAMES)
def test_folders_and_links_beside_the_splits_change_nothing(
    names: tuple[str, str], tmp_path: Path, silent: Progress
) -> None:
    generator = random.Random(names[0])
    splits(tmp_path / "D", *names)
    expected = paths(opened(tmp_path / "D", silent))
    assert [len(part) for part in expected] == [9, 6]
    for number in range(6):
        folder = tmp_path / str(number) / "D"
        splits(folder, *names)
        fitting = [
            name
            for name in BESIDE
            if names == NAMES[0] or not any(word in name for word in ("link", "run", "validation"))
        ]
        for name in generator.sample(fitting, 4):
            BESIDE[name](folder)
        found = paths(opened(folder, silent))
        assert [[path.replace(f"/{number}/D", "/D") for path in part] for part in found] == expected


def test_train_and_valid_are_the_splits_beside_a_sample(tmp_path: Path, silent: Progress) -> None:
    for split, count in (("train", 4), ("valid", 2), ("sample", 1)):
        for name in "ab":
            images(tmp_path / split / name, count)
    data = opened(tmp_path, silent)
    assert [len(data.gallery), len(data.query)] == [8, 4]
    assert {Path(path).parts[-3] for path in paths(data)[1]} == {"valid"}


@pytest.mark.parametrize("beside", BESIDE)
def test_what_lies_beside_the_splits_is_named(
    beside: str, tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    splits(tmp_path, "train", "test")
    BESIDE[beside](tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [len(part) for part in paths(opened(tmp_path, silent))] == [9, 6]
    assert beside == "a link to nowhere" or caplog.text.count("WARNING") == 1, caplog.text


def test_outputs_beside_classes_are_never_data(tmp_path: Path, silent: Progress) -> None:
    for name in ("a", "b"):
        images(tmp_path / name, 5)
    before = paths(opened(tmp_path, silent))
    run_folder(tmp_path / "outputs" / "made" / "fourier" / "64-1")
    images(tmp_path / "results" / "half")
    source = FolderSource(path=str(tmp_path))
    source.own_folders = (tmp_path / "results",)
    assert paths(source.open(cache_dir(), silent)) == before
    images(tmp_path / "cache" / "torchvision")
    assert paths(source.open(tmp_path / "cache", silent)) == before


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path, silent: Progress) -> None:
    splits(tmp_path / "real", "train", "test")
    for name in ("train", "test"):
        (tmp_path / "D" / name).mkdir(parents=True)
        for inner in "abc":
            (tmp_path / "D" / name / inner).symlink_to(tmp_path / "real" / name / inner)
    assert [len(part) for part in paths(opened(tmp_path / "D", silent))] == [9, 6]
    (tmp_path / "E").mkdir()
    for name in ("train", "test"):
        (tmp_path / "E" / name).symlink_to(tmp_path / "real" / "train")
    with pytest.raises(UsageError, match="leads to a folder that counts already"):
        opened(tmp_path / "E", silent)


AMBIGUOUS = [
    (("train/a", "train/b", "c", "d"), "'train' looks like a split", {"gallery_split": None}, 4 - 1),
    (("train/a", "train/b", "sample/a", "sample/b"), "'sample' may be", {"query_split": "sample"}, 2),
    (("train/a", "train/b", "test"), "'test' may be", {"query_split": None}, 2),
    (("train", "test"), "hold images, and no sub-folder", {"gallery_split": None}, 2),
    (("photos/a", "photos/b", "drawings/a", "drawings/b"), "same names", {"gallery_split": "drawings"}, 2),
    (("train/a", "train/b", "base/a", "base/b", "test/a", "test/b"), "=train or .*=base", {"gallery_split": "base"}, 2),
    (("train/a", "train/b", "query/a", "query/b", "test/a", "test/b"), "=test or .*=query", {"query_split": "test"}, 2),
]


@pytest.mark.parametrize(("folders", "message", "settled", "classes"), AMBIGUOUS)
def test_what_stays_ambiguous_is_refused_with_the_keys_that_settle_it(
    folders: tuple[str, ...], message: str, settled: dict[str, Any], classes: int, tmp_path: Path, silent: Progress
) -> None:
    for folder in folders:
        images(tmp_path / folder, 4)
    with pytest.raises(UsageError, match=message) as refusal:
        opened(tmp_path, silent)
    key, value = next(iter(settled.items()))
    assert f"dataset.{key}={'null' if value is None else value}" in str(refusal.value)
    assert len(np.unique(opened(tmp_path, silent, **settled).gallery.labels)) == classes


GENERATOR = np.random.default_rng(0)
WIDTH = 5
SPELLINGS = {
    "gallery": ("train", "training", "trn", "tr", "base", "database", "gallery", "db"),
    "query": ("test", "te", "testing", "query", "queries"),
    "val": ("val", "validation", "valid", "dev"),
}
STYLES: list[Callable[[str, str], str]] = [
    lambda word, split: f"{word}_{split}", lambda word, split: f"{split}_{word}",
    lambda word, split: f"{split}/{word}", lambda word, split: f"{word}{split.title()}",
    lambda word, split: f"{split.upper()}-{word.upper()}",
]  # fmt: skip


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arrays_are_paired_by_name_in_any_order(data: st.DataObject, tmp_path: Path, silent: Progress) -> None:
    style = data.draw(st.sampled_from(STYLES))
    features = data.draw(st.sampled_from(["x", "features", "emb", "vit_base"]))
    labels = data.draw(st.sampled_from(["y", "labels", "targets"]))
    sizes = {"gallery": 12, "query": 8, "val": data.draw(st.sampled_from([8, 12, 5]))}
    with_val = data.draw(st.booleans())
    arrays: dict[str, np.ndarray] = {}
    for number, (side, spellings) in enumerate(SPELLINGS.items()):
        if side == "val" and not with_val:
            continue
        split = data.draw(st.sampled_from(spellings))
        arrays[style(features, split)] = np.full((sizes[side], WIDTH), number, np.float32)
        arrays[style(labels, split)] = (np.arange(sizes[side]) + number) % 3
    if data.draw(st.booleans()):
        arrays |= {"ids": np.arange(12), "mean": np.zeros((1, WIDTH)), "neighbors": np.zeros((8, 3), np.int32)}
    names = data.draw(st.permutations(sorted(arrays)))
    folder = tmp_path / str(GENERATOR.integers(2**60))
    folder.mkdir()
    np.savez(folder / "a.npz", **{name: arrays[name] for name in names})
    opened = ArraySource(path=str(folder / "a.npz")).open(cache_dir(), silent)
    for number, split in enumerate((opened.gallery, opened.query)):
        np.testing.assert_array_equal(split.labels, (np.arange(len(split)) + number) % 3)
        assert (split.read_features(np.arange(len(split)), silent) == number).all()


def save(folder: Path, **sizes: int) -> ArraySource:
    """Save arrays: two-dimensional where the name has an x, labels elsewhere."""
    arrays = {
        name: np.full((size, WIDTH), place, np.float32) if "x" in name.lower() else np.arange(size) % 3
        for place, (name, size) in enumerate(sizes.items())
    }
    np.savez(folder / "a.npz", **arrays)
    return ArraySource(path=str(folder / "a.npz"))


@pytest.mark.parametrize("order", itertools.permutations(["X_test", "X_val", "y_test", "y_val"]))
def test_test_goes_before_val_in_every_order(
    order: tuple[str, ...], tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    source = save(tmp_path, X_train=12, y_train=12, **dict.fromkeys(order, 8))
    with caplog.at_level(logging.INFO):
        source.open(cache_dir(), silent)
    assert "features X_test (8 x 5 floats), labels y_test" in caplog.text
    unused = (
        "X_val (8 x 5 floats), y_val" if order.index("X_val") < order.index("y_val") else "y_val (8 integers), X_val"
    )
    assert f"not used: {unused}" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "train_x train_y database_x database_y test_x test_y",
            "_split=train or dataset.gallery_split=database",
        ),
        ("X_train y_train X_test y_test X_query y_query", "dataset.query_split=test or dataset.query_split=query"),
        ("X_train y_train X_test y_val", r"of 'test' and 'val' there are not both.*dataset\.query_split=null"),
        ("X_test y_val", "'test' and 'val' there are not both"),
        ("y_train X_test y_test", r"of 'train' there are not both.*dataset\.query_split=null"),
        ("X_train y_train y_test", r"of 'test' there are not both"),
        ("X_train y_train X y", r"could be all items.*dataset\.features_column"),
        ("x_a x_b y", "dataset.features_column=auto: x_a and x_b could both be the features"),
        ("x y_a y_b", "dataset.label_column=auto: y_a and y_b could both be the labels"),
        ("x_train_test y_train", "tells several splits"),
    ],
)
def test_arrays_that_could_be_read_in_several_ways_are_refused(
    names: str, message: str, tmp_path: Path, silent: Progress
) -> None:
    with pytest.raises(UsageError, match=message):
        save(tmp_path, **dict.fromkeys(names.split(), 9)).open(cache_dir(), silent)


def test_the_keys_that_a_refusal_names_settle_it(tmp_path: Path, silent: Progress) -> None:
    sizes = {"train_x": 9, "train_y": 9, "database_x": 12, "database_y": 12, "test_x": 6, "test_y": 6}
    path = save(tmp_path, **sizes).path
    for split, size in (("train", 9), ("database", 12)):
        data = ArraySource(path=path, gallery_split=split).open(cache_dir(), silent)
        assert (len(data.gallery), len(data.query)) == (size, 6)
    with pytest.raises(UsageError, match=r"dataset\.gallery_split='foo': there is no such split"):
        ArraySource(path=path, gallery_split="foo").open(cache_dir(), silent)


def test_arrays_without_telling_names_are_named_and_left_out(
    tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones((12, 5)), target=np.arange(12) % 3, Xt=np.ones((6, 5)), tt=np.arange(6) % 3)
    with caplog.at_level(logging.WARNING):
        data = ArraySource(path=str(tmp_path / "a.npz")).open(cache_dir(), silent)
    assert len(data.gallery) + len(data.query) == 12
    assert "not used: Xt (6 x 5 floats), tt (6 integers) (dataset.gallery_split" in caplog.text
    assert "dataset.features_column" in caplog.text


def test_a_nameless_pair_beside_a_test_split_is_the_gallery(tmp_path: Path, silent: Progress) -> None:
    data = save(tmp_path, x=12, y=12, x_test=6, y_test=6).open(cache_dir(), silent)
    assert (len(data.gallery), len(data.query)) == (12, 6)
