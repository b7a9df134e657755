"""What an array of a file can be, told by the words of its name, its shape and what it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lshbench.data.columns import COARSE, LABEL_NAMES
from lshbench.data.named_array import NamedArray
from lshbench.errors import UsageError

LABEL_WORDS = {*LABEL_NAMES, "lbl", "targets", "cat"}
NOT_FEATURES = {"neighbors", "neighbours", "groundtruth", "gt", "distances", "indices", "ids", "logits", "avgdist"}
"""Two-dimensional arrays of ann-benchmarks' files, and others, that describe items but are no features."""


def hint(there: Sequence[NamedArray]) -> str:
    """Return the end of a message about labels that are missing, where the file has true neighbours."""
    if not any(NOT_FEATURES & set(words_of(array.name)) for array in there):
        return ""
    return "; relevance=neighbors judges by true neighbours, which this file has, and needs no labels"


def first_of(
    found: list[NamedArray], order: Callable[[NamedArray], object], key: str, what: str, there: Sequence[NamedArray]
) -> NamedArray:
    """Return the first of the arrays in an order.

    Raises:
        UsageError: the second is as good: the place in the file must not decide.
    """
    if len(found) > 1 and order(found[0]) == order(found[1]):
        both = f"{found[0].name} and {found[1].name}"
        raise UsageError(f"{key}=auto: {both} could both be the {what}; name one; there are: {in_words(there)}")
    return found[0]


def has_features(arrays: Sequence[NamedArray]) -> bool:
    """Return whether one of the arrays can be features."""
    return any(map(can_be_features, arrays))


def can_be_features(array: NamedArray) -> bool:
    """Return whether an array is numbers of several dimensions an item, under no name of anything else."""
    numbers = len(array.shape) == 2 and array.kind in "fiub" and array.shape[1] > 1
    return numbers and not (NOT_FEATURES | LABEL_WORDS) & set(words_of(array.name))


def can_be_labels(array: NamedArray, count: int) -> bool:
    """Return whether an array can be the labels of so many items."""
    if array.shape == (1, count) and count > 1:
        return array.kind in "iubUSf"
    if array.shape[:1] != (count,):
        return False
    words = set(words_of(array.name))
    if len(array.shape) == 1 or (len(array.shape) == 2 and array.shape[1] == 1):
        telling = bool(LABEL_WORDS & words)
        return telling or (array.kind in "iubUS" and not words & {"id", "ids", "index", "indices", "idx"})
    # A matrix of zeros and ones, of truth values or under a telling name.
    return len(array.shape) == 2 and not NOT_FEATURES & words and (array.kind == "b" or bool(LABEL_WORDS & words))


def label_place(array: NamedArray) -> tuple[bool, int]:
    """Return the place of labels in the order of usual names, coarse ones last."""
    joined = f"_{'_'.join(words_of(array.name))}_"
    place = next((i for i, usual in enumerate(LABEL_NAMES) if f"_{usual}_" in joined), len(LABEL_NAMES))
    return bool(COARSE.search(joined)), place


def by_name(arrays: Sequence[NamedArray], name: str, key: str, *, two_dimensional: bool) -> NamedArray:
    """Return the array of a name, or the one whose name holds it as words (``x`` for ``train_x``)."""
    found = holding(arrays, name)
    if len(found) != 1:
        what = "there is no such array" if not found else "several names hold it"
        raise UsageError(f"{key}={name!r}: {what}; there are: {in_words(arrays)}")
    if two_dimensional and len(found[0].shape) != 2:
        raise UsageError(f"{key}={name!r}: features are two-dimensional; there are: {in_words(arrays)}")
    return found[0]


def holding(arrays: Sequence[NamedArray], name: str) -> list[NamedArray]:
    """Return the array of a name, else those whose names hold it as words."""
    wanted = "_".join(words_of(name))
    exact = [array for array in arrays if array.name == name]
    return exact or [array for array in arrays if f"_{wanted}_" in f"_{'_'.join(words_of(array.name))}_"]


def words_of(name: str) -> list[str]:
    """Return the words of a name: ``X_train``, ``xTrain`` and ``train/x`` all have ``x`` and ``train``."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word] or [name.lower()]


def in_words(arrays: Sequence[NamedArray]) -> str:
    """Return arrays in words, for messages."""
    return ", ".join(map(str, arrays)) or "none"
