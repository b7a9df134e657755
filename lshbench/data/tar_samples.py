"""Samples of a WebDataset: members of a tar file that share a key, with an image and a label among them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from lshbench.data.columns import Column, ColumnKind, find_column, offsets_of
from lshbench.data.folder import image_extensions
from lshbench.data.names import printable
from lshbench.data.stored_file import StoredFile
from lshbench.data.tar_members import LONGEST_READ, Member, OpenTar
from lshbench.errors import UsageError
from lshbench.runtime.kept import Arrays

LOOKED_AT = 10
"""Samples that fields are found by."""
LONGEST_LABEL = 200
"""Characters of a label: captions are none, and take that much memory an item."""
DEEPEST = 3
"""Levels of a JSON object in which labels are looked for."""
NUMBER, TEXT, JSON = ("cls", "cls2"), ("txt", "text"), ("json", "jsn")
"""Endings of members that may hold labels."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

Label = int | str | list[int] | list[str]


@dataclass
class Sample:
    """The members of a key.

    Attributes:
        key: their common name: up to the first dot after the last slash.
        members: by field: what follows that dot, in lower case.
        contents: what those members hold that were asked for.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)


@dataclass
class LeftOut:
    """What is passed over, by its kind: how much, and the first of it."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        before, first = self.found.get(kind, (0, printable(name)))
        self.found[kind] = (before + count, first)


@dataclass(frozen=True)
class Fields:
    """Which members are taken of a sample.

    Attributes:
        image: the field of images; ``auto``: the only one.
        label: the field of labels, or None for none.
        path: where labels lie in it, if it is JSON.
    """

    image: str
    label: str | None
    path: tuple[str, ...] = ()


def samples(tar: OpenTar, left_out: LeftOut, reads: Callable[[str, Member], bool]) -> Iterator[Sample]:
    """Yield the samples of an open tar file.

    Args:
        tar: the file.
        left_out: is told what belongs to no sample.
        reads: says of a field and its member whether its content is wanted: it is read when it is passed, as going
            back would take a second request.

    Raises:
        UsageError: members of a key that are apart, or two for one field.
    """
    current, keys = Sample(""), set[str]()
    for member in tar.members():
        folder, slash, base = member.name.rpartition("/")
        stem, _, name = base.partition(".")
        if not (stem and name):
            left_out.add("files that belong to no sample (no KEY.EXTENSION)", member.name)
            continue
        if not member.plain:
            left_out.add("members that are links, devices or sparse files", member.name)
            continue
        key, name = f"{folder}{slash}{stem}", name.lower()
        if key != current.key:
            if key in keys:
                raise UsageError(
                    f"{tar.named}: the members of sample {printable(key)} are apart; expected those of a key side by "
                    "side, as tar --sort=name puts them, and no key twice"
                )
            keys.add(key)
            if current.members:
                yield current
            current = Sample(key)
        if name in current.members:
            raise UsageError(f"{tar.named}: {printable(member.name)} is there twice; expected one of each name")
        current.members[name] = member
        if reads(name, member):
            current.contents[name] = tar.content(member)
    if current.members:
        yield current


def image_fields(sample: Sample) -> list[str]:
    """Return a sample's fields that are images by their ending."""
    extensions = image_extensions()
    return [name for name in sample.members if f".{_ending(name)}" in extensions]


def look(file: StoredFile, where: str) -> list[Column]:
    """Return the fields of a tar file's first samples, as columns: images, labels and others."""
    columns: dict[str, Column] = {}

    def reads(name: str, member: Member) -> bool:
        return _ending(name) in JSON and member.size <= LONGEST_READ

    with OpenTar(file, where) as tar:
        for sample in islice(samples(tar, LeftOut(), reads), LOOKED_AT):
            images = image_fields(sample)
            for name in sample.members:
                for column in [Column(name, "image", "image")] if name in images else _columns(tar, sample, name):
                    columns.setdefault(column.name, column)
    return list(columns.values())


