"""``lshbench ls [GROUP]``: what can be chosen, one line each."""

from __future__ import annotations

import argparse
from pathlib import Path

from lshbench.commands.arguments import Parser
from lshbench.config import LISTED, options

TAKEN_BY = {"choose": "  (lshbench choose)", "tune": "  (lshbench tune)", "table": "  (lshbench report --table NAME)"}
"""Groups that are no part of a run, and the command that takes them."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(prog="lshbench ls", description="What can be chosen, as in `lshbench run GROUP=OPTION`.")
    parser.add_argument("group", nargs="?", choices=LISTED, help="one group only")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="also the options in a folder of your own")
    return parser


def main(arguments: list[str]) -> None:
    """Print the options of one group, or of all."""
    asked = parser().parse_args(arguments)
    if asked.config_dir is not None and not asked.config_dir.is_dir():
        parser().error(f"--config-dir {asked.config_dir}: expected a folder of options, such as DIR/method/mine.yaml")
    for group in (asked.group,) if asked.group else LISTED:
        own = [] if asked.config_dir is None else list(options(group, asked.config_dir))
        found = [*options(group), *own]
        width = max((len(name) for name, _ in found), default=0)
        print(f"{group}={TAKEN_BY.get(group, '')}")
        for name, description in found:
            print(f"  {name:<{width}}  {description}")
