"""What scripts/bench_methods.py makes of finished runs: cells, columns with their winners, Markdown, CSV, a README."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lshbench.compare import Repeat, paired_values, read_repeat
from lshbench.errors import UsageError
from lshbench.metrics.significance import holm, paired_permutation_test
from lshbench.run_folder import Run, atomic_file

COLUMNS = {"mAP": "AP", "P@10": "P@10", "P@50": "P@50"}
"""Figures of the tables, and their columns in ``per_query.parquet``."""

LEVEL = 0.05
"""A winner's adjusted p-values are below it."""

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


@dataclass(frozen=True)
class Cell:
    """One method's runs at one code length on one data set, by seed.

    Attributes:
        name: the method's.
        runs: of the seeds that are there.
        complete: whether all seeds are.
    """

    name: str
    runs: list[Run]
    complete: bool

    def values(self, metric: str) -> list[float]:
        """Return a metric of each run."""
        return [run.metrics["metrics"][metric] for run in self.runs]


@dataclass(frozen=True)
class Column:
    """The methods of one supervision at one code length on one data set."""

    bits: int
    cells: dict[str, Cell]
    winners: dict[str, str | None]


@dataclass(frozen=True)
class Candidate:
    """A configuration's runs, as :func:`lshbench.compare.paired_values` takes them."""

    name: str
    repeats: list[Repeat]


def find_winner(cells: Sequence[Cell], metric: str) -> str | None:
    """Return the method that is better than each of the others with every seed, and significantly so, or None.

    Its differences to the others are tested query by query, seeds averaged, and the p-values corrected for
    the number of others (Holm).  None, too, while runs are missing, or where there are no others.
    """
    if len(cells) < 2 or not all(cell.complete for cell in cells):
        return None
    candidates = [Candidate(cell.name, [read_repeat(run, COLUMNS[metric]) for run in cell.runs]) for cell in cells]
    best = max(candidates, key=lambda one: np.mean([repeat.values.mean() for repeat in one.repeats]))
    tests = [paired_permutation_test(*paired_values(best, other)[:2]) for other in candidates if other is not best]
    significant = holm(np.array([test.p_value for test in tests])) < LEVEL
    by_seed = {one.name: np.array([repeat.values.mean() for repeat in one.repeats]) for one in candidates}
    always = all((by_seed[best.name] > by_seed[other.name]).all() for other in candidates if other is not best)
    return best.name if always and significant.all() else None


def column_of(bits: int, cells: dict[str, Cell]) -> Column:
    """Return methods as a column, with its winners."""
    return Column(bits, cells, {metric: find_winner(list(cells.values()), metric) for metric in COLUMNS})


def reference_of(columns: Sequence[Column]) -> Cell | None:
    """Return exact cosine ranking as a cell, a run for each seed, or None where no run has it."""
    by_seed = {run.metrics["seed"]: run for column in columns for cell in column.cells.values() for run in cell.runs}
    found = [run for run in by_seed.values() if run.metrics["reference"]["cosine"]]
    if not found:
        return None
    return Cell("exact cosine, no code", [Run(run.path, _as_metrics(run)) for run in found], True)


def _as_metrics(run: Run) -> dict:
    return {"metrics": run.metrics["reference"]["cosine"]}


def short(value: float) -> str:
    """Return .8352 for 0.8352."""
    return f"{value:.4f}".removeprefix("0")


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds, 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def figure(cell: Cell, metric: str, *, bold: bool = False) -> str:
    """Return a cell's mean and spread; a number in brackets is that of its seeds, if some are missing."""
    values = cell.values(metric)
    if not values:
        return "-"
    text = short(statistics.mean(values))
    if spread(values):
        text += f" ± {short(spread(values))}"
    text = f"**{text}**" if bold else text
    return text if cell.complete else f"{text} ({len(values)})"


