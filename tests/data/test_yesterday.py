"""A figure belongs to the bytes that are there now, whatever the files' names, sizes and time stamps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lshbench.data import fingerprint
from lshbench.data.arrays import ArraySource
from lshbench.data.base import Dataset
from lshbench.data.folder import FolderSource
from lshbench.data.hub import HubSource
from lshbench.errors import UsageError
from lshbench.features.load import load_split_features
from lshbench.features.store import FeatureStore
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress

OLD = 1_600_000_000
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for old that the tests have just written: the time of status can't be set."""
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -1)


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((12, 4)).astype(np.float32)


def npz(folder: Path, seed: int) -> Any:
    np.savez(folder / "a.npz", x=values(seed), y=LABELS)
    return ArraySource(path=str(folder / "a.npz"))


def npy(folder: Path, seed: int) -> Any:
    np.save(folder / "x.npy", values(seed))
    np.save(folder / "y.npy", LABELS)
    return ArraySource(path=str(folder))


def chunked_hdf5(folder: Path, seed: int) -> Any:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=values(seed), chunks=(5, 4))
        file["y"] = LABELS
    return ArraySource(path=str(folder / "a.h5"))


def virtual_hdf5(folder: Path, seed: int) -> Any:
    """A virtual data set of a virtual data set: only the innermost file has values."""
    with h5py.File(folder / "source.h5", "w") as file:
        file["x"] = values(seed)
    if not (folder / "a.h5").exists():
        for name, inner in (("middle", "source"), ("a", "middle")):
            layout = h5py.VirtualLayout((12, 4), np.float32)
            layout[:] = h5py.VirtualSource(f"{inner}.h5", "x", (12, 4))
            with h5py.File(folder / f"{name}.h5", "w") as file:
                file.create_virtual_dataset("x", layout)
                if name == "a":
                    file["y"] = LABELS
    return ArraySource(path=str(folder / "a.h5"))


def external_hdf5(folder: Path, seed: int) -> Any:
    values(seed).tofile(folder / "raw.bin")
    if not (folder / "a.h5").exists():
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("x", (12, 4), np.float32, external=[(str(folder / "raw.bin"), 0, 192)])
            file["y"] = LABELS
    return ArraySource(path=str(folder / "a.h5"))


def parquet(folder: Path, seed: int) -> Any:
    pq.write_table(pa.table({"x": list(values(seed)), "label": LABELS}), folder / "a.parquet")
    return ArraySource(path=str(folder / "a.parquet"))


def repository(folder: Path, seed: int) -> Any:
    table = pa.table({"features": list(values(seed)), "label": LABELS})
    pq.write_table(table, folder / "train.parquet", compression="none", use_dictionary=False)
    return HubSource(path=str(folder))


def images(folder: Path, seed: int) -> Any:
    for place, value in enumerate(values(seed)[:, 0]):
        (folder / "ab"[place % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((2, 2), 100 + 20 * value, np.uint8)).save(folder / "ab"[place % 2] / f"{place}.bmp")
    return FolderSource(path=str(folder))


def content(data: Dataset, progress: Progress) -> tuple[str, list[Any]]:
    """Return the fingerprint and what the data set gives out."""
    splits, rows = (data.gallery, data.query), np.arange(2)
    if data.kind == "images":
        return data.fingerprint(np.arange(len(data.labels))), [list(split.image_bytes(rows)) for split in splits]
    return data.fingerprint(data.gallery_items), [split.read_features(rows, progress).tolist() for split in splits]


FORMATS = [npz, npy, chunked_hdf5, virtual_hdf5, external_hdf5, parquet, repository, images]


@pytest.mark.parametrize("save", FORMATS)
def test_a_file_overwritten_under_its_time_stamp_is_read_again(
    save: Callable[[Path, int], Any], tmp_path: Path, silent: Progress
) -> None:
    seen, folder = [], tmp_path / "data"
    folder.mkdir()
    for seed in (0, 1, 0):
        source = save(folder, seed)
        for path in folder.rglob("*"):
            os.utime(path, (OLD, OLD))
        seen.append(content(source.open(cache_dir(), silent), silent))
        assert content(source.open(cache_dir(), silent), silent) == seen[-1]
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]
    assert seen[0][1] == seen[2][1]


def test_images_exchanged_between_classes_are_other_data(tmp_path: Path, silent: Progress) -> None:
    source = images(tmp_path, 0)
    before = content(source.open(cache_dir(), silent), silent)
    one, other = tmp_path / "a" / "0.bmp", tmp_path / "b" / "1.bmp"
    for path in (one, other):
        os.utime(path, (OLD, OLD))
    for start, end in ((one, tmp_path / "c"), (other, one), (tmp_path / "c", other)):
        start.rename(end)
    assert content(source.open(cache_dir(), silent), silent)[0] != before[0]


@pytest.mark.parametrize("gone", ["source.h5", "middle.h5"])
def test_a_virtual_data_set_without_its_source_is_refused(gone: str, tmp_path: Path, silent: Progress) -> None:
    source = virtual_hdf5(tmp_path, 0)
    (tmp_path / gone).unlink()
    with pytest.raises(UsageError, match=f"takes its values from {gone}, which is not there"):
        source.open(cache_dir(), silent)


def test_features_are_not_kept_under_the_name_of_other_content(tmp_path: Path, silent: Progress) -> None:
    split = npz(tmp_path, 0).open(cache_dir(), silent).gallery
    read = split.read_features

    def meanwhile(rows: np.ndarray, progress: Progress) -> np.ndarray:
        npz(tmp_path, 1)
        return read(rows, progress)

    split.read_features = meanwhile
    store = FeatureStore(cache_dir())
    with pytest.raises(UsageError, match="changed while"):
        load_split_features(split, np.arange(len(split)), None, store=store, device="cpu", threads=1, progress=silent)
