"""Where the images of a tar file lie, and their labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lshbench.data.columns import offsets_of
from lshbench.data.names import printable
from lshbench.data.stored_file import StoredFile
from lshbench.data.tar_fields import Fields
from lshbench.data.tar_members import Member, OpenTar
from lshbench.data.tar_samples import JSON, NUMBER, LeftOut, Sample, ending_of, image_fields, parsed, samples
from lshbench.errors import UsageError
from lshbench.runtime.kept import Arrays

LONGEST_LABEL = 200
"""Characters of a label: captions are none, and take that much memory an item."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

Label = int | str | list[int] | list[str]


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
    if ending_of(name) in JSON:
        return _checked(named, _at(parsed(tar, sample, name), fields.path))
    try:
        text = sample.contents[name].decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{named} is no text in UTF-8") from error
    if ending_of(name) in NUMBER:
        if text and not _WHOLE.fullmatch(text):
            raise UsageError(
                f"{named} holds {printable(text[:40])!r}; expected a whole number (dataset.label_column= names a field "
                "of text)"
            )
        return int(text) if text else None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _checked(named, lines if len(lines) > 1 else next(iter(lines), None))


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
