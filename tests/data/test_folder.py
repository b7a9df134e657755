"""Images in class sub-folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lshbench.data.folder import FolderSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress


def write(folder: Path, classes: dict[str, int], suffix: str = ".png") -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((3, 3), 10 * i, np.uint8)).save(folder / name / f"{i:03}{suffix}")


@pytest.mark.parametrize("query", ["test", "val", "validation"])
def test_train_and_test_folders_are_the_splits(query: str, tmp_path: Path, silent: Progress) -> None:
    write(tmp_path / "train", {"cat": 4, "dog": 3})
    write(tmp_path / query, {"ant": 1, "dog": 2}, ".jpg")
    data = FolderSource(path=str(tmp_path)).open(cache_dir(), silent)
    assert (data.gallery.name, data.query.name, data.kind) == ("train", query, "images")
    assert list(data.gallery.class_names or ()) == ["ant", "cat", "dog"]
    np.testing.assert_array_equal(data.gallery.labels, [1, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(data.query.labels, [0, 2, 2])
    assert data.gallery.describe(4) == str(tmp_path / "train" / "dog" / "000.png")
    expected = [(tmp_path / "train" / name).read_bytes() for name in ("dog/001.png", "cat/002.png")]
    assert list(data.gallery.image_bytes(np.array([5, 2]))) == expected


def test_class_folders_alone_are_divided_by_class(tmp_path: Path, silent: Progress) -> None:
    write(tmp_path, {"a": 10, "b": 5, "train": 10})
    data = FolderSource(path=str(tmp_path), query_fraction=0.2).open(cache_dir(), silent)
    assert list(data.gallery.class_names or ()) == ["a", "b", "train"]
    np.testing.assert_array_equal(np.bincount(data.query.labels), [2, 1, 2])
    np.testing.assert_array_equal(np.bincount(data.gallery.labels), [8, 4, 8])
    paths = [split.describe(row) for split in (data.gallery, data.query) for row in range(len(split))]
    assert len(set(paths)) == 25
    assert {Path(path).parent.name for path in paths} == {"a", "b", "train"}


def test_a_class_may_have_folders_of_its_own_and_files_that_are_no_images(tmp_path: Path, silent: Progress) -> None:
    write(tmp_path / "train", {"a/deep/deeper": 2, "b": 2, ".hidden": 3})
    write(tmp_path / "test", {"a": 1, "b": 1})
    (tmp_path / "train" / "b" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "b" / "._000.png").write_text("left by a Mac")
    data = FolderSource(path=str(tmp_path)).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.gallery.labels, [0, 0, 1, 1])


def test_upper_case_extensions_count(tmp_path: Path, silent: Progress) -> None:
    write(tmp_path, {"a": 4, "b": 4}, ".PNG")
    assert len(FolderSource(path=str(tmp_path)).open(cache_dir(), silent).gallery) == 6


def test_a_fingerprint_covers_the_rows_asked_for(tmp_path: Path, silent: Progress) -> None:
    write(tmp_path / "train", {"a": 3, "b": 3})
    write(tmp_path / "test", {"a": 1, "b": 1})
    gallery = FolderSource(path=str(tmp_path)).open(cache_dir(), silent).gallery
    rows = np.array([0, 1])
    before, all_before = gallery.fingerprint(rows), gallery.fingerprint()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "train" / "b" / "000.png")
    assert gallery.fingerprint(rows) == before
    assert gallery.fingerprint() != all_before


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "expected a sub-folder of images for each class; it is empty"),
        ({"train/a": 0, "train/b": 0}, "no images in the sub-folders"),
        ({"a": 4}, "has one class only"),
        ({"train/a": 3, "test/a": 3}, "the gallery split 'train' has one class only"),
    ],
)
def test_folders_that_cannot_be_used_say_why(
    classes: dict[str, int], message: str, tmp_path: Path, silent: Progress
) -> None:
    write(tmp_path, classes)
    with pytest.raises(UsageError, match=message):
        FolderSource(path=str(tmp_path)).open(cache_dir(), silent)


def test_images_without_class_folders_are_explained(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="it holds 1 files, but no sub-folder"):
        FolderSource(path=str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "dataset.path=None: expected the path of a folder"),
        ({"path": "/nowhere"}, "dataset.path='/nowhere': expected the path of a folder; it is not there"),
        ({"path": "/", "query_fraction": 0}, "dataset.query_fraction=0: expected a fraction"),
        ({"path": "/", "max_gallery": -5}, "dataset.max_gallery=-5"),
    ],
)
def test_wrong_keys_are_refused_at_once(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FolderSource(**keys)
