"""Texts above tables, with what they name in braces: the data that runs are of, and their machine."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from lshbench.errors import UsageError
from lshbench.report.select import Settings, protocol_of
from lshbench.report.table_file import TableFile
from lshbench.report.table_rows import Part
from lshbench.run_folder import Run


class _Names(string.Formatter):
    """Names in braces are keys as they stand: ``{index.nbits}`` has no attribute."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name


def filled_text(file: TableFile, key: str, text: str | None, fields: Mapping[str, Any]) -> str | None:
    """Return a text with fields in place of their names in braces.

    Raises:
        UsageError: a name that is none of theirs.
    """
    try:
        return None if text is None else _Names().vformat(text, (), fields)
    except (KeyError, ValueError) as error:
        names = ", ".join(f"{{{name}}}" for name in fields) or "none"
        raise UsageError(f"{file.path}: {key}={text!r}: expected no other names in braces than {names}") from error


def fields_of(part: Part) -> dict[str, Any]:
    """Return what the figures of a data set are of, and on what machine."""
    metrics = part.runs[0].metrics
    threads = metrics.environment["threads"]
    return {
        "dataset": metrics.dataset.name,
        "queries": _between([run.metrics.dataset.queries for run in part.runs]),
        "gallery": _between([run.metrics.dataset.gallery for run in part.runs]),
        "classes": _between([run.metrics.dataset.classes for run in part.runs]),
        "encoder": f"{metrics.dataset.backbone}, " if metrics.dataset.backbone else "",
        "dim": metrics.dataset.dim,
        "protocol": protocol_of(Settings(part.runs[0])),
        "cpu": ", or ".join(sorted({_processors(run) for run in part.runs})),
        "threads": f"{threads} thread{'' if threads == 1 else 's'}",
        "seeds": ", ".join(map(str, part.seeds)),
    }


def caption_fields(file: TableFile, seeds: Sequence[int]) -> dict[str, str]:
    """Return what the text above everything may name: the seeds, and in words what figures of them are shown."""
    numbers = ", ".join(map(str, seeds))
    spread = any(column.spread for grid in file.grids for column in grid.columns)
    mean = f"Mean over seeds {numbers}{', ± their standard deviation' if spread else ''}"
    return {"seeds": numbers, "mean": mean if len(seeds) > 1 else f"Seed {numbers}"}


def _processors(run: Run) -> str:
    """Return the processor of a run, and the GPU that networks were trained on."""
    found = (run.metrics.environment.get(key) for key in ("cpu", "gpu"))
    return " and ".join(str(name) for name in found if name)


def _between(numbers: Sequence[int]) -> str:
    """Return 360, or 83 to 92 where seeds draw different numbers."""
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"
