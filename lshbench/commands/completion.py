"""Completion in the shell: of subcommands and their flags here, of what ``lshbench run`` takes by Hydra."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from lshbench.commands.arguments import near
from lshbench.errors import wrong_value

FLAGS = ("-sc", "--shell-completion", "--shell_completion")
ACTIONS, SHELLS = ("install", "uninstall", "query"), ("bash", "zsh", "fish")


def complete(arguments: Sequence[str], commands: Sequence[str]) -> None:
    """Answer ``-sc install=bash``, or a shell's question for the words that may follow.

    Args:
        arguments: of the command line, with the flag.
        commands: the subcommands.

    Raises:
        UsageError: another action or shell.
    """
    asked = arguments[1] if len(arguments) == 2 and arguments[0] in FLAGS else " ".join(arguments[1:])
    action, _, shell = asked.partition("=")
    if action not in ACTIONS or shell not in SHELLS:
        meant = near(shell, SHELLS) or "SHELL"
        raise wrong_value("-sc", asked, f"install={meant} or uninstall={meant}, with bash, zsh or fish")
    words = os.environ.get("COMP_LINE", "").split(" ")
    command = next((word for word in ("run", "extract", "choose", "tune") if word in words[1:-1]), None)
    if action == "query" and (command is None or (words[-1].startswith("-") and command in ("choose", "tune"))):
        found = _words(words[1:], commands)
        print(("\n" if shell == "fish" else " ").join(found))
        return
    from lshbench.commands.run import complete as complete_run

    os.environ["COMP_LINE"] = re.sub(r"^(\S+)\s+(run|extract|choose|tune)\b\s?", r"\1 ", " ".join(words))
    complete_run(list(arguments))


def _words(words: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Return what the last of some words may be: a subcommand, a flag of one, or the value of a flag or argument."""
    if len(words) < 2:
        return [*commands, "--help", "--version"]
    parser = _parser(words[0])
    if parser is None:
        return []
    if words[-1].startswith("-"):
        return sorted(flag for action in parser._actions for flag in action.option_strings if flag.startswith("--"))
    before = next((action for action in parser._actions if words[-2] in action.option_strings), None)
    if before is None or before.nargs == 0:
        before = next((action for action in parser._actions if not action.option_strings and action.choices), None)
    return [str(choice) for choice in (before.choices if before is not None else None) or ()]


def _parser(command: str) -> argparse.ArgumentParser | None:
    if command == "search":
        from lshbench.commands.search import parser
    elif command == "report":
        from lshbench.commands.report import parser
    elif command == "verify":
        from lshbench.commands.verify import parser
    elif command == "choose":
        from lshbench.commands.choose import parser
    elif command == "tune":
        from lshbench.commands.tune import parser
    elif command == "ls":
        from lshbench.commands.ls import parser
    else:
        return None
    return parser()
