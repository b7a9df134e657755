"""Constraints on hyper-parameters, declared once: in the annotation of the field, such as ``temperature: Positive``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

from lshbench.errors import wrong_value
from lshbench.types import Supervision


@dataclass(frozen=True)
class Constraint:
    """What a value must be.

    Attributes:
        holds: whether a value is that; false for not a number.
        expected: what would be right, as :func:`lshbench.errors.wrong_value` takes it.
    """

    holds: Callable[[Any], bool]
    expected: str

    def check(self, key: str, value: object) -> None:
        """Check the value of a dotted key.

        Raises:
            UsageError: it is something else.
        """
        try:
            right = self.holds(value)
        except TypeError:  # text or null in place of a number
            right = False
        if not right:
            raise wrong_value(key, value, self.expected)


def at_least(low: float, expected: str) -> Constraint:
    """Return the constraint to finite numbers from ``low`` on."""
    return Constraint(lambda value: low <= value < math.inf, expected)


def between(low: float, high: float, expected: str) -> Constraint:
    """Return the constraint to numbers from ``low`` to ``high``, both included."""
    return Constraint(lambda value: low <= value <= high, expected)


def one_of(*words: str) -> Constraint:
    """Return the constraint to one of two or more words."""
    return Constraint(words.__contains__, f"{', '.join(words[:-1])} or {words[-1]}")


def check_fields(prefix: str, settings: object) -> None:
    """Check the attributes of an object whose class annotates them with constraints, in the order of annotations.

    Raises:
        UsageError: a value that can't be used, its key being ``prefix`` and the attribute's name.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        for constraint in getattr(hint, "__metadata__", ()):
            constraint.check(f"{prefix}.{name}", getattr(settings, name))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


WHOLE = Constraint(_is_whole, "a whole number")


def _is_count_or_ascending(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _is_count_or_ascending([value])
    return bool(value) and all(map(_is_whole, value)) and all(low < high for low, high in pairwise([-1, *value]))


CountsFromZero = Annotated[
    int | Sequence[int],
    Constraint(_is_count_or_ascending, "a whole number from 0 on, or an ascending list of them, such as [0,8]"),
]
Switch = Annotated[bool, Constraint(lambda value: isinstance(value, bool), "true or false")]
Count = Annotated[int, WHOLE, at_least(1, "at least 1")]
CountOrAll = Annotated[
    int | None,
    Constraint(
        lambda value: value is None or (_is_whole(value) and value >= 1), "at least 1 (a whole number), or null for all"
    ),
]
Weight = Annotated[float, at_least(0, "0 or a positive number")]
Positive = Annotated[float, Constraint(lambda value: 0 < value < math.inf, "a positive number")]
Share = Annotated[float, between(0, 1, "from 0 to 1")]
Dropped = Annotated[float, Constraint(lambda value: 0 <= value < 1, "at least 0 and below 1")]
LabelsOrNone = Annotated[Supervision, one_of("labels", "none")]
