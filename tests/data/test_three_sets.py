"""Queries, gallery and training set of their own: from lists, folders, files and splits, by the right names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from lshbench.data.arrays import ArraySource
from lshbench.data.base import Dataset, Source
from lshbench.data.folder import FolderSource
from lshbench.data.lists import ListSource
from lshbench.errors import UsageError
from lshbench.types import Progress, is_unlabelled

RANDOM = np.random.default_rng(0)
BASE, LEARN, QUERIES = (RANDOM.standard_normal((n, 4)).astype(np.float32) for n in (30, 20, 5))
TRUE = np.argsort(((QUERIES[:, None] - BASE) ** 2).sum(2), axis=1)[:, :3].astype(np.int32)


def opened(source: Source, tmp_path: Path, silent: Progress, *, labels_needed: bool = True) -> Dataset:
    source.labels_needed = labels_needed
    return source.open(tmp_path / "cache", silent)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight images, whose first pixel is their number, beside which lists are written."""
    for number in range(8):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def lists(folder: Path, **texts: str) -> ListSource:
    for side, text in texts.items():
        (folder / f"{side}.txt").write_text(text)
    return ListSource(**{side: str(folder / f"{side}.txt") for side in texts}, root=str(folder))


def test_an_image_of_two_lists_is_one_item_of_two_roles(images: Path, silent: Progress) -> None:
    gallery = "0.png 1 0 1\n1.png 0 1 0\n2.png 1 1 0\n"
    source = lists(images, gallery=gallery, queries="3.png 0 1 1\n", train="5.png 0 0 1\n2.png 1 1 0\n4.png 0 1 0\n")
    data = opened(source, images, silent)
    assert (len(data.gallery), len(data.query), data.train_items.tolist()) == (3, 1, [2, 4, 5])
    assert data.labels[data.train_items].astype(int).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert [data.image(item).getpixel((0, 0))[0] for item in range(6)] == [0, 1, 2, 3, 5, 4]
    whole = opened(lists(images, gallery=gallery, queries="3.png 0 1 1\n", train=gallery), images, silent)
    assert (whole.train, whole.train_items.tolist()) == (None, [0, 1, 2])
    every = np.arange(4)
    fewer = opened(lists(images, gallery=gallery, queries="3.png 0 1 1\n", train=gallery[:12]), images, silent)
    assert whole.fingerprint(every) != fewer.fingerprint(every), "no split tells which of its items are learnt from"


def test_labels_that_lists_disagree_on_are_refused(images: Path, silent: Progress) -> None:
    source = lists(images, gallery="0.png a\n1.png b\n", queries="2.png a\n", train="3.png a\n1.png a\n")
    with pytest.raises(UsageError, match=r"train\.txt, line 2: 1\.png has other labels than in .*gallery\.txt, line 2"):
        opened(source, images, silent)


def test_a_shortened_line_of_flags_is_named_and_not_read_as_classes(images: Path, silent: Progress) -> None:
    source = lists(images, gallery="0.png 1 0 1\n1.png 0 1\n2.png 1 1 0\n", queries="3.png 0 1 1\n")
    with pytest.raises(UsageError, match=r"gallery\.txt, line 2: 2 words of 0 and 1 .*most lines have 3"):
        opened(source, images, silent)


def test_queries_of_one_flag_each_go_with_a_gallery_of_several(images: Path, silent: Progress) -> None:
    data = opened(lists(images, gallery="0.png 1 0 1\n1.png 0 1 0\n", queries="3.png 0 1 0\n"), images, silent)
    assert data.query.labels.astype(int).tolist() == [[0, 1, 0]]


