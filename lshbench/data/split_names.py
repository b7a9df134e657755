"""Which split is the gallery and which the queries, by their names: folders, arrays and the Hub's splits alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from lshbench.errors import UsageError

TRAINING, DATABASE, TEST, QUERY, VALIDATION = "train", "database", "test", "query", "validation"

SPLIT_WORDS = {
    "train": TRAINING, "training": TRAINING, "trainset": TRAINING, "trainval": TRAINING,
    "gallery": DATABASE, "database": DATABASE, "base": DATABASE,
    "test": TEST, "testing": TEST, "testset": TEST,
    "query": QUERY, "queries": QUERY,
    "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "eval": VALIDATION,
}  # fmt: skip
"""What each usual name of a split stands for, in the order of preference among names for the same."""
GALLERY_KINDS = (TRAINING, DATABASE)
QUERY_KINDS = (TEST, QUERY, VALIDATION)
_DECORATION = re.compile(r"^(?:images?|imgs?|data)?[\W_]*([a-z]+?)[\W_]*(?:sets?|images?|imgs?|data|split|\d{4})?$")


def split_kind(name: str) -> str | None:
    """Return what a split's name stands for, such as ``test`` for ``Testing``; None for a name that is no usual one."""
    return SPLIT_WORDS.get(name.lower())


def decorated_kind(name: str) -> str | None:
    """Return the same for the name of a folder, which may carry more: ``train2017``, ``val_images``, ``test-set``."""
    found = _DECORATION.match(name.lower())
    return split_kind(name) or (SPLIT_WORDS.get(found[1]) if found else None)


def find_splits(there: Iterable[str], gallery: str | None, query: str | None) -> tuple[str, list[str]]:
    """Return the gallery split's name, and those of the splits that may hold queries, best first.

    With ``auto``, the gallery is a split called train or database, and the queries are test or query, else
    validation.  A name that was given and isn't there stands for its other spellings (``val`` for ``validation``).
    The second list is empty where there is one split only and none was named.

    Args:
        there: the splits' names.
        gallery: the split that is the gallery, or ``auto``.
        query: the split that is the queries, ``auto``, or None to hold out a part of the gallery.

    Raises:
        UsageError: a split that isn't there, or ``auto`` finds none, or several that could be meant.
    """
    names = list(there)
    if gallery is None:
        raise UsageError(f"dataset.gallery_split=None: expected auto or one of: {', '.join(names) or 'none'}")
    gallery = _named(names, "dataset.gallery_split", gallery)
    query = None if query is None else _named(names, "dataset.query_split", query)
    listed = ", ".join(names) or "none"
    if gallery == "auto":
        left = [name for name in names if name != query]
        by_name = _by_kind(left, GALLERY_KINDS)
        if not by_name and len(left) > 1:
            # One split that is no queries' is the gallery, whatever its name.
            left = [name for name in left if _kind(name) not in QUERY_KINDS]
        if not by_name and len(left) != 1:
            raise UsageError(f"dataset.gallery_split=auto: no split is called train; name one of: {listed}")
        gallery = _only_kind(by_name, "dataset.gallery_split", "is ranked and trained on") if by_name else left[0]
    if query != "auto":
        return gallery, [] if query is None else [query]
    others = [name for name in names if name != gallery]
    judged = _by_kind(others, (TEST, QUERY))
    if judged:
        _only_kind(judged, "dataset.query_split", "is queried")
    queries = [*judged, *_by_kind(others, (VALIDATION,))]
    if others and not queries:
        if len(others) > 1:
            raise UsageError(f"dataset.query_split=auto: no split is called test or validation; name one of: {listed}")
        queries = others
    return gallery, queries


def describe_unused(names: Iterable[str], used: Collection[str]) -> str:
    """Return the splits that are there and not used, for the log; empty where all are."""
    return ", ".join(repr(name) for name in names if name not in used)


def _named(names: list[str], key: str, wanted: str) -> str:
    """Return a split that was asked for by name, or by another spelling of it."""
    if wanted == "auto" or wanted in names:
        return wanted
    kind = split_kind(wanted)
    alike = [name for name in names if kind is not None and split_kind(name) == kind]
    if len(alike) != 1:
        raise UsageError(f"{key}={wanted!r}: there is no such split; there are: {', '.join(names) or 'none'}")
    return alike[0]


def _kind(name: str) -> str | None:
    return split_kind(name) or decorated_kind(name)


def _by_kind(names: Iterable[str], kinds: Collection[str]) -> list[str]:
    """Return the names of some kinds: exact ones before those that carry more, then by the usual order of names."""
    order = list(SPLIT_WORDS)
    found = [name for name in names if _kind(name) in kinds]

    def place(name: str) -> tuple[bool, int, str]:
        exact = split_kind(name) is not None
        return not exact, order.index(name.lower()) if exact else 0, name

    return sorted(found, key=place)


def _only_kind(found: list[str], key: str, what: str) -> str:
    """Return the first of some names.

    Raises:
        UsageError: others stand for something else, such as database beside train: either could be meant.
    """
    rivals = [name for name in found[1:] if _kind(name) != _kind(found[0]) or name.lower() == found[0].lower()]
    if not (split_kind(found[0]) and split_kind(found[-1])):
        # Names that carry more are rivals of each other, but not of an exact one of their kind.
        rivals += [name for name in found[1:] if split_kind(found[0]) is None and name not in rivals]
    if rivals:
        choices = " or ".join(f"{key}={name}" for name in (found[0], *rivals))
        raise UsageError(f"{key}=auto: several splits could be meant; {choices} says which {what}")
    return found[0]
