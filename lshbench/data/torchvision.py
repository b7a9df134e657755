"""Image classification data sets of torchvision."""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels, raw_labels
from lshbench.data.fingerprint import bytes_digest, combine, file_digests
from lshbench.data.held_out import RawSplit, SplitSource
from lshbench.data.values import check_name, expanded
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress

log = logging.getLogger(__name__)

GALLERY_NAMES = ("train", "trainval", "train-standard", "byclass")
QUERY_NAMES = ("test", "val", "valid")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".gif", ".webp")
SECONDS = 30.0
"""Timeout of a download that sends no data."""


@dataclass(eq=False)
class TorchvisionSplit(RawSplit):
    """A split of a torchvision data set without transforms, whose files lie below ``root``."""

    kind = "images"
    name: str
    images: Any
    root: Path
    cache: Path

    def __post_init__(self) -> None:
        self.title = f"{type(self.images).__name__}, split {self.name!r}"
        self.pixels = _pixels(self.images)
        self.files = _files(self.images) if self.pixels is None else None
        self.raw = _labels(self.images, self.title)

    @cached_property
    def _pixels_digest(self) -> str:
        return bytes_digest(np.ascontiguousarray(self.pixels).data.cast("B"))

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        labels = bytes_digest(np.ascontiguousarray(self.labels).tobytes())
        if self.pixels is not None:
            content = self._pixels_digest
        elif self.files is not None:
            picked = self.files if rows is None else [self.files[row] for row in rows]
            content = combine(file_digests(picked, self.cache))
        else:
            everything = sorted(path for path in self.root.rglob("*") if path.is_file())
            content = combine(
                [str(path.relative_to(self.root)) for path in everything], file_digests(everything, self.cache)
            )
        return combine("torchvision", type(self.images).__name__, self.name, content, labels)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in rows:
            if self.pixels is not None:
                yield self.pixels[row]
            elif self.files is not None:
                yield self.files[row].read_bytes()
            else:
                image = self.images[int(row)][0]
                yield np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))

    def describe(self, row: int) -> str:
        return str(self.files[row]) if self.files is not None else f"{self.title}, row {row}"


@dataclass
class TorchvisionSource(SplitSource):
    """An image classification data set of torchvision (``dataset=torchvision``).

    Args:
        class_name: the class in ``torchvision.datasets``, such as ``CIFAR10``.
        root: the folder that holds the data set or will; ``auto`` for one in the cache folder.
        download: whether it may be downloaded if it is not there.
    """

    class_name: str
    root: str = "auto"
    download: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.class_name, str) or not self.class_name.isidentifier():
            raise wrong_value("dataset.class_name", self.class_name, "a class of torchvision.datasets, such as CIFAR10")
        if not isinstance(self.download, bool):
            raise wrong_value("dataset.download", self.download, "true or false")
        check_name("dataset.root", self.root)
        self.name = self.class_name

    def open(self, cache: Path, progress: Progress) -> Dataset:
        found = _find_class(self.class_name)
        automatic = cache / "torchvision" / self.class_name
        root = automatic if self.root == "auto" else expanded(self.root).resolve()
        options = inspect.signature(found).parameters

        key = next((key for key in ("train", "split", "image_set") if key in options), None)

        def opened(name: str, **keywords: object) -> TorchvisionSplit:
            return TorchvisionSplit(name, self._construct(found, root, keywords, progress), root, cache)

        def split(option: str, wanted: str, usual: tuple[str, ...]) -> TorchvisionSplit:
            """Return the split with the given name, or with ``auto`` the first usual one that the class has."""
            names = usual if wanted == "auto" else (wanted,)
            if key == "train":
                if names[0] not in ("train", "test"):
                    raise wrong_value(option, wanted, "auto or one of train, test")
                return opened(names[0], train=names[0] == "train")
            refusal: ValueError | None = None
            for name in names:
                try:
                    return opened(name, **{str(key): name})
                except ValueError as error:  # torchvision's word for a split that the class doesn't have
                    refusal = error
            raise UsageError(f"{option}={wanted!r}: {self.class_name} refuses it: {refusal}") from refusal

        if key is None:
            return self.dataset(opened("all"))
        if self.gallery_split is None:
            raise wrong_value("dataset.gallery_split", None, "auto or the name of a split")
        gallery = split("dataset.gallery_split", self.gallery_split, GALLERY_NAMES)
        if self.query_split is None:
            return self.dataset(gallery)
        query = split("dataset.query_split", self.query_split, QUERY_NAMES)
        train = None
        if self.train_split is not None:
            train = split("dataset.train_split", self.train_split, ())
        dataset = self.dataset(gallery, query, train)
        counts = (gallery.name, len(gallery), query.name, len(query))
        log.info("%s: gallery split %r (%d), query split %r (%d)", self.name, *counts)
        return dataset

    def _construct(self, found: type, root: Path, options: dict[str, Any], progress: Progress) -> Any:
        """Return the data set: as it lies there, else downloaded.

        Raises:
            UsageError: it is not there and can't be downloaded: what was tried, and other ways.
            ValueError: a split that the class does not have.
        """
        download = {"download": False} if "download" in inspect.signature(found).parameters else {}
        tried = "it was not downloaded"
        try:
            return found(root=str(root), **options, **download)
        except (RuntimeError, FileNotFoundError) as missing:
            reason: Exception = missing
        if download and self.download:
            tried = "download failed"
            root.mkdir(parents=True, exist_ok=True)
            log.info("downloading %s into %s", self.class_name, root)
            try:
                with progress(f"downloading {self.class_name}", total=None, unit="bytes"), _impatient():
                    return found(root=str(root), **options, download=True)
            except (OSError, RuntimeError) as error:
                reason = error
        raise UsageError(
            f"dataset.class_name={self.class_name}: not in dataset.root={root}, and {tried} "
            f"({type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}). Ways out: "
            "put torchvision's files there, name another dataset.root, or take images from elsewhere "
            "(dataset=folder, dataset=hub dataset.path=FOLDER); dataset=digits needs no download"
        ) from reason


