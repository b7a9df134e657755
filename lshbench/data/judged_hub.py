"""Retrieval sets of the Hub in MTEB's layout: configurations corpus, queries and qrels, which judges pairs of both."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.base import Dataset, Judgments, Split
from lshbench.data.checks import check_dataset
from lshbench.errors import UsageError
from lshbench.types import Progress, unlabelled

if TYPE_CHECKING:
    import datasets

    from lshbench.data.hub_repository import HubRepository, LocalRepository

log = logging.getLogger(__name__)

PARTS = {"corpus": ("corpus",), "queries": ("queries", "query"), "qrels": ("qrels", "default")}
"""Configurations by what they hold, each by its usual names."""
ITEM_IDS = ("id", "_id")
QREL_COLUMNS = ("query-id", "corpus-id", "score")


OpenSplit = Callable[[Any, str, Progress], Any]
"""Callback that opens a split of items of a repository in one of its configurations: a ``HubSplit``."""


def judged_parts(place: str, revision: str | None) -> dict[str, str] | None:
    """Return the configurations of a repository or local copy by what they hold; None if it has another layout."""
    import datasets

    from lshbench.data.hub_client import quiet

    try:
        with quiet():
            names = datasets.get_dataset_config_names(place, revision=revision)
    except Exception as error:  # the repository itself was asked for before, and said what is wrong
        log.debug("%s: its configurations can't be listed: %s", place, error)
        return None
    found = {part: next((name for name in usual if name in names), "") for part, usual in PARTS.items()}
    return found if all(found.values()) else None


def open_judged(
    name: str,
    repositories: dict[str, HubRepository | LocalRepository],
    split: str | None,
    open_split: OpenSplit,
    progress: Progress,
) -> Dataset:
    """Open corpus, queries and judgments; a query that is an item of the corpus itself is that item.

    Args:
        name: of the data set.
        repositories: for ``corpus``, ``queries`` and ``qrels``, the repository in that configuration.
        split: which split of each, or ``auto``.
        open_split: opens one split of items.
        progress: receives the progress of downloads and of reading.

    Raises:
        UsageError: columns or splits that are not there.
    """
    names = {part: _split_name(repository, part, split) for part, repository in repositories.items()}
    corpus = open_split(repositories["corpus"], names["corpus"], progress)
    queries = open_split(repositories["queries"], names["queries"], progress)
    # A split's name tells it from the other, and both are called test.
    for part, role in ((corpus, "corpus"), (queries, "queries")):
        part.name, part.labels = role, unlabelled(len(part.raw))
    ids = [_ids(part.table, f"{name}, {role}") for role, part in (("corpus", corpus), ("queries", queries))]
    pairs = repositories["qrels"].open(names["qrels"], progress)
    missing = [column for column in QREL_COLUMNS if column not in pairs.column_names]
    if missing:
        raise UsageError(f"{name}, qrels: no column {missing[0]!r}; there are: {', '.join(pairs.column_names)}")
    asked, answers = (np.asarray(pairs[column], dtype=str) for column in QREL_COLUMNS[:2])
    query_rows, item_rows = _rows(asked, ids[1]), _rows(answers, ids[0])
    known = (query_rows >= 0) & (item_rows >= 0)
    if not known.all():
        first = int(np.argmin(known))
        log.warning(
            "%s: %d of %d judged pairs name items that are not there and are left out (the first: query %r, item %r)",
            name, int((~known).sum()), len(known), str(asked[first]), str(answers[first]),
        )  # fmt: skip
    grades = np.asarray(pairs[QREL_COLUMNS[2]], np.float32)[known]
    query_rows, item_rows = query_rows[known], item_rows[known]
    same = _same_items(corpus, queries, ids[0], ids[1], progress)
    if len(same) == len(corpus) and (same >= 0).all() and len(np.unique(same)) == len(corpus):
        log.info("%s: the queries are the items of the corpus: protocol=leave_one_out ranks the others", name)
        judgments = Judgments(same[query_rows], item_rows, grades)
        return check_dataset(Dataset(name, corpus, corpus, judgments=judgments))
    own = same >= 0
    if own.any():
        log.info(
            "%s: %d of %d queries are items of the corpus and left out of their own rankings",
            name,
            int(own.sum()),
            len(own),
        )
        other = same[query_rows] != item_rows
        query_rows = np.concatenate([query_rows[other], np.flatnonzero(own)])
        item_rows = np.concatenate([item_rows[other], same[own]])
        grades = np.concatenate([grades[other], np.full(int(own.sum()), -1, np.float32)])
    judgments = Judgments(query_rows + len(corpus), item_rows, grades)
    counts = (name, len(corpus), names["corpus"], len(queries), names["queries"], len(grades))
    log.info("%s: %d items (split %r), %d queries (split %r), %d judged pairs", *counts)
    return check_dataset(Dataset(name, corpus, queries, judgments=judgments))


def _split_name(repository: HubRepository | LocalRepository, part: str, wanted: str | None) -> str:
    there = list(repository.splits.files)
    if wanted in there:
        return str(wanted)
    usual = [split for split in there if split in ("test", part)]
    found = there if len(there) == 1 else usual
    if wanted not in ("auto", None) or len(found) != 1:
        raise UsageError(
            f"{repository.name}, {part}: there are the splits {', '.join(there)}; dataset.query_split names one"
        )
    return found[0]


def _ids(table: datasets.Dataset, where: str) -> np.ndarray:
    column = next((name for name in ITEM_IDS if name in table.column_names), None)
    if column is None:
        raise UsageError(f"{where}: no column called id; there are: {', '.join(table.column_names)}")
    ids = np.asarray(table[column], dtype=str)
    if len(np.unique(ids)) < len(ids):
        raise UsageError(f"{where}: {len(ids) - len(np.unique(ids))} ids in column {column!r} are there twice")
    return ids


def _rows(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the row of each id, -1 where there is none."""
    order = np.argsort(ids)
    places = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    return np.where(ids[order[places]] == wanted, order[places], -1)


def _same_items(
    corpus: Split, queries: Split, corpus_ids: np.ndarray, query_ids: np.ndarray, progress: Progress
) -> np.ndarray:
    """Return the corpus row that each query is, int64 ``(q,)``, -1 for none: of one id, and of the same content."""
    rows = _rows(query_ids, corpus_ids)
    there = np.flatnonzero(rows >= 0)
    if corpus.kind == "images":
        alike = [
            one == other for one, other in zip(queries.image_bytes(there), corpus.image_bytes(rows[there]), strict=True)
        ]
    else:
        first = queries.read_features(there, progress)
        order = np.argsort(rows[there], kind="stable")
        second = np.empty_like(first)
        second[order] = corpus.read_features(rows[there][order], progress)
        alike = (first == second).all(axis=1)
    found = there[np.asarray(alike, bool)]
    same = np.full(len(query_ids), -1)
    same[found] = rows[found]
    return same
