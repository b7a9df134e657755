"""Queries that a report shows with their hits, and quality by class: from files of each configuration's first run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lshbench.report.repeats import numbers_of
from lshbench.report.report import Configuration
from lshbench.run_folder.contents import CLASS_NAMES, GALLERY_LABELS, PER_QUERY, THUMBNAILS
from lshbench.run_folder.items import class_names
from lshbench.run_folder.reader import damage
from lshbench.run_folder.thumbnails import read_thumbnails

EXTREMES = 3
"""Best and worst queries of a configuration that are shown."""

DIFFERING = 4
"""Queries in which the best configuration and another differ most, either way."""

CLASSES = 60
"""Classes shown at most, those in which configurations differ most."""


@dataclass(frozen=True)
class Shown:
    """A query with its first hits.

    Attributes:
        query: its number.
        label: its class, or classes.
        picture: key of its picture; None without one.
        value: the measure.
        hits: label, distance, whether it is right (None if not known) and key of the picture of each, nearest first.
    """

    query: int
    label: str
    picture: str | None
    value: float
    hits: list[tuple[str, float, bool | None, str | None]]


@dataclass(frozen=True)
class ClassQuality:
    """Means of a measure by class.

    Attributes:
        names: of the classes.
        values: of each configuration, by its identity.
        left_out: how many classes are not shown.
    """

    names: list[str]
    values: dict[str, list[float]]
    left_out: int


def shown_queries(
    members: Sequence[Configuration], measure: str, pictures: dict[str, str], budget: int
) -> dict[str, list[Shown]]:
    """Return queries of each configuration: with pictures, best and worst, and where it differs most from the best.

    Args:
        members: configurations of one group, best first.
        measure: a column of ``per_query.parquet``.
        pictures: addresses by key, to which those of the shown items are added.
        budget: how many characters of addresses each configuration may add; a query has all its pictures or none.
    """
    usable = [one for one in members if one.runs[0].has(PER_QUERY)]
    wanted = {one.identity: _extremes(one.repeats[measure][0].values) for one in usable}
    for other in usable[1:]:
        first, second = usable[0].repeats[measure][0], other.repeats[measure][0]
        if first.queries is second.queries or np.array_equal(first.queries, second.queries):
            order = np.argsort(first.values - second.values, kind="stable")
            rows = [*order[:DIFFERING].tolist(), *order[-DIFFERING:].tolist()]
            wanted[usable[0].identity] += rows
            wanted[other.identity] += rows
    return {one.identity: _shown(one, measure, wanted[one.identity], pictures, budget) for one in usable}


def _extremes(values: np.ndarray) -> list[int]:
    order = np.argsort(values, kind="stable")
    return [*order[:EXTREMES].tolist(), *order[-EXTREMES:].tolist()]


def _shown(one: Configuration, measure: str, rows: Sequence[int], pictures: dict[str, str], budget: int) -> list[Shown]:
    run, repeat = one.runs[0], one.repeats[measure][0]
    columns = run.per_query_columns()
    if "first_hits" not in columns:
        return []
    judged = ["first_relevant"] if "first_relevant" in columns else []
    table = run.per_query(["query", "first_hits", "first_distances", *judged])
    place = {query: row for row, query in enumerate(table["query"].to_pylist())}
    names = class_names(run) if run.has(CLASS_NAMES) else None
    gallery = run.array(GALLERY_LABELS) if run.has(GALLERY_LABELS) else None
    thumbnails = read_thumbnails(run) if run.has(THUMBNAILS) else {}
    known = {int(row): number for number, row in enumerate(repeat.queries.tolist())}
    with_pictures = [known[query] for side, query in thumbnails if side == "query" and query in known]
    data = run.metrics.dataset.fingerprint[-8:]

    def add(query: int, hits: Sequence[int]) -> dict[tuple[str, int], str]:
        nonlocal budget
        wanted = [item for item in [("query", query), *(("gallery", hit) for hit in hits)] if item in thumbnails]
        # Rows of the gallery are a seed's own where the seed draws it.
        keys = {item: f"{data}{run.metrics.protocol.split_hash[-8:]}{item[0][0]}{item[1]}" for item in wanted}
        new = {key: _address(thumbnails[item]) for item, key in keys.items() if key not in pictures}
        size = sum(map(len, new.values()))
        if size > budget:
            return {}
        budget -= size
        pictures.update(new)
        return keys

    found = []
    for row in dict.fromkeys([*with_pictures, *rows]):
        query, label = int(repeat.queries[row]), repeat.labels[row].as_py()
        own = table.slice(place[query], 1)
        hits: list[tuple[str, float, bool | None, str | None]] = []
        first, distances = own["first_hits"][0].as_py(), own["first_distances"][0].as_py()
        with damage(run.path / PER_QUERY):
            if len(first) != len(distances) or (
                gallery is not None and not all(0 <= hit < len(gallery) for hit in first)
            ):
                raise ValueError(f"hits of query {query} that are no rows of the gallery")
        # Runs of earlier versions went by shared labels.
        marks = own["first_relevant"][0].as_py() if judged else [None] * len(first)
        keys = add(query, first)
        for hit, distance, mark in zip(first, distances, marks, strict=True):
            other = None if gallery is None else _label(gallery[hit])
            shared = None if other is None else bool(set(several_labels(label)) & set(several_labels(other)))
            right = shared if mark is None else bool(mark)
            hits.append((labels_text(other, names), float(distance), right, keys.get(("gallery", hit))))
        found.append(
            Shown(query, labels_text(label, names), keys.get(("query", query)), float(repeat.values[row]), hits)
        )
    return found


def _address(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _label(stored: Any) -> int | list[int]:
    return np.flatnonzero(stored).tolist() if np.ndim(stored) else int(stored)


def several_labels(label: int | Sequence[int]) -> Sequence[int]:
    """Return an item's labels, of which it may have one."""
    return [label] if isinstance(label, int) else label


