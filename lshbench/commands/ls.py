"""``lshbench ls [GROUP]``: what can be chosen, one line each."""

from __future__ import annotations

import argparse

from lshbench.config import GROUPS, options


def main(arguments: list[str]) -> None:
    """Print the options of one group, or of all."""
    parser = argparse.ArgumentParser(
        prog="lshbench ls", description="What can be chosen, as in `lshbench run GROUP=OPTION`."
    )
    parser.add_argument("group", nargs="?", choices=GROUPS, help="one group only")
    chosen = parser.parse_args(arguments).group
    for group in (chosen,) if chosen else GROUPS:
        found = list(options(group))
        width = max((len(name) for name, _ in found), default=0)
        print(f"{group}=")
        for name, description in found:
            print(f"  {name:<{width}}  {description}")
