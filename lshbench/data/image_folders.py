"""List the images below folders: each real folder once, whatever links lead to it, and never lshbench's own files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lshbench.data.names import printable

log = logging.getLogger(__name__)

RUN_MARKS = (".run.lock", "run.log")
"""Either stands beside ``.hydra`` in the folder of a run."""

Identity = tuple[int, int]


@dataclass
class Listing:
    """What lies below some folders.

    Attributes:
        images: of each folder, the images' paths relative to it, sorted.
        others: of each folder, how many files are no images by their extension.
        linked: links to folders that were not followed, as they lead to a folder that counts already.
        own: folders of lshbench's runs or its cache, which were not entered.
    """

    images: list[list[str]]
    others: list[int]
    linked: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    inside = Path(folder)
    return (inside / ".hydra").is_dir() and any((inside / mark).exists() for mark in RUN_MARKS)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is neither folder nor file."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_image(entry: os.DirEntry[str], extensions: Collection[str]) -> bool:
    """Whether an entry is a file, or a link to one, with the extension of an image."""
    # There may be a million of them, for which paths are slow.
    _, dot, extension = entry.name.rpartition(".")
    return dot + extension.lower() in extensions and is_regular(entry)


def visible_folders(folder: Path) -> list[str]:
    """Return the names of a folder's sub-folders that are not hidden, sorted; links to folders count."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))


def list_images(
    folders: Sequence[Path],
    extensions: Collection[str],
    excluded: Sequence[Path],
    advance: Callable[[int], None],
    only: Collection[str] | None = None,
) -> Listing:
    """List the images below the sub-folders of some folders.

    Hidden files and folders are passed over, and so is what is no regular file.  A link to a folder is followed
    unless it leads to one that is listed anyway, or to one above; so no image counts twice.

    Args:
        folders: whose sub-folders are listed; files directly inside are not.
        extensions: of images, in lower case, such as ``.jpg``.
        excluded: folders that are never entered, such as the cache.
        advance: receives numbers of files.
        only: the names of the sub-folders to list, or None for all.
    """
    found = Listing([[] for _ in folders], [0 for _ in folders])
    never = {identity for path in excluded if (identity := _identity(path)) is not None}
    # Whoever holds a listed folder must not be entered through a link: it would bring everything again.
    seen: set[Identity] = set()
    for folder in folders:
        real = folder.resolve()
        seen |= {identity for path in (real, *real.parents) if (identity := _identity(path)) is not None}
    roots = [
        (place, name)
        for place, folder in enumerate(folders)
        for name in visible_folders(folder)
        if only is None or name in only
    ]
    links: list[tuple[int, str]] = []

    def walk(place: int, start: str) -> None:
        """List a folder that is no link, and all below it; links wait."""
        pending = [start]
        while pending:
            relative = pending.pop()
            path = folders[place] / relative
            identity = _identity(path)
            if identity is None:
                continue
            if identity in never or is_run(path):
                found.own.append(str(path))
                continue
            if identity in seen:
                found.linked.append(str(path))
                continue
            seen.add(identity)
            count = 0
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    inner = f"{relative}{os.sep}{entry.name}"
                    if is_folder(entry):
                        (links.append((place, inner)) if entry.is_symlink() else pending.append(inner))
                        continue
                    count += 1
                    if is_image(entry, extensions):
                        found.images[place].append(inner)
                    else:
                        found.others[place] += 1
            advance(count)

    # Real folders first: what a link and a real path both lead to is named by the real path.
    for place, name in roots:
        if (folders[place] / name).is_symlink():
            links.append((place, name))
        else:
            walk(place, name)
    while links:
        links.sort()
        walk(*links.pop(0))
    for images in found.images:
        images.sort()
    return found


def log_passed_over(listing: Listing) -> None:
    """Name the folders that were not entered."""
    for paths, why in (
        (listing.own, "the folder of a run, or the cache, which is never data"),
        (listing.linked, "leads to a folder that counts already, and is not followed"),
    ):
        if paths:
            more = f" (and {len(paths) - 1:,} like it)" if len(paths) > 1 else ""
            log.warning("%s: %s%s", printable(sorted(paths)[0]), why, more)


def _identity(path: Path) -> Identity | None:
    """Return what names a real folder, whatever its path; None where it can't be entered."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


Shape = Literal["images", "folders", "nothing"]


def shape_of(folder: Path, extensions: Collection[str], excluded: Sequence[Path]) -> Shape:
    """Return whether a folder holds images itself, as a class does, or only its sub-folders do, as those of a split do.

    ``nothing`` stands for no image at any depth, lshbench's own files not counted.  Links are followed only at the
    first level, as this only looks for the first image.
    """
    never = {identity for path in excluded if (identity := _identity(path)) is not None}
    pending, seen = [folder], set[Identity]()
    while pending:
        path = pending.pop()
        identity = _identity(path)
        if identity is None or identity in never or identity in seen or is_run(path):
            continue
        seen.add(identity)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_folder(entry):
                    if path == folder or not entry.is_symlink():
                        pending.append(path / entry.name)
                elif is_image(entry, extensions):
                    # The folder itself is read first, so an image right inside decides.
                    return "images" if path == folder else "folders"
    return "nothing"
