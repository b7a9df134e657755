"""Precomputed features in files: NumPy, Parquet, HDF5 (ann-benchmarks' layout too), MATLAB, PyTorch, fvecs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lshbench.data.array_files import open_arrays
from lshbench.data.array_roles import (
    LABEL_WORDS,
    by_name,
    can_be_features,
    can_be_labels,
    first_of,
    has_features,
    hint,
    holding,
    in_words,
    label_place,
    words_of,
)
from lshbench.data.base import Dataset
from lshbench.data.checks import RawLabels, read_features
from lshbench.data.columns import FEATURE_NAMES, find_column
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.given_neighbors import find_given_neighbors
from lshbench.data.held_out import RawSplit, SplitSource
from lshbench.data.named_array import NamedArray
from lshbench.data.split_names import (
    DATABASE,
    GALLERY_KINDS,
    QUERY,
    TEST,
    TRAINING,
    VALIDATION,
    find_splits,
    split_kind,
)  # fmt: skip
from lshbench.data.values import check_name, existing_path
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress, unlabelled

log = logging.getLogger(__name__)

SIDES = ("gallery", "query", "train")
LEARNING = "learn"
"""The set that codes are learnt from in TEXMEX' files, beside base and queries."""
SHORT_WORDS = {
    "tr": TRAINING,
    "trn": TRAINING,
    "learn": LEARNING,
    "db": DATABASE,
    "retrieval": DATABASE,
    "te": TEST,
    "tst": TEST,
}
"""Further words for splits in the names of arrays."""
CANONICAL = {
    LEARNING: "learn",
    TRAINING: "train",
    DATABASE: "database",
    TEST: "test",
    QUERY: "query",
    VALIDATION: "val",
}
NAMELESS = "(no split)"
BESIDE = {
    "query": "gallery", "gallery_labels": "gallery", "query_labels": "query", "train": "query",
    "train_labels": "train", "neighbors": "query",
}  # fmt: skip
"""Keys of files, and the file that each stands beside."""
METRICS = ("auto", "cosine", "euclidean", "inner_product")


@dataclass(eq=False)
class ArraySplit(RawSplit):
    """Features ``(n, d)`` in one array and their labels in another, if there are any."""

    kind = "features"
    name: str
    features: NamedArray
    label_array: NamedArray | None
    cache: Path

    def __post_init__(self) -> None:
        self.width = self.features.shape[1]
        if self.label_array is None:
            self.raw = RawLabels(unlabelled(self.features.shape[0]), f"{self.features}")
            return
        self.raw = self.label_array.labels()
        if len(self.raw) != self.features.shape[0]:
            arrays = f"{self.features} and {self.label_array}"
            raise UsageError(f"{self.name}: {arrays} differ in length: expected one label for each item")

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        labels = ("", ()) if self.label_array is None else (self.label_array.name, self.label_array.files)
        files = sorted({*self.features.files, *labels[1]})
        return combine("arrays", self.features.name, labels[0], file_digests(files, self.cache))

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        where = f"{self.features.files[0].name}: {self.features.name!r}"
        read = self.features.read if self.features.kind != "b" else self._read_signs
        return read_features(rows, self.width, read, where, progress)

    def _read_signs(self, rows: np.ndarray) -> np.ndarray:
        """Return truth values as 1 and -1, of which the cosine is a function of the Hamming distance."""
        return np.where(self.features.read(rows), np.float32(1), np.float32(-1))


