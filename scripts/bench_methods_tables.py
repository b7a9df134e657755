"""Tables of scripts/bench_methods.py from finished runs: cells, columns with their winners, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lshbench.metrics.significance import holm, paired_permutation_test
from lshbench.report.repeats import Repeat, paired_values, read_repeat
from lshbench.run_folder import Run, atomic_file

COLUMNS = {"mAP": "AP", "P@10": "P@10", "P@50": "P@50"}
"""Figures of the tables, and their columns in ``per_query.parquet``."""

LEVEL = 0.05
"""Adjusted p-values below it are significant."""


@dataclass(frozen=True)
class Table:
    """Contents of a table.

    Attributes:
        title: what its rows have in common.
        baseline: the row from which the differences of the others are shown, if any are.
        parameters: whether numbers of parameters are.
    """

    title: str
    baseline: str | None = None
    parameters: bool = False


TABLES = {
    "labels": Table("Trained with labels"),
    "none": Table("Trained without labels"),
    "ablation": Table("`fourier` by default, and changed", baseline="fourier", parameters=True),
    "wide": Table("Trained with labels, wide hidden layers", parameters=True),
    "transfer": Table("Trained with labels, and without"),
}
"""By name, in the order in which they are shown."""


@dataclass(frozen=True)
class Cell:
    """One method's runs at one code length on one data set, by seed.

    Attributes:
        name: the method's.
        label: what the table shows for it.
        runs: of the seeds that are there.
        complete: whether all seeds are.
    """

    name: str
    label: str
    runs: list[Run]
    complete: bool

    def values(self, metric: str) -> list[float]:
        """Return a metric of each run."""
        return [run.metrics.metrics[metric] for run in self.runs]


@dataclass(frozen=True)
class Difference:
    """How far a method's mAP is from the baseline's.

    Attributes:
        mean: over queries and seeds.
        p_value: of no difference, adjusted for the number of methods (Holm).
    """

    mean: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it is more than chance."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class MethodColumn:
    """The methods of one table at one code length on one data set."""

    bits: int
    cells: dict[str, Cell]
    winners: dict[str, str | None]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Candidate:
    """A configuration's runs, as :func:`lshbench.report.repeats.paired_values` takes them."""

    name: str
    repeats: list[Repeat]


def candidate_of(cell: Cell, metric: str) -> Candidate:
    """Return a cell's runs with their values of a metric."""
    return Candidate(cell.name, [read_repeat(run, COLUMNS[metric]) for run in cell.runs])


def find_winner(cells: Sequence[Cell], metric: str) -> str | None:
    """Return the method that is better than each of the others with every seed, and significantly so, or None.

    Its differences to the others are tested query by query, seeds averaged, and the p-values corrected for
    the number of others (Holm).  None, too, while runs are missing, or where there are no others.
    """
    if len(cells) < 2 or not all(cell.complete for cell in cells):
        return None
    candidates = [candidate_of(cell, metric) for cell in cells]
    best = max(candidates, key=lambda one: np.mean([repeat.values.mean() for repeat in one.repeats]))
    tests = [paired_permutation_test(*paired_values(best, other)[:2]) for other in candidates if other is not best]
    significant = holm(np.array([test.p_value for test in tests])) < LEVEL
    by_seed = {one.name: np.array([repeat.values.mean() for repeat in one.repeats]) for one in candidates}
    always = all((by_seed[best.name] > by_seed[other.name]).all() for other in candidates if other is not best)
    return best.name if always and significant.all() else None


def find_differences(cells: Mapping[str, Cell], baseline: str | None) -> dict[str, Difference]:
    """Return how far each method is from the baseline, tested as winners are; no method whose runs are missing."""
    if baseline is None or baseline not in cells or not cells[baseline].complete:
        return {}
    default = candidate_of(cells[baseline], "mAP")
    others = [candidate_of(cell, "mAP") for name, cell in cells.items() if name != baseline and cell.complete]
    tests = [paired_permutation_test(*paired_values(other, default)[:2]) for other in others]
    adjusted = holm(np.array([test.p_value for test in tests]))
    return {
        other.name: Difference(test.difference, float(p_value))
        for other, test, p_value in zip(others, tests, adjusted, strict=True)
    }


