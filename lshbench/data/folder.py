"""Images in a folder, a sub-folder for each class."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import SplitSource
from lshbench.data.image_files import ImageFiles
from lshbench.data.image_folders import Listing, Shape, list_images, log_passed_over, shape_of, visible_folders
from lshbench.data.names import printable
from lshbench.data.split_names import GALLERY_KINDS, QUERY_KINDS, decorated_kind, find_splits, split_kind
from lshbench.data.values import existing_path
from lshbench.errors import UsageError
from lshbench.types import Progress, unlabelled

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FolderSplit(ImageFiles):
    """Images below the class sub-folders of a folder: ``files`` are relative to it, and sorted.

    ``classes=None`` stands for sub-folders that are no classes.
    """

    name: str
    folder: Path
    files: list[str]
    classes: list[str] | None
    cache: Path

    def __post_init__(self) -> None:
        if self.classes is None:
            self.raw = RawLabels(unlabelled(len(self.files)), str(self.folder))
            return
        number = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([number[_class_of(file)] for file in self.files], np.int64)
        self.raw = RawLabels(labels, str(self.folder), tuple(map(printable, self.classes)))

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        files = self.files if rows is None else [self.files[row] for row in rows.tolist()]
        return combine("folder", files, file_digests([f"{self.folder}{os.sep}{file}" for file in files], self.cache))

    def file(self, row: int) -> Path:
        return self.folder / self.files[row]


@dataclass
class FolderSource(SplitSource):
    """Images below ``PATH/train/CLASS`` and ``PATH/test/CLASS``, or ``PATH/CLASS`` (``dataset=folder``).

    Files count as images by their extension (every one that Pillow knows), at any depth below a class;
    hidden files and folders, and lshbench's own folders, are passed over.  A split is a sub-folder, found by its
    name and by what it holds: folders of images, not images.  ``gallery_split=None`` takes all sub-folders as classes.

    Args:
        path: the folder.
    """

    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._folder = existing_path("dataset.path", self.path, "folder")
        self.name = self._folder.name
        _require_folders(self._folder)

    def open(self, cache: Path, progress: Progress) -> Dataset:
        excluded = [cache, *self.own_folders]
        shapes = {
            name: shape_of(self._folder / name, image_extensions(), excluded) for name in visible_folders(self._folder)
        }
        if not self.labels_needed and (flat := self._without_classes(shapes)):
            return self._open_flat(flat, excluded, cache, progress)
        gallery, queries = self._find_layout({name: shapes[name] for name in self.without_train(shapes)})
        names = [gallery, *queries[:1]]
        self.require_queries(len(names) == 2)
        if self.train_split is not None:
            names.append(self.train_split)
        chosen = [name for name, shape in shapes.items() if shape != "nothing"] if names == [""] else None
        folders = [self._folder / name for name in dict.fromkeys(names)]
        for folder in folders:
            _require_folders(folder)
        with progress(f"listing {self._folder}", total=None, unit="files") as advance:
            listing = list_images(folders, image_extensions(), excluded, advance, only=chosen)
        for folder, images, others in zip(folders, listing.images, listing.others, strict=True):
            _require_images(folder, images, others, listing)
        self._log_left_out([name for name in shapes if name not in (chosen or names)], listing)
        classes = sorted({_class_of(file) for images in listing.images for file in images})
        for folder, images in zip(folders, listing.images, strict=True):
            log.info("%s: %d images; %d classes in all", folder, len(images), len(classes))
        splits = [
            FolderSplit(name or "images", folder, images, classes, cache)
            for name, folder, images in zip(dict.fromkeys(names), folders, listing.images, strict=True)
        ]
        by_name = dict(zip(dict.fromkeys(names), splits, strict=True))
        return self.dataset(*(by_name[name] for name in names))

    def _without_classes(self, shapes: dict[str, Shape]) -> list[str]:
        """Return the sub-folders of gallery, queries and training set that hold images themselves, or none."""
        flat = self.without_train(name for name, shape in shapes.items() if shape == "images")
        kinds = {decorated_kind(name) for name in flat}
        named = {self.gallery_split, self.query_split} <= {*flat}
        if not named and not (kinds & {*GALLERY_KINDS} and kinds & {*QUERY_KINDS}):
            return []
        gallery, queries = find_splits(flat, self.gallery_split, self.query_split)
        return [gallery, *queries[:1], *([] if self.train_split is None else [self.train_split])]

    def _open_flat(self, names: list[str], excluded: list[Path], cache: Path, progress: Progress) -> Dataset:
        """Open sub-folders that hold images without classes."""
        with progress(f"listing {self._folder}", total=None, unit="files") as advance:
            listing = list_images([self._folder], image_extensions(), excluded, advance, only=names)
        splits = []
        for name in names:
            images = [file for file in listing.images[0] if _class_of(file) == name]
            _require_images(self._folder / name, images, listing.others[0], listing)
            splits.append(FolderSplit(name, self._folder, images, None, cache))
            log.info("%s: %d images without labels", self._folder / name, len(images))
        return self.dataset(*splits)

    def _find_layout(self, shapes: dict[str, Shape]) -> tuple[str, list[str]]:
        """Return the gallery's sub-folder and those of queries, best first; ``""`` where sub-folders are classes.

        Raises:
            UsageError: sub-folders that could be read as splits and as classes: the keys that say which.
        """
        if self.gallery_split is None:
            return "", []
        deep = [name for name, shape in shapes.items() if shape == "folders"]
        flat = [name for name, shape in shapes.items() if shape == "images"]
        gallery_like = [name for name in deep if decorated_kind(name) in GALLERY_KINDS]
        query_like = [name for name in deep if decorated_kind(name) in QUERY_KINDS]
        if self.gallery_split != "auto" or self.query_split not in ("auto", None):
            named = [name for name in shapes if name in (self.gallery_split, self.query_split)]
            return find_splits(dict.fromkeys([*deep, *named]), self.gallery_split, self.query_split)
        path, as_classes = f"dataset.path={str(self._folder)!r}", "dataset.gallery_split=null takes all as classes"
        if gallery_like and (query_like or self.query_split is None):
            return find_splits([*gallery_like, *query_like], "auto", self.query_split)
        if gallery_like or query_like:
            others = [name for name in (*deep, *flat) if name not in (*gallery_like, *query_like)]
            if not flat and (not others or (query_like and len(others) == 1)):
                return find_splits(deep, "auto", self.query_split)
            split = (gallery_like or query_like)[0]
            key = "gallery" if gallery_like else "query"
            other = "query" if gallery_like else "gallery"
            keys = f"dataset.{key}_split={split} and dataset.{other}_split={others[0] if others else 'NAME'}"
            held_out = f" (dataset.query_split=null: a part of {split} is held out)" if gallery_like else ""
            raise UsageError(
                f"{path}: {split!r} looks like a split, with folders of images, but {_listed(others)} "
                f"may be classes or another split; {keys}{held_out} name the splits; {as_classes}"
            )
        kinds = {split_kind(name) for name in flat}
        if kinds & {*GALLERY_KINDS} and kinds & {*QUERY_KINDS}:
            named = [name for name in flat if split_kind(name)]
            raise UsageError(
                f"{path}: {_listed(named)} are called like splits but hold images, and no sub-folder of images "
                f"for each class; expected such as {named[0]}/CLASS/1.jpg; {as_classes}"
            )
        if alike := self._alike(deep):
            raise UsageError(
                f"{path}: {_listed(alike)} have sub-folders of the same names, so they may be splits rather than "
                f"classes; dataset.gallery_split={alike[0]} dataset.query_split={alike[1]} names splits; {as_classes}"
            )
        return "", []

    def _alike(self, deep: list[str]) -> list[str]:
        """Return two folders that have at least two sub-folders of the same names, as splits have; or none."""
        inner = [(name, set(visible_folders(self._folder / name))) for name in deep]
        for place, (name, folders) in enumerate(inner):
            for other, others in inner[place + 1 :]:
                if len(folders & others) >= 2:
                    return [name, other]
        return []

    def _log_left_out(self, names: list[str], listing: Listing) -> None:
        """Name the folders that are there and not used."""
        if names:
            log.warning(
                "%s: not used: %s (dataset.gallery_split and dataset.query_split name the splits)",
                self._folder, ", ".join(f"{printable(name)}/" for name in names),
            )  # fmt: skip
        log_passed_over(listing)


def _class_of(file: str) -> str:
    return file.split(os.sep, 1)[0]


def _listed(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(repr(name) for name in names[:shown]) + more


def image_extensions() -> frozenset[str]:
    """Return the extensions of image files that are read."""
    from lshbench.data.images import known_extensions  # Pillow, not needed to list options

    return known_extensions()


def _require_folders(folder: Path) -> None:
    """Check that a folder has visible sub-folders.

    Raises:
        UsageError: there are none.
    """
    if not folder.is_dir() or not visible_folders(folder):
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        what = f"it holds {len(visible)} files, but no sub-folder{_tars_in(folder)}" if visible else "it is empty"
        raise UsageError(f"dataset.path={str(folder)!r}: expected a sub-folder of images for each class; {what}")


def _tars_in(folder: Path) -> str:
    """Return what takes tar files, if there are any below a folder."""
    there = next(folder.glob("*.tar"), None) or next(folder.glob("*/*.tar"), None)
    return "; dataset=webdataset takes images in tar files" if there else ""


def _require_images(folder: Path, images: list[str], others: int, listing: Listing) -> None:
    """Check that images were found below a folder's sub-folders, and log what was passed over.

    Raises:
        UsageError: there are none.
    """
    if not images:
        linked = f"; {listing.linked[0]} leads to a folder that counts already" if listing.linked else ""
        raise UsageError(
            f"dataset.path={str(folder)!r}: no images in the sub-folders ({others} other files{linked}); expected "
            f"files such as CLASS/1.jpg with an extension that Pillow reads{_tars_in(folder)}"
        )
    if others:
        log.info("%s: %d files are no images by their extension and are passed over", folder, others)
