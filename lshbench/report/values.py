"""Per-query values of all selected runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lshbench.errors import UsageError
from lshbench.report.repeats import Reader, Repeat
from lshbench.report.select import Selection


def read_values(selection: Selection, measures: Sequence[str]) -> tuple[Selection, dict[Path, dict[str, Repeat]]]:
    """Return the runs whose per-query values can be read, the others among the damaged, and the values by folder.

    Raises:
        UsageError: no run is left.
    """
    reader, values, runs, damaged = Reader(), {}, [], list(selection.damaged)
    for run in selection.runs:
        try:
            values[run.path] = reader.read(run, measures)
            runs.append(run)
        except UsageError as error:
            damaged.append((run.path, str(error)))
    selection = replace(selection, runs=tuple(runs), damaged=tuple(damaged))
    if not runs:
        raise UsageError(f"no run is left to report: {'; '.join(selection.notes())}")
    return selection, values