def column_of(bits: int, cells: dict[str, Cell], baseline: str | None) -> MethodColumn:
    """Return methods as a column, with its winners and their differences from the baseline, if there is one."""
    winners = {metric: find_winner(list(cells.values()), metric) for metric in COLUMNS}
    return MethodColumn(bits, cells, winners, find_differences(cells, baseline))


def reference_of(columns: Sequence[MethodColumn]) -> Cell | None:
    """Return exact cosine ranking as a cell, a run for each seed, or None where no run has it.

    Where the seed draws the queries, each seed has figures of its own; all seeds are there if any method has all.
    """
    cells = [cell for column in columns for cell in column.cells.values()]
    by_seed = {run.metrics.seed: run for cell in cells for run in cell.runs}
    found = [run for _, run in sorted(by_seed.items()) if run.metrics.reference.cosine]
    if not found:
        return None
    runs = [replace(run, metrics=replace(run.metrics, metrics=run.metrics.reference.cosine)) for run in found]
    return Cell("exact_cosine", "exact cosine, no code", runs, any(cell.complete for cell in cells))


def short(value: float) -> str:
    """Return .8352 for 0.8352."""
    return f"{value:.4f}".removeprefix("0")


def signed(value: float) -> str:
    """Return +.0052 for 0.0052."""
    return f"{value:+.4f}".replace("0.", ".", 1)


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


