"""The ``lshbench`` command: looks at the first word and hands the rest to that command's module.

Nothing heavy is imported here, so that help and errors come at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from lshbench import __version__
from lshbench.runtime.logs import be_patient
from lshbench.runtime.threads import let_waiting_threads_sleep

COMMANDS = ("run", "extract", "search", "report", "verify", "choose", "tune", "ls")

HELP = """\
usage: lshbench COMMAND ...

Hash codes for image retrieval, judged by labels.

commands:
  run [-m] [key=value ...]   one experiment, or a sweep with -m (lshbench run --help)
  extract [key=value ...]    only the features: resumable, by any number of processes (lshbench extract --help)
  search RUN IMAGE...        the nearest gallery images to pictures, by a finished run
  report DIR...              finished runs compared: means, intervals, tests, a page
  verify RUN...              whether a run's files are those that were written
  choose [key=value ...]     the codes and indexes within a budget, tried on the training set
  tune [key=value ...]       values for a run, chosen by trials on its training set
  ls [GROUP]                 what can be chosen, one line each

options:
  -h, --help                 this text
  --version                  the version
  -sc install=SHELL          a line to evaluate for completion in bash, zsh or fish

first steps:
  lshbench run                                    fourier codes of the embedded digits
  lshbench run method=kmeans dataset=digits       another method
  lshbench run -m bits=16,32,64                   a sweep
  lshbench report outputs --out report            its comparison, and a page of it
"""


def main() -> None:
    """Run the command line and exit: 0 done, 1 a job failed, 2 wrong use."""
    be_patient()
    let_waiting_threads_sleep()
    arguments = sys.argv[1:]
    match arguments:
        case ["run", *rest]:
            from lshbench.commands.run import main as run

            run(rest)
        case ["extract", *rest]:
            from lshbench.commands.extract import main as extract

            extract(rest)
        case ["search", *rest]:
            from lshbench.commands.search import main as search

            search(rest)
        case ["report", *rest]:
            from lshbench.commands.report import main as report

            report(rest)
        case ["verify", *rest]:
            from lshbench.commands.verify import main as verify

            verify(rest)
        case ["choose", *rest]:
            from lshbench.commands.choose import main as choose

            choose(rest)
        case ["tune", *rest]:
            from lshbench.commands.tune import main as tune

            tune(rest)
        case ["ls", *rest]:
            from lshbench.commands.ls import main as ls

            ls(rest)
        case [] | ["-h" | "--help" | "help", *_]:
            print(HELP, end="")
        case ["--version"]:
            print(f"lshbench {__version__}")
        case ["-sc" | "--shell-completion" | "--shell_completion", *_]:
            from lshbench.commands.completion import complete
            from lshbench.errors import UsageError

            try:
                complete(arguments, COMMANDS)
            except UsageError as error:
                _refuse(str(error))
        case [first, *_]:
            from lshbench.commands.arguments import near

            meant = near(first, COMMANDS)
            if "=" in first or first in ("-m", "--multirun"):
                hint = f"; did you mean `lshbench run {first}`?"
            else:
                hint = f"; did you mean `lshbench {meant}`?" if meant else ""
            _refuse(f"no command {first!r}: expected {', '.join(COMMANDS)}{hint} (lshbench --help)")


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"lshbench: {message}\n")
    sys.exit(2)
