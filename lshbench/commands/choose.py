"""``lshbench choose``: the codes and indexes that fit a budget, tried on a part of the training set."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lshbench.commands.arguments import Parser, exits

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lshbench.tuning.candidates import Budget
    from lshbench.tuning.choice import Choice

SHOWN = 12
"""Candidates in the table, besides those on the Pareto front."""

OWN = r"[+~]*(choose|budget|target)([.=@]|$)"
DECIDED = r"[+~]*(method|bits|index|ranking)([.=@]|$)"


def main(arguments: list[str]) -> None:
    """Choose and exit: 0 done, 1 a candidate failed, 2 wrong use, or nothing fits the budget."""
    given = parser().parse_args(arguments)
    with exits(given.verbose, "interrupted; the same command goes on where it was"):
        sys.exit(_choose(given))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="lshbench choose",
        description="Try the sensible codes and indexes within a budget, on validation queries from the training set; "
        "no query of the data set is looked at. Ends with a ranked table, the Pareto front, and the command that runs "
        "the winner. The same command goes on with a choice that was stopped.",
        epilog="Keys: budget.bytes=16 (an item's: code, index, and the features that searching reads), budget.ms=1 (a "
        "query's), target=P@10, and those that decide data and encoder. Candidates are an option of conf/choose "
        "(lshbench ls choose), such as choose=unsupervised, or a file of your own, DIR/choose/mine.yaml.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="as in `lshbench run`, and budget.*, target, choose.*"
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="also the options in a folder of your own")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of errors")
    return parser


def _choose(given: argparse.Namespace) -> int:
    """Choose, print the table and the winner's command, write both; return the exit code."""
    from lshbench.commands.compose import compose, compose_choice, override, refuse_lists
    from lshbench.config import build
    from lshbench.errors import UsageError
    from lshbench.runtime.cache import share_cache
    from lshbench.runtime.logs import ConsoleHandler, console, output_console
    from lshbench.runtime.progress import progress_for
    from lshbench.tuning.candidates import Budget, Choosing
    from lshbench.tuning.settings import check_measure

    logging.basicConfig(level=logging.WARNING, handlers=[ConsoleHandler()], format="%(message)s")
    logging.getLogger("lshbench").setLevel(logging.DEBUG if given.verbose else logging.INFO)
    refuse_lists(given.overrides, "lshbench choose", "one value, as candidates are an option of choose")
    own = [text for text in given.overrides if re.match(OWN, text)]
    others = [text for text in given.overrides if text not in own]
    if decided := [text for text in others if re.match(DECIDED, text)]:
        raise UsageError(
            f"{decided[0]}: expected no such key, as the candidates of choose have it (lshbench ls choose; your own: "
            "--config-dir DIR with DIR/choose/mine.yaml)"
        )
    keys = compose_choice(own, given.config_dir)
    settings, budget = build(keys, "choose", Choosing), Budget.read(keys["budget"])
    target = check_measure("target", keys["target"])
    config, _ = compose(others, given.config_dir)
    share_cache(config["cache"])
    from lshbench.tuning.choice import choose  # takes seconds, which a misspelt key should not

    def configure(values: dict[str, Any]) -> dict[str, Any]:
        return compose([*others, *(override(key, value) for key, value in values.items())], given.config_dir)[0]

    chosen = choose(configure, settings, budget, target, progress_for(console()))
    flags = [] if given.config_dir is None else ["--config-dir", str(given.config_dir)]
    command = None
    if chosen.ranked:
        best = [override(key, value) for key, value in chosen.ranked[0].values.items()]
        command = ["lshbench", "run", *flags, *others, *best]
    _write(chosen, budget, target, command)
    _print(chosen, budget, target, command, output_console())
    if any(one.state == "failed" for one in chosen.tried):
        return 1
    return 0 if chosen.ranked else 2


def _file(chosen: Choice, budget: Budget) -> Path:
    """Return where a choice is written: another budget, or other candidates, leave it as it is."""
    from lshbench.data.fingerprint import combine

    limits = f"{budget.bytes}b" + ("" if budget.ms is None else f"-{budget.ms:g}ms")
    candidates = combine(*(one.values for one in chosen.tried)).removeprefix("sha256:")[:6]
    return chosen.folder / f"choice-{limits}-{candidates}.json"


