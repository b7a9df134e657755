"""Precomputed features in .npz, .npy, Parquet or HDF5 files (also in the layout of ann-benchmarks)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lshbench.data.array_files import NamedArray, open_arrays
from lshbench.data.base import Dataset
from lshbench.data.checks import read_features
from lshbench.data.columns import FEATURE_NAMES, GALLERY_SPLITS, LABEL_NAMES, QUERY_SPLITS, find_column
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import RawSplit, SplitSource
from lshbench.data.values import check_name, existing_path
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress

log = logging.getLogger(__name__)

SIDES = ("gallery", "query")
GALLERY_WORDS = {*GALLERY_SPLITS, "db", "tr", "retrieval"}
QUERY_WORDS = {*QUERY_SPLITS, "te"}
LABEL_WORDS = {*LABEL_NAMES, "lbl", "targets", "cat"}
NOT_FEATURES = {"neighbors", "neighbours", "distances", "indices", "ids", "logits", "avgdist"}
"""Two-dimensional arrays of ann-benchmarks' files, and others, that describe items but are no features."""


@dataclass(eq=False)
class ArraySplit(RawSplit):
    """Features ``(n, d)`` in one array and their labels in another."""

    kind = "features"
    name: str
    features: NamedArray
    label_array: NamedArray
    cache: Path

    def __post_init__(self) -> None:
        self.width = self.features.shape[1]
        self.raw = self.label_array.labels()
        if len(self.raw) != self.features.shape[0]:
            arrays = f"{self.features} and {self.label_array}"
            raise UsageError(f"{self.name}: {arrays} differ in length: expected one label for each item")

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        files = sorted({*self.features.files, *self.label_array.files})
        return combine("arrays", self.features.name, self.label_array.name, file_digests(files, self.cache))

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        where = f"{self.features.files[0].name}: {self.features.name!r}"
        return read_features(rows, self.width, self.features.read, where, progress)


