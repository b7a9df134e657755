"""Checks shared by all sources: labels, splits, and the values of features."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lshbench.data.base import Dataset, Split
from lshbench.data.names import decoded, printable
from lshbench.errors import UsageError
from lshbench.types import Progress, is_unlabelled

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 << 20
"""Features are read, checked and converted in blocks of about this size."""
KEPT_BELOW = 1_000_000
"""Integer labels from here on are renumbered: metrics count in arrays as long as the largest label."""


@dataclass(frozen=True)
class RawLabels:
    """Labels of one split as read, before those of both splits are numbered alike.

    Attributes:
        values: int64 ``(n,)``; strings ``(n,)``; bool ``(n, classes)``; or, with ``offsets``, the
            concatenated lists of labels of all items (int64 or strings).
        where: names them in messages, such as ``column 'label' of split 'train'``.
        names: a name for each number, or None.
        offsets: int64 ``(n + 1,)``, where each item's list begins and ends, or None.
    """

    values: np.ndarray
    where: str
    names: tuple[str, ...] | None = None
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    @property
    def kind(self) -> str:
        inner = "text" if self.values.dtype.kind in "UOT" else "numbers"
        return f"lists of {inner}" if self.offsets is not None else "matrix" if self.values.ndim == 2 else inner


def raw_labels(values: np.ndarray, where: str, names: tuple[str, ...] | None = None) -> RawLabels:
    """Return the labels in an array: whole numbers in any type, strings, or a matrix of zeros and ones.

    Raises:
        UsageError: anything else.
    """
    values = np.asarray(values)
    if values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)
    kind = values.dtype.kind
    if values.ndim == 2 and (kind == "b" or (kind in "iuf" and bool(((values == 0) | (values == 1)).all()))):
        return RawLabels(values.astype(bool), where, names)
    if values.ndim == 1:
        if kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
            raise UsageError(f"{where} has labels beyond 64-bit integers")
        if kind == "f" and (odd := ~np.isfinite(values) | (values != np.round(values))).any():
            first = int(np.argmax(odd))
            raise UsageError(
                f"{where} has {int(odd.sum())} values that are no whole numbers (the first: row {first}, "
                f"{values[first]!s}); labels are whole numbers, strings, or a matrix of zeros and ones"
            )
        if kind in "biuf":
            return RawLabels(values.astype(np.int64), where, names)
        if kind == "O" and (missing := sum(value is None for value in values)):
            raise UsageError(f"{where} has no label for {missing} of {len(values)} items")
        if kind == "S" or (kind == "O" and all(isinstance(value, str | bytes) for value in values)):
            values = np.array([decoded(value) if isinstance(value, bytes) else value for value in values], str)
        if values.dtype.kind in "UT":
            return RawLabels(values, where, names)
    raise UsageError(
        f"{where} is {values.dtype} of shape {values.shape}: labels are whole numbers or strings, one an "
        "item, or a matrix of zeros and ones, one column a class"
    )


def match_labels(*splits: RawLabels) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """Number the labels of a data set's splits alike, and return them with the classes' names.

    Strings, and numbers from a million on, are numbered by the sorted vocabulary of all splits.

    Returns:
        labels of each split, int64 ``(n,)`` or bool ``(n, classes)``; names or None.

    Raises:
        UsageError: labels of different kinds, or classes that differ.
    """
    first = splits[0]
    for other in splits[1:]:
        if first.kind != other.kind:
            raise UsageError(f"{first.where} holds {first.kind}, but {other.where} holds {other.kind}")
        if first.names and other.names and first.names != other.names:
            raise UsageError(f"{first.where} and {other.where} name their classes differently")
        if first.values.ndim == 2 and first.values.shape[1] != other.values.shape[1]:
            widths = first.values.shape[1], other.values.shape[1]
            raise UsageError(f"{first.where} has {widths[0]} classes, {other.where} {widths[1]}")
    names = next((split.names for split in splits if split.names), None)
    values = [split.values for split in splits]
    if first.values.ndim == 2:
        return values, names
    integers = first.values.dtype.kind == "i"
    largest = max(part.max(initial=0) for part in values) if integers else KEPT_BELOW
    if not integers or (names is None and largest >= KEPT_BELOW):
        if integers and min(part.min(initial=0) for part in values) < 0:
            return values, names  # refused later, with the reason
        vocabulary = np.unique(np.concatenate(values))
        values = [np.searchsorted(vocabulary, part) for part in values]
        names = tuple(printable(str(word)) for word in vocabulary)
    if first.offsets is None:
        return [part.astype(np.int64) for part in values], names
    for split, part in zip(splits, values, strict=True):
        if part.min(initial=0) < 0:
            raise UsageError(f"{split.where} has the label {part.min()}: labels are numbers from 0")
    classes = len(names) if names else int(max(part.max(initial=-1) for part in values)) + 1
    offsets = [split.offsets for split in splits if split.offsets is not None]
    return [_matrix(part, begins, classes) for part, begins in zip(values, offsets, strict=True)], names


def _matrix(values: np.ndarray, offsets: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((len(offsets) - 1, classes), bool)
    matrix[np.repeat(np.arange(len(matrix)), np.diff(offsets)), values] = True
    return matrix


def has_unlabelled(labels: RawLabels) -> bool:
    """Whether an item has the label -1, which stands for none."""
    return labels.values.dtype.kind == "i" and bool((labels.values < 0).any())


def check_dataset(dataset: Dataset) -> Dataset:
    """Check that the splits can be used together, and return the data set.

    Raises:
        UsageError: an empty split, labels of -1, a gallery of one class, or splits that don't go together.
    """
    roles = {"gallery": dataset.gallery, "query": dataset.query}
    if dataset.train is not None:
        roles["train"] = dataset.train
    for role, split in roles.items():
        _check_split(dataset.name, role, split)
    gallery = roles.pop("gallery")
    for role, split in roles.items():
        if gallery.kind != split.kind:
            raise UsageError(
                f"{dataset.name}: the gallery split {gallery.name!r} holds {gallery.kind}, "
                f"the {role} split {split.name!r} {split.kind}"
            )
        widths = [getattr(each, "width", None) for each in (gallery, split)]
        if None not in widths and widths[0] != widths[1]:
            raise UsageError(
                f"{dataset.name}: features of the gallery split {gallery.name!r} have {widths[0]} values, "
                f"those of the {role} split {split.name!r} {widths[1]}: they must come from one model"
            )
    return dataset


def _check_split(name: str, role: str, split: Split) -> None:
    labels = split.labels
    where = f"{name}: the {role} split {split.name!r}"
    if len(labels) == 0:
        raise UsageError(f"{where} is empty")
    if is_unlabelled(labels):
        return
    if labels.ndim == 2:
        if (count := int((~labels.any(axis=1)).sum())) > 0:
            log.warning("%s has %d items without any label: they are relevant to nothing", where, count)
        classes = int(labels.any(axis=0).sum())
    else:
        negative = labels < 0
        if negative.any():
            first = int(np.argmax(negative))
            raise UsageError(
                f"{where} has the label {labels[first]} for {int(negative.sum())} of {len(labels)} items "
                f"(the first is row {first}), which stands for 'no label': such items can be neither "
                f"gallery nor queries. Choose another dataset.{role}_split (of ImageNet: val, as its test "
                "split has no labels)"
            )
        classes = int((labels[0] != labels).any()) + 1
    # Queries of one class are judged by how many of the others they find before their own.
    if classes < 2 and role == "gallery":
        raise UsageError(
            f"{where} has one class only: retrieval is judged by telling at least two apart. "
            "dataset.gallery_split chooses the gallery"
        )


def read_features(
    rows: np.ndarray, width: int, read: Callable[[np.ndarray], np.ndarray], where: str, progress: Progress
) -> np.ndarray:
    """Read features in blocks, convert them to float32 and check their values.

    Args:
        rows: row numbers, in any order.
        width: values a row.
        read: returns the values of ascending rows, ``(len(rows), width)`` in any numeric type.
        where: names the features in messages.
        progress: receives the progress in rows.

    Returns:
        float32 ``(len(rows), width)``, in the order of ``rows``.

    Raises:
        UsageError: values that are NaN or infinite: how many, the first row.
    """
    rows = np.asarray(rows, np.int64)
    out = np.empty((len(rows), width), np.float32)
    ascending = bool((np.diff(rows) >= 0).all())
    order = None if ascending else np.argsort(rows, kind="stable")
    in_order = rows if order is None else rows[order]
    step = max(1, BLOCK_BYTES // (8 * max(width, 1)))
    bad_rows, bad_values, first = 0, 0, sys.maxsize
    with progress(f"reading {where}", total=len(rows), unit="rows") as advance:
        for start in range(0, len(rows), step):
            block_rows = in_order[start : start + step]
            block = read(block_rows)
            if block.shape != (len(block_rows), width):
                raise UsageError(f"{where}: rows of {width} values were expected, not {block.shape[1:]}")
            target = slice(start, start + step) if order is None else order[start : start + step]
            with np.errstate(over="ignore"):
                out[target] = block
            bad = ~np.isfinite(out[target])
            if bad.any():
                by_row = bad.any(axis=1)
                bad_rows += int(by_row.sum())
                bad_values += int(bad.sum())
                first = min(first, int(block_rows[np.argmax(by_row)]))
            advance(len(block_rows))
    if bad_rows:
        raise UsageError(
            f"{where} has {bad_values} values that are NaN, infinite or too large for float32, in "
            f"{bad_rows} of {len(rows)} rows; the first is row {first}: leave these rows out, or extract "
            "their features again"
        )
    return out