def test_a_training_list_needs_queries(images: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset\.train=.*expected null, or dataset\.queries beside it"):
        lists(images, gallery="0.png a\n", train="1.png b\n")


def test_folders_have_a_training_split_where_it_is_named(images: Path, silent: Progress) -> None:
    for split, numbers in (("train", (0, 1)), ("database", (2, 3, 4, 5)), ("test", (6, 7))):
        for number in numbers:
            (images / "d" / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(images / f"{number}.png", images / "d" / split / "ab"[number % 2])
    with pytest.raises(UsageError, match=r"dataset\.gallery_split=train or dataset\.gallery_split=database"):
        opened(FolderSource(path=str(images / "d")), images, silent)
    data = opened(FolderSource(path=str(images / "d"), train_split="train"), images, silent)
    assert (data.gallery.name, data.query.name, data.train.name) == ("database", "test", "train")
    assert data.labels[data.train_items].tolist() == [0, 1]
    with pytest.raises(UsageError, match=r"dataset\.train_split='learn': there is no such split; there are: database"):
        opened(FolderSource(path=str(images / "d"), train_split="learn"), images, silent)
    with pytest.raises(UsageError, match="a split that is neither gallery nor queries"):
        FolderSource(path=str(images / "d"), train_split="test", query_split="test")


def test_arrays_have_a_training_split_by_name_or_file(tmp_path: Path, silent: Progress) -> None:
    labels = np.arange(30) % 3
    arrays = {
        "train_x": LEARN, "train_y": labels[:20], "database_x": BASE, "database_y": labels,
        "test_x": QUERIES, "test_y": labels[:5],
    }  # fmt: skip
    np.savez(tmp_path / "all.npz", **arrays)
    data = opened(ArraySource(path=str(tmp_path / "all.npz"), train_split="train"), tmp_path, silent)
    for side in ("train", "database", "test"):
        np.savez(tmp_path / f"{side}.npz", x=arrays[f"{side}_x"], y=arrays[f"{side}_y"])
    keys = {"gallery": "database", "query": "test", "train": "train"}
    apart = opened(ArraySource(**{key: str(tmp_path / f"{side}.npz") for key, side in keys.items()}), tmp_path, silent)
    for found in (data, apart):
        assert (len(found.gallery), len(found.query), found.train_items.tolist()) == (30, 5, list(range(35, 55)))
        np.testing.assert_array_equal(found.train.read_features(np.arange(20), silent), LEARN)


def texmex(folder: Path) -> Path:
    folder.mkdir()
    for name, rows in (
        ("base.fvecs", BASE),
        ("learn.fvecs", LEARN),
        ("query.fvecs", QUERIES),
        ("groundtruth.ivecs", TRUE),
    ):
        widths = np.full((len(rows), 1), rows.shape[1], "<i4")
        (folder / f"sift_{name}").write_bytes(np.hstack([widths.view("u1"), rows.view("u1")]).tobytes())
    return folder


def annbenchmarks(path: Path, distance: str | None = "euclidean", **changes: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        if distance is not None:
            file.attrs["distance"] = distance
        distances = np.sort(((QUERIES[:, None] - BASE) ** 2).sum(2) ** 0.5, axis=1)[:, :3].astype(np.float32)
        for name, values in (
            {"train": BASE, "test": QUERIES, "neighbors": TRUE, "distances": distances} | changes
        ).items():
            file[name] = values
    return path


def test_vectors_of_texmex_come_with_their_neighbours_and_what_to_learn_from(tmp_path: Path, silent: Progress) -> None:
    folder = texmex(tmp_path / "sift")
    data = opened(ArraySource(path=str(folder)), tmp_path, silent, labels_needed=False)
    assert (len(data.gallery), len(data.query), len(data.train_items)) == (30, 5, 20)
    assert is_unlabelled(data.labels)
    np.testing.assert_array_equal(data.given_neighbors.rows, TRUE)
    assert data.given_neighbors.metric == "euclidean"
    keys = {"gallery": "sift_base.fvecs", "query": "sift_query.fvecs", "neighbors": "sift_groundtruth.ivecs"}
    apart = opened(
        ArraySource(**{key: str(folder / name) for key, name in keys.items()}), tmp_path, silent, labels_needed=False
    )
    np.testing.assert_array_equal(apart.given_neighbors.rows, TRUE)
    assert apart.train_items is None


def test_files_of_annbenchmarks_come_as_they_are(tmp_path: Path, silent: Progress) -> None:
    path = annbenchmarks(tmp_path / "a.hdf5", "angular")
    data = opened(ArraySource(path=str(path)), tmp_path, silent, labels_needed=False)
    assert (len(data.gallery), len(data.query), data.train_items) == (30, 5, None)
    assert (data.given_neighbors.metric, data.given_neighbors.distances.shape) == ("cosine", (5, 3))
    np.testing.assert_array_equal(data.given_neighbors.rows, TRUE)
    with pytest.raises(UsageError, match=r"relevance=neighbors"):
        opened(ArraySource(path=str(path)), tmp_path, silent)


@pytest.mark.parametrize(
    ("distance", "changes", "keys", "message"),
    [
        (None, {}, {}, r"dataset\.metric=auto: .*does not say what is nearest"),
        ("euclidean", {"neighbors": TRUE + 28}, {}, r"but the gallery train .* has rows 0 to 29"),
        ("euclidean", {}, {"metric": "l3"}, r"dataset\.metric='l3': expected auto or cosine"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(
    distance: str | None, changes: dict[str, Any], keys: dict[str, str], message: str, tmp_path: Path, silent: Progress
) -> None:
    path = annbenchmarks(tmp_path / "a.hdf5", distance, **changes)
    with pytest.raises(UsageError, match=message):
        opened(ArraySource(path=str(path), **keys), tmp_path, silent, labels_needed=False)


def test_neighbours_by_another_distance_are_left_aside(
    tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    path = annbenchmarks(tmp_path / "a.hdf5", "jaccard")
    assert opened(ArraySource(path=str(path)), tmp_path, silent, labels_needed=False).given_neighbors is None
    assert "nearest by jaccard, by which nothing is ranked here" in caplog.text


def draw(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)


def test_folders_and_lists_without_labels_open_where_none_are_needed(tmp_path: Path, silent: Progress) -> None:
    draw(tmp_path / "d", "gallery/0.png", "gallery/1.png", "queries/2.png")
    (tmp_path / "g.txt").write_text("gallery/0.png\ngallery/1.png\n")
    (tmp_path / "q.txt").write_text("queries/2.png\n")
    folder = FolderSource(path=str(tmp_path / "d"))
    listed = ListSource(gallery=str(tmp_path / "g.txt"), queries=str(tmp_path / "q.txt"), root=str(tmp_path / "d"))
    for source, message in ((folder, "called like splits but hold images"), (listed, "has no label")):
        with pytest.raises(UsageError, match=message):
            source.open(tmp_path / "cache", silent)
        source.labels_needed = False
        data = source.open(tmp_path / "cache", silent)
        assert is_unlabelled(data.labels)
        assert [data.image(item).getpixel((0, 0))[0] for item in range(3)] == [0, 1, 2]


def test_a_list_with_labels_on_some_lines_only_is_refused(tmp_path: Path, silent: Progress) -> None:
    draw(tmp_path, "0.png", "1.png")
    (tmp_path / "g.txt").write_text("0.png a\n1.png\n")
    source = ListSource(gallery=str(tmp_path / "g.txt"))
    source.labels_needed = False
    with pytest.raises(UsageError, match=r"g\.txt, line 2: no label, but others have one"):
        source.open(tmp_path / "cache", silent)