def markdown_table(columns: Sequence[Column], metrics: Sequence[str], *, fit: bool) -> str:
    """Return a row for exact cosine and one for each method; columns are metrics x bits, and seconds of fitting."""
    headings = ["method", *(f"{metric}, {column.bits} bits" for metric in metrics for column in columns)]
    headings += ["fit, s"] if fit else []
    rows = [headings, ["---"] * len(headings)]
    if (reference := reference_of(columns)) is not None:
        figures = [figure(reference, metric) for metric in metrics for _ in columns]
        rows.append([reference.name, *figures, *(["-"] if fit else [])])
    for method in columns[0].cells:
        cells = [column.cells[method] for column in columns]
        row = [label(cells)]
        for metric in metrics:
            row += [figure(column.cells[method], metric, bold=column.winners[metric] == method) for column in columns]
        rows.append([*row, *([fit_seconds(cells)] if fit else [])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def label(cells: Sequence[Cell]) -> str:
    """Return a row's name; a leak is said wherever figures are shown."""
    leak = any(run.metrics["protocol"].get("leak", False) for cell in cells for run in cell.runs)
    return f"`{cells[0].name.removesuffix('-none')}`{' (leak)' if leak else ''}"


def fit_seconds(cells: Sequence[Cell]) -> str:
    """Return the mean time of fitting."""
    seconds = [run.metrics["time_s"]["fit"] for cell in cells for run in cell.runs]
    return f"{statistics.mean(seconds):.1f}" if seconds else "-"


TITLES = {"labels": "Trained with labels", "none": "Trained without labels"}

NOTE = (
    "Mean over seeds {seeds}, ± their standard deviation; mAP is the expected value over the order of ties, of all "
    "relevant items. **Bold**: better than every other method of its table with every seed, each difference "
    f"significant at {LEVEL} (paired sign-flip tests over queries, seeds averaged; Holm's correction)."
)


def markdown(seeds: Sequence[int], tables: Mapping[str, Mapping[str, list[Column]]]) -> str:
    """Return all tables as Markdown: mAP first, then P@10, P@50 and seconds of fitting.

    Args:
        seeds: those that were asked for.
        tables: columns by data set and supervision.
    """
    parts = [NOTE.format(seeds=", ".join(map(str, seeds)))]
    for dataset, groups in tables.items():
        shown = {title: groups[supervision] for supervision, title in TITLES.items() if supervision in groups}
        parts.append(f"### {dataset}")
        parts.append(describe([run for columns in shown.values() for run in runs_of(columns)]))
        for title, columns in shown.items():
            parts += [f"{title}:", markdown_table(columns, ["mAP"], fit=False)]
        parts.append("<details><summary>P@10, P@50 and seconds of fitting on one thread</summary>")
        for title, columns in shown.items():
            parts += [f"{title}:", markdown_table(columns, ["P@10", "P@50"], fit=True)]
        parts.append("</details>")
    missing = sum(not cell.complete for groups in tables.values() for cell in cells_of(groups))
    if missing:
        parts.append(
            f"{missing} {'cell lacks' if missing == 1 else 'cells lack'} runs; no winner is marked beside them."
        )
    return "\n\n".join(parts) + "\n"


def describe(runs: Sequence[Run]) -> str:
    """Return what the figures of a data set are of, and on what machine."""
    if not runs:
        return "No run is finished."
    metrics = runs[0].metrics
    data, backbone = metrics["dataset"], metrics["dataset"]["backbone"]
    return (
        f"{data['queries']:,} queries, {data['gallery']:,} in the gallery, {data['classes']} classes; "
        f"{f'{backbone}, ' if backbone else ''}{data['dim']} dims; protocol {metrics['protocol']['name']}; "
        f"{metrics['environment']['cpu']}."
    )


def cells_of(groups: Mapping[str, list[Column]]) -> Iterator[Cell]:
    """Yield the cells of a data set."""
    for columns in groups.values():
        for column in columns:
            yield from column.cells.values()


def runs_of(columns: Sequence[Column]) -> Iterator[Run]:
    """Yield the runs of a table."""
    for column in columns:
        for cell in column.cells.values():
            yield from cell.runs


def csv_text(tables: Mapping[str, Mapping[str, list[Column]]]) -> str:
    """Return all figures, a row for each data set, method and code length."""
    text = io.StringIO()
    names = [name for metric in COLUMNS for name in (metric, f"{metric}_std", f"{metric}_winner")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "supervision", "method", "bits", "seeds", *names, "fit_s"])
    for dataset, groups in tables.items():
        for supervision, columns in groups.items():
            reference = reference_of(columns)
            for column in columns:
                if reference is not None:
                    figures = [part for metric in COLUMNS for part in (*csv_figures(reference, metric), False)]
                    writer.writerow(
                        [dataset, supervision, "exact_cosine", column.bits, len(reference.runs), *figures, ""]
                    )
                for name, cell in column.cells.items():
                    figures = [
                        part
                        for metric in COLUMNS
                        for part in (*csv_figures(cell, metric), column.winners[metric] == name)
                    ]
                    seconds = [run.metrics["time_s"]["fit"] for run in cell.runs]
                    fit = f"{statistics.mean(seconds):.2f}" if seconds else ""
                    writer.writerow([dataset, supervision, name, column.bits, len(cell.runs), *figures, fit])
    return text.getvalue()


def csv_figures(cell: Cell, metric: str) -> tuple[str, str]:
    """Return mean and spread in full digits."""
    values = cell.values(metric)
    return (f"{statistics.mean(values):.6f}", f"{spread(values):.6f}") if values else ("", "")


def fill(readme: Path, text: str) -> None:
    """Put the tables between a document's markers.

    Raises:
        UsageError: it has not exactly one pair of them.
    """
    before = readme.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    after, count = pattern.subn(lambda _: f"{BEGIN}\n{text}{END}", before)
    if count != 1:
        raise UsageError(f"{readme} has {count} places for the tables: expected one {BEGIN} with {END} after it")
    write(readme, after)


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    with atomic_file(path) as file:
        file.write(text.encode())
