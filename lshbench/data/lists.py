"""Images that a text file lists, one a line with its labels."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels
from lshbench.data.columns import offsets_of
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import HeldOutSource
from lshbench.data.image_files import ImageFiles
from lshbench.data.names import decoded, printable
from lshbench.data.values import existing_path
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress, unlabelled

log = logging.getLogger(__name__)

FORMS = ("auto", "classes", "flags")


@dataclass(frozen=True)
class ListedImages:
    """A list as read.

    Attributes:
        path: of the list.
        lines: its lines that are not blank, as they are.
        numbers: of these lines in the file, from 1.
        files: the image of each, as it stands there.
        labels: the words behind it; none where labels are not needed.
    """

    path: Path
    lines: list[str]
    numbers: list[int]
    files: list[str]
    labels: list[list[str]]


@dataclass(eq=False)
class ListSplit(ImageFiles):
    """Images of a list: paths start from a folder."""

    name: str
    listed: ListedImages
    root: Path
    raw: RawLabels
    cache: Path

    def file(self, row: int) -> Path:
        return self.root / self.listed.files[row]

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        picked = range(len(self.listed.files)) if rows is None else rows
        digests = file_digests([self.file(row) for row in picked], self.cache)
        return combine("list", [self.listed.lines[row] for row in picked], digests)


@dataclass
class ListSource(HeldOutSource):
    """Images that text files list (``dataset=lists``), a line each: a path, and one or more labels behind it.

    Words are separated by blanks, or by tabs where a line has one.  Labels are names or numbers of classes, or a
    zero or one for each class.  An image of the training list that the gallery lists too is one item with two roles.

    Args:
        gallery: the gallery's list, the database.
        queries: the queries' list, or None to hold out a part of the gallery.
        train: the training list, or None to train on the gallery.
        root: the folder that paths start from, or None for that of each list.
        labels: ``classes`` for names or numbers, ``flags`` for zeros and ones; ``auto`` takes flags where all lines
            have equally many words, more than one, and all of them are 0 or 1.
    """

    gallery: str | None = None
    queries: str | None = None
    train: str | None = None
    root: str | None = None
    labels: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lists = {"gallery": existing_path("dataset.gallery", self.gallery, "file")}
        if self.queries is not None:
            self._lists["queries"] = existing_path("dataset.queries", self.queries, "file")
        if self.train is not None:
            if self.queries is None:
                raise wrong_value("dataset.train", self.train, "null, or dataset.queries beside it")
            self._lists["train"] = existing_path("dataset.train", self.train, "file")
        self._root = None if self.root is None else existing_path("dataset.root", self.root, "folder")
        if self.labels not in FORMS:
            raise wrong_value("dataset.labels", self.labels, " or ".join(FORMS))
        self.name = self._lists["gallery"].stem

    def open(self, cache: Path, progress: Progress) -> Dataset:
        needed = self.labels_needed
        lists = {side: _read(path, f"dataset.{side}", needed) for side, path in self._lists.items()}
        if without := [listed for listed in lists.values() if not all(listed.labels)]:
            if any(any(listed.labels) for listed in lists.values()):
                listed = without[0]
                first = listed.numbers[listed.labels.index([])]
                raise UsageError(f"{listed.path}, line {first}: no label, but others have one; expected all or none")
            return self._unlabelled(lists, cache)
        flags = self._are_flags(list(lists.values()))
        words = [line for listed in lists.values() for line in listed.labels]
        numbers = not flags and all(_is_number(word) for line in words for word in line)
        several = any(len(line) > 1 for line in words)
        one_each = flags and all(line.count("1") == 1 for line in words)
        inside = None
        if "train" in lists:
            inside, lists["train"] = self._in_gallery(lists["gallery"], lists["train"], flags=flags)
        form = "zeros and ones, one a class" if flags else "several labels an item" if several else "one label an item"
        raw = {
            side: _flags(listed, one_each) if flags else _classes(listed, numbers=numbers, several=several)
            for side, listed in lists.items()
            if listed.files
        }
        return self._dataset(lists, raw, inside, form, cache)

    def _dataset(
        self,
        lists: dict[str, ListedImages],
        raw: dict[str, RawLabels],
        inside: np.ndarray | None,
        form: str,
        cache: Path,
    ) -> Dataset:
        splits = {}
        for side, labels in raw.items():  # a training list that is all of the gallery's has none left
            listed = lists[side]
            root = self._root or listed.path.parent
            self._check_there(listed, root)
            splits[side] = ListSplit(side, listed, root, labels, cache)
            log.info("%s: %s: %d images of %s; %s", self.name, side, len(listed.files), listed.path, form)
        return self.dataset(splits["gallery"], splits.get("queries"), splits.get("train"), train_in_gallery=inside)

    def _unlabelled(self, lists: dict[str, ListedImages], cache: Path) -> Dataset:
        inside = None
        if "train" in lists:
            inside, lists["train"] = self._in_gallery(lists["gallery"], lists["train"], flags=False)
        raw = {
            side: RawLabels(unlabelled(len(listed.files)), str(listed.path))
            for side, listed in lists.items()
            if listed.files
        }
        return self._dataset(lists, raw, inside, "no labels", cache)

    def _are_flags(self, lists: list[ListedImages]) -> bool:
        """Return whether labels are a zero or one for each class.

        A list of classes names none twice, which more than two words of zeros and ones must: so nothing is guessed.

        Raises:
            UsageError: they have to be, and are not; or most lines look so, and others have more or fewer words.
        """
        words = [line for listed in lists for line in listed.labels]
        width = len(words[0])
        binary = all({*line} <= {"0", "1"} for line in words)
        alike = binary and all(len(line) == width for line in words)
        if self.labels == "flags" and not alike:
            raise wrong_value("dataset.labels", self.labels, f"{width} words behind every path, each 0 or 1")
        if self.labels == "auto" and binary and not alike and any(len({*line}) < len(line) for line in words):
            usual = Counter(map(len, words)).most_common(1)[0][0]
            path, number, count = next(
                (listed.path, number, len(line))
                for listed in lists
                for number, line in zip(listed.numbers, listed.labels, strict=True)
                if len(line) != usual
            )
            raise UsageError(
                f"{path}, line {number}: {count} words of 0 and 1 behind the path, where most lines have {usual}: "
                "expected as many on every line; dataset.labels=classes takes them for numbers of classes"
            )
        return alike and (self.labels == "flags" or (self.labels == "auto" and width > 1))

    def _in_gallery(
        self, gallery: ListedImages, train: ListedImages, *, flags: bool
    ) -> tuple[np.ndarray, ListedImages]:
        """Return the gallery rows that the training list has too, and what it has besides.

        Raises:
            UsageError: an image has other labels there.
        """
        rows = {str((self._root or gallery.path.parent) / file): row for row, file in enumerate(gallery.files)}
        places = [rows.get(str((self._root or train.path.parent) / file), -1) for file in train.files]
        alike = (lambda one, other: one == other) if flags else (lambda one, other: {*one} == {*other})
        differing = [
            place
            for place, row in enumerate(places)
            if row >= 0 and not alike(gallery.labels[row], train.labels[place])
        ]
        if differing:
            first = differing[0]
            raise UsageError(
                f"{train.path}, line {train.numbers[first]}: {printable(train.files[first])} has other labels than in "
                f"{gallery.path}, line {gallery.numbers[places[first]]} ({len(differing):,} images have)"
            )
        outside = [place for place, row in enumerate(places) if row < 0]
        rest = ListedImages(
            train.path,
            [train.lines[place] for place in outside],
            [train.numbers[place] for place in outside],
            [train.files[place] for place in outside],
            [train.labels[place] for place in outside],
        )
        return np.unique([row for row in places if row >= 0]).astype(np.int64), rest

    def _check_there(self, listed: ListedImages, root: Path) -> None:
        missing = [place for place, file in enumerate(listed.files) if not (root / file).is_file()]
        if missing:
            first, given = missing[0], "" if self._root is None else f"={str(root)!r}"
            file, line = printable(str(root / listed.files[first])), listed.numbers[first]
            others = f", like {len(missing) - 1:,} others of {len(listed.files):,}" if len(missing) > 1 else ""
            raise UsageError(
                f"{listed.path}, line {line}: {file} is no file{others}; dataset.root{given}: expected the folder that "
                "paths start from"
            )


def _read(path: Path, key: str, labels_needed: bool) -> ListedImages:
    """Read a list.

    Raises:
        UsageError: it is no text, empty, or has a line without a label.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise wrong_value(key, str(path), f"a list that can be read ({error.strerror})") from error
    if b"\0" in content:
        raise wrong_value(key, str(path), "a text file with a path and its labels on each line; it is no text in UTF-8")
    listed = ListedImages(path, [], [], [], [])
    for number, line in enumerate(decoded(content.removeprefix(b"\xef\xbb\xbf")).splitlines(), start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in line.split("\t")] if "\t" in line.strip() else line.split()
        words = [word for word in words if word]
        if len(words) < 1 + labels_needed:
            raise UsageError(
                f"{path}, line {number}: {printable(line.strip())!r} has no label; expected a path and labels"
            )
        listed.lines.append(line)
        listed.numbers.append(number)
        listed.files.append(words[0])
        listed.labels.append(words[1:])
    if not listed.files:
        raise wrong_value(key, str(path), "a text file with a path and its labels on each line; it is empty")
    return listed


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isascii() and word.removeprefix("-").isdigit() and len(word) < 19


def _flags(listed: ListedImages, one_each: bool) -> RawLabels:
    matrix = np.array(listed.labels) == "1"
    if one_each:
        return RawLabels(matrix.argmax(axis=1).astype(np.int64), str(listed.path))
    return RawLabels(matrix, str(listed.path))


def _classes(listed: ListedImages, *, numbers: bool, several: bool) -> RawLabels:
    words = [word for line in listed.labels for word in line]
    values = np.array(words, np.int64 if numbers else str)
    offsets = offsets_of([len(line) for line in listed.labels]) if several else None
    return RawLabels(values, str(listed.path), offsets=offsets)
