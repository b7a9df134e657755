"""Files that people have: each gives the same features and labels, and what can't be read beside is passed over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

from lshbench.data import matlab_files
from lshbench.data.arrays import ArraySource
from lshbench.data.base import Dataset
from lshbench.data.hub import HubSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress

GENERATOR = np.random.default_rng(0)
# Small whole numbers, so that every type holds them.
X = {"train": GENERATOR.integers(0, 200, (30, 5)), "test": GENERATOR.integers(0, 200, (12, 5))}
Y = {"train": np.arange(30) % 3, "test": np.arange(12) % 3}
Keys = dict[str, Any]


def vectors(folder: Path, suffix: str) -> Keys:
    kind = {"fvecs": "<f4", "bvecs": "u1", "ivecs": "<i4"}[suffix]
    for split, x in X.items():
        rows = [np.int32(5).tobytes() + row.astype(kind).tobytes() for row in x]
        (folder / f"{split}.{suffix}").write_bytes(b"".join(rows))
        np.save(folder / f"{split}_labels.npy", Y[split])
    return {"path": folder}


def vectors_apart(folder: Path) -> Keys:
    vectors(folder, "bvecs")
    sides = {"gallery": "train", "query": "test"}
    return {
        **{side: folder / f"{split}.bvecs" for side, split in sides.items()},
        **{f"{side}_labels": folder / f"{split}_labels.npy" for side, split in sides.items()},
    }


def tensors(folder: Path) -> Keys:
    content = {
        split: {"features": torch.tensor(x, dtype=torch.float16), "labels": torch.tensor(Y[split])}
        for split, x in X.items()
    }
    torch.save(content, folder / "a.pt")
    return {"path": folder / "a.pt"}


def tensors_apart(folder: Path) -> Keys:
    keys = {}
    for side, split in (("gallery", "train"), ("query", "test")):
        torch.save(torch.tensor(X[split], dtype=torch.bfloat16), folder / f"{side}.pth")
        torch.save([f"class {label}" for label in Y[split]], folder / f"{side}_labels.pt")
        keys |= {side: folder / f"{side}.pth", f"{side}_labels": folder / f"{side}_labels.pt"}
    return keys


def safe_tensors(folder: Path) -> Keys:
    content = {f"{split}_x": torch.tensor(x).float() for split, x in X.items()}
    save_file(content | {f"{split}_y": torch.tensor(y) for split, y in Y.items()}, folder / "a.safetensors")
    return {"path": folder / "a.safetensors"}


def matlab(folder: Path) -> Keys:
    content = {f"{split}_x": x.astype(float) for split, x in X.items()}
    scipy.io.savemat(folder / "a.mat", content | {f"{split}_labels": y for split, y in Y.items()})
    return {"path": folder / "a.mat"}


def matlab_7_3(folder: Path, marked: bool = True, row_labels: bool = True) -> Keys:
    """What MATLAB writes: every array's dimensions exchanged."""
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        for split, x in X.items():
            file[f"{split}_x"] = x.T.astype(float)
            labels = Y[split].astype(float)
            file[f"{split}_y"] = labels[None] if row_labels else labels[:, None]
        for array in file.values() if marked else ():
            array.attrs["MATLAB_class"] = np.bytes_("double")
    return {"path": folder / "a.mat"}


def columns_of_items(folder: Path) -> Keys:
    with h5py.File(folder / "a.h5", "w") as file:
        for split, x in X.items():
            file[f"{split}/x"], file[f"{split}/y"] = x.T, Y[split]
    return {"path": folder / "a.h5"}


def rows_of_labels(folder: Path) -> Keys:
    content = {f"{split}_x": x.astype(np.float32) for split, x in X.items()}
    np.savez(folder / "a.npz", **content, **{f"{split}_y": y[None] for split, y in Y.items()})
    return {"path": folder / "a.npz"}


def parquet(folder: Path, column: Callable[[np.ndarray], dict[str, Any]]) -> Keys:
    for split, x in X.items():
        table = pa.table({"id": np.arange(len(x)), **column(x), "label": Y[split]})
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=7)
    return {"gallery": folder / "train.parquet", "query": folder / "test.parquet"}