@dataclass
class ArraySource(SplitSource):
    """Precomputed features in one file (or folder of .npy files), or one for each side (``dataset=features``).

    Arrays are found by shape, type and name: features are two-dimensional, labels have one value an item (or
    are a matrix of zeros and ones); names with train, gallery, base or database belong to the gallery, names
    with test, query or val to the queries; without either, part of every class is held out as queries.
    ``gallery_split`` and ``query_split`` are words in names.

    Args:
        path: a file or folder that holds everything, or None.
        gallery: a file or folder of the gallery, in place of ``path``.
        query: a file or folder of the queries, in place of ``path``.
        gallery_labels: a file of the gallery's labels, where they lie apart.
        query_labels: a file of the queries' labels, where they lie apart.
        features_column: the features' name in a file, or ``auto``.
        label_column: the labels' name in a file, or ``auto``.
    """

    path: str | None = None
    gallery: str | None = None
    query: str | None = None
    gallery_labels: str | None = None
    query_labels: str | None = None
    features_column: str = "auto"
    label_column: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.path is None) == (self.gallery is None):
            raise wrong_value(
                "dataset.path", self.path, "a file or folder of features; or files as dataset.gallery and dataset.query"
            )
        for key, other in (("query", "gallery"), ("gallery_labels", "gallery"), ("query_labels", "query")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise wrong_value(f"dataset.{key}", getattr(self, key), f"null, or dataset.{other} beside it")
        given = {key: getattr(self, key) for key in ("path", "gallery", "query", "gallery_labels", "query_labels")}
        self._paths = {key: existing_path(f"dataset.{key}", path) for key, path in given.items() if path is not None}
        check_name("dataset.features_column", self.features_column)
        check_name("dataset.label_column", self.label_column)
        self.name = (self._paths.get("path") or self._paths["gallery"]).stem

    def open(self, cache: Path, progress: Progress) -> Dataset:
        if "path" in self._paths:
            arrays = open_arrays(self._paths["path"], "dataset.path")
            parts = {side: [a for a in arrays if self._side(a.name) == side] for side in ("gallery", "query", "")}
            if parts["gallery"] and parts["query"]:
                splits = [self._split(side, parts[side], "dataset.path", cache, arrays) for side in SIDES]
            else:
                named = self.features_column != "auto" and self.label_column != "auto"
                whole = arrays if named else parts[""] or parts["gallery"] or arrays
                splits = [self._split(self.name, whole, "dataset.path", cache)]
        else:
            sides = [side for side in SIDES if side in self._paths]
            splits = [self._split(side, self._with_labels(side), f"dataset.{side}", cache) for side in sides]
        for split in splits:
            log.info("%s: %s: features %s, labels %s", self.name, split.name, split.features, split.label_array)
        return self.dataset(*splits)

    def _side(self, name: str) -> str:
        """Return which part an array belongs to by its name: ``gallery``, ``query``, or neither."""
        words = {*_words(name), name.lower()}
        splits = (("gallery", self.gallery_split, GALLERY_WORDS), ("query", self.query_split, QUERY_WORDS))
        for side, given, usual in splits:
            if words & (usual if given == "auto" else {given.lower()}):
                return side
        return ""

    def _with_labels(self, side: str) -> list[NamedArray]:
        """Return the arrays of a side's file, with those of its labels where they lie apart."""
        arrays, key = open_arrays(self._paths[side], f"dataset.{side}"), f"{side}_labels"
        if key not in self._paths:
            return arrays
        found = open_arrays(self._paths[key], f"dataset.{key}")
        labels = found[0]
        if len(found) > 1:
            labels = self._find_labels(found, labels.shape[0], f"dataset.{key}", found)
        # Apart from the features' file, the labels need no telling name.
        return [*(array for array in arrays if len(array.shape) == 2), replace(labels, name="labels")]

    def _split(
        self, name: str, arrays: Sequence[NamedArray], key: str, cache: Path, there: Sequence[NamedArray] | None = None
    ) -> ArraySplit:
        """Return the split that some of the arrays make up; ``there`` are all, for messages."""
        features = self._find_features(arrays, key)
        others = [array for array in arrays if array is not features]
        return ArraySplit(name, features, self._find_labels(others, features.shape[0], key, there or arrays), cache)

    def _find_features(self, arrays: Sequence[NamedArray], key: str) -> NamedArray:
        if self.features_column != "auto":
            return _by_name(arrays, self.features_column, "dataset.features_column", two_dimensional=True)

        def fits(array: NamedArray) -> bool:
            numbers = len(array.shape) == 2 and array.kind in "fiu" and array.shape[1] > 1
            return numbers and not (NOT_FEATURES | LABEL_WORDS) & set(_words(array.name))

        def order(array: NamedArray) -> tuple[bool, bool, int]:
            return array.kind != "f", not set(FEATURE_NAMES) & set(_words(array.name)), -array.shape[1]

        # Floats before integers, usual names before others, then the widest.
        if found := min(filter(fits, arrays), key=order, default=None):
            return found
        raise UsageError(f"{key}: no two-dimensional array of numbers to take as features; there are: {_list(arrays)}")

    def _find_labels(
        self, arrays: Sequence[NamedArray], count: int, key: str, there: Sequence[NamedArray]
    ) -> NamedArray:
        if self.label_column != "auto":
            return _by_name(arrays, self.label_column, "dataset.label_column", two_dimensional=False)
        columns = [array.column for array in arrays if array.column is not None]
        if columns:
            chosen = find_column(columns, "auto", "dataset.label_column", (), "labels")
            found = [array for array in arrays if chosen is not None and array.column is chosen]
        else:
            fitting = [array for array in arrays if _can_be_labels(array, count)]
            telling = [array for array in fitting if LABEL_WORDS & set(_words(array.name))]
            found = telling or (fitting if len(fitting) == 1 else [])
        if not found:
            hint = ""
            if any(NOT_FEATURES & set(_words(array.name)) for array in there):
                hint = (
                    "; files of ann-benchmarks have neighbours but no labels, by which retrieval is judged "
                    "here: add train_labels and test_labels to this one"
                )
            raise UsageError(
                f"{key}: no array of {count} labels (whole numbers or strings, one an item); "
                f"dataset.label_column names one; there are: {_list(there)}{hint}"
            )
        # fine_labels before labels, as for columns.
        return min(found, key=lambda array: _label_place(array.name))


def _can_be_labels(array: NamedArray, count: int) -> bool:
    if array.shape[:1] != (count,):
        return False
    words = set(_words(array.name))
    if len(array.shape) == 1 or (len(array.shape) == 2 and array.shape[1] == 1):
        telling = bool(LABEL_WORDS & words)
        return telling or (array.kind in "iubUS" and not words & {"id", "ids", "index", "indices", "idx"})
    # A matrix of zeros and ones, of truth values or under a telling name.
    return len(array.shape) == 2 and not NOT_FEATURES & words and (array.kind == "b" or bool(LABEL_WORDS & words))


def _label_place(name: str) -> int:
    joined = "_".join(_words(name))
    return next((i for i, usual in enumerate(LABEL_NAMES) if usual in joined), len(LABEL_NAMES))


def _by_name(arrays: Sequence[NamedArray], name: str, key: str, *, two_dimensional: bool) -> NamedArray:
    """Return the array of a name, or the one whose name holds it as words (``x`` for ``train_x``)."""
    wanted = "_".join(_words(name))
    exact = [array for array in arrays if array.name == name]
    loose = [array for array in arrays if f"_{wanted}_" in f"_{'_'.join(_words(array.name))}_"]
    found = exact or loose
    if len(found) != 1:
        what = "there is no such array" if not found else "several names hold it"
        raise UsageError(f"{key}={name!r}: {what}; there are: {_list(arrays)}")
    if two_dimensional and len(found[0].shape) != 2:
        raise UsageError(f"{key}={name!r}: features are two-dimensional; there are: {_list(arrays)}")
    return found[0]


def _words(name: str) -> list[str]:
    """Return the words of a name: ``X_train``, ``xTrain`` and ``train/x`` all have ``x`` and ``train``."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word] or [name.lower()]


def _list(arrays: Sequence[NamedArray]) -> str:
    return ", ".join(map(str, arrays)) or "none"
