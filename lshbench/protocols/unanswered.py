"""Queries that nothing in the gallery answers, and classes whose names differ in spelling only."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lshbench.data.names import printable
from lshbench.errors import UsageError
from lshbench.protocols.splits import Selection

log = logging.getLogger(__name__)

NAMED = 5
"""Classes that are named in a message."""


@dataclass(frozen=True)
class UnansweredClass:
    """A class of queries that no gallery item has.

    Attributes:
        name: the class.
        queries: how many queries have it and nothing to find.
        near: a class of the gallery that is spelt alike, or None.
        difference: how the spellings differ, or None.
    """

    name: str
    queries: int
    near: str | None = None
    difference: str | None = None

    def __str__(self) -> str:
        what = f"{visible(self.name)} ({self.queries:,} {'query' if self.queries == 1 else 'queries'})"
        return what if self.near is None else f"{what[:-1]}; the gallery has {visible(self.near)}: {self.difference})"


@dataclass(frozen=True)
class Unanswered:
    """Queries without anything to find.

    Attributes:
        count: of the queries that share no label with a gallery item.
        total: of all queries.
        classes: of these queries, the ones that the gallery lacks, those with most queries first.
    """

    count: int
    total: int
    classes: list[UnansweredClass]

    def __str__(self) -> str:
        text = f"{self.count:,} of {self.total:,} queries have nothing to find in the gallery"
        # A near match is the likely cause, so it comes first.
        shown = sorted(self.classes, key=lambda one: one.near is None)
        more = f" and {len(shown) - NAMED:,} more classes" if len(shown) > NAMED else ""
        return f"{text}: {', '.join(map(str, shown[:NAMED]))}{more}" if shown else text


def find_unanswered(
    labels: np.ndarray, selection: Selection, class_names: Sequence[str] | None, leave_one_out: bool = False
) -> Unanswered:
    """Return the queries of a selection that no gallery item answers.

    Args:
        labels: of all items, int64 ``(n,)`` or bool ``(n, classes)``.
        selection: the items by role.
        class_names: a name for each label, or None.
        leave_one_out: whether queries that are in the gallery don't answer themselves.
    """
    queries, gallery = labels[selection.queries], labels[selection.gallery]
    itself = np.isin(selection.queries, selection.gallery) & leave_one_out
    if labels.ndim == 2:
        items = gallery.sum(axis=0)
        lost = ~(queries & (items[None] > itself[:, None])).any(axis=1)
        counts = queries[lost].sum(axis=0)
        missing = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
        present = np.flatnonzero(items * (counts == 0))
    else:
        present, items = np.unique(gallery, return_counts=True)
        places = np.minimum(np.searchsorted(present, queries), len(present) - 1)
        lost = np.where(present[places] == queries, items[places], 0) <= itself
        present = present[~np.isin(present, queries[lost])]
        missing = {
            int(label): int(count) for label, count in zip(*np.unique(queries[lost], return_counts=True), strict=True)
        }

    def name(label: int) -> str:
        return str(label) if class_names is None else str(class_names[label])

    spellings = {_after(each, STEPS): each for each in map(name, present.tolist()[::-1])}
    classes = []
    for label, queries_of in sorted(missing.items(), key=lambda item: (-item[1], item[0])):
        near = spellings.get(_after(name(label), STEPS))
        difference = None if near is None else difference_of(name(label), near)
        classes.append(UnansweredClass(name(label), queries_of, near, difference))
    return Unanswered(int(lost.sum()), len(queries), classes)


def check_answered(found: Unanswered) -> None:
    """Warn of queries that nothing answers.

    Raises:
        UsageError: not one query has anything to find.
    """
    if found.count and found.count == found.total:
        raise UsageError(
            f"dataset: gallery and queries have no class in common: {found}; expected labels that are spelt alike in "
            "both (dataset.label_column, dataset.gallery_split and dataset.query_split choose them)"
        )
    if found.count:
        log.warning("%s", found)


STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("accents are composed otherwise", lambda text: unicodedata.normalize("NFC", text)),
    ("upper or lower case", lambda text: text.upper().casefold()),
    ("blanks or invisible characters", lambda text: " ".join(_without_invisible(text).split())),
    ("signs between words", lambda text: re.sub(r"[-_./\s]+", " ", text).strip()),
    ("characters of another width or form", lambda text: unicodedata.normalize("NFKC", text)),
)
"""How two spellings of one name may differ, and what takes each difference away."""


def difference_of(one: str, other: str) -> str:
    """Return how two spellings of a name differ, in the fewest words."""
    for count in range(1, len(STEPS) + 1):
        for chosen in combinations(STEPS, count):
            if _after(one, chosen) == _after(other, chosen):
                return " and ".join(word for word, _ in chosen)
    return "spelling"


def visible(name: str) -> str:
    """Return a name so that every difference shows: in quotes, and other than plain letters by their numbers too."""
    text = printable(name)
    return repr(text) if text.isascii() else f"{text!r} ({text!a})"


def _after(text: str, steps: Sequence[tuple[str, Callable[[str], str]]]) -> str:
    # Folding case can take apart what was composed, so everything is done twice.
    for _ in range(2):
        for _, step in steps:
            text = step(text)
    return text


def _without_invisible(text: str) -> str:
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
