"""Ready features in files: .npz, .npy, Parquet, HDF5 (the layout of ann-benchmarks too)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.array_files import NamedArray, open_arrays
from lshbench.data.base import Dataset, Source
from lshbench.data.checks import check_fraction, check_limit, check_name, check_number, check_path, read_features
from lshbench.data.columns import FEATURE_NAMES, GALLERY_SPLITS, LABEL_NAMES, QUERY_SPLITS, find_column
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.held_out import RawSplit, hold_out, matched
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress

log = logging.getLogger(__name__)

GALLERY_WORDS = {*GALLERY_SPLITS, "db", "tr", "retrieval"}
QUERY_WORDS = {*QUERY_SPLITS, "te"}
LABEL_WORDS = {*LABEL_NAMES, "lbl", "targets", "cat"}
NOT_FEATURES = {"neighbors", "neighbours", "distances", "indices", "ids", "logits", "avgdist"}
"""Two-dimensional arrays of ann-benchmarks' files, and others, that describe items but are no features."""


class ArraySplit(RawSplit):
    """Features and labels in two arrays.

    Args:
        name: the split's name.
        features: the features, ``(n, d)``.
        labels: the labels.
        cache: the cache folder.
    """

    kind = "features"

    def __init__(self, name: str, features: NamedArray, labels: NamedArray, cache: Path) -> None:
        self.name = name
        self.cache = cache
        self.features = features
        self.label_array = labels
        self.width = features.shape[1]
        self.raw = labels.labels()
        count = len(self.raw.values) if self.raw.offsets is None else len(self.raw.offsets) - 1
        if count != features.shape[0]:
            raise UsageError(f"{name}: {features} and {labels} differ in length: expected one label for each item")

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        files = sorted({*self.features.files, *self.label_array.files})
        return combine("arrays", self.features.name, self.label_array.name, file_digests(files, self.cache))

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        where = f"{self.features.files[0].name}: {self.features.name!r}"
        return read_features(rows, self.width, self.features.read, where, progress)


