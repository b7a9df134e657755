"""Queries without anything to find are counted, and classes that differ in spelling only are named."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lshbench.data.checks import match_labels, raw_labels
from lshbench.errors import UsageError
from lshbench.protocols.splits import Selection
from lshbench.protocols.unanswered import Unanswered, check_answered, difference_of, find_unanswered

Spelling = Callable[[str], str]


def widened(letter: str) -> str:
    """Return the full-width form of a Latin letter."""
    return chr(ord(letter) + 0xFEE0) if letter.isascii() and letter.isalpha() else letter


SPELLINGS: dict[str, Spelling] = {
    "accents are composed otherwise": lambda name: unicodedata.normalize("NFD", name),
    "upper or lower case": lambda name: name.upper(),
    "blanks or invisible characters": lambda name: f"{name} ",
    "signs between words": lambda name: name.replace(" ", "_"),
    "characters of another width or form": lambda name: "".join(map(widened, name)),
}


def found(gallery: list[str], queries: list[str]) -> Unanswered:
    (left, right), names = match_labels(
        raw_labels(np.array(gallery), "gallery"), raw_labels(np.array(queries), "queries")
    )
    items = np.arange(len(left) + len(right))
    gallery_items, query_items = items[: len(left)], items[len(left) :]
    return find_unanswered(np.concatenate([left, right]), Selection(query_items, gallery_items, gallery_items), names)


@pytest.mark.parametrize("difference", SPELLINGS)
def test_a_near_match_is_named_with_its_difference(difference: str, caplog: pytest.LogCaptureFixture) -> None:
    other = SPELLINGS[difference]("café noir")
    unanswered = found(["café noir", "dog", "dog"], [other, "dog", other])
    assert (unanswered.count, unanswered.total) == (2, 3)
    assert [(one.name, one.queries, one.near, one.difference) for one in unanswered.classes] == [
        (other, 2, "café noir", difference)
    ]
    with caplog.at_level(logging.WARNING):
        check_answered(unanswered)
    assert "2 of 3 queries have nothing to find in the gallery" in caplog.text
    assert ascii("café noir") in caplog.text
    assert difference in caplog.text


@settings(deadline=None, max_examples=50)
@given(
    name=st.text(st.characters(categories=("Ll", "Lu", "Nd", "Zs")), min_size=1, max_size=12),
    chosen=st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=3, unique=True),
)
def test_every_spelling_of_a_name_is_near_it(name: str, chosen: list[str]) -> None:
    other = name
    for difference in chosen:
        other = SPELLINGS[difference](other)
    assume(other != name and name.strip() and "dog" not in (name, other))
    unanswered = found([name, "dog"], [other, "dog"])
    assert [one.near for one in unanswered.classes] == [name]
    assert set(difference_of(name, other).split(" and ")) <= set(SPELLINGS)


def test_other_names_are_not_near() -> None:
    unanswered = found(["c++", "cat", "dog"], ["c#", "cats", "dog"])
    assert [one.near for one in unanswered.classes] == [None, None]
    assert str(unanswered).endswith("gallery: 'c#' (1 query), 'cats' (1 query)")


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no class in common: 2 of 2 .*'DOG' .*upper or lower case"):
        check_answered(found(["dog", "cat"], ["DOG", "CAT"]))


def test_all_answered_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_answered(found(["dog", "cat"], ["dog", "dog"]))
    assert caplog.text == ""


def test_of_several_labels_one_is_enough() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    selection = Selection(np.array([2, 3, 4]), np.array([0, 1]), np.array([0, 1]))
    unanswered = find_unanswered(labels, selection, ("a", "b", "c"))
    assert unanswered.count == 2
    assert [(one.name, one.queries) for one in unanswered.classes] == [("c", 1)]


def test_many_classes_are_counted_and_near_ones_come_first() -> None:
    unanswered = found(["dog", "Cat"], [*(f"class {i}" for i in range(9)), "cat", "dog"])
    assert str(unanswered).startswith(
        "10 of 11 queries have nothing to find in the gallery: 'cat' (1 query; the gallery"
    )
    assert str(unanswered).endswith("and 5 more classes")


@pytest.mark.parametrize("several", [False, True])
def test_an_item_does_not_answer_itself(several: bool) -> None:
    labels = np.array([0, 1, 1, 2, 0, 3])
    if several:
        labels = np.eye(4, dtype=bool)[labels]
    items = np.arange(6)
    selection = Selection(items, items, items)
    assert find_unanswered(labels, selection, None).count == 0
    found = find_unanswered(labels, selection, ("a", "b", "c", "d"), leave_one_out=True)
    assert (found.count, found.total) == (2, 6)
    assert [(one.name, one.queries, one.near) for one in found.classes] == [("c", 1, None), ("d", 1, None)]