def markdown_table(
    columns: Sequence[MethodColumn], metrics: Sequence[str], extras: Mapping[str, Mapping[str, str]]
) -> str:
    """Return a row for exact cosine and one for each method; columns are metrics x bits, and what else is given.

    Args:
        columns: the table's.
        metrics: which to show.
        extras: further columns by heading, texts by method.
    """
    headings = ["method", *(f"{metric}, {column.bits} bits" for metric in metrics for column in columns), *extras]
    rows = [headings, ["---"] * len(headings)]
    if (reference := reference_of(columns)) is not None:
        figures = [figure(reference, metric) for metric in metrics for _ in columns]
        rows.append([reference.label, *figures, *["-"] * len(extras)])
    for method in columns[0].cells:
        row = [labelled([column.cells[method] for column in columns])]
        for metric in metrics:
            row += [figure(column.cells[method], metric, bold=column.winners[metric] == method) for column in columns]
        rows.append([*row, *(texts.get(method, "-") for texts in extras.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def labelled(cells: Sequence[Cell]) -> str:
    """Return a row's label; a leak is said wherever figures are shown."""
    leak = any(run.metrics.protocol.leak for cell in cells for run in cell.runs)
    return f"{cells[0].label}{' (leak)' if leak else ''}"


def fit_seconds(columns: Sequence[MethodColumn]) -> dict[str, str]:
    """Return each method's mean time of fitting."""
    seconds: dict[str, list[float]] = {}
    for column in columns:
        for method, cell in column.cells.items():
            seconds.setdefault(method, []).extend(run.metrics.time_s["fit"] for run in cell.runs)
    return {method: f"{statistics.mean(times):.1f}" for method, times in seconds.items() if times}


def parameters_of(cell: Cell) -> int | None:
    """Return how many numbers a method learns or draws, the same with every seed."""
    return cell.runs[0].metrics.method.parameters if cell.runs else None


def comparisons(table: Table, columns: Sequence[MethodColumn]) -> dict[str, dict[str, str]]:
    """Return what a table shows beside mAP: differences from its baseline, and numbers of parameters."""
    extras = {}
    if table.baseline is not None:
        for column in columns:
            extras[f"difference from the default, {column.bits} bits"] = {
                method: f"{signed(difference.mean)}{'' if difference.significant else ' (n.s.)'}"
                for method, difference in column.differences.items()
            }
    if table.parameters:
        for column in columns:
            counts = {method: parameters_of(cell) for method, cell in column.cells.items()}
            extras[f"parameters, {column.bits} bits"] = {
                method: f"{count:,}" for method, count in counts.items() if count is not None
            }
    return extras


NOTE = (
    "Mean over seeds {seeds}, ± their standard deviation; mAP is the expected value over the order of ties, of all "
    "relevant items. **Bold**: better than every other method of its table with every seed, each difference "
    f"significant at {LEVEL} (paired sign-flip tests over queries, seeds averaged where they have them in common; "
    "Holm's correction)."
)

DIFFERENCES_NOTE = "Differences from the default are those of mAP, tested likewise; n.s.: not significant."


def markdown(seeds: Sequence[int], tables: Mapping[str, Mapping[str, list[MethodColumn]]]) -> str:
    """Return all tables as Markdown: mAP first, then P@10, P@50 and seconds of fitting.

    Args:
        seeds: those that were asked for.
        tables: columns by data set and name of the table.
    """
    note = NOTE.format(seeds=", ".join(map(str, seeds)))
    differences = any(TABLES[name].baseline for groups in tables.values() for name in groups)
    parts = [f"{note} {DIFFERENCES_NOTE}" if differences else note]
    for dataset, groups in tables.items():
        shown = {TABLES[name]: columns for name, columns in groups.items()}
        parts.append(f"### {dataset}")
        parts.append(describe([run for cell in cells_of(groups) for run in cell.runs]))
        for table, columns in shown.items():
            parts += [f"{table.title}:", markdown_table(columns, ["mAP"], comparisons(table, columns))]
        parts.append("<details><summary>P@10, P@50 and seconds of fitting on one thread</summary>")
        for table, columns in shown.items():
            parts += [f"{table.title}:", markdown_table(columns, ["P@10", "P@50"], {"fit, s": fit_seconds(columns)})]
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
    data, encoder = metrics.dataset, f"{metrics.dataset.backbone}, " if metrics.dataset.backbone else ""
    queries = between(run.metrics.dataset.queries for run in runs)
    gallery = between(run.metrics.dataset.gallery for run in runs)
    return (
        f"{queries} queries, {gallery} in the gallery, {data.classes} classes; {encoder}{data.dim} dims; "
        f"protocol {metrics.protocol.name}; {metrics.environment['cpu']}."
    )


def between(numbers: Iterable[int]) -> str:
    """Return 360, or 83 to 92 where seeds draw different numbers."""
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def cells_of(groups: Mapping[str, list[MethodColumn]]) -> Iterator[Cell]:
    """Yield the cells of a data set."""
    for columns in groups.values():
        for column in columns:
            yield from column.cells.values()


def csv_text(tables: Mapping[str, Mapping[str, list[MethodColumn]]]) -> str:
    """Return all figures, a row for each data set, table, method and code length."""
    text = io.StringIO()
    names = [name for metric in COLUMNS for name in (metric, f"{metric}_std", f"{metric}_winner")]
    writer = csv.writer(text, lineterminator="\n")
    differences = ["difference", "difference_p", "difference_significant"]
    writer.writerow(["dataset", "table", "method", "bits", "seeds", *names, "fit_s", "parameters", *differences])
    for dataset, groups in tables.items():
        for table, columns in groups.items():
            reference = reference_of(columns)
            for column in columns:
                for cell in ([] if reference is None else [reference]) + list(column.cells.values()):
                    figures = [
                        part
                        for metric in COLUMNS
                        for part in (*csv_figures(cell, metric), column.winners[metric] == cell.name)
                    ]
                    rest = ["", ""] if cell is reference else csv_costs(cell)
                    rest += csv_difference(column.differences.get(cell.name))
                    writer.writerow([dataset, table, cell.name, column.bits, len(cell.runs), *figures, *rest])
    return text.getvalue()


def csv_figures(cell: Cell, metric: str) -> tuple[str, str]:
    """Return mean and spread in full digits."""
    values = cell.values(metric)
    return (f"{statistics.mean(values):.6f}", f"{spread(values):.6f}") if values else ("", "")


def csv_costs(cell: Cell) -> list[str]:
    """Return mean seconds of fitting, and the number of parameters."""
    if not cell.runs:
        return ["", ""]
    seconds = statistics.mean(run.metrics.time_s["fit"] for run in cell.runs)
    return [f"{seconds:.2f}", str(parameters_of(cell))]


def csv_difference(difference: Difference | None) -> list[str]:
    """Return a difference's mean, p-value and whether it is significant."""
    if difference is None:
        return ["", "", ""]
    return [f"{difference.mean:.6f}", f"{difference.p_value:.6f}", str(difference.significant)]


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    with atomic_file(path) as file:
        file.write(text.encode())