def labels_text(label: int | Sequence[int] | None, names: Sequence[str] | None) -> str:
    """Return the names of an item's labels; their numbers where classes have no names."""
    if label is None:
        return ""
    numbers = several_labels(label)
    return ", ".join(names[i] if names and i < len(names) else f"class {i}" for i in numbers) or "no label"


def class_quality(members: Sequence[Configuration], measure: str) -> ClassQuality | None:
    """Return the mean of a measure by class, over seeds; an item of several labels counts for each.

    Args:
        members: configurations of one group.
        measure: a column of ``per_query.parquet``.
    """
    tables = {one.identity: _class_means(one, measure) for one in members}
    labels = sorted({label for table in tables.values() for label in table})
    if len(labels) < 2:
        return None
    matrix = np.array([[table.get(label, np.nan) for label in labels] for table in tables.values()])
    complete = np.isfinite(matrix).all(axis=0)
    spread = np.where(complete, np.ptp(np.nan_to_num(matrix), axis=0), -1.0)
    kept = np.sort(np.argsort(-spread, kind="stable")[:CLASSES])
    first = members[0].runs[0]
    names = class_names(first) if first.has(CLASS_NAMES) else None
    values: Mapping[str, list[float]] = {
        identity: row[kept].tolist() for identity, row in zip(tables, matrix, strict=True)
    }
    return ClassQuality([labels_text(labels[i], names) for i in kept], dict(values), len(labels) - len(kept))


def _class_means(one: Configuration, measure: str) -> dict[int, float]:
    sums: dict[int, list[float]] = {}
    for repeat in one.repeats[measure]:
        labels = repeat.labels
        if hasattr(labels, "flatten") and hasattr(labels, "value_lengths"):
            values = np.repeat(repeat.values, numbers_of(labels.value_lengths()))
            numbers = numbers_of(labels.flatten())
        else:
            values, numbers = repeat.values, numbers_of(labels)
        for label in np.unique(numbers):
            sums.setdefault(int(label), []).append(float(values[numbers == label].mean()))
    return {label: float(np.mean(means)) for label, means in sums.items()}
