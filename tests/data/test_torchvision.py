"""Data sets of torchvision, read by torchvision from files written in their formats."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from lshbench.data.torchvision import TorchvisionSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress


def write_mnist(root: Path, name: str = "MNIST") -> dict[str, np.ndarray]:
    """Write 40 training and 20 test digits in MNIST's own format."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + labels.tobytes())
        written[part] = images
    return written


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_a_data_set_with_training_and_test_parts(name: str, tmp_path: Path, silent: Progress) -> None:
    written = write_mnist(tmp_path, name)
    data = TorchvisionSource(name, root=str(tmp_path), download=False).open(cache_dir(), silent)
    assert (data.name, data.kind, data.gallery.name, data.query.name) == (name, "images", "train", "test")
    np.testing.assert_array_equal(data.gallery.labels, np.arange(40) % 10)
    assert len(data.gallery.class_names or ()) == 10
    got = list(data.query.image_bytes(np.array([19, 3])))
    np.testing.assert_array_equal(got, written["t10k"][[19, 3]])
    assert data.gallery.fingerprint() != data.query.fingerprint()


def test_a_data_set_with_named_splits_and_colours_first(
    tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torchvision compares SVHN's files with known checksums: those of the files written here stand in for
    # them.
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": (np.arange(12) % 10 + 1)[:, None]})
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    data = TorchvisionSource("SVHN", root=str(tmp_path), download=False).open(cache_dir(), silent)
    np.testing.assert_array_equal(data.gallery.labels, (np.arange(12) + 1) % 10)
    np.testing.assert_array_equal(next(iter(data.gallery.image_bytes(np.array([5])))), pixels[..., 5])


def test_a_data_set_of_files_gives_them_out_encoded(
    tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 13):
        Image.fromarray(np.full((6, 6, 3), 20 * i, np.uint8)).save(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.arange(12)[None] % 3 + 1})
    savemat(folder / "setid.mat", {"trnid": [[1, 2, 3]], "valid": [[4, 5, 6]], "tstid": [[7, 8, 9, 10, 11, 12]]})
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda self: True)
    data = TorchvisionSource("Flowers102", root=str(tmp_path), download=False, query_split="val").open(
        cache_dir(), silent
    )
    assert (len(data.gallery), data.query.name) == (3, "val")
    np.testing.assert_array_equal(data.query.labels, [0, 1, 2])
    assert next(iter(data.query.image_bytes(np.array([1])))) == (folder / "jpg" / "image_00005.jpg").read_bytes()
    assert data.query.describe(1).endswith("image_00005.jpg")
    with pytest.raises(UsageError, match=r"dataset.query_split='testing'.*Flowers102 refuses it"):
        TorchvisionSource("Flowers102", root=str(tmp_path), download=False, query_split="testing").open(
            cache_dir(), silent
        )


def test_cifars_pickles_are_loaded_only_if_they_are_the_published_ones(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match=r"CIFAR10: not in dataset.root"):
        TorchvisionSource("CIFAR10", root=str(tmp_path), download=False).open(cache_dir(), silent)
    assert not trap.exists()


@pytest.mark.parametrize("download", [False, True])
def test_what_is_not_there_says_how_to_get_on(
    download: bool, tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    source = TorchvisionSource("MNIST", root=str(tmp_path / "none"), download=download)
    tried = "download failed" if download else "it was not downloaded"
    with pytest.raises(UsageError, match=rf"MNIST: not in dataset.root=.*{tried}.*dataset=folder.*dataset=digits"):
        source.open(cache_dir(), silent)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_name": "Cifar10"}, r"dataset.class_name='Cifar10': .*did you mean CIFAR10\?"),
        ({"class_name": "transforms"}, "a class of torchvision.datasets"),
        ({"class_name": "a b"}, "dataset.class_name='a b'"),
        ({"class_name": "MNIST", "download": "no"}, "dataset.download='no': expected true or false"),
        (
            {"class_name": "MNIST", "query_split": "val"},
            "dataset.query_split='val': expected auto or one of train, test",
        ),
    ],
)
def test_wrong_keys_are_refused(keys: dict[str, Any], message: str, tmp_path: Path, silent: Progress) -> None:
    write_mnist(tmp_path)
    with pytest.raises(UsageError, match=message):
        TorchvisionSource(**{"root": str(tmp_path), "download": False, **keys}).open(cache_dir(), silent)
