"""Images in tar files on a disk, as WebDataset writes them: samples of members that share a name."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lshbench.data.base import Dataset
from lshbench.data.fingerprint import file_digests
from lshbench.data.held_out import SplitSource
from lshbench.data.image_folders import is_regular, list_images, log_passed_over
from lshbench.data.names import printable
from lshbench.data.split_names import SPLIT_WORDS, decorated_kind, describe_unused
from lshbench.data.stored_file import DiskFile
from lshbench.data.tar_split import TarSplit, fields_of, open_tars
from lshbench.data.values import check_name, expanded
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress

log = logging.getLogger(__name__)

COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
MOST = 1_000_000
"""Names that braces may stand for."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
EXPECTED = "a folder of .tar files, such a file, or names with * or {000..063}"


@dataclass
class WebDatasetSource(SplitSource):
    """Images in tar files with a label beside each (``dataset=webdataset``).

    A sample is what members share up to the first dot after the last slash: ``KEY.jpg`` and ``KEY.cls``.  A split is a
    word in the names of folders or files, such as ``train-00000.tar``; ``gallery_split=None`` takes all files as one.

    Args:
        path: a folder, a file, or names with ``*`` or braces, as in ``train-{000..063}.tar``.
        image_column: the field of images, such as ``jpg``; ``auto`` takes the only one of each sample.
        label_column: the field of labels, such as ``cls``, ``txt`` or ``json.label``, or ``auto``.
    """

    path: str | None = None
    image_column: str = "auto"
    label_column: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("dataset.image_column", self.image_column)
        check_name("dataset.label_column", self.label_column)
        if not isinstance(self.path, str) or not self.path:
            raise wrong_value("dataset.path", self.path, EXPECTED)
        self._files = _find(self.path)
        place = expanded(self.path)
        self.name = (place.resolve() if place.is_dir() else _folder_of(self._files)).name

    def open(self, cache: Path, progress: Progress) -> Dataset:
        root, files = self._listed(cache, progress)
        groups: dict[str, list[Path]] = {}
        for file in files:
            name = "tars" if self.gallery_split is None else split_of(os.path.relpath(file, root))
            groups.setdefault(name, []).append(file)

        def opened(name: str) -> TarSplit:
            where = f"{root}, split {name!r}"
            digests = file_digests(groups[name], cache)
            stored = [
                DiskFile(os.path.relpath(path, root), path.stat().st_size, digest, path)
                for path, digest in zip(groups[name], digests, strict=True)
            ]
            fields = (fields_of(stored, where, cache), self.image_column, self.label_column)
            split = open_tars(name, stored, *fields, where, cache, progress, labels_needed=self.labels_needed)
            label = "none" if split.label is None else f"in field {split.label.name!r} ({split.label.type})"
            log.info(
                "%s: %d images of %d files in field %r, labels %s",
                where, len(split.raw), len(stored), split.items.name, label,
            )  # fmt: skip
            return split

        if self.gallery_split is None:
            return self.dataset(opened("tars"))
        dataset = self.of_splits(groups, opened)
        if unused := describe_unused(groups, [split.name.partition("[")[0] for split in dataset.splits]):
            log.warning("%s: splits that are not used: %s", root, unused)
        return dataset

    def _listed(self, cache: Path, progress: Progress) -> tuple[Path, list[Path]]:
        """Return the tar files, sorted, and the folder that their names start from.

        Raises:
            UsageError: there are none.
        """
        if not self._files[0].is_dir():
            return _folder_of(self._files), self._files
        folder = self._files[0]
        extensions = {".tar", *(f".{name.rpartition('.')[2]}" for name in COMPRESSED)}
        with progress(f"listing {folder}", total=None, unit="files") as advance:
            listing = list_images([folder], extensions, [cache, *self.own_folders], advance)
        with os.scandir(folder) as entries:
            visible = [entry.name for entry in entries if not entry.name.startswith(".") and is_regular(entry)]
        names = sorted([*visible, *listing.images[0]])
        tars = [folder / name for name in names if name.lower().endswith(".tar")]
        compressed = [name for name in names if name.lower().endswith(COMPRESSED)]
        if not tars:
            there = f", but {len(compressed):,} compressed, such as {printable(compressed[0])}" if compressed else ""
            raise wrong_value("dataset.path", str(folder), f"{EXPECTED}; no file in it is called so{there}")
        log_passed_over(listing)
        if compressed:
            first = printable(compressed[0])
            log.warning("%s: left out: %d compressed tar files (the first: %s)", folder, len(compressed), first)
        if others := len(names) + listing.others[0] - len(tars) - len(compressed):
            log.info("%s: %d files are no tar files by their names and are passed over", folder, others)
        return folder, tars


def _find(pattern: str) -> list[Path]:
    """Return the folder, or the files, that a path stands for; files that braces name have to be there.

    Raises:
        UsageError: there are none.
    """
    place = expanded(pattern)
    if place.is_dir():
        return [place.resolve()]
    names = [pattern] if place.exists() else expand_braces(pattern)
    found, missing = set[Path](), []
    for name in names:
        path = str(expanded(name))
        matches = glob.glob(path) if glob.has_magic(path) and not Path(path).exists() else [path]  # noqa: PTH207
        files = [Path(match).absolute() for match in matches if Path(match).is_file()]
        found.update(files)  # not resolved: a link's name says which split it is of
        if not files:
            missing.append(name)
    if missing:
        there = f"; {len(missing):,} of {len(names):,} are not there, the first: {missing[0]}" if len(names) > 1 else ""
        raise wrong_value("dataset.path", pattern, f"{EXPECTED}{there} (seen from {Path.cwd()})")
    return sorted(found)


def expand_braces(pattern: str) -> list[str]:
    """Return the names that braces stand for: ``{000..063}`` for numbers, ``{train,val}`` for words.

    Raises:
        UsageError: braces with neither, or that stand for too many names.
    """
    names = [pattern]
    while any(map(_BRACES.search, names)):
        longer: list[str] = []
        for name in names:
            longer += _expand_first(pattern, name)
            if len(longer) > MOST:
                raise _wrong_braces(pattern)
        names = longer
    return names


def _expand_first(pattern: str, name: str) -> list[str]:
    """Return the names that the first innermost braces of a name stand for."""
    found = _BRACES.search(name)
    if found is None:
        return [name]
    words = found[1].split(",")
    if (ends := _RANGE.fullmatch(found[1])) is not None:
        first, last = int(ends[1]), int(ends[2])
        padded = any(len(end) > 1 and end.startswith("0") for end in ends.groups())
        width = max(map(len, ends.groups())) if padded else 1
        words = [f"{number:0{width}}" for number in range(first, last + 1)] if last - first < MOST else []
    if not words or (len(words) == 1 and ends is None):
        raise _wrong_braces(pattern)
    return [f"{name[: found.start()]}{word}{name[found.end() :]}" for word in words]


def _wrong_braces(pattern: str) -> UsageError:
    return wrong_value("dataset.path", pattern, "braces such as {000..063} or {train,val}")


def _folder_of(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def split_of(name: str) -> str:
    """Return the split that a tar file belongs to, by its path below the data set's folder.

    That is the first folder with a usual name of a split; else the only such word in the file's name; else its name
    without the shard's number.
    """
    for folder in Path(name).parts[:-1]:
        if decorated_kind(folder) is not None:
            return folder
    stem = Path(name).stem.lower()
    words = [word for word in re.split(r"[\W\d_]+", stem) if word in SPLIT_WORDS]
    if len(set(words)) == 1:
        return words[0]
    return re.sub(r"[\W\d_]+$", "", stem) or "tars"
