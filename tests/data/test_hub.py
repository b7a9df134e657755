"""Repositories in the Hub's layout, read by the real `datasets` from local copies."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lshbench.data.arrays import ArraySource
from lshbench.data.hub import HubSource
from lshbench.data.streamed import StreamedSplit
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress

REAL = os.environ.get("LSHBENCH_TEST_DATA")


def vectors(rows: int, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float16)


def write_features(folder: Path, split: str, x: np.ndarray, labels: list[int], classes: int | None = 3) -> None:
    columns = {
        "index": datasets.Value("int64"),
        "features": datasets.List(datasets.Value("float16"), length=x.shape[1]),
        "label": datasets.ClassLabel(names=[f"c{i}" for i in range(classes)]) if classes else datasets.Value("int64"),
    }
    table = datasets.Dataset.from_dict(
        {"index": list(range(len(x))), "features": list(x), "label": labels}, datasets.Features(columns)
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", batch_size=4)


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "png")
    return file.getvalue()


def write_images(folder: Path, split: str, labels: list[int]) -> list[bytes]:
    """Write images as Parquet without the metadata of `datasets`; returns the encoded files."""
    files = [png(i) for i in range(len(labels))]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = pa.table({"img": [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)], "label": labels})
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=3)
    return files


@pytest.fixture
def features(tmp_path: Path) -> Path:
    folder = tmp_path / "owner" / "made"
    write_features(folder, "train", vectors(20), [i % 3 for i in range(20)])
    write_features(folder, "test", vectors(8, seed=1), [i % 3 for i in range(8)])
    return folder


def test_ready_features_come_from_a_local_copy(
    features: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        data = HubSource(path=str(features)).open(cache_dir(), silent)
    assert (data.name, data.kind, len(data.gallery), len(data.query)) == ("made", "features", 20, 8)
    assert list(data.gallery.class_names or ()) == ["c0", "c1", "c2"]
    np.testing.assert_array_equal(data.gallery.labels, np.arange(20) % 3)
    rows = np.array([17, 0, 5])
    got = data.gallery.read_features(rows, silent)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, vectors(20)[rows].astype(np.float32))
    assert "features in column 'features' (list of 6 x float16), labels in column 'label' (3 classes)" in caplog.text
    assert "gallery split 'train' (20), query split 'test' (8)" in caplog.text


def test_images_are_given_out_encoded_and_in_order(tmp_path: Path, silent: Progress) -> None:
    files = write_images(tmp_path / "made", "train", [0, 1] * 5)
    write_images(tmp_path / "made", "test", [0, 1])
    data = HubSource(path=str(tmp_path / "made")).open(cache_dir(), silent)
    assert data.kind == "images"
    rows = np.array([7, 2, 9, 2])
    assert list(data.gallery.image_bytes(rows)) == [files[row] for row in rows]


def test_features_are_preferred_to_images_unless_images_are_named(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "both" / "data"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        table = pa.table(
            {
                "img": [{"bytes": png(i), "path": None} for i in range(4)],
                "features": [[float(i), 1.0] for i in range(4)],
                "label": [0, 1, 0, 1],
            }
        )
        pq.write_table(table, folder / f"{split}.parquet")
    path = str(tmp_path / "both")
    assert HubSource(path=path).open(cache_dir(), silent).kind == "features"
    assert HubSource(path=path, features_column=None).open(cache_dir(), silent).kind == "images"
    assert HubSource(path=path, image_column="img").open(cache_dir(), silent).kind == "images"


def test_only_the_splits_that_are_needed_are_converted(features: Path, told: Any) -> None:
    write_features(features, "validation", vectors(5), [0, 1, 2, 0, 1])
    source = HubSource(path=str(features), query_split="validation")
    source.open(cache_dir(), told)
    converted = [line for line in told.lines if line[0].startswith("converting")]
    assert [line[0].rsplit(" ", 1)[1] for line in converted] == ["train", "validation"]
    assert all(total == advanced for _, total, _, advanced in converted)
    told.lines.clear()
    source.open(cache_dir(), told)
    assert told.lines == []


def test_opening_reads_no_items(tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "made", "train", [0, 1] * 5)
    write_images(tmp_path / "made", "test", [0, 1])
    monkeypatch.setattr(Image, "open", lambda *args, **keywords: pytest.fail("an image was decoded"))
    HubSource(path=str(tmp_path / "made")).open(cache_dir(), silent)


def test_a_split_without_labels_is_passed_over_by_auto_and_refused_by_name(
    features: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    write_features(features, "test", vectors(8), [-1] * 8)
    with pytest.raises(UsageError, match="the query split 'test' has the label -1 for 8 of 8 items"):
        HubSource(path=str(features)).open(cache_dir(), silent)
    write_features(features, "val", vectors(6), [0, 1, 2] * 2)
    with caplog.at_level(logging.INFO):
        assert HubSource(path=str(features)).open(cache_dir(), silent).query.name == "val"
    assert "the split 'test' has items without a label (-1) and is passed over" in caplog.text
    with pytest.raises(UsageError, match=r"dataset.query_split"):
        HubSource(path=str(features), query_split="test").open(cache_dir(), silent)


def test_what_is_not_there_is_answered_by_what_is(features: Path, silent: Progress) -> None:
    with pytest.raises(UsageError, match=r"dataset.query_split='val'.* there are: \w+, \w+$"):
        HubSource(path=str(features), query_split="val").open(cache_dir(), silent)
    with pytest.raises(UsageError, match=r"dataset.label_column='fine'.*label \(3 classes\)"):
        HubSource(path=str(features), label_column="fine").open(cache_dir(), silent)
    with pytest.raises(UsageError, match=r"dataset.image_column=auto: no column holds images.*features \(list of 6"):
        HubSource(path=str(features), features_column=None).open(cache_dir(), silent)


def test_one_split_is_divided_by_class(tmp_path: Path, silent: Progress) -> None:
    write_features(tmp_path / "made", "train", vectors(30), [i % 3 for i in range(30)])
    data = HubSource(path=str(tmp_path / "made"), query_fraction=0.3).open(cache_dir(), silent)
    np.testing.assert_array_equal(np.bincount(data.query.labels), [3, 3, 3])
    assert len(data.gallery) == 21
    assert not data.same_split
    again = HubSource(path=str(tmp_path / "made"), query_fraction=0.3).open(cache_dir(), silent)
    np.testing.assert_array_equal(
        data.query.read_features(np.arange(9), silent), again.query.read_features(np.arange(9), silent)
    )


def test_a_named_split_for_both_sides_stays_one_split(features: Path, silent: Progress) -> None:
    assert HubSource(path=str(features), gallery_split="test", query_split="test").open(cache_dir(), silent).same_split


def test_a_fingerprint_follows_the_content_and_the_labels_used(features: Path, silent: Progress) -> None:
    data = HubSource(path=str(features)).open(cache_dir(), silent)
    again = HubSource(path=str(features)).open(cache_dir(), silent)
    other_label = HubSource(path=str(features), label_column="index").open(cache_dir(), silent)
    before = data.gallery.fingerprint()
    assert before == again.gallery.fingerprint()
    assert data.gallery.fingerprint() != data.query.fingerprint()
    assert data.gallery.fingerprint() != other_label.gallery.fingerprint()
    write_features(features, "train", vectors(20, seed=5), [i % 3 for i in range(20)])
    assert HubSource(path=str(features)).open(cache_dir(), silent).gallery.fingerprint() != before


def test_values_that_are_no_numbers_name_the_row(tmp_path: Path, silent: Progress) -> None:
    x = vectors(20)
    x[13, 2] = np.inf
    write_features(tmp_path / "made", "train", x, [i % 3 for i in range(20)])
    write_features(tmp_path / "made", "test", vectors(6), [0, 1, 2] * 2)
    gallery = HubSource(path=str(tmp_path / "made")).open(cache_dir(), silent).gallery
    with pytest.raises(UsageError, match=r"column 'features' has 1 values .* the first is row 13"):
        gallery.read_features(np.arange(20), silent)
    gallery.read_features(np.arange(13), silent)


def test_words_as_labels_share_one_vocabulary(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * 3, "label": ["dog", "cat", "dog"]}), folder / "train.parquet")
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * 2, "label": ["dog", "ant"]}), folder / "test.parquet")
    data = HubSource(path=str(folder)).open(cache_dir(), silent)
    assert data.gallery.class_names == data.query.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(data.gallery.labels, [2, 1, 2])
    np.testing.assert_array_equal(data.query.labels, [2, 0])


def test_lists_of_labels_become_a_matrix(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * 2, "labels": [[0, 3], [1]]}), folder / "train.parquet")
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * 2, "labels": [[2], [0, 1]]}), folder / "test.parquet")
    data = HubSource(path=str(folder)).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.gallery.labels, [[1, 0, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(data.query.labels, [[0, 0, 1, 0], [1, 1, 0, 0]])


def test_labels_of_the_objects_in_an_image_are_found(tmp_path: Path, silent: Progress) -> None:
    names = datasets.ClassLabel(names=["cat", "dog", "cow"])
    objects = datasets.List({"area": datasets.Value("float32"), "category": names})
    schema = datasets.Features({"emb": datasets.List(datasets.Value("float32"), length=2), "objects": objects})
    there = [[0, 0, 2], [], [1]]
    rows = {
        "emb": [[0.0, 1.0]] * 3, "objects": [[{"area": 1.0, "category": one} for one in each] for each in there],
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows, features=schema)
        table.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    source = HubSource(path=str(tmp_path))
    from_hub = source.open(tmp_path / "cache", silent)
    file = str(tmp_path / "data" / "train-00000-of-00001.parquet")
    from_file = ArraySource(gallery=file, query=file).open(tmp_path / "cache", silent)
    streamed = HubSource(path=str(tmp_path), stream=True).open(tmp_path / "cache", silent)
    assert isinstance(streamed.gallery, StreamedSplit)
    assert streamed.fingerprint(streamed.query_items) == from_hub.fingerprint(from_hub.query_items)
    for data in (from_hub, from_file, streamed):
        assert data.gallery.labels.astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
        assert data.gallery.class_names == ("cat", "dog", "cow")


def test_what_save_to_disk_wrote_is_read_too(tmp_path: Path, silent: Progress) -> None:
    def table(rows: int) -> datasets.Dataset:
        return datasets.Dataset.from_dict(
            {"features": vectors(rows).astype(np.float32).tolist(), "label": [i % 2 for i in range(rows)]}
        )

    datasets.DatasetDict(train=table(10), test=table(4)).save_to_disk(tmp_path / "saved")
    data = HubSource(path=str(tmp_path / "saved")).open(cache_dir(), silent)
    assert (len(data.gallery), len(data.query)) == (10, 4)
    np.testing.assert_array_equal(
        data.gallery.read_features(np.array([9]), silent), vectors(10)[[9]].astype(np.float32)
    )
    assert data.gallery.fingerprint() != data.query.fingerprint()


def test_a_damaged_conversion_is_made_again(
    features: Path, tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    HubSource(path=str(features)).open(cache_dir(), silent)
    for file in (tmp_path / "datasets").rglob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    data = HubSource(path=str(features)).open(cache_dir(), silent)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(data.gallery.read_features(np.arange(20), silent), vectors(20).astype(np.float32))


def test_a_damaged_file_is_named(features: Path, silent: Progress) -> None:
    file = features / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UsageError, match="split train can't be read"):
        HubSource(path=str(features)).open(cache_dir(), silent)


def test_a_folder_without_data_is_no_repository(tmp_path: Path, silent: Progress) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"dataset.path=.*no data set in the Hub's layout"):
        HubSource(path=str(tmp_path / "empty")).open(cache_dir(), silent)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "dataset.repository=None: expected owner/name"),
        ({"repository": "cifar10"}, "dataset.repository='cifar10': expected owner/name"),
        (
            {"path": "/nowhere/at/all"},
            "dataset.path='/nowhere/at/all': expected the path of a folder; it is not there",
        ),
        ({"repository": "a/b", "max_gallery": 0}, "dataset.max_gallery=0: expected a positive number"),
        ({"repository": "a/b", "max_queries": "all"}, "dataset.max_queries='all'"),
        ({"repository": "a/b", "query_fraction": 1}, "dataset.query_fraction=1: expected a fraction"),
        ({"repository": "a/b", "label_column": None}, "dataset.label_column=None: expected auto or a name"),
        ({"repository": "a/b", "features_column": None, "image_column": None}, "dataset.image_column=None"),
    ],
)
def test_wrong_keys_are_refused_at_once(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HubSource(**keys)


@pytest.mark.skipif(not REAL, reason="LSHBENCH_TEST_DATA (a folder of copies of Hub repositories) is not set")
@pytest.mark.parametrize(
    ("repository", "kind", "label"),
    [
        ("aaaakash001/cifar10_Vit_large", "features", "label"),
        ("aaaakash001/cifar100_Vit_large", "features", "label"),
        ("uoft-cs/cifar10", "images", "label"),
        ("uoft-cs/cifar100", "images", "fine_label"),
        ("evanarlian/imagenet_1k_resized_256", "images", "label"),
    ],
)
def test_real_copies_are_understood(repository: str, kind: str, label: str, silent: Progress) -> None:
    data = HubSource(path=f"{REAL}/{repository}").open(cache_dir(), silent)
    assert data.kind == kind
    assert data.gallery.label.name == label  # type: ignore[attr-defined]
    assert data.query.name == ("val" if "imagenet" in repository else "test")
    rows = np.array([len(data.gallery) - 1, 0])
    if kind == "features":
        assert data.gallery.read_features(rows, silent).shape == (2, 1280)
    else:
        for encoded in data.gallery.image_bytes(rows):
            assert isinstance(encoded, bytes)
            Image.open(io.BytesIO(encoded)).load()
