"""Compare finished runs: mean, bootstrap interval, and paired tests with Holm's correction.

    python scripts/compare_runs.py outputs/cifar10                       # every run below a folder
    python scripts/compare_runs.py RUN_A RUN_B --metric P@10 --json comparison.json
    python scripts/compare_runs.py RUN --definitions                     # with which paper may a figure be compared?

Runs that differ in nothing but the seed are repeats of one configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lshbench.errors import UsageError
from lshbench.report.compare import Comparison, DefinitionTable, compare, definitions, find_runs

LEAK_NOTE = "(leak): queries are in the gallery or in training, or copies of them; the figures are too good."
LEAK = " [bold red](leak)[/]"


def print_tables(comparison: Comparison, console: Console) -> None:
    """Print the configurations, best first, and every pair."""
    level = f"{comparison.configurations[0].interval.level:.0%} interval"
    named = {one.name: escape(one.name) + (LEAK if one.leak else "") for one in comparison.configurations}
    means = Table("configuration", "supervision", box=box.SIMPLE_HEAD, title=f"mean {comparison.metric}")
    for heading in ("seeds", "queries", "mean", level):
        means.add_column(heading, justify="right", no_wrap=True)
    for one in comparison.configurations:
        interval = one.interval
        means.add_row(
            named[one.name],
            one.supervision,
            str(len(one.repeats)),
            f"{len(one.repeats[0].queries):,}",
            f"{interval.mean:.4f}",
            f"{interval.low:.4f} to {interval.high:.4f}",
        )
    console.print(means)
    if any(one.leak for one in comparison.configurations):
        console.print(LEAK_NOTE)
    if any(one.supervision == "features" for one in comparison.configurations):
        console.print("features: these alone were searched, without a method.")
    if len({one.supervision for one in comparison.configurations} - {"features"}) > 1:
        console.print("Methods that saw labels in training compare only with their like.")
    if not comparison.pairs:
        return
    tests = Table("configuration", "against", box=box.SIMPLE_HEAD, title="paired sign-flip tests over queries")
    for heading in ("difference", "p", "p (Holm)"):
        tests.add_column(heading, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        tests.add_row(
            named[pair.first],
            named[pair.second],
            f"{pair.test.difference:+.4f}",
            f"{pair.test.p_value:.2g}",
            f"{pair.adjusted:.2g}" + (" *" if pair.adjusted < 0.05 else ""),
        )
    console.print(tests)
    console.print("* significant at 0.05 over all pairs together.  Runs are taken as they are: the tests speak of")
    console.print("other queries like these; the intervals count the spread between seeds too.")


def print_definitions(table: DefinitionTable, console: Console) -> None:
    """Print every published definition: its values, then what is computed and whose figures are computed so."""
    figures = Table("definition", box=box.SIMPLE_HEAD, title="published definitions, means over seeds")
    figures.columns[0].no_wrap = True
    for name, leak in zip(table.names, table.leaks, strict=True):
        figures.add_column(escape(name) + (LEAK if leak else ""), justify="right", min_width=6)
    meanings = Table("definition", "what it is", "seen in", box=box.SIMPLE_HEAD, title="what they are")
    meanings.columns[0].no_wrap = True
    explained = set()
    for row in table.rows:
        figures.add_row(escape(row.key), *("-" if value is None else f"{value:.4f}" for value in row.values))
        if row.template not in explained:
            explained.add(row.template)
            general = row.template.replace("{k}", "k").replace("{r}", "r")
            meanings.add_row(escape(general), row.formula, ", ".join(row.published_by))
    console.print(figures)
    console.print(meanings)
    if any(table.leaks):
        console.print(LEAK_NOTE)
    console.print("Compare with a paper only what has its definition, protocol, features and supervision.")


def write_json(path: Path, content: dict) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="a run's folder, or one with runs below it"
    )
    parser.add_argument("--metric", default="AP", help="a column of per_query.parquet (default: %(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=10_000, help="sign patterns tried (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument(
        "--definitions", action="store_true", help="show every published definition of mAP and P@k instead"
    )
    options = parser.parse_args(arguments)
    console = Console()
    result: Comparison | DefinitionTable
    try:
        runs = find_runs(options.folders)
        if options.definitions:
            result = definitions(runs)
            print_definitions(result, console)
        else:
            result = compare(
                runs,
                options.metric,
                level=options.level,
                resamples=options.resamples,
                seed=options.seed,
            )
            print_tables(result, console)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        write_json(options.json, result.as_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
