"""Images in a folder, a sub-folder for each class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset, Source, Split
from lshbench.data.checks import check_dataset, check_fraction, check_limit, check_name, check_number, check_path
from lshbench.data.columns import GALLERY_SPLITS, QUERY_SPLITS, find_splits
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import hold_out
from lshbench.errors import UsageError
from lshbench.types import Progress

log = logging.getLogger(__name__)


class FolderSplit(Split):
    """Image files below the class sub-folders of one folder, in the order of their paths.

    Args:
        name: the split's name.
        folder: the folder whose sub-folders are classes.
        files: the images' paths relative to ``folder``, sorted.
        classes: all class names, sorted.
        cache: the cache folder.
    """

    kind = "images"

    def __init__(self, name: str, folder: Path, files: list[str], classes: list[str], cache: Path) -> None:
        self.name = name
        self.cache = cache
        self.folder = folder
        self.files = files
        self.class_names = classes
        number = {name: i for i, name in enumerate(classes)}
        self.labels = np.array([number[file.split(os.sep, 1)[0]] for file in files], np.int64)

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


class FolderSource(Source):
    """Images below ``PATH/train/CLASS`` and ``PATH/test/CLASS``, or ``PATH/CLASS`` (``dataset=folder``).

    Files count as images by their extension (every one that Pillow knows), at any depth below a class;
    hidden files and folders are passed over.

    Args:
        path: the folder.
        gallery_split: a sub-folder, or ``auto`` (train, if the class folders lie below splits).
        query_split: a sub-folder, or ``auto`` (test, val or validation).
        query_fraction: the share of every class held out as queries where there are no splits.
        split_seed: decides which images are held out.
        max_gallery: at most this many gallery items, or None.
        max_queries: at most this many queries, or None.
    """

    def __init__(
        self,
        path: str | None = None,
        gallery_split: str = "auto",
        query_split: str = "auto",
        query_fraction: float = 0.2,
        split_seed: int = 0,
        max_gallery: int | None = None,
        max_queries: int | None = None,
    ) -> None:
        self.path = check_path("dataset.path", path, "folder")
        self.gallery_split = check_name("dataset.gallery_split", gallery_split)
        self.query_split = check_name("dataset.query_split", query_split)
        self.query_fraction = check_fraction("dataset.query_fraction", query_fraction)
        self.split_seed = check_number("dataset.split_seed", split_seed, 0)
        self.max_gallery = check_limit("dataset.max_gallery", max_gallery)
        self.max_queries = check_limit("dataset.max_queries", max_queries)
        self.name = self.path.name
        _sub_folders(self.path)

    def open(self, cache: Path, progress: Progress) -> Dataset:
        folders = _sub_folders(self.path)
        named = self.gallery_split != "auto" or self.query_split != "auto"
        known = [name for name in folders if name.lower() in GALLERY_SPLITS + QUERY_SPLITS]
        # A folder called train beside class folders is no split: all of them have to be.
        if named or (len(known) >= 2 and len(known) == len(folders)) or known == folders == ["train"]:
            gallery_name, query_names = find_splits(folders, self.gallery_split, self.query_split)
            query_name = query_names[0] if query_names else None
        else:
            gallery_name, query_name = "", None
        extensions = _image_extensions()
        gallery_folder = self.path / gallery_name
        gallery_files = _image_files(gallery_folder, extensions, progress)
        if query_name is None:
            classes = sorted({file.split(os.sep, 1)[0] for file in gallery_files})
            whole = FolderSplit(gallery_name or "images", gallery_folder, gallery_files, classes, cache)
            log.info("%s: %d images of %d classes", self.path, len(whole), len(classes))
            return hold_out(self.name, whole, self.query_fraction, self.split_seed)
        query_files = _image_files(self.path / query_name, extensions, progress)
        classes = sorted({file.split(os.sep, 1)[0] for file in gallery_files + query_files})
        log.info(
            "%s: gallery folder %r (%d images), query folder %r (%d images), %d classes",
            self.path, gallery_name, len(gallery_files), query_name, len(query_files), len(classes),
        )  # fmt: skip
        return check_dataset(
            Dataset(
                self.name,
                FolderSplit(gallery_name, gallery_folder, gallery_files, classes, cache),
                FolderSplit(query_name, self.path / query_name, query_files, classes, cache),
            )
        )


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


def _image_extensions() -> frozenset[str]:
    from PIL import Image

    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN)


def _image_files(folder: Path, extensions: frozenset[str], progress: Progress) -> list[str]:
    """Return the images below a folder's sub-folders, relative to it, sorted by path.

    Raises:
        UsageError: there are none.
    """
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
