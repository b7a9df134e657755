"""Constraints on hyper-parameters, declared once: in the annotation of the field, such as ``temperature: Positive``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
            if not constraint.holds(value := getattr(settings, name)):
                raise wrong_value(f"{prefix}.{name}", value, constraint.expected)


Count = Annotated[int, at_least(1, "at least 1")]
Weight = Annotated[float, at_least(0, "0 or a positive number")]
Positive = Annotated[float, Constraint(lambda value: 0 < value < math.inf, "a positive number")]
Share = Annotated[float, between(0, 1, "from 0 to 1")]
Dropped = Annotated[float, Constraint(lambda value: 0 <= value < 1, "at least 0 and below 1")]
LabelsOrNone = Annotated[Supervision, one_of("labels", "none")]