def _ending(name: str) -> str:
    return name.rpartition(".")[2]


def _columns(tar: OpenTar, sample: Sample, name: str) -> list[Column]:
    if _ending(name) in NUMBER:
        return [Column(name, "integer", "whole number")]
    if _ending(name) in TEXT:
        return [Column(name, "text", "text")]
    if name in sample.contents:
        return list(_within(name, _parsed(tar, sample, name), 0))
    return [Column(name, "other", "bytes")]


def _within(name: str, value: Any, depth: int) -> Iterator[Column]:
    """Yield the columns that a JSON value is, or has."""
    listed = isinstance(value, list)
    one = value[0] if listed and value else value
    if isinstance(one, Mapping):
        if depth < DEEPEST:
            for key, inner in one.items():
                yield from _within(f"{name}.{key}", [inner] if listed else inner, depth + 1)
        return
    kinds: dict[type, tuple[ColumnKind, str]] = {
        bool: ("integer", "truth value"), int: ("integer", "whole number"), str: ("text", "text"),
    }  # fmt: skip
    kind, described = kinds.get(type(one), ("other", type(one).__name__))
    if listed and kind != "other":
        kind, described = "list", f"list of {described}"
    yield Column(name, kind, described, nested=depth > 0)


def find_fields(columns: list[Column], image: str, label: str, *, needed: bool) -> tuple[Column, Column | None, Fields]:
    """Return the fields of images and of labels.

    Args:
        columns: those that there are.
        image: the configured ``dataset.image_column``.
        label: the configured ``dataset.label_column``.
        needed: whether labels have to be there.

    Raises:
        UsageError: they are not there, or ``auto`` finds none or can't tell several apart.
    """
    there = ", ".join(map(str, columns)) or "none"
    images = [column for column in columns if column.kind == "image"]
    if image != "auto":
        items = find_column(columns, image, "dataset.image_column", ("image",), "images")
    else:
        items = Column("|".join(column.name for column in images), "image", "image") if images else None
    if items is None:
        raise UsageError(f"dataset.image_column=auto: no field holds images; there are: {there}")
    found = find_column(columns, label, "dataset.label_column", ("integer", "text", "list"), "labels")
    if found is None:  # what is a label if anything is
        usual = (column for name in (*TEXT, *JSON) for column in columns if column.name == name)
        found = next((column for column in usual if column.kind in ("integer", "text", "list")), None)
    if found is None:
        if needed:
            raise UsageError(f"dataset.label_column=auto: no field looks like labels; name one; there are: {there}")
        return items, None, Fields(image, None)
    parts = found.name.split(".")
    ending = next((place for place, part in enumerate(parts) if part in JSON), len(parts) - 1) + 1
    return items, found, Fields(image, ".".join(parts[:ending]), tuple(parts[ending:]))