def two_dimensional(folder: Path) -> Keys:
    columns = {"emb": datasets.Array2D((1, 5), "float32"), "label": datasets.Value("int64")}
    for split, x in X.items():
        table = datasets.Dataset.from_dict({"emb": list(x[:, None]), "label": Y[split]}, datasets.Features(columns))
        table.to_parquet(folder / f"{split}.parquet", batch_size=4)
    return {"gallery": folder / "train.parquet", "query": folder / "test.parquet"}


def with_objects(folder: Path) -> Keys:
    content = {f"{split}_x": x.astype(np.float32) for split, x in X.items()} | {f"{s}_y": y for s, y in Y.items()}
    np.savez(folder / "a.npz", paths=np.array(["a.jpg", Path("b")], object), **content)
    return {"path": folder / "a.npz"}


LAYOUTS: dict[str, Callable[[Path], Keys]] = {
    "fvecs": lambda folder: vectors(folder, "fvecs"),
    "bvecs": lambda folder: vectors(folder, "bvecs"),
    "ivecs": lambda folder: vectors(folder, "ivecs"),
    "bvecs with labels apart": vectors_apart,
    "tensors": tensors,
    "tensors apart": tensors_apart,
    "safetensors": safe_tensors,
    "MATLAB": matlab,
    "MATLAB 7.3": matlab_7_3,
    "MATLAB 7.3, labels in a column": lambda folder: matlab_7_3(folder, row_labels=False),
    "MATLAB's arrays without its marks": lambda folder: matlab_7_3(folder, marked=False),
    "items in columns": columns_of_items,
    "labels in a row": rows_of_labels,
    "Parquet with lists of bytes": lambda folder: parquet(folder, lambda x: {"emb": list(x.astype(np.uint8))}),
    "Parquet with fixed lists": lambda folder: parquet(
        folder, lambda x: {"emb": pa.FixedSizeListArray.from_arrays(x.astype(np.uint8).ravel(), 5)}
    ),
    "Parquet with lists in lists": lambda folder: parquet(
        folder, lambda x: {"emb": pa.array([[row] for row in x.astype(float).tolist()])}
    ),
    "Parquet with lists of one": lambda folder: parquet(
        folder, lambda x: {"emb": pa.array([[[value] for value in row] for row in x.astype(float).tolist()])}
    ),
    "Parquet with a column a dimension": lambda folder: parquet(
        folder, lambda x: {f"f{i}": x[:, i].astype(np.float32) for i in (3, 0, 4, 1, 2)}
    ),
    "Parquet with whole numbers as columns": lambda folder: parquet(
        folder, lambda x: {str(i): x[:, i] for i in range(5)}
    ),
    "Parquet with a map beside": lambda folder: parquet(
        folder,
        lambda x: {
            "emb": list(x.astype(np.float32)),
            "notes": pa.array([[("a", 1)]] * len(x), pa.map_(pa.string(), pa.int32())),
        },
    ),
    "Array2D": two_dimensional,
    "objects beside": with_objects,
}  # fmt: skip


def opened(keys: Keys, silent: Progress, **more: Any) -> Dataset:
    plain = {key: str(value) for key, value in keys.items()}
    return ArraySource(**plain, **more).open(cache_dir(), silent)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_gives_the_same_data(layout: str, tmp_path: Path, silent: Progress) -> None:
    data = opened(LAYOUTS[layout](tmp_path), silent)
    rows = np.array([29, 3, 11, 3])
    np.testing.assert_array_equal(data.gallery.read_features(rows, silent), X["train"][rows])
    np.testing.assert_array_equal(data.query.read_features(np.arange(12), silent), X["test"])
    np.testing.assert_array_equal(data.gallery.labels, Y["train"])
    np.testing.assert_array_equal(data.query.labels, Y["test"])


