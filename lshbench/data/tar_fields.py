"""Which members of a WebDataset's samples are images and labels: by their endings, and by what JSON has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lshbench.data.columns import Column, ColumnKind, find_column
from lshbench.data.stored_file import StoredFile
from lshbench.data.tar_members import LONGEST_READ, Member, OpenTar
from lshbench.data.tar_samples import JSON, NUMBER, TEXT, LeftOut, Sample, ending_of, image_fields, parsed, samples
from lshbench.errors import UsageError

LOOKED_AT = 10
"""Samples that fields are found by."""
DEEPEST = 3
"""Levels of a JSON object in which labels are looked for."""


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


def look(file: StoredFile, where: str) -> list[Column]:
    """Return the fields of a tar file's first samples, as columns: images, labels and others."""
    columns: dict[str, Column] = {}

    def reads(name: str, member: Member) -> bool:
        return ending_of(name) in JSON and member.size <= LONGEST_READ

    with OpenTar(file, where) as tar:
        for sample in islice(samples(tar, LeftOut(), reads), LOOKED_AT):
            images = image_fields(sample)
            for name in sample.members:
                for column in [Column(name, "image", "image")] if name in images else _columns(tar, sample, name):
                    columns.setdefault(column.name, column)
    return list(columns.values())


def _columns(tar: OpenTar, sample: Sample, name: str) -> list[Column]:
    if ending_of(name) in NUMBER:
        return [Column(name, "integer", "whole number")]
    if ending_of(name) in TEXT:
        return [Column(name, "text", "text")]
    if name in sample.contents:
        return list(_within(name, parsed(tar, sample, name), 0))
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
