"""Arguments of the subcommands: one message for wrong ones, with the name that was probably meant."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from lshbench.errors import UsageError
from lshbench.text import visible


class Parser(argparse.ArgumentParser):
    """A parser that ends with exit code 2 and one message."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {explained(message, self._option_string_actions)} ({self.prog} --help)\n")


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with 2 and one message for wrong use in the ``with`` block, with 130 for an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except UsageError as error:
        sys.stderr.write("lshbench: " + visible(str(error)) + "\n")
        sys.exit(2)


@contextmanager
def exits(verbose: bool, interrupted: str = "") -> Iterator[None]:
    """End the process as :func:`exit_codes` does, and with 1 and one line for a defect.

    Args:
        verbose: raise errors as they are, with a traceback; so does ``HYDRA_FULL_ERROR=1``.
        interrupted: what is said of an interrupt, if anything.
    """
    try:
        yield
    except KeyboardInterrupt:
        if interrupted:
            sys.stderr.write(f"\nlshbench: {interrupted}\n")
        sys.exit(130)
    except Exception as error:
        if verbose or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        usage = isinstance(error, UsageError)
        message = str(error) if usage else f"{type(error).__name__}: {error} (-v shows where)"
        sys.stderr.write("lshbench: " + visible(message, keep="\n") + "\n")
        sys.exit(2 if usage else 1)


def near(word: str, names: Iterable[str]) -> str:
    """Return the name that a misspelt one was probably meant to be; empty where there is none."""
    known = list(names)
    if close := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return close[0]
    first = word.strip("-").partition("-")[0]
    begun = [name for name in known if len(first) > 2 and name.strip("-").startswith(first)]
    return begun[0] if begun else ""


def explained(message: str, flags: Iterable[str], keys: Iterable[str] = ()) -> str:
    """Return a message of argparse's with the name that was probably meant.

    Args:
        message: on arguments that are not known, or a value that is none of some.
        flags: that there are.
        keys: names that stand without dashes, as in ``key=value``.
    """
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        flag, _, value = found[1].partition("=")
        if not flag.startswith("-"):
            return message
        wanted = flag if len(flag) > 2 else ""
        if key := near(wanted.lstrip("-"), keys):
            return f"{flag}: no such flag; keys are given without dashes: {key}={value or '...'}"
        name = near(wanted, flags)
        return f"{flag}: no such flag{f'; did you mean {name}?' if name else ''}"
    if found := re.match(r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message):
        choices = found[3].replace("'", "").split(", ")
        name = near(found[2], choices)
        return f"{found[1]}={found[2]!r}: expected {', '.join(choices)}{f'; did you mean {name}?' if name else ''}"
    return message