@dataclass
class ArraySource(SplitSource):
    """Precomputed features in one file (or folder of .npy files), or one for each side (``dataset=features``).

    Arrays are found by shape, type and name: features are two-dimensional, labels have one value an item (or
    are a matrix of zeros and ones); names with train, gallery, base or database belong to the gallery, names
    with test, query or val to the queries, test before val; without either, part of every class is held out as
    queries.  Arrays of one split are paired with each other only, and those that are not used are named in the log.
    ``gallery_split``, ``query_split`` and ``train_split`` are words in names.  Where labels are not needed, arrays
    without any are taken, and true neighbours that come with them.

    Args:
        path: a file or folder that holds everything, or None.
        gallery: a file or folder of the gallery, in place of ``path``.
        query: a file or folder of the queries, in place of ``path``.
        train: a file or folder of the training set, beside ``query``, or None.
        gallery_labels: a file of the gallery's labels, where they lie apart.
        query_labels: a file of the queries' labels, where they lie apart.
        train_labels: a file of the training set's labels, where they lie apart.
        neighbors: a file of the queries' true neighbours in the gallery, where they lie apart.
        metric: what neighbours in files are nearest by: ``cosine``, ``euclidean``, ``inner_product``, or ``auto``.
        features_column: the features' name in a file, or ``auto``.
        label_column: the labels' name in a file, or ``auto``.
    """

    path: str | None = None
    gallery: str | None = None
    query: str | None = None
    train: str | None = None
    gallery_labels: str | None = None
    query_labels: str | None = None
    train_labels: str | None = None
    neighbors: str | None = None
    metric: str = "auto"
    features_column: str = "auto"
    label_column: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.path is None) == (self.gallery is None):
            raise wrong_value(
                "dataset.path", self.path, "a file or folder of features; or files as dataset.gallery and dataset.query"
            )
        for key, other in BESIDE.items():
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise wrong_value(f"dataset.{key}", getattr(self, key), f"null, or dataset.{other} beside it")
        if self.metric not in METRICS:
            raise wrong_value("dataset.metric", self.metric, " or ".join(METRICS))
        given = {key: getattr(self, key) for key in ("path", "gallery", *BESIDE)}
        self._paths = {key: existing_path(f"dataset.{key}", path) for key, path in given.items() if path is not None}
        check_name("dataset.features_column", self.features_column)
        check_name("dataset.label_column", self.label_column)
        self.name = (self._paths.get("path") or self._paths["gallery"]).stem

    def open(self, cache: Path, progress: Progress) -> Dataset:
        splits: dict[str, ArraySplit] = {}
        there: list[NamedArray] = []
        if "path" in self._paths:
            there = open_arrays(self._paths["path"], "dataset.path")
            parts = self._choose_all(there, "dataset.path")
            names = SIDES if len(parts) > 1 else (self.name,)
            for name, part in zip(names, parts, strict=False):
                splits[name] = self._split(name, part, "dataset.path", cache, there)
        else:
            for side in (side for side in SIDES if side in self._paths):
                key = f"dataset.{side}"
                arrays, labels = self._open_side(side)
                part = self._choose_side(arrays, side, labels)
                splits[side] = self._split(side, part + labels, key, cache, arrays + labels)
                there += arrays + labels
        self._agree_on_labels(list(splits.values()))
        used = [array for split in splits.values() for array in (split.features, split.label_array)]
        for split in splits.values():
            labels_of = "no labels" if split.label_array is None else f"labels {split.label_array}"
            log.info("%s: %s: features %s, %s", self.name, split.name, split.features, labels_of)
            if split.features.kind == "b":
                log.info("%s: truth values are taken as 1 and -1: cosine ranks them by Hamming distance", self.name)
        dataset = self.dataset(*splits.values())
        if self.labels_needed and "neighbors" in self._paths:
            log.warning("%s: dataset.neighbors is not used: labels say what is relevant", self.name)
        if not self.labels_needed and len(splits) > 1:
            apart = "neighbors" in self._paths
            listed = open_arrays(self._paths["neighbors"], "dataset.neighbors") if apart else there
            found = find_given_neighbors(listed, splits["gallery"].features, splits["query"].features, self.metric)
            if found is None and apart:
                raise wrong_value(
                    "dataset.neighbors", self.neighbors,
                    f"whole numbers, a row for each of {len(splits['query'])} queries; there are: {in_words(listed)}",
                )  # fmt: skip
            if found is not None:
                dataset = replace(dataset, given_neighbors=found[0])
                used += found[1]
        self._log_unused([array for array in there if not any(array is one for one in used)])
        return dataset

    def _agree_on_labels(self, splits: list[ArraySplit]) -> None:
        """Leave out labels, where none are needed, that a part of the splits has alone."""
        if len({split.label_array is None for split in splits}) == 1:
            return
        for split in splits:
            if split.label_array is not None:
                log.warning("%s: labels %s are not used: other items have none", self.name, split.label_array)
                split.label_array = None
                split.raw = RawLabels(unlabelled(split.features.shape[0]), f"{split.features}")

    def _choose_all(self, arrays: list[NamedArray], key: str) -> list[list[NamedArray]]:
        """Return the arrays of gallery, queries and a training set apart from these, or of what there is.

        Raises:
            UsageError: arrays that could be read in several ways: the keys that say which.
        """
        groups = self._groups(arrays)
        word = self.train_split
        self.without_train(groups)
        if word is None and "learn" in groups and len(groups) > 2 and self._is_complete(groups["learn"]):
            word = "learn"  # TEXMEX' files: base, queries, and what codes are learnt from
        if word is None:
            return self._choose(arrays, key)
        apart = groups[word]
        rest = [array for array in arrays if not any(array is one for one in apart)]
        parts = self._choose(rest, key)
        self.require_queries(len(parts) == 2)
        return [*parts, apart] if len(parts) == 2 else parts

    def _log_unused(self, unused: Sequence[NamedArray]) -> None:
        """Name the arrays that are there and not used, and what would take them."""
        if not unused:
            return
        log.warning(
            "%s: not used: %s (dataset.gallery_split and dataset.query_split choose by words in names, "
            "dataset.features_column and dataset.label_column single arrays)",
            self.name, in_words(unused),
        )  # fmt: skip

    def _choose(self, arrays: list[NamedArray], key: str) -> list[list[NamedArray]]:
        """Return the arrays of gallery and queries, or of the one part that there is.

        Raises:
            UsageError: arrays that could be read in several ways: the keys that say which.
        """
        named = self.features_column != "auto" and self.label_column != "auto"
        if named and self.gallery_split == self.query_split == "auto":
            exact = {array.name for array in arrays}
            if self.features_column in exact and self.label_column in exact:
                return [arrays]
        groups = self._groups(arrays)
        complete = {word: part for word, part in groups.items() if self._is_complete(part)}
        if not complete and (turned := self._turned(arrays, key)) is not None:
            return turned
        if not complete:
            self._check_named(arrays)
            if len([word for word in groups if word]) <= 1:
                return [arrays]
            raise self._incomplete(groups, key, arrays)
        if len(complete) == 1 and {self.gallery_split, self.query_split} <= {"auto", None}:
            # Beside a complete split that is named, half of another is a mistake; beside nameless items, features are.
            named = "" not in complete
            halves = [
                word for word, part in groups.items() if word and word not in complete and (named or has_features(part))
            ]
            if halves and self.query_split == "auto":
                raise self._incomplete({word: groups[word] for word in halves}, key, arrays)
            return [next(iter(complete.values()))]
        if "" in complete and any(split_kind(word) in GALLERY_KINDS for word in complete):
            whole = [array for array in complete[""] if array.kind in "fiub" and len(array.shape) == 2]
            raise UsageError(
                f"{key}: {in_words(whole)} could be all items, gallery or queries, beside those named after splits; "
                "dataset.features_column and dataset.label_column name arrays, or dataset.gallery=FILE and "
                f"dataset.query=FILE each side's file; there are: {in_words(arrays)}"
            )
        gallery, queries = find_splits((word or NAMELESS for word in complete), self.gallery_split, self.query_split)
        chosen = [gallery, *queries[:1]]
        return [complete["" if word == NAMELESS else word] for word in chosen]

    def _check_named(self, arrays: Sequence[NamedArray]) -> None:
        """Refuse a name of features or labels that no array has, or that one of another shape has."""
        if self.features_column != "auto":
            found = holding(arrays, self.features_column)
            if not any(len(array.shape) == 2 for array in found):
                by_name(arrays, self.features_column, "dataset.features_column", two_dimensional=True)
        if self.label_column != "auto" and not holding(arrays, self.label_column):
            by_name(arrays, self.label_column, "dataset.label_column", two_dimensional=False)

    def _turned(self, arrays: list[NamedArray], key: str) -> list[list[NamedArray]] | None:
        """Return the choice where items are columns, if the numbers of labels leave no doubt of it; else None."""
        other = [array.transposed() if len(array.shape) == 2 and array.kind in "fiub" else array for array in arrays]
        if not any(map(self._is_complete, self._groups(other).values())):
            return None
        log.warning("%s: %s: items are in columns, by the number of labels", self.name, in_words(arrays))
        arrays[:] = other
        return self._choose(arrays, key)

    def _choose_side(self, arrays: list[NamedArray], side: str, labels: list[NamedArray]) -> list[NamedArray]:
        """Return the arrays of a side's file that belong together: all, or those of one split that are named so."""
        groups = {word: part for word, part in self._groups(arrays).items() if self._is_complete(part + labels)}
        if len(groups) < 2:
            return next(iter(groups.values()), arrays)
        if "" in groups:
            return groups[""]
        if side == "gallery":
            return groups[find_splits(groups, self.gallery_split or "auto", None)[0]]
        return groups[find_splits(["", *groups], "", self.query_split or "auto")[1][0]]

    def _groups(self, arrays: Sequence[NamedArray]) -> dict[str, list[NamedArray]]:
        """Return the arrays by the split that their names tell; ``""`` for those that tell none.

        Raises:
            UsageError: a name that tells several.
        """
        asked = (self.gallery_split, self.query_split, self.train_split)
        given = {word.lower() for word in asked if word not in (None, "auto")}
        words = {array.name: self._split_words(array.name, given) for array in arrays}
        groups: dict[str, list[NamedArray]] = {}
        for array in arrays:
            found = words[array.name]
            if len(found) > 1:
                raise UsageError(
                    f"{array.name!r} tells several splits ({', '.join(sorted(found))}); dataset.gallery_split and "
                    f"dataset.query_split say which; there are: {in_words(arrays)}"
                )
            groups.setdefault(next(iter(found), ""), []).append(array)
        return groups

    def _split_words(self, name: str, given: set[str]) -> set[str]:
        """Return the splits that a name tells: those that were asked for, else usual ones, spelt in one way."""
        words = {*words_of(name), name.lower()}
        if asked := words & given:
            return asked
        kinds = {word: kind for word in words if (kind := SHORT_WORDS.get(word) or split_kind(word)) is not None}
        if len(kinds) > 1:
            kinds.pop("base", None)  # also a word of many models' names
        return {CANONICAL[kind] for kind in kinds.values()}

    def _is_complete(self, part: Sequence[NamedArray]) -> bool:
        """Whether some arrays have features among them, and labels of as many items where they are needed."""
        if self.features_column != "auto":
            features = [array for array in holding(part, self.features_column) if len(array.shape) == 2]
        else:
            features = [array for array in part if can_be_features(array)]
        if not self.labels_needed:
            return bool(features)
        others = part if self.label_column == "auto" else holding(part, self.label_column)
        return any(can_be_labels(label, array.shape[0]) for array in features for label in others if label is not array)

    def _incomplete(self, groups: dict[str, list[NamedArray]], key: str, arrays: Sequence[NamedArray]) -> UsageError:
        halves = " and ".join(repr(word) for word in groups if word)
        return UsageError(
            f"{key}: of {halves} there are not both features (two-dimensional numbers) and labels for each item; "
            "expected names such as X_test and y_test; dataset.query_split=null leaves them out; dataset.gallery=FILE, "
            "dataset.gallery_labels=FILE, dataset.query=FILE and dataset.query_labels=FILE take files apart; "
            f"there are: {in_words(arrays)}{hint(arrays)}"
        )

    def _open_side(self, side: str) -> tuple[list[NamedArray], list[NamedArray]]:
        """Return the arrays of a side's file, and the array of its labels where they lie apart."""
        arrays, key = open_arrays(self._paths[side], f"dataset.{side}"), f"{side}_labels"
        if key not in self._paths:
            return arrays, []
        found = open_arrays(self._paths[key], f"dataset.{key}")
        labels = found[0]
        if len(found) > 1:
            labels = self._find_labels(found, labels.shape[0], f"dataset.{key}", found)
        # Apart from the features' file, the labels need no telling name.
        return [array for array in arrays if len(array.shape) == 2], [replace(labels, name="labels")]

    def _split(
        self, name: str, arrays: Sequence[NamedArray], key: str, cache: Path, there: Sequence[NamedArray] | None = None
    ) -> ArraySplit:
        """Return the split that some of the arrays make up; ``there`` are all, for messages."""
        features = self._find_features(arrays, key)
        others = [array for array in arrays if array is not features]
        labels = self._labels_or_none(others, features.shape[0], key, there or arrays)
        return ArraySplit(name, features, labels, cache)

    def _labels_or_none(
        self, arrays: Sequence[NamedArray], count: int, key: str, there: Sequence[NamedArray]
    ) -> NamedArray | None:
        if self.labels_needed or self.label_column != "auto":
            return self._find_labels(arrays, count, key, there)
        try:
            found = self._find_labels(arrays, count, key, there)
        except UsageError:
            return None
        # Without labels, whole numbers of any name could be taken for them.
        named = LABEL_WORDS & {*words_of(found.name)} or (found.column is not None and found.column.kind == "class")
        return found if named else None

    def _find_features(self, arrays: Sequence[NamedArray], key: str) -> NamedArray:
        if self.features_column != "auto":
            return by_name(arrays, self.features_column, "dataset.features_column", two_dimensional=True)

        def order(array: NamedArray) -> tuple[int, int]:
            places = [FEATURE_NAMES.index(word) for word in words_of(array.name) if word in FEATURE_NAMES]
            return "fiub".index(array.kind), min(places, default=len(FEATURE_NAMES))

        # Floats before integers before truth values, usual names before others, in their order.
        if found := sorted(filter(can_be_features, arrays), key=order):
            return first_of(found, order, "dataset.features_column", "features", arrays)
        raise UsageError(
            f"{key}: no two-dimensional array of numbers to take as features; there are: {in_words(arrays)}"
        )

    def _find_labels(
        self, arrays: Sequence[NamedArray], count: int, key: str, there: Sequence[NamedArray]
    ) -> NamedArray:
        if self.label_column != "auto":
            return by_name(arrays, self.label_column, "dataset.label_column", two_dimensional=False)
        columns = [array.column for array in arrays if array.column is not None]
        if columns:
            chosen = find_column(columns, "auto", "dataset.label_column", (), "labels")
            found = [array for array in arrays if chosen is not None and array.column is chosen]
        else:
            fitting = [array for array in arrays if can_be_labels(array, count)]
            telling = [array for array in fitting if LABEL_WORDS & set(words_of(array.name))]
            found = telling or (fitting if len(fitting) == 1 else [])
        if not found:
            raise UsageError(
                f"{key}: no array of {count} labels (whole numbers or strings, one an item); "
                f"dataset.label_column names one; there are: {in_words(there)}{hint(there)}"
            )
        # fine_labels before labels, as for columns.
        return first_of(sorted(found, key=label_place), label_place, "dataset.label_column", "labels", there)