def _write(chosen: Choice, budget: Budget, target: str, command: list[str] | None) -> None:
    """Write the winner's command, what it claims, and what became of the other candidates."""
    from lshbench.run_folder.disk import atomic_file
    from lshbench.tuning.choice import LEVEL

    judge = chosen.judge
    content = {
        "command": command,
        "budget": vars(budget),
        "target": target,
        "level": LEVEL,
        "relevant": judge.by,
        "rule": judge.rule,
        "queries": len(judge.queries),
        "gallery": len(judge.gallery),
        "run_gallery": chosen.items,
        "ranked": [
            {
                "values": one.values,
                target: one.point.quality,
                "low": one.low,
                "high": one.high,
                "bytes_per_item": one.point.bytes_per_item,
                "ms": one.point.ms,
                "qps_with_encoding": one.point.qps,
                "pareto": one.on_front,
                "busy": one.point.busy,
            }
            for one in chosen.ranked
        ],
        "over_budget": [
            {"values": values, target: point.quality, "bytes_per_item": point.bytes_per_item, "ms": point.ms}
            for values, point in chosen.over
        ],
        "not_measured": [
            {"values": one.values, "state": one.state, "reason": one.reason} for one in chosen.tried if not one.points
        ],
    }
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(_file(chosen, budget)) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def _print(chosen: Choice, budget: Budget, target: str, command: list[str] | None, console: Console) -> None:
    """Print the candidates that fit, those that don't with their reason, and the winner's command."""
    from rich.text import Text

    from lshbench.tuning.choice import shown

    def line(text: str, style: str = "") -> None:
        # Never wrapped, so that it can be copied.
        console.print(Text(text, style), soft_wrap=True)

    judge = chosen.judge
    limit = f"{budget.bytes:,} bytes an item" + ("" if budget.ms is None else f", {budget.ms:g} ms a query")
    console.print()
    line(
        f"{len(judge.queries):,} validation queries against {len(judge.gallery):,} other training items; relevant: "
        f"{judge.rule}; budget: {limit}. Queries of the data set were not looked at."
    )
    console.print()
    if chosen.ranked:
        console.print(_table(chosen, target, _file(chosen, budget).name))
        among = ""
        if chosen.items != len(judge.gallery):
            among = f", among these {len(judge.gallery):,} items; the run's gallery has {chosen.items:,}"
        line(
            f"* none is better, smaller and faster (Pareto front). ms: a query alone with encoding, median{among}. The "
            f"interval is where {target} of the run's queries is to be expected."
        )
    for values, point in chosen.over:
        line(f"over budget: {shown(values)}: {target} {point.quality:.4f}, {_cost(point, budget)}", "yellow")
    for one in chosen.tried:
        if not one.points:
            line(f"{one.state}: {shown(one.values)}: {one.reason}", "red" if one.state == "failed" else "yellow")
    if budget.ms is not None and chosen.items > len(judge.gallery):
        line(
            f"budget.ms={budget.ms:g} was compared with times among {len(judge.gallery):,} items: times grow with the "
            f"gallery, which has {chosen.items:,} in the run, and those of exhaustive scans in proportion",
            "yellow",
        )
    if busy := next((one.point.busy for one in chosen.ranked if one.point.busy), None):
        line(f"BUSY {busy}: other work slowed the machine down, and times are too long", "yellow")
    console.print()
    if command is None:
        line("Nothing fits the budget.", "bold")
    else:
        line(f"  {shlex.join(command)}", "bold")
    line(f"  written to {_file(chosen, budget)}")


def _cost(point: Any, budget: Budget) -> str:
    """Return what of a candidate's cost is beyond the budget."""
    over = []
    if point.bytes_per_item > budget.bytes:
        over.append(f"{point.bytes_per_item:,.4g} bytes an item")
    if budget.ms is not None and point.ms > budget.ms:
        over.append(f"{point.ms:.3g} ms")
    return ", ".join(over)


def _table(chosen: Choice, target: str, file: str) -> Table:
    """Return the best candidates and those on the Pareto front; the others are in a file."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from lshbench.tuning.choice import LEVEL, shown

    rows = [(place, one) for place, one in enumerate(chosen.ranked, 1) if place <= SHOWN or one.on_front]
    left_out = len(chosen.ranked) - len(rows)
    drawn = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        safe_box=True,
        caption=f"{left_out} more in {file}" if left_out else None,
        caption_justify="left",
    )
    drawn.add_column("", justify="right", no_wrap=True)
    drawn.add_column("candidate", overflow="fold")
    for name in (target, f"{LEVEL:.0%} interval", "bytes", "ms"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for place, one in rows:
        cells = [
            f"{place}{'*' if one.on_front else ' '}",
            shown(one.values),
            f"{one.point.quality:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
            f"{one.point.bytes_per_item:,.4g}",
            f"{one.point.ms:.3g}",
        ]
        drawn.add_row(*map(Text, cells), style="bold" if place == 1 else "")
    return drawn
