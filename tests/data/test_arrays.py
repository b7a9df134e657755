"""Features in files of every format and layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lshbench.data.array_files import open_arrays
from lshbench.data.arrays import ArraySource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress

GENERATOR = np.random.default_rng(0)
TRAIN_X = GENERATOR.standard_normal((30, 5)).astype(np.float32)
TEST_X = GENERATOR.standard_normal((12, 5)).astype(np.float32)
TRAIN_Y = np.arange(30) % 3
TEST_Y = np.arange(12) % 3


def save_npz(folder: Path) -> dict[str, Any]:
    np.savez(folder / "a.npz", X_train=TRAIN_X, y_train=TRAIN_Y, X_test=TEST_X, y_test=TEST_Y)
    return {"path": folder / "a.npz"}


def save_compressed(folder: Path) -> dict[str, Any]:
    np.savez_compressed(
        folder / "a.npz",
        gallery_features=TRAIN_X,
        gallery_labels=TRAIN_Y,
        query_features=TEST_X,
        query_labels=TEST_Y,
    )
    return {"path": folder / "a.npz"}


def save_npy_folder(folder: Path) -> dict[str, Any]:
    for name, values in (("train_x", TRAIN_X), ("train_y", TRAIN_Y), ("test_x", TEST_X), ("test_y", TEST_Y)):
        np.save(folder / f"{name}.npy", values)
    return {"path": folder}


def save_npy_pairs(folder: Path) -> dict[str, Any]:
    for name, values in (("a", TRAIN_X), ("b", TRAIN_Y), ("c", TEST_X), ("d", TEST_Y)):
        np.save(folder / f"{name}.npy", values)
    keys = ("gallery", "gallery_labels", "query", "query_labels")
    return {key: folder / f"{name}.npy" for key, name in zip(keys, "abcd", strict=True)}


def save_two_npz(folder: Path) -> dict[str, Any]:
    np.savez(folder / "train.npz", features=TRAIN_X, targets=TRAIN_Y.astype(float), ids=np.arange(30))
    np.savez(folder / "query.npz", features=TEST_X, targets=TEST_Y.astype(float), ids=np.arange(12))
    return {"gallery": folder / "train.npz", "query": folder / "query.npz"}


def save_two_parquet(folder: Path) -> dict[str, Any]:
    for name, x, y in (("g", TRAIN_X, TRAIN_Y), ("q", TEST_X, TEST_Y)):
        table = pa.table({"index": np.arange(len(x)), "embedding": list(x), "label": y})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=7)
    return {"gallery": folder / "g.parquet", "query": folder / "q.parquet"}


def save_ann_benchmarks(folder: Path, labels: bool = True, **options: Any) -> dict[str, Any]:
    with h5py.File(folder / "a.hdf5", "w") as file:
        file.create_dataset("train", data=TRAIN_X, **options)
        file.create_dataset("test", data=TEST_X, **options)
        file.create_dataset("neighbors", data=np.zeros((12, 10), np.int32))
        file.create_dataset("distances", data=np.zeros((12, 10), np.float32))
        if labels:
            file.create_dataset("train_labels", data=TRAIN_Y)
            file.create_dataset("test_labels", data=TEST_Y)
    return {"path": folder / "a.hdf5"}


def save_chunked(folder: Path) -> dict[str, Any]:
    return save_ann_benchmarks(folder, chunks=(4, 5), compression="gzip")


def save_groups(folder: Path) -> dict[str, Any]:
    with h5py.File(folder / "a.h5", "w") as file:
        for name, x, y in (("train", TRAIN_X, TRAIN_Y), ("test", TEST_X, TEST_Y)):
            file.create_dataset(f"{name}/features", data=x)
            file.create_dataset(f"{name}/labels", data=y)
    return {"path": folder / "a.h5"}


LAYOUTS = [
    save_npz, save_compressed, save_npy_folder, save_npy_pairs, save_two_npz, save_two_parquet,
    save_ann_benchmarks, save_chunked, save_groups,
]  # fmt: skip


def source(keys: dict[str, Any]) -> ArraySource:
    return ArraySource(**{key: str(value) if isinstance(value, Path) else value for key, value in keys.items()})


@pytest.mark.parametrize("save", LAYOUTS)
def test_every_layout_gives_the_same_data(save: Callable, tmp_path: Path, silent: Progress) -> None:
    data = source(save(tmp_path)).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.gallery.labels, TRAIN_Y)
    np.testing.assert_array_equal(data.query.labels, TEST_Y)
    rows = np.array([29, 3, 11, 3])
    np.testing.assert_array_equal(data.gallery.read_features(rows, silent), TRAIN_X[rows])
    np.testing.assert_array_equal(data.query.read_features(np.arange(12), silent), TEST_X)
    assert data.gallery.fingerprint().startswith("sha256:")
    assert data.gallery.fingerprint() != data.query.fingerprint()


def held_by(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function and the functions it calls hold on to."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
        if isinstance(cell.cell_contents, FunctionType):
            yield from held_by(cell.cell_contents)


def test_large_files_are_mapped_rather_than_read(tmp_path: Path) -> None:
    save_npz(tmp_path)
    save_ann_benchmarks(tmp_path)
    save_npy_folder(tmp_path)
    for path in (tmp_path / "a.npz", tmp_path / "a.hdf5", tmp_path / "train_x.npy"):
        features = next(array for array in open_arrays(path, "dataset.path") if array.shape == (30, 5))
        assert any(isinstance(values, np.memmap) for values in held_by(features.read)), path


def test_arrays_in_column_order_are_mapped_right(tmp_path: Path) -> None:
    x = np.asfortranarray(TRAIN_X)
    np.savez(tmp_path / "a.npz", x=x, empty=np.empty((0, 3)))
    found = {array.name: array for array in open_arrays(tmp_path / "a.npz", "dataset.path")}
    np.testing.assert_array_equal(found["x"].read(np.arange(30)), TRAIN_X)
    assert found["empty"].shape == (0, 3)


def test_one_piece_is_divided_by_class(tmp_path: Path, silent: Progress) -> None:
    np.savez(tmp_path / "a.npz", x=TRAIN_X, y=TRAIN_Y)
    data = source({"path": tmp_path / "a.npz", "query_fraction": 0.3}).open(cache_dir(), silent)
    np.testing.assert_array_equal(np.bincount(data.query.labels), [3, 3, 3])
    together = np.concatenate(
        [split.read_features(np.arange(len(split)), silent) for split in (data.gallery, data.query)]
    )
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(TRAIN_X, axis=0))
    other = source({"path": tmp_path / "a.npz", "query_fraction": 0.3, "split_seed": 1}).open(cache_dir(), silent)
    assert other.query.fingerprint() != data.query.fingerprint()


def test_names_can_be_given(tmp_path: Path, silent: Progress) -> None:
    np.savez(tmp_path / "a.npz", clip=TRAIN_X, vit=TRAIN_X * 2, coarse=TRAIN_Y % 2, fine=TRAIN_Y)
    keys = {"path": tmp_path / "a.npz", "features_column": "vit", "label_column": "fine"}
    data = source(keys).open(cache_dir(), silent)
    assert len(np.unique(data.gallery.labels)) == 3
    with pytest.raises(
        UsageError, match=r"dataset.features_column='vat': there is no such array; .*vit \(30 x 5 floats\)"
    ):
        source({**keys, "features_column": "vat"}).open(cache_dir(), silent)
    with pytest.raises(UsageError, match=r"no array of 30 labels .*dataset.label_column names one"):
        source({**keys, "label_column": "auto"}).open(cache_dir(), silent)


def test_names_can_be_given_as_part_of_both_sides_names(tmp_path: Path, silent: Progress) -> None:
    np.savez(
        tmp_path / "a.npz", train_vit=TRAIN_X, train_clip=TRAIN_X * 2, train_y=TRAIN_Y,
        test_vit=TEST_X, test_clip=TEST_X * 2, test_y=TEST_Y,
    )  # fmt: skip
    data = source({"path": tmp_path / "a.npz", "features_column": "clip"}).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.query.read_features(np.arange(12), silent), TEST_X * 2)


def test_neighbours_without_labels_are_explained(tmp_path: Path, silent: Progress) -> None:
    with pytest.raises(UsageError, match=r"neighbors \(12 x 10 integers\).*relevance=neighbors judges"):
        source(save_ann_benchmarks(tmp_path, labels=False)).open(cache_dir(), silent)


def test_several_labels_an_item_stay_a_matrix(tmp_path: Path, silent: Progress) -> None:
    matrix = np.eye(3, dtype=bool)[TRAIN_Y]
    np.savez(tmp_path / "a.npz", x=TRAIN_X, y=matrix)
    data = source({"path": tmp_path / "a.npz"}).open(cache_dir(), silent)
    assert data.gallery.labels.dtype == bool
    assert data.gallery.labels.shape[1] == 3


def test_words_are_labels_in_every_format(tmp_path: Path, silent: Progress) -> None:
    words = np.array(["cat", "dog", "ant"])[TRAIN_Y]
    np.savez(tmp_path / "a.npz", x=TRAIN_X, y=words)
    pq.write_table(pa.table({"x": list(TRAIN_X), "label": words}), tmp_path / "a.parquet")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["label"] = TRAIN_X, words.astype(object)
    for name in ("a.npz", "a.parquet", "a.h5"):
        data = source({"path": tmp_path / name}).open(cache_dir(), silent)
        assert data.gallery.class_names == ("ant", "cat", "dog"), name


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32, np.uint8])
def test_features_of_any_type_come_as_float32(kind: type, tmp_path: Path, silent: Progress) -> None:
    x = (TRAIN_X * 20 + 100).astype(kind)
    np.savez(tmp_path / "a.npz", x=x, y=TRAIN_Y)
    data = source({"path": tmp_path / "a.npz"}).open(cache_dir(), silent)
    got = np.concatenate([s.read_features(np.arange(len(s)), silent) for s in (data.gallery, data.query)])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.sort(got, axis=0), np.sort(x.astype(np.float32), axis=0))


def test_pickled_objects_are_never_loaded(tmp_path: Path, silent: Progress) -> None:
    np.savez(tmp_path / "a.npz", x=TRAIN_X, y=np.array([{}] * 30, dtype=object))
    with pytest.raises(UsageError, match=r"can't be read.*(objects|pickle)"):
        source({"path": tmp_path / "a.npz"}).open(cache_dir(), silent)
    np.save(tmp_path / "b.npy", np.array([{}] * 30, dtype=object))
    with pytest.raises(UsageError, match=r"no two-dimensional array of numbers .*b \(30 objects\)"):
        source({"gallery": tmp_path / "b.npy"}).open(cache_dir(), silent)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "dataset.path=None: expected a file"),
        ({"path": "nowhere.npz"}, "dataset.path='nowhere.npz': .* it is not there"),
        ({"query": "a.npz"}, "dataset.path=None"),
        (
            {"path": ".", "gallery_labels": "a.npy"},
            "dataset.gallery_labels='a.npy': .*dataset.gallery beside it",
        ),
    ],
)
def test_wrong_keys_are_refused_at_once(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ArraySource(**keys)


def test_wrong_files_are_named(tmp_path: Path, silent: Progress) -> None:
    (tmp_path / "a.txt").write_text("1 2")
    with pytest.raises(UsageError, match=r"a.txt': expected a file ending in .npz"):
        source({"path": tmp_path / "a.txt"}).open(cache_dir(), silent)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UsageError, match=r"b.npz' can't be read"):
        source({"path": tmp_path / "b.npz"}).open(cache_dir(), silent)
    with pytest.raises(UsageError, match=r"no .npy files in this folder"):
        source({"path": tmp_path}).open(cache_dir(), silent)
    np.savez(tmp_path / "c.npz", x=TRAIN_X, y=TRAIN_Y[:20])
    with pytest.raises(UsageError, match=r"no array of 30 labels|differ in length"):
        source({"path": tmp_path / "c.npz"}).open(cache_dir(), silent)


def test_differing_widths_are_refused(tmp_path: Path, silent: Progress) -> None:
    np.savez(tmp_path / "a.npz", X_train=TRAIN_X, y_train=TRAIN_Y, X_test=TEST_X[:, :4], y_test=TEST_Y)
    with pytest.raises(UsageError, match="have 5 values, those of the query split 'query' 4"):
        source({"path": tmp_path / "a.npz"}).open(cache_dir(), silent)
