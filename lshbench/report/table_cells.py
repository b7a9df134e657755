"""Runs into the rows and columns that a file of tables asks for: every cell with its figures and its winner."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.errors import UsageError
from lshbench.metrics.significance import holm
from lshbench.report.repeats import Repeat, paired_values
from lshbench.report.resampling import sign_flip_tests
from lshbench.report.select import SHORT, Selection, Settings, shown, supervision_of
from lshbench.report.table_captions import caption_fields, fields_of, filled_text
from lshbench.report.table_file import TESTED, Column, Grid, Row, TableFile
from lshbench.report.table_rows import Part, missing_cells, parts_of
from lshbench.report.values import read_values
from lshbench.report.winners import SIGNIFICANT, Side, winner_of
from lshbench.run_folder import Run
from lshbench.run_folder.metrics import ReferenceMetrics


@dataclass(frozen=True)
class Difference:
    """How far a row is from another one.

    Attributes:
        mean: over queries and seeds.
        p_value: of no difference, adjusted for the number of rows that are compared with that one (Holm).
    """

    mean: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it is more than chance."""
        return self.p_value < SIGNIFICANT


@dataclass(frozen=True)
class Cell:
    """What a table has in one row and column.

    Attributes:
        seeds: of the runs, ascending.
        values: the figure with each of them; empty where it is not known or there is no run.
        complete: whether all seeds are there that its part of the table has.
        winner: whether it is better than every other of its column; None where the column marks none.
        difference: in its place, where the column shows differences.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    complete: bool
    winner: bool | None = None
    difference: Difference | None = None

    @property
    def mean(self) -> float | None:
        """Over seeds; None where it is not known."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def spread(self) -> float:
        """The standard deviation over seeds, 0 of one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class FilledColumn:
    """A column as it is shown: the file's column at one value of ``over``.

    Attributes:
        column: of the file.
        value: of ``over``; None without it.
        heading: what the table shows.
    """

    column: Column
    value: Any
    heading: str


@dataclass(frozen=True)
class FilledGrid:
    """A table with its cells: ``cells[row][column]``."""

    grid: Grid
    labels: tuple[str, ...]
    columns: tuple[FilledColumn, ...]
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Section:
    """The tables of one data set, encoder and protocol.

    Attributes:
        fields: what texts may name in braces.
        heading, about: texts above the tables.
        grids: the tables.
    """

    fields: Mapping[str, Any]
    heading: str | None
    about: str | None
    grids: tuple[FilledGrid, ...]


@dataclass(frozen=True)
class Filled:
    """The tables of a file, with the figures of runs.

    Attributes:
        file: what was asked for.
        caption: above everything.
        sections: one for each data set, encoder and protocol.
        missing: how many cells lack runs.
        left_out: a line for each thing that was found but is in no table.
    """

    file: TableFile
    caption: str | None
    sections: tuple[Section, ...]
    missing: int
    left_out: tuple[str, ...]


def fill_tables(file: TableFile, selection: Selection, *, resamples: int = 10_000, seed: int = 0) -> Filled:
    """Return the tables of a file with the figures of selected runs.

    A run belongs to the row with the most values of ``where`` that it has. Of several runs of one cell and seed that
    differ in nothing but the source code, the newest counts; the others are counted among what is left out.

    Args:
        file: of tables.
        selection: finished runs.
        resamples, seed: of the paired tests.

    Raises:
        UsageError: no run has a row or a figure, two rows fit a run equally well, or a cell has runs of several
            configurations.
    """
    measures = dict.fromkeys(TESTED[one.metric] for one in _columns(file) if one.best or one.difference_from)
    selection, values = read_values(selection, tuple(measures))
    settings = {run.path: Settings(run) for run in selection.runs}
    _check_figures(file, list(settings.values()))
    notes = list(selection.notes())
    parts = parts_of(file, selection.runs, settings, notes)
    filling = _Filling(file, settings, values, resamples, seed)
    sections = tuple(filling.section(part) for part in parts)
    empty = sum(len(file.grids) - len(section.grids) for section in sections)
    if empty:
        notes.append(f"{empty} table{'s' * (empty > 1)} of {file.path} without any run, left out")
    seeds = sorted({one for part in parts for one in part.seeds})
    caption = filled_text(file, "caption", file.caption, caption_fields(file, seeds))
    return Filled(file, caption, sections, sum(missing_cells(file, part) for part in parts), tuple(notes))


def _columns(file: TableFile) -> list[Column]:
    return [column for grid in file.grids for column in grid.columns]


# Figures


def figure_of(settings: Settings, figure: str) -> tuple[bool, Any]:
    """Return whether a run has a figure, and its value: a key, or one of ``metrics`` or ``definitions``."""
    for key in (figure, f"metrics.{figure}", f"definitions.{figure}"):
        has, value = settings.get(key)
        if has:
            return True, value
    return False, None


def _check_figures(file: TableFile, settings: Sequence[Settings]) -> None:
    for column in _columns(file):
        if not any(figure_of(one, column.figure)[0] for one in settings):
            known = sorted({key for one in settings[:50] for key in one.metrics()})
            near = difflib.get_close_matches(column.figure, known, 4, 0.5)
            near += [key for key in known if key.rpartition(".")[2] == column.figure.rpartition(".")[2]]
            expected = ", ".join(dict.fromkeys(near)) or "mAP, P@10, search.qps, time_s.fit"
            raise UsageError(
                f"{file.path}: columns.{column.name}.figure={column.figure!r}: no run has it; expected one such as "
                f"{expected}"
            )
    if file.over is not None and not any(one.get(file.over)[0] for one in settings):
        raise UsageError(
            f"{file.path}: over={file.over!r}: no run has it; expected a key that runs have, such as {', '.join(SHORT)}"
        )


class _Filling:
    """What the cells of a file's tables are made of."""

    def __init__(
        self,
        file: TableFile,
        settings: Mapping[Path, Settings],
        values: Mapping[Path, Mapping[str, Repeat]],
        resamples: int,
        seed: int,
    ) -> None:
        self.file = file
        self.settings = settings
        self.values = values
        self.draws = {"resamples": resamples, "seed": seed}

    def section(self, part: Part) -> Section:
        """Return the tables of one data set, encoder and protocol, without those whose rows have no run."""
        fields = fields_of(part)
        return Section(
            fields,
            filled_text(self.file, "heading", self.file.heading, fields),
            filled_text(self.file, "about", self.file.about, fields),
            tuple(filled for grid in self.file.grids if (filled := self._grid(grid, part)).columns),
        )

    def _grid(self, grid: Grid, part: Part) -> FilledGrid:
        columns = [
            FilledColumn(column, value, self._heading(column, value))
            for column in grid.columns
            for value in (part.values(grid.rows) if column.over else [None])
        ]
        grid = replace(grid, rows=tuple(row for row in grid.rows if self._has_place(row, columns, part)))
        cells = [self._column(filled, grid.rows, part) for filled in columns]
        labels = tuple(self._label(row, part) for row in grid.rows)
        return FilledGrid(grid, labels, tuple(columns), tuple(zip(*cells, strict=True)))

    def _has_place(self, row: Row, columns: Sequence[FilledColumn], part: Part) -> bool:
        """Return whether a row may have a figure in some column: a reference has measures, and costs nothing."""
        known = [run.metrics.reference.figures(row.reference) for run in part.runs] if row.reference else []
        measures = {name for figures in known for name in figures or {}}
        return not measures or any(filled.column.metric in measures for filled in columns)

    def _heading(self, column: Column, value: Any) -> str:
        fields = {} if self.file.over is None else {self.file.over: shown(value)}
        return filled_text(self.file, f"columns.{column.name}.heading", column.heading, fields) or ""

    def _label(self, row: Row, part: Part) -> str:
        runs = [run for unit in part.rows.get(row.name, {}).values() for run in unit.values()]
        trained = self.file.supervision and any(supervision_of(run) == "labels" for run in runs)
        leak = any(run.metrics.protocol.leak for run in runs)
        return f"{row.label}{', with labels' if trained else ''}{' (leak)' if leak else ''}"

    def _column(self, filled: FilledColumn, rows: Sequence[Row], part: Part) -> list[Cell]:
        column = filled.column
        cells = [self._cell(row, filled, part) for row in rows]
        sides = {row.name: side for row in rows if (side := self._side(row, filled, part)) and row.where}
        if column.best is not None:
            tested = [row for row in rows if row.where]
            whole = len(sides) == len(tested) and all(
                cell.complete for row, cell in zip(rows, cells, strict=True) if row.where
            )
            winner = None
            if whole:
                winner = winner_of(list(sides.values()), highest=column.best == "highest", **self.draws)
            cells = [replace(cell, winner=row.name == winner) for row, cell in zip(rows, cells, strict=True)]
        if column.difference_from is not None:
            differences = self._differences(column.difference_from, sides)
            cells = [
                replace(cell, values=(), difference=differences.get(row.name))
                for row, cell in zip(rows, cells, strict=True)
            ]
        return cells

    def _cell(self, row: Row, filled: FilledColumn, part: Part) -> Cell:
        if row.reference:
            # The same for every value of `over`, and cosine for every run of a seed; classifiers' heads may differ.
            by_seed: dict[int, list[ReferenceMetrics]] = {}
            for run in part.runs:
                if run.metrics.reference.figures(row.reference):
                    by_seed.setdefault(run.metrics.seed, []).append(run.metrics.reference)
            seeds = sorted(by_seed)
            best = [max(by_seed[seed], key=_classified) for seed in seeds]
            found = [(one.figures(row.reference) or {}).get(filled.column.metric) for one in best]
            return _cell(seeds, found, seeds == list(part.seeds))
        runs = self._runs(row, filled, part)
        found = [figure_of(self.settings[run.path], filled.column.figure)[1] for run in runs]
        for run, value in zip(runs, found, strict=True):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UsageError(
                    f"{self.file.path}: columns.{filled.column.name}.figure={filled.column.figure!r}: {value!r} of "
                    f"{run.path} is no number"
                )
        seeds = sorted({run.metrics.seed for run in runs})
        return _cell(seeds, found, filled.column.over != self.file.over or set(seeds) == set(part.seeds))

    def _runs(self, row: Row, filled: FilledColumn, part: Part) -> list[Run]:
        units = part.rows.get(row.name, {})
        chosen = [units.get(filled.value, {})] if filled.column.over == self.file.over else list(units.values())
        return [unit[seed] for unit in chosen for seed in sorted(unit)]

    def _side(self, row: Row, filled: FilledColumn, part: Part) -> Side | None:
        """Return a row's values of each query; None where it has none."""
        measure = TESTED.get(filled.column.metric)
        runs = self._runs(row, filled, part)
        repeats = [self.values[run.path].get(measure) for run in runs] if measure else []
        if not repeats or None in repeats or {run.metrics.seed for run in runs} != set(part.seeds):
            return None
        return Side(row.name, [repeat for repeat in repeats if repeat is not None])

    def _differences(self, baseline: str, sides: Mapping[str, Side]) -> dict[str, Difference]:
        """Return how far each row is from the baseline; none whose runs are missing or answered other queries."""
        pairs = {}
        for name, side in sides.items():
            if name != baseline and baseline in sides:
                first, second, _ = paired_values(side, sides[baseline])
                pairs[name] = first, second
        tests = sign_flip_tests(list(pairs.values()), **self.draws)
        adjusted = holm(np.array([test.p_value for test in tests]))
        return {
            name: Difference(test.difference, float(p_value))
            for name, test, p_value in zip(pairs, tests, adjusted, strict=True)
        }


def _classified(reference: ReferenceMetrics) -> float:
    """Return how well a classifier's probabilities rank, by mAP; 0 where there is none."""
    return (reference.figures("classifier") or {}).get("mAP") or 0.0


def _cell(seeds: Sequence[int], found: Sequence[float | None], complete: bool) -> Cell:
    values = [float(value) for value in found if value is not None]
    return Cell(tuple(seeds), tuple(values) if len(values) == len(found) else (), complete)
