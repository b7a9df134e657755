"""Which runs stand in which row of a file of tables, apart for each data set, encoder and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lshbench.errors import UsageError
from lshbench.report.names import settings_of
from lshbench.report.select import Settings, equal, protocol_of, shown
from lshbench.report.table_file import Row, TableFile
from lshbench.run_folder import Run

Units = dict[Any, dict[int, Run]]
"""Runs of one row by the value of ``over``, and by seed."""


@dataclass(frozen=True)
class Part:
    """Runs of one data set, encoder and protocol.

    Attributes:
        runs: all of them.
        rows: by name.
        seeds: of any of them, ascending.
    """

    runs: list[Run]
    rows: dict[str, Units]
    seeds: tuple[int, ...]

    def values(self, rows: Sequence[Row]) -> list[Any]:
        """Return the values of ``over`` that runs of some rows have."""
        found = {shown(value): value for row in rows for value in self.rows.get(row.name, {})}
        return sorted(found.values(), key=lambda value: (not isinstance(value, int | float), value))


def parts_of(file: TableFile, runs: Sequence[Run], settings: Mapping[Path, Settings], notes: list[str]) -> list[Part]:
    """Return the runs by data set, encoder and protocol, in the order of showing; add what is left out to the notes."""
    displayed = {row.name for grid in file.grids for row in grid.rows}
    strangers = hidden = older = 0
    members: dict[tuple[str, ...], list[Run]] = {}
    placed: dict[tuple[str, ...], dict[str, Units]] = {}
    for run in sorted(runs, key=lambda run: (run.metrics.created, str(run.path)), reverse=True):
        row = _row_of(file, run, settings[run.path])
        strangers += row is None
        if row is None or row.name not in displayed:
            hidden += row is not None
            continue
        data = run.metrics.dataset
        key = (data.name, data.backbone or "", protocol_of(settings[run.path]), data.fingerprint)
        value = None if file.over is None else settings[run.path].get(file.over)[1]
        unit = placed.setdefault(key, {}).setdefault(row.name, {}).setdefault(value, {})
        _check_alike(file, row, next(iter(unit.values()), run), run)
        if run.metrics.seed in unit:
            older += 1
            continue
        unit[run.metrics.seed] = run
        members.setdefault(key, []).append(run)
    if strangers:
        notes.append(f"{_counted(strangers)} of no row of {file.path}, left out")
    if hidden:
        notes.append(f"{_counted(hidden)} of rows that {file.path} does not show, left out")
    if older:
        notes.append(f"{_counted(older)} older than another one of the same cell and seed, left out")
    if not members:
        raise UsageError(f"{file.path}: none of {_counted(len(runs))} belongs to a row: {', '.join(displayed)}")

    def order(key: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        return (file.datasets.index(key[0]) if key[0] in file.datasets else len(file.datasets), key)

    return [
        Part(members[key], placed[key], tuple(sorted({run.metrics.seed for run in members[key]})))
        for key in sorted(members, key=order)
    ]


def _row_of(file: TableFile, run: Run, settings: Settings) -> Row | None:
    fitting = [row for row in file.rows if row.where and _fits(settings, row)]
    most = max((len(row.where) for row in fitting), default=0)
    found = [row for row in fitting if len(row.where) == most]
    if len(found) > 1:
        names = " and ".join(row.name for row in found)
        raise UsageError(f"{file.path}: rows {names} both fit {run.path}: expected where: that tells them apart")
    return found[0] if found else None


def _fits(settings: Settings, row: Row) -> bool:
    for key, wanted in row.where.items():
        has, value = settings.get(key)
        if not has or not equal(value, shown(wanted)):
            return False
    return True


def _check_alike(file: TableFile, row: Row, one: Run, other: Run) -> None:
    """Refuse runs of one cell that differ in a setting: their mean would be of nothing."""
    if one is other:
        return
    first, second = dict(settings_of(one)), dict(settings_of(other))
    differing = sorted(
        key
        for key in first.keys() | second.keys()
        if first.get(key) != second.get(key) and key not in (file.over, "dataset.path")
    )
    if differing:
        key = differing[0]
        raise UsageError(
            f"{file.path}: rows.{row.name}: {one.path} and {other.path} belong to one cell, but differ in "
            f"{', '.join(differing)} ({first.get(key)} and {second.get(key)}): expected where: {{{key}: ...}}, or runs "
            "chosen by --where"
        )


def _counted(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def missing_cells(file: TableFile, part: Part) -> int:
    """Return how many cells lack some of the part's seeds; columns of one row and value lack the same runs."""
    lacking = set()
    for grid in file.grids:
        for value in part.values(grid.rows):
            for row in grid.rows:
                if row.where and set(part.rows.get(row.name, {}).get(value, {})) != set(part.seeds):
                    lacking.add((row.name, shown(value)))
    return len(lacking)
