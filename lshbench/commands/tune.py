"""``lshbench tune``: values for a configuration, chosen by trials on a part of the training set."""

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

    from lshbench.tuning.settings import Settings
    from lshbench.tuning.tune import Tuned

BEST = "best.json"
SHOWN = 10
"""Trials in the table."""


def main(arguments: list[str]) -> None:
    """Tune and exit: 0 done, 1 a trial failed, 2 wrong use."""
    given = parser().parse_args(arguments)
    with exits(given.verbose, "interrupted; the same command goes on where it was"):
        sys.exit(_tune(given))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="lshbench tune",
        description="Choose values for a run's configuration by trials on a part of its training set (Optuna); no "
        "query is looked at. The same command goes on with a study that was stopped.",
        epilog="What is searched is an option of conf/tune (lshbench ls tune), such as tune=training, or a file of "
        "your own, DIR/tune/mine.yaml. Its keys can be changed: tune.trials=50 tune.measure=P@10.",
        allow_abbrev=False,
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="as in `lshbench run`, and tune.key=value")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="also the options in a folder of your own")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of errors")
    return parser


def _tune(given: argparse.Namespace) -> int:
    """Tune, print the table and the winner's command, write both; return the exit code."""
    from lshbench.commands.compose import compose, compose_tuning, override, refuse_lists
    from lshbench.config import build
    from lshbench.runtime.cache import share_cache
    from lshbench.runtime.logs import ConsoleHandler, console, output_console
    from lshbench.runtime.progress import progress_for
    from lshbench.tuning.settings import Settings
    from lshbench.tuning.study import require_optuna

    require_optuna()
    logging.basicConfig(level=logging.WARNING, handlers=[ConsoleHandler()], format="%(message)s")
    logging.getLogger("lshbench").setLevel(logging.DEBUG if given.verbose else logging.INFO)
    refuse_lists(given.overrides, "lshbench tune", "one value; values to try are a list: tune.search.bits=[16,32]")
    own = [text for text in given.overrides if re.match(r"[+~]*tune([.=@]|$)", text)]
    others = [text for text in given.overrides if text not in own]
    settings = build({"tune": compose_tuning(own, given.config_dir)}, "tune", Settings)
    config, _ = compose(others, given.config_dir)
    share_cache(config["cache"])
    from lshbench.tuning.tune import tune  # takes seconds, which a misspelt key should not

    def configure(values: dict[str, Any], seed: int) -> dict[str, Any]:
        tried = [override(key, value) for key, value in values.items()]
        return compose([*others, *tried, f"seed={seed}"], given.config_dir)[0]

    tuned = tune(configure, config["seed"], settings, progress_for(console()))
    flags = [] if given.config_dir is None else ["--config-dir", str(given.config_dir)]
    chosen = [override(key, value) for key, value in tuned.best.values.items()]
    command = ["lshbench", "run", *flags, *others, *chosen]
    _write(tuned, settings, command)
    _print(tuned, settings, command, output_console())
    states = {trial.outcome.state for trial in tuned.trials}
    return 1 if "failed" in states else 2 if states == {"refused"} else 0


def _write(tuned: Tuned, settings: Settings, command: list[str]) -> None:
    """Write the winner's command, its values, and what they were judged by."""
    from lshbench.run_folder.disk import atomic_file

    best, judge = tuned.best, tuned.judge
    content = {
        "command": command,
        "values": best.values,
        "trial": best.number,
        "measure": settings.measure,
        "validation": best.outcome.quality,
        "validation_as_given": tuned.as_given.outcome.quality,
        "relevant": judge.by,
        "rule": judge.rule,
        "queries": len(judge.queries),
        "gallery": len(judge.gallery),
        "train": len(judge.train),
        "trials": [{"number": one.number, "values": one.values, **vars(one.outcome)} for one in tuned.trials],
    }
    with atomic_file(tuned.folder / BEST) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def _print(tuned: Tuned, settings: Settings, command: list[str], console: Console) -> None:
    """Print the best trials, the others that have no figure, and the winner's command."""
    from rich.text import Text

    def line(text: str, style: str = "") -> None:
        # Never wrapped, so that it can be copied.
        console.print(Text(text, style), soft_wrap=True)

    judge = tuned.judge
    console.print()
    line(
        f"{len(judge.queries):,} validation queries against {len(judge.gallery):,} other training items; relevant: "
        f"{judge.rule}. Queries of the data set were not looked at."
    )
    console.print()
    console.print(_table(tuned, settings))
    for one in tuned.trials:
        if one.outcome.state != "finished":
            line(f"trial {one.number} {one.outcome.state}: {one.outcome.reason}", "red")
    console.print()
    if tuned.best is tuned.as_given:
        line("No trial is better than the configuration as given:")
    line(f"  {shlex.join(command)}", "bold")
    line(f"  written to {tuned.folder / BEST}")


def _table(tuned: Tuned, settings: Settings) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from lshbench.runtime.progress import duration
    from lshbench.tuning.space import written

    finished = [one for one in tuned.trials if one.outcome.quality is not None and one.outcome.same_as is None]
    order = sorted(finished, key=lambda one: -(one.outcome.quality or 0.0))
    keys = list(settings.space)
    left_out = [f"the best {SHOWN} of {len(order)} that differ"] if len(order) > SHOWN else []
    drawn = Table(
        box=SIMPLE_HEAD, pad_edge=False, safe_box=True, caption="; ".join(left_out) or None, caption_justify="left"
    )
    drawn.add_column("trial", no_wrap=True)
    drawn.add_column(f"validation {settings.measure}", justify="right")
    last = [key.rpartition(".")[2] for key in keys]
    for key, name in zip(keys, last, strict=True):
        drawn.add_column(name if last.count(name) == 1 else key, justify="right", overflow="fold")
    drawn.add_column("time", justify="right", no_wrap=True)
    for one in (*order[:SHOWN], tuned.as_given):
        values = [written(one.values[key]) if key in one.values else "" for key in keys]
        name = "as given" if one.number is None else str(one.number)
        cells = [name, f"{one.outcome.quality:.4f}", *values, duration(one.outcome.seconds)]
        drawn.add_row(*map(Text, cells), style="bold" if one is tuned.best else "")
    return drawn
