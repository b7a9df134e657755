"""Samples of a WebDataset: members of a tar file that share a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lshbench.data.folder import image_extensions
from lshbench.data.names import printable
from lshbench.data.tar_members import Member, OpenTar
from lshbench.errors import UsageError

NUMBER, TEXT, JSON = ("cls", "cls2"), ("txt", "text"), ("json", "jsn")
"""Endings of members that may hold labels."""


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
    return [name for name in sample.members if f".{ending_of(name)}" in extensions]


def ending_of(name: str) -> str:
    """Return what a field's name ends with, such as ``png`` of ``mask.png``."""
    return name.rpartition(".")[2]


def parsed(tar: OpenTar, sample: Sample, name: str) -> Any:
    """Return what a sample's field of JSON holds.

    Raises:
        UsageError: it is no JSON.
    """
    try:
        return json.loads(sample.contents[name])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{tar.named}: {printable(f'{sample.key}.{name}')} is no JSON: {error}") from error