def _find_class(name: str) -> type:
    from torchvision import datasets

    found = getattr(datasets, name, None)
    if not (isinstance(found, type) and issubclass(found, datasets.VisionDataset)):
        known = [each for each in datasets.__all__ if isinstance(getattr(datasets, each), type)]
        close = [each for each in known if each.lower() == name.lower()]
        hint = f"; did you mean {close[0]}?" if close else ""
        raise wrong_value("dataset.class_name", name, f"a class of torchvision.datasets{hint}: {', '.join(known)}")
    return found


@contextmanager
def _impatient() -> Iterator[None]:
    """Set a timeout for servers that send no data: urllib waits for ever by default."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _pixels(images: Any) -> np.ndarray | None:
    """Return all images of a data set that holds them in memory, uint8 ``(n, h, w)`` or ``(n, h, w, 3)``."""
    data = getattr(images, "data", None)
    if data is None or isinstance(data, list):
        return None
    pixels = np.asarray(data)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) != len(images):
        return None
    if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)  # SVHN and STL10 have colours first
    return pixels if pixels.ndim == 3 or pixels.shape[3] == 3 else None


def _files(images: Any) -> list[Path] | None:
    """Return each item's image file, where the data set keeps a list; the attribute's name varies."""
    for value in vars(images).values():
        if isinstance(value, list) and value and len(value) == len(images):
            items = [item[0] if isinstance(item, tuple | list) and item else item for item in value]
            # Lists of masks or annotations have files too; images are what the data set itself gives out first.
            first = Path(items[0]) if isinstance(items[0], str | Path) else None
            if first is not None and first.suffix.lower() in EXTENSIONS and first.is_file():
                return [Path(item) for item in items]
    return None


def _labels(images: Any, where: str) -> RawLabels:
    """Return the labels without decoding an image, where the data set keeps them in a list."""
    names = getattr(images, "classes", None)
    class_names = tuple(map(str, names)) if isinstance(names, list | tuple) and names else None
    for attribute in ("targets", "labels", "_labels", "y"):
        values = getattr(images, attribute, None)
        if values is not None and len(values) == len(images):
            return raw_labels(np.asarray(values), where, class_names)
    for attribute in ("samples", "_samples"):
        values = getattr(images, attribute, None)
        if isinstance(values, list) and len(values) == len(images) and isinstance(values[0], tuple | list):
            return raw_labels(np.array([value[-1] for value in values]), where, class_names)
    log.warning("%s: labels can only be had by opening every image, which takes a while", where)
    return raw_labels(np.array([images[row][1] for row in range(len(images))]), where, class_names)
