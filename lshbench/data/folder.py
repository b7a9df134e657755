"""Images in a folder, a sub-folder for each class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels
from lshbench.data.columns import GALLERY_SPLITS, QUERY_SPLITS, find_splits
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import RawSplit, SplitSource
from lshbench.data.values import existing_path
from lshbench.errors import UsageError
from lshbench.types import Progress

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FolderSplit(RawSplit):
    """Images below the class sub-folders of a folder: ``files`` are relative to it, and sorted."""

    kind = "images"
    name: str
    folder: Path
    files: list[str]
    classes: list[str]
    cache: Path

    def __post_init__(self) -> None:
        number = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([number[_class_of(file)] for file in self.files], np.int64)
        self.raw = RawLabels(labels, str(self.folder), tuple(self.classes))

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        picked = range(len(self.files)) if rows is None else rows
        files = [self.files[row] for row in picked]
        return combine("folder", files, file_digests([self.folder / file for file in files], self.cache))

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in rows:
            path = self.folder / self.files[row]
            try:
                yield path.read_bytes()
            except OSError as error:
                raise UsageError(f"{path} can't be read: {error.strerror}") from error

    def describe(self, row: int) -> str:
        return str(self.folder / self.files[row])


@dataclass
class FolderSource(SplitSource):
    """Images below ``PATH/train/CLASS`` and ``PATH/test/CLASS``, or ``PATH/CLASS`` (``dataset=folder``).

    Files count as images by their extension (every one that Pillow knows), at any depth below a class;
    hidden files and folders are passed over.  A split is a sub-folder.

    Args:
        path: the folder.
    """

    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._folder = existing_path("dataset.path", self.path, "folder")
        self.name = self._folder.name
        _sub_folders(self._folder)

    def open(self, cache: Path, progress: Progress) -> Dataset:
        folders = _sub_folders(self._folder)
        named = self.gallery_split != "auto" or self.query_split != "auto"
        known = [name for name in folders if name.lower() in GALLERY_SPLITS + QUERY_SPLITS]
        names = [""]
        # A folder called train beside class folders is no split: all of them have to be.
        if named or (len(known) >= 2 and len(known) == len(folders)) or known == folders == ["train"]:
            gallery, queries = find_splits(folders, self.gallery_split, self.query_split)
            names = [gallery, *queries[:1]]
        files = {name: _image_files(self._folder / name, progress) for name in names}
        classes = sorted({_class_of(file) for name in names for file in files[name]})
        for name in names:
            where = self._folder / name
            log.info("%s: %d images; %d classes in all", where, len(files[name]), len(classes))
        return self.dataset(
            *(FolderSplit(name or "images", self._folder / name, files[name], classes, cache) for name in names)
        )


def _class_of(file: str) -> str:
    return file.split(os.sep, 1)[0]


def _sub_folders(folder: Path) -> list[str]:
    """Return the visible sub-folders' names, sorted.

    Raises:
        UsageError: there are none.
    """
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        names = sorted(entry.name for entry in visible if entry.is_dir())
    if not names:
        what = f"it holds {len(visible)} files, but no sub-folder" if visible else "it is empty"
        raise UsageError(f"dataset.path={str(folder)!r}: expected a sub-folder of images for each class; {what}")
    return names


def _image_files(folder: Path, progress: Progress) -> list[str]:
    """Return the images below a folder's sub-folders, relative to it, sorted by path.

    Raises:
        UsageError: there are none.
    """
    from PIL import Image

    extensions = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    found: list[str] = []
    others = 0
    with progress(f"listing {folder}", total=None, unit="files") as advance:
        for name in _sub_folders(folder):
            for parent, folders, files in os.walk(folder / name, followlinks=True):
                folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
                images = [
                    file for file in files if not file.startswith(".") and Path(file).suffix.lower() in extensions
                ]
                others += len(files) - len(images)
                relative = os.path.relpath(parent, folder)
                found.extend(f"{relative}{os.sep}{file}" for file in images)
                advance(len(files))
    if not found:
        raise UsageError(
            f"dataset.path={str(folder)!r}: no images in the sub-folders ({others} other files); expected "
            "files such as CLASS/1.jpg with an extension that Pillow reads"
        )
    if others:
        log.info("%s: %d files are no images by their extension and are passed over", folder, others)
    return sorted(found)