class ArraySource(Source):
    """Features in one file (or folder of .npy files), or in one for each side (``dataset=features``).

    Arrays are found by shape, type and name: features are two-dimensional, labels have one value an item (or
    are a matrix of zeros and ones); names with train, gallery, base or database belong to the gallery, names
    with test, query or val to the queries; without either, part of every class is held out as queries.

    Args:
        path: a file or folder that holds everything, or None.
        gallery: a file or folder of the gallery, in place of ``path``.
        query: a file or folder of the queries, in place of ``path``.
        gallery_labels: a file of the gallery's labels, where they lie apart.
        query_labels: a file of the queries' labels, where they lie apart.
        features_column: the features' name in a file, or ``auto``.
        label_column: the labels' name in a file, or ``auto``.
        gallery_split: the word in names that marks the gallery, or ``auto``.
        query_split: the word in names that marks the queries, or ``auto``.
        query_fraction: the share of every class held out where no queries are given.
        split_seed: decides which items are held out.
        max_gallery: at most this many gallery items, or None.
        max_queries: at most this many queries, or None.
    """

    def __init__(
        self,
        path: str | None = None,
        gallery: str | None = None,
        query: str | None = None,
        gallery_labels: str | None = None,
        query_labels: str | None = None,
        features_column: str = "auto",
        label_column: str = "auto",
        gallery_split: str = "auto",
        query_split: str = "auto",
        query_fraction: float = 0.2,
        split_seed: int = 0,
        max_gallery: int | None = None,
        max_queries: int | None = None,
    ) -> None:
        if (path is None) == (gallery is None):
            raise wrong_value(
                "dataset.path", path, "a file or folder of features; or files as dataset.gallery and dataset.query"
            )
        for name, value, needs in (
            ("query", query, gallery),
            ("gallery_labels", gallery_labels, gallery),
            ("query_labels", query_labels, query),
        ):
            if value is not None and needs is None:
                other = "query" if name == "query_labels" else "gallery"
                raise wrong_value(f"dataset.{name}", value, f"null, or dataset.{other} beside it")

        def existing(key: str, value: str | None) -> Path | None:
            return None if value is None else check_path(f"dataset.{key}", value)

        self.path = existing("path", path)
        self.gallery = existing("gallery", gallery)
        self.query = existing("query", query)
        self.gallery_labels = existing("gallery_labels", gallery_labels)
        self.query_labels = existing("query_labels", query_labels)
        self.features_column = check_name("dataset.features_column", features_column)
        self.label_column = check_name("dataset.label_column", label_column)
        self.gallery_split = check_name("dataset.gallery_split", gallery_split)
        self.query_split = check_name("dataset.query_split", query_split)
        self.query_fraction = check_fraction("dataset.query_fraction", query_fraction)
        self.split_seed = check_number("dataset.split_seed", split_seed, 0)
        self.max_gallery = check_limit("dataset.max_gallery", max_gallery)
        self.max_queries = check_limit("dataset.max_queries", max_queries)
        self.name = (self.path or self.gallery).stem  # type: ignore[union-attr]

    def open(self, cache: Path, progress: Progress) -> Dataset:
        if self.path is not None:
            arrays = open_arrays(self.path, "dataset.path")
            parts = {side: [a for a in arrays if self._side(a.name) == side] for side in ("gallery", "query", "")}
            if parts["gallery"] and parts["query"]:
                gallery = self._split("gallery", parts["gallery"], "dataset.path", cache, arrays)
                query = self._split("query", parts["query"], "dataset.path", cache, arrays)
            else:
                whole = arrays if self._named() else parts[""] or parts["gallery"] or arrays
                return self._held_out(self._split(self.path.stem, whole, "dataset.path", cache))
        else:
            assert self.gallery is not None
            gallery_arrays = self._with_labels(self.gallery, self.gallery_labels, "gallery")
            gallery = self._split("gallery", gallery_arrays, "dataset.gallery", cache)
            if self.query is None:
                return self._held_out(gallery)
            query_arrays = self._with_labels(self.query, self.query_labels, "query")
            query = self._split("query", query_arrays, "dataset.query", cache)
        self._say(gallery, query)
        return matched(self.name, gallery, query)

    def _held_out(self, whole: ArraySplit) -> Dataset:
        self._say(whole)
        matched(self.name, whole, whole)
        return hold_out(self.name, whole, self.query_fraction, self.split_seed)

    def _named(self) -> bool:
        return self.features_column != "auto" and self.label_column != "auto"

    def _say(self, *splits: ArraySplit) -> None:
        for split in splits:
            log.info("%s: %s: features %s, labels %s", self.name, split.name, split.features, split.label_array)

    def _side(self, name: str) -> str:
        """Return which part an array belongs to by its name: ``gallery``, ``query``, or neither."""
        words = _words(name)
        for side, given, usual in (
            ("gallery", self.gallery_split, GALLERY_WORDS),
            ("query", self.query_split, QUERY_WORDS),
        ):
            if (given != "auto" and given.lower() in (*words, name.lower())) or (
                given == "auto" and usual & set(words)
            ):
                return side
        return ""

    def _with_labels(self, path: Path, labels: Path | None, side: str) -> list[NamedArray]:
        arrays = open_arrays(path, f"dataset.{side}")
        if labels is None:
            return arrays
        found = open_arrays(labels, f"dataset.{side}_labels")
        features = [array for array in arrays if len(array.shape) == 2]
        if len(found) > 1:
            picked = self._find_labels(found, found[0].shape[0], f"dataset.{side}_labels", found)
        else:
            picked = found[0]
        # Apart from the features' file, the labels need no telling name.
        return [*features, NamedArray("labels", *_rest(picked))]

    def _split(
        self, name: str, arrays: Sequence[NamedArray], key: str, cache: Path, there: Sequence[NamedArray] | None = None
    ) -> ArraySplit:
        """Return the split that some of the arrays make up; ``there`` are all, for messages."""
        features = self._find_features(arrays, key)
        others = [array for array in arrays if array is not features]
        return ArraySplit(name, features, self._find_labels(others, features.shape[0], key, there or arrays), cache)

    def _find_features(self, arrays: Sequence[NamedArray], key: str) -> NamedArray:
        there = _list(arrays)
        if self.features_column != "auto":
            return _by_name(arrays, self.features_column, "dataset.features_column", two_dimensional=True)
        found = [
            array
            for array in arrays
            if len(array.shape) == 2 and array.kind in "fiu" and array.shape[1] > 1
            and not NOT_FEATURES & set(_words(array.name)) and not LABEL_WORDS & set(_words(array.name))
        ]  # fmt: skip
        if not found:
            raise UsageError(f"{key}: no two-dimensional array of numbers to take as features; there are: {there}")
        # Floats before integers, usual names before others, then the widest.
        found.sort(
            key=lambda array: (array.kind != "f", not set(FEATURE_NAMES) & set(_words(array.name)), -array.shape[1])
        )
        return found[0]

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
            found = [array for array in fitting if LABEL_WORDS & set(_words(array.name))] or (
                fitting if len(fitting) == 1 else []
            )
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
    if array.shape[0] != count:
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


def _rest(array: NamedArray) -> tuple[Any, ...]:
    return array.shape, array.kind, array.read, array.labels, array.files, array.column


def _list(arrays: Sequence[NamedArray]) -> str:
    return ", ".join(map(str, arrays)) or "none"
