"""Candidates of a choice: configurations that a file of YAML describes, with code lengths that a budget decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lshbench.errors import UsageError, wrong_value
from lshbench.tuning.settings import check_validation
from lshbench.tuning.space import SEARCHED, searchable
from lshbench.types import MOST_BITS

CODE, SHARE = "code", "share"
"""The value that stands for a code's length, and the key of the part of the budget's bytes that it takes."""

WORD_BITS = 64

EXAMPLE = "{method: itq, bits: code}"


@dataclass(frozen=True)
class Budget:
    """What a code and its index may cost.

    Attributes:
        bytes: of an item, at most.
        ms: milliseconds of a query alone with encoding, median, at most; None for any.
    """

    bytes: int
    ms: float | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Budget:
        """Return the keys of ``budget``, checked.

        Raises:
            UsageError: no number of bytes, or one that is none.
        """
        size, ms = given["bytes"], given["ms"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise wrong_value("budget.bytes", size, "bytes of an item, a whole number of at least 1, such as 16")
        if ms is not None and (isinstance(ms, bool) or not isinstance(ms, int | float) or not ms > 0):
            raise wrong_value("budget.ms", ms, "milliseconds of a query, more than 0, or null")
        return cls(size, ms)


class Choosing:
    """What a choice tries, and on which part of the training set: the keys of an option in ``conf/choose``."""

    def __init__(
        self,
        candidates: Sequence[Mapping[str, Any]],
        validation: float,
        queries: int,
        relevant: str = "auto",
        also: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Check the values.

        Args:
            candidates: keys of a run with a value each, or with a list of which each value is tried; lists of keys
                below ``index`` are grids of query settings.
            validation: the part of the training set that validation queries are cut from.
            queries: validation queries at most.
            relevant: what makes a gallery item relevant to a validation query: the run's rule (``auto``), or ``labels``
                or ``neighbors`` in its place.
            also: more candidates, so that an option can add to another's.

        Raises:
            UsageError: a value that can't be used.
        """
        self.relevant = check_validation("choose", validation, queries, relevant)
        self.validation, self.queries = validation, queries
        self.entries = [*_checked("candidates", candidates), *_checked("also", also)]
        if not self.entries:
            raise wrong_value("choose.candidates", [], f"at least one, such as {EXAMPLE}")

    def candidates(self, budget: Budget) -> list[dict[str, Any]]:
        """Return each candidate's values by key, in the order of the file and without repetition.

        No code is longer than methods and engines allow, however large the budget.  A method's code that has bytes
        beside whole words of 64 bits is tried without them, too.
        """
        found: list[dict[str, Any]] = []
        for entry in self.entries:
            shares = _listed(entry.get(SHARE, 1))
            keys = [key for key in entry if key != SHARE]
            values = [[entry[key]] if key.startswith("index.") else _listed(entry[key]) for key in keys]
            for one in itertools.product(*values):
                for share in shares:
                    bits = min(MOST_BITS, 8 * max(1, math.floor(share * budget.bytes)))
                    # Indexes that hold codes in whole words have no room for a part of one.
                    words = bits // WORD_BITS * WORD_BITS if "bits" in keys else 0
                    for length in dict.fromkeys((bits, words or bits)):
                        candidate = {
                            key: length if value == CODE else value for key, value in zip(keys, one, strict=True)
                        }
                        if candidate not in found:
                            found.append(candidate)
        return found


def _checked(name: str, entries: Any) -> list[Mapping[str, Any]]:
    """Return the entries of ``choose.candidates`` or ``choose.also``, of which each makes at least one candidate.

    Raises:
        UsageError: they are no list of mappings, a key that candidates can't have, no value, or no part of the budget.
    """
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise wrong_value(f"choose.{name}", entries, f"a list of mappings such as {EXAMPLE}")
    for number, entry in enumerate(entries):
        place = f"choose.{name}[{number}]"
        if not isinstance(entry, Mapping):
            raise wrong_value(place, entry, f"a mapping such as {EXAMPLE}")
        for key, value in entry.items():
            if key != SHARE and not searchable(str(key)):
                raise UsageError(f"{place}: {key}: expected a key of {', '.join(SEARCHED)}, or {SHARE}")
            if not _listed(value):
                raise wrong_value(f"{place}.{key}", value, "a value, or a list of at least one")
        for share in _listed(entry.get(SHARE, 1)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise wrong_value(f"{place}.{SHARE}", share, "a part of the budget's bytes, more than 0, and at most 1")
    return list(entries)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
