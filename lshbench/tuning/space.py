"""The values that a study searches: ranges and choices by key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lshbench.errors import UsageError, wrong_value

if TYPE_CHECKING:
    from optuna.trial import Trial

SEARCHED = ("method", "head", "training", "bits", "pca", "index", "ranking")
"""First words of keys that trials and candidates have; others decide what they are judged on, or no figure at all."""

RANGE = ("low", "high", "log", "step")
DIGITS = 4
"""Significant digits of a number drawn from a range: a winner's command is read, and typed."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, whole ones where both are; ``log``: by orders of magnitude."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def example(self) -> float:
        """One of the values."""
        return self.low

    def suggest(self, trial: Trial, key: str) -> float:
        """Return the trial's value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log, step=int(self.step or 1))
        value = trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """Values in no order; they may be lists, or names of options."""

    values: tuple[Any, ...]

    @property
    def example(self) -> Any:
        """One of the values."""
        return self.values[0]

    def suggest(self, trial: Trial, key: str) -> Any:
        """Return the trial's value."""
        # Optuna keeps numbers and texts alone.
        texts = [json.dumps(value) for value in self.values]
        return self.values[texts.index(trial.suggest_categorical(key, texts))]


def written(value: Any) -> str:
    """Return a value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


Space = dict[str, Range | Choice]
"""What is searched, by the keys of ``lshbench run``."""


def read_space(search: Mapping[str, Any]) -> Space:
    """Return the space that the ``search`` of an option in ``conf/tune`` describes.

    Raises:
        UsageError: it is empty, a key can't be searched, or has neither a list of values nor a range.
    """
    space = dict(_leaves(search, ""))
    if not space:
        raise UsageError(
            "tune.search={}: expected keys to search, such as tune.search.method.training.learning_rate.low and .high "
            "(lshbench ls tune)"
        )
    for key in space:
        if not searchable(key):
            raise UsageError(f"tune.search.{key}: expected a key of {', '.join(SEARCHED)}: others can't be searched")
    return space


def searchable(key: str) -> bool:
    """Return whether a key is one of :data:`SEARCHED`, such as ``method.map_dim`` or ``head@method.head``."""
    return re.split("[.@]", key)[0] in SEARCHED


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Range | Choice]]:
    for name, value in node.items():
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, list):
            if not value:
                raise wrong_value(f"tune.search.{key}", value, "values to choose from")
            yield key, Choice(tuple(value))
        elif isinstance(value, Mapping) and {"low", "high"} & set(value):
            yield key, _range(f"tune.search.{key}", value)
        elif isinstance(value, Mapping):
            yield from _leaves(value, key)
        else:
            raise wrong_value(f"tune.search.{key}", value, "a list of values, or a range such as {low: 0.1, high: 1.0}")


def _range(key: str, given: Mapping[str, Any]) -> Range:
    if unknown := sorted(set(given) - set(RANGE)):
        raise UsageError(f"{key}.{unknown[0]}={given[unknown[0]]!r}: no such key; a range has {', '.join(RANGE)}")
    numbers = {name: given.get(name) for name in ("low", "high", "step")}
    for name, value in numbers.items():
        if (value is None and name != "step") or isinstance(value, bool | str | list | Mapping):
            raise wrong_value(f"{key}.{name}", value, "a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong_value(f"{key}.{name}", value, "a finite number")
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    if not low < high:
        raise wrong_value(f"{key}.high", high, f"more than low={low}")
    if not isinstance(log, bool):
        raise wrong_value(f"{key}.log", log, "true or false")
    if log and low <= 0:
        raise wrong_value(f"{key}.low", low, "more than 0 with log=true")
    if step is not None and (log or step <= 0):
        raise wrong_value(f"{key}.step", step, "no step with log=true" if log else "more than 0")
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, float):
        raise wrong_value(f"{key}.step", step, f"a whole number, as low={low} and high={high} are")
    # By decimals as they are written: 0.3 - 0.1 is less than 0.2.
    if step is not None and Decimal(str(step)) > (most := Decimal(str(high)) - Decimal(str(low))):
        raise wrong_value(f"{key}.step", step, f"at most {most}, from low={low} to high={high}")
    return Range(low, high, log, step)
