"""The table of `lshbench run experiment=design`: published designs and ours, from finished runs.

    lshbench run experiment=design
    python scripts/table_design.py outputs
    python scripts/table_design.py outputs --readme docs/results.md    # also between its markers

A table for each data set and encoder below the folders; of several runs of a row the newest counts.  A row is an option
of conf/experiment/design, whose first line names it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markers import fill, markers

from lshbench.config import conf_folder, options
from lshbench.errors import UsageError
from lshbench.report.select import find
from lshbench.run_folder import Run, RunMetrics

MARKER = "design"

GROUP = "experiment/design"
"""The rows, as options of an experiment."""

NOTE = (
    "Candidates are ranked by cosine of the original features, unless a row says otherwise, and items that a "
    "query was not compared with count as never retrieved. mAP, P@10 and P@50 count every query, and mAP divides "
    "by all relevant items; the other three are defined as in the reproduced design: of the first 50, divided by "
    "the hits among them, without the queries that had no candidate. Time is that of one query alone, its "
    "encoding from features included. **Bold**: a column's best."
)


@dataclass(frozen=True)
class FigureColumn:
    """A column of the table: a figure of a run, and how it is shown; ``ranked``: the greatest is the best."""

    title: str
    value: Callable[[RunMetrics], float]
    text: Callable[[float], str]
    ranked: bool = False


def short(value: float) -> str:
    """Return .835 for 0.8352."""
    return f"{value:.3f}".removeprefix("0")


def _headline(name: str) -> FigureColumn:
    return FigureColumn(name, lambda metrics: metrics.metrics[name], short, ranked=True)


def _definition(name: str) -> FigureColumn:
    return FigureColumn(name.replace("/", " / "), lambda metrics: metrics.definitions[name], short, ranked=True)


COLUMNS = (
    *(_headline(name) for name in ("mAP", "P@10", "P@50")),
    *(_definition(name) for name in ("mAP@50/hits_nonempty", "P@10/nonempty", "P@50/nonempty")),
    FigureColumn("queries without candidates", lambda m: m.search.queries_without_candidates, "{:,.0f}".format),
    FigureColumn("candidates", lambda m: m.search.candidates_mean, "{:,.0f}".format),
    FigureColumn("of the gallery", lambda m: m.search.candidates_fraction, "{:.2%}".format),
    FigureColumn("ms a query", lambda m: m.search.latency_ms["with_encoding_p50"], "{:.3g}".format),
    FigureColumn("fit, s", lambda m: m.time_s["fit"], "{:.1f}".format),
)


def row_names() -> dict[str, str]:
    """Return the rows' names, in the order in which the experiment runs them; others follow."""
    found = dict(options(GROUP))
    experiment = yaml.safe_load((conf_folder() / "experiment" / "design.yaml").read_text(encoding="utf-8"))
    order = re.split(r"[\s,]+", experiment["hydra"]["sweeper"]["params"][GROUP].strip())
    return {row: found[row] for row in dict.fromkeys([*order, *found])}


def row_of(run: Run) -> str | None:
    """Return which row a run is, or None if it is none."""
    rows = [word.partition("=")[2] for word in run.metrics.command if word.startswith(f"{GROUP}=")]
    return rows[-1] if rows else None


def grouped(runs: Sequence[Run]) -> dict[str, dict[str, Run]]:
    """Return the newest run of each row, by a title that says what the figures are of.

    Raises:
        UsageError: no run is of the experiment, or one kept no definitions.
    """
    tables: dict[str, dict[str, Run]] = {}
    for run in sorted(runs, key=lambda run: run.metrics.created):
        if (row := row_of(run)) is None:
            continue
        if not run.metrics.definitions:
            raise UsageError(f"{run.path} has no definitions: expected a run with evaluation.definitions=true")
        tables.setdefault(title(run), {})[row] = run
    if not tables:
        raise UsageError(f"no run of these folders has {GROUP}= in its command: expected runs of experiment=design")
    return dict(sorted(tables.items()))


def title(run: Run) -> str:
    """Return the data and the encoder of a run's figures."""
    data = run.metrics.dataset
    encoder = f"{data.backbone}, " if data.backbone else ""
    return (
        f"**{data.name}**: {data.queries:,} queries, {data.gallery:,} in the gallery, {data.classes} "
        f"classes; {encoder}{data.dim:,} dims; protocol {run.metrics.protocol.name}"
    )


def table(rows: dict[str, Run], names: dict[str, str]) -> str:
    """Return a Markdown table; rows that ``names`` doesn't have come last."""
    ordered = [row for row in [*names, *sorted(set(rows) - set(names))] if row in rows]
    best = {column: max(column.value(run.metrics) for run in rows.values()) for column in COLUMNS if column.ranked}
    lines = [["", *(column.title for column in COLUMNS)], ["---", *["---:"] * len(COLUMNS)]]
    for row in ordered:
        metrics = rows[row].metrics
        leak = " (leak)" if metrics.protocol.leak else ""
        trained = ", with labels" if metrics.method.supervision == "labels" else ""
        cells = [f"{names.get(row, row)}{trained}{leak}"]
        for column in COLUMNS:
            value = column.value(metrics)
            text = column.text(value)
            cells.append(f"**{text}**" if column.ranked and text == column.text(best[column]) else text)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def markdown(tables: dict[str, dict[str, Run]]) -> str:
    """Return all tables."""
    names = row_names()
    parts = [NOTE]
    for heading, rows in tables.items():
        machine = next(iter(rows.values())).metrics.environment
        threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
        parts += [f"{heading}; {threads} of {machine['cpu']}.", table(rows, names)]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("outputs", type=Path, nargs="+", help="runs, or folders of runs")
    between = "put them between {} and {} of a document".format(*markers(MARKER))
    parser.add_argument("--readme", type=Path, metavar="FILE", help=between)
    given = parser.parse_args(arguments)
    try:
        text = markdown(grouped(find(given.outputs).runs))
        if given.readme is not None:
            fill(given.readme, MARKER, text)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