def index(file: StoredFile, fields: Fields, where: str) -> Arrays:
    """Return where the images of a tar file lie, and their labels; nothing else of it is read.

    Args:
        file: the tar file.
        fields: which members are taken.
        where: names its split in messages.

    Returns:
        ``starts`` and ``sizes`` int64 ``(n,)``, of the images; ``names`` uint8, theirs one after the other, and
        ``name_stops`` int64 ``(n + 1,)``; ``labels``, int64 or strings, with ``label_stops`` int64 ``(n + 1,)`` and
        whether any item has a list (``listed``); ``left_out``, JSON.

    Raises:
        UsageError: a file that can't be read, samples without a label, labels of two kinds.
    """
    left_out, images, labels = LeftOut(), list[Member](), list[list[Any]]()
    listed, kind, without, first_without = False, None, 0, ""
    with OpenTar(file, where) as tar:
        for sample in samples(tar, left_out, lambda name, _: name == fields.label):
            image = _image_of(tar, sample, fields.image)
            if image is None:
                left_out.add("samples without an image", sample.key)
                continue
            images.append(image)
            if fields.label is None:
                continue
            value = _label_of(tar, sample, fields) if fields.label in sample.contents else None
            if value is None:
                without, first_without = without + 1, first_without or sample.key
                continue
            labels.append(value if isinstance(value, list) else [value])
            listed = listed or isinstance(value, list)
            for one in labels[-1]:
                kind = kind or type(one)
                if type(one) is not kind:
                    raise UsageError(
                        f"{tar.named}: sample {printable(sample.key)} has the label {one!r}, where those before are "
                        f"{'numbers' if kind is int else 'text'}; expected labels of one kind"
                    )
        if without:
            named = ".".join((fields.label or "", *fields.path))
            raise UsageError(
                f"{tar.named}: {without:,} of {len(images):,} samples have no label {named} (the first: "
                f"{printable(first_without)}); expected one for each, or dataset.label_column= of another field"
            )
    names = [image.name.encode("utf-8", "surrogateescape") for image in images]
    values = [one for value in labels for one in value]
    return {
        "starts": np.array([image.start for image in images], np.int64),
        "sizes": np.array([image.size for image in images], np.int64),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_stops": offsets_of([len(name) for name in names]),
        "labels": np.array(values, np.int64 if kind in (None, int) else str),
        "label_stops": offsets_of([len(value) for value in labels]),
        "listed": np.array(listed),
        "left_out": np.array(json.dumps(left_out.found)),
    }


def _image_of(tar: OpenTar, sample: Sample, wanted: str) -> Member | None:
    if wanted != "auto":
        return sample.members.get(wanted)
    found = image_fields(sample)
    if len(found) > 1:
        raise UsageError(
            f"{tar.named}: sample {printable(sample.key)} has several images: {', '.join(map(printable, found))}; "
            f"expected one, or dataset.image_column={printable(found[0])} to say which"
        )
    return sample.members[found[0]] if found else None


def _label_of(tar: OpenTar, sample: Sample, fields: Fields) -> Label | None:
    """Return the label or labels in a sample's field; None for none.

    Raises:
        UsageError: what it holds can't be labels.
    """
    name = fields.label or ""
    named = f"{tar.named}: {printable(f'{sample.key}.{name}')}"
    if _ending(name) in JSON:
        return _checked(named, _at(_parsed(tar, sample, name), fields.path))
    try:
        text = sample.contents[name].decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{named} is no text in UTF-8") from error
    if _ending(name) in NUMBER:
        if text and not _WHOLE.fullmatch(text):
            raise UsageError(
                f"{named} holds {printable(text[:40])!r}; expected a whole number (dataset.label_column= names a field "
                "of text)"
            )
        return int(text) if text else None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _checked(named, lines if len(lines) > 1 else next(iter(lines), None))


def _parsed(tar: OpenTar, sample: Sample, name: str) -> Any:
    try:
        return json.loads(sample.contents[name])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{tar.named}: {printable(f'{sample.key}.{name}')} is no JSON: {error}") from error


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """Return what lies at a path in a JSON value; of records in a list, that of each."""
    for place, key in enumerate(path):
        if isinstance(value, list):
            return [_at(one, path[place:]) for one in value]
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _checked(named: str, value: Any) -> Label | None:
    """Return labels as they are; of truth values in a list, the numbers of those that hold.

    Raises:
        UsageError: they can't be labels.
    """
    if value is None:
        return None
    several = value if isinstance(value, list) else [value]
    if isinstance(value, list) and value and all(isinstance(one, bool) for one in value):
        return [number for number, holds in enumerate(value) if holds]
    taken = [int(one) if _is_whole(one) else one for one in several]
    for one in taken:
        is_text = isinstance(one, str) and 0 < len(one) <= LONGEST_LABEL
        if not is_text and not (isinstance(one, int) and abs(one) < 1 << 63):
            raise UsageError(
                f"{named} has the label {printable(repr(one)[:60])}; expected whole numbers, or text of at most "
                f"{LONGEST_LABEL} characters"
            )
    return taken if isinstance(value, list) else taken[0]


def _is_whole(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
