"""Compare finished runs: mean, bootstrap interval, and paired tests with Holm's correction.

    python scripts/compare_runs.py outputs/cifar10                       # every run below a folder
    python scripts/compare_runs.py RUN_A RUN_B --metric P@10 --json comparison.json

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

from lshbench.compare import Comparison, compare, find_runs
from lshbench.errors import UsageError


def print_tables(comparison: Comparison, console: Console) -> None:
    """Print the configurations, best first, and every pair."""
    level = f"{comparison.configurations[0].interval.level:.0%} interval"
    means = Table("configuration", "supervision", box=box.SIMPLE_HEAD, title=f"mean {comparison.metric}")
    for heading in ("seeds", "queries", "mean", level):
        means.add_column(heading, justify="right", no_wrap=True)
    for one in comparison.configurations:
        interval = one.interval
        means.add_row(
            escape(one.name) + (" [bold red](leak)[/]" if one.leak else ""),
            one.supervision,
            str(len(one.repeats)),
            f"{len(one.repeats[0].queries):,}",
            f"{interval.mean:.4f}",
            f"{interval.low:.4f} to {interval.high:.4f}",
        )
    console.print(means)
    if any(one.leak for one in comparison.configurations):
        console.print("(leak): queries are in the gallery or in training; the figures are too good.")
    if len({one.supervision for one in comparison.configurations}) > 1:
        console.print("Methods that saw labels in training compare only with their like.")
    if not comparison.pairs:
        return
    tests = Table("configuration", "against", box=box.SIMPLE_HEAD, title="paired sign-flip tests over queries")
    for heading in ("difference", "p", "p (Holm)"):
        tests.add_column(heading, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        tests.add_row(
            escape(pair.first),
            escape(pair.second),
            f"{pair.test.difference:+.4f}",
            f"{pair.test.p_value:.2g}",
            f"{pair.adjusted:.2g}" + (" *" if pair.adjusted < 0.05 else ""),
        )
    console.print(tests)
    console.print("* significant at 0.05 over all pairs together.  Runs are taken as they are: the tests speak of")
    console.print("other queries like these; the intervals count the spread between seeds too.")


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
    options = parser.parse_args(arguments)
    try:
        comparison = compare(
            find_runs(options.folders),
            options.metric,
            level=options.level,
            resamples=options.resamples,
            seed=options.seed,
        )
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print_tables(comparison, Console())
    if options.json:
        temporary = options.json.with_name(f".{options.json.name}.{os.getpid()}")
        temporary.write_text(json.dumps(comparison.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