@pytest.mark.parametrize("layout", ["items in columns", "MATLAB's arrays without its marks", "MATLAB 7.3"])
def test_it_is_said_that_items_are_in_columns(
    layout: str, tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        opened(LAYOUTS[layout](tmp_path), silent)
    assert "items are in columns, by the number of labels" in caplog.text or "MATLAB's, and read" in caplog.text


@pytest.mark.parametrize("save", ["npz", "parquet"])
def test_truth_values_are_ranked_by_their_hamming_distance(save: str, tmp_path: Path, silent: Progress) -> None:
    bits = GENERATOR.random((30, 16)) < 0.5
    if save == "npz":
        np.savez(tmp_path / "a.npz", codes=bits, y=Y["train"])
    else:
        pq.write_table(pa.table({"codes": list(bits), "label": Y["train"]}), tmp_path / "a.parquet")
    data = opened({"path": tmp_path / f"a.{save}"}, silent)
    x = np.concatenate([s.read_features(np.arange(len(s)), silent) for s in (data.gallery, data.query)])
    assert set(np.unique(x)) == {-1, 1}
    hamming = ((x[:, None] > 0) != (x[None] > 0)).sum(2)
    np.testing.assert_array_equal(x @ x.T, 16 - 2 * hamming)


def test_named_objects_are_refused_and_unnamed_ones_passed_over(
    tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    keys = with_objects(tmp_path)
    opened(keys, silent)
    assert "not used: paths (2 objects)" in caplog.text
    with pytest.raises(UsageError, match=r"features_column='paths'"):
        opened(keys, silent, features_column="paths")


DAMAGED: dict[str, tuple[bytes, str]] = {
    "cut.fvecs": (np.int32(5).tobytes() + bytes(18), "22 bytes are no vectors"),
    "empty.fvecs": (b"", "0 bytes are no vectors"),
    "huge.bvecs": (b"\xff" * 40, "no vectors"),
    "mixed.ivecs": (b"".join(np.int32(v).tobytes() for v in (1, 7, 2, 7, 1, 7)), "differing widths: row 0 has 1"),
    "a.mat": (b"MATLAB 5.0 but not at all", "can't be read"),
    "b.pt": (b"no zip and no pickle", "expected tensors, or a dictionary or list"),
    "c.safetensors": (b"\x08" + bytes(7) + b"{broken}", "can't be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_message(name: str, tmp_path: Path, silent: Progress) -> None:
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}.*{message}"):
        opened({"gallery": tmp_path / name}, silent)


def test_what_inflates_without_end_is_refused_before_memory_is_taken(
    tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = {"x": np.zeros((30, 4000)), "y": Y["train"]}
    scipy.io.savemat(tmp_path / "small.mat", zeros, do_compression=True)
    opened({"path": tmp_path / "small.mat"}, silent)
    monkeypatch.setattr(matlab_files, "EXPANDED", 1 << 18)
    monkeypatch.setattr(scipy.io, "loadmat", None)  # is not reached
    with pytest.raises(UsageError, match=r"small.mat.* inflate to more than 262,144 bytes"):
        opened({"path": tmp_path / "small.mat"}, silent)


class Harmful:
    """Its unpickling would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.zeros(3, 2), "y": Harmful()}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"could run code, and is never loaded"):
        opened({"path": tmp_path / "a.pt"}, silent)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("save", ["npz", "object npz", "h5"])
def test_labels_in_bytes_that_are_no_text_are_kept_apart(save: str, tmp_path: Path, silent: Progress) -> None:
    labels = np.array([b"caf\xe9", b"caf\xe8", "café".encode()])[Y["train"]]
    if save == "h5":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"], file["y"] = X["train"], labels
    else:
        np.savez(tmp_path / "a.npz", x=X["train"], y=labels)
    data = opened({"path": tmp_path / f"a.{save.split()[-1]}"}, silent)
    assert sorted(data.gallery.class_names or ()) == ["caf\\xe8", "caf\\xe9", "café"]
    "".join(data.gallery.class_names or ()).encode()


def test_lists_in_lists_of_the_hub_are_features(tmp_path: Path, silent: Progress) -> None:
    two_dimensional(tmp_path)
    data = HubSource(path=str(tmp_path)).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.gallery.read_features(np.arange(30), silent), X["train"])


def test_tokens_are_no_vector(tmp_path: Path, silent: Progress) -> None:
    keys = parquet(tmp_path, lambda x: {"emb": pa.array(np.stack([x, x], 1).astype(float).tolist())})
    with pytest.raises(UsageError, match="2 x 5 values in its first row: expected one vector"):
        opened(keys, silent)
