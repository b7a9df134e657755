"""Every published definition of finished runs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lshbench.metrics.definitions import DEFINITIONS, definition_of, template
from lshbench.report.names import names_of
from lshbench.run_folder import Run


@dataclass(frozen=True)
class DefinitionRow:
    """A published definition with its value in each configuration.

    Attributes:
        key: as in ``metrics.json``, such as ``mAP@1000/hits``.
        template: the key with ``{k}`` or ``{r}`` for its rank or radius, which have one formula in common.
        values: the mean over seeds for each configuration; None where the ranking has no such value.
        formula: what is computed, in words.
        published_by: code that reports it; empty if none is known to.
    """

    key: str
    template: str
    values: list[float | None]
    formula: str
    published_by: tuple[str, ...]


@dataclass(frozen=True)
class DefinitionTable:
    """Table of the published definitions, to compare figures with a paper's by the paper's own measure.

    Attributes:
        names: of the configurations, in order of their first runs.
        leaks: whether queries are in the gallery or in training in any run of each.
        rows: one a definition.
    """

    names: list[str]
    leaks: list[bool]
    rows: list[DefinitionRow]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and text, for JSON."""
        return asdict(self)


def definitions(runs: Sequence[Run]) -> DefinitionTable:
    """Return every published definition of finished runs, each with its formula and the code that reports it."""
    groups = by_configuration(runs)
    keys = {key: None for run in runs for key in run.metrics.definitions if template(key) in DEFINITIONS}
    rows = []
    for key in keys:
        definition = definition_of(key)
        values = [mean_or_none([run.metrics.definitions.get(key) for run in members]) for members in groups.values()]
        rows.append(DefinitionRow(key, template(key), values, definition.formula, definition.published_by))
    names = names_of([members[0] for members in groups.values()])
    return DefinitionTable(
        names, [any(run.metrics.protocol.leak for run in members) for members in groups.values()], rows
    )


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Return the mean, None where a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def by_configuration(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs by their configuration's identity, in order of their first runs: runs alike but for the seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.metrics.configuration_id, []).append(run)
    return groups
