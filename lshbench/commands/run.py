"""``lshbench run``: one experiment, or a Hydra multirun.  The only module that knows Hydra."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lshbench.commands.refusals import explain, missing_working_folder, quoting_hint, taken
from lshbench.commands.sweep import Journal, Outcome, State
from lshbench.config import GROUPS, RootSchema, check_root, conf_folder, options, use_modules_beside
from lshbench.errors import UsageError
from lshbench.run_folder import RunFolder
from lshbench.run_folder.contents import LOG

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"


def run_token() -> str:
    """Return the part of a folder's name that no two runs share: the time and four random bytes."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"


def option_groups() -> str:
    """Return the groups with their options for ``--help``, without those that options are made of."""
    return "\n".join(f"{group}: {', '.join(name for name, _ in options(group))}" for group in GROUPS)


# At import, so that a launcher's worker processes have them too.
OmegaConf.register_new_resolver("run_token", run_token, replace=True)
OmegaConf.register_new_resolver("option_groups", option_groups, replace=True)
ConfigStore.instance().store(name="schema", node=RootSchema)


def task(config: DictConfig) -> float | None:
    """Run one job of Hydra's: the composed configuration, in the folder that Hydra made.  Returns its mAP."""
    context = HydraConfig.get()
    single = context.mode == RunMode.RUN
    for source in context.runtime.config_sources:
        if source.provider == "command-line" and source.schema == "file":
            use_modules_beside(Path(source.path))
    folder = Path(context.runtime.output_dir)
    flags = [flag for flag in _config_flags(sys.argv[1:]) if flag]
    # As given: what an override refers to may not be there, which is explained below.
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    command = ["lshbench", "run", *flags, *map(str, overrides)]
    job = "" if single else " ".join(map(str, overrides))

    def ended(state: State, message: str = "", **places: Path) -> None:
        if not single:
            Outcome(job, state, message, **{name: str(place) for name, place in places.items()}).record()

    try:
        plain = _resolved(config)
        check_root(plain)
        if plain["resume"] == "auto":
            plain["resume"] = not single
        from lshbench.experiment import run_config  # takes seconds, which a wrong bits= should not

        run = run_config(plain, folder, command)
        state: State = "computed" if run.path.resolve() == folder.resolve() else "finished before"
        ended(state, run=run.path, output=Path(plain["output"]).resolve())
        return run.metrics.metrics["mAP"]
    except UsageError as error:
        log.error("%s", error)
        RunFolder.discard(folder)
        ended("refused", str(error))
        if single and not _wants_traceback():
            sys.exit(2)
        raise
    except OmegaConfBaseException:
        raise
    except Exception as error:
        if _wants_traceback():
            raise
        _log_to_file_only(folder, error)
        ended("failed", f"{type(error).__name__}: {error}", log=folder / LOG)
        log.error("the run failed: %s: %s (traceback in %s)", type(error).__name__, error, folder / "run.log")
        if single:
            sys.exit(1)
        raise


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Return the values in effect.

    Raises:
        UsageError: a value that refers to something that isn't there, such as an environment variable.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        key, first = getattr(error, "full_key", None) or "a value", str(error).split("\n")[0]
        raise UsageError(f"{key}: can't be resolved: {first}") from error


def main(arguments: list[str]) -> None:
    """Run ``lshbench run`` and exit: 0 done, 1 a job failed, 2 wrong use."""
    if "--experimental-rerun" in " ".join(arguments):
        _stop("--experimental-rerun reads a pickle, which lshbench never does: use the command in metrics.json")
    if (gone := missing_working_folder()) is not None:
        _stop(gone)
    arguments = [taken(argument, _is_read) for argument in arguments]
    verbose = [flag for flag in arguments if flag in ("-v", "--verbose")]
    arguments = [argument for argument in arguments if argument not in verbose]
    traceback = bool(verbose) or os.environ.get(FULL_ERROR) == "1"
    os.environ["LSHBENCH_TRACEBACK"] = "1" if traceback else "0"
    # Makes Hydra raise instead of printing and exiting with 1 whatever the cause.
    os.environ[FULL_ERROR] = "1"
    sys.argv = [sys.argv[0], *arguments]
    with Journal() as journal:
        try:
            _application()()
        except KeyboardInterrupt:
            sys.stderr.write(
                "\nlshbench: interrupted; a sweep goes on where it was when the same command is given again\n"
            )
            sys.exit(130)
        except Exception as error:
            if traceback:
                raise
            if code := journal.report():
                sys.exit(code)
            _refuse(error, arguments)
        sys.exit(journal.report())


def _refuse(error: Exception, arguments: list[str]) -> NoReturn:
    """Exit with a message that explains an error outside of jobs: 2 where it is wrong use, else 1."""
    if isinstance(error, UsageError):  # a job's, which has been logged
        sys.exit(2)
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError) and not _from_job(error):
        message = None if isinstance(error, HydraException) else explain(error, arguments)
        _stop(message or _readable(error, arguments))
    if not _from_job(error):
        if (message := explain(error, arguments)) is not None:
            _stop(message)
        sys.stderr.write(f"lshbench: {type(error).__name__}: {error} (-v shows where)\n")
    sys.exit(1)


def _is_read(argument: str) -> bool:
    """Whether Hydra can read an argument as an override."""
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def complete(arguments: list[str]) -> None:
    """Answer the shell's completion, which calls the program without its subcommand."""
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = re.sub(r"^(\S+)\s+run\b\s?", r"\1 ", line)
    sys.argv = [sys.argv[0], *arguments]
    _application()()


def _application() -> Any:
    return hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(task)


def _config_flags(arguments: list[str]) -> list[str]:
    """Return the flags that name configuration folders or files: part of what repeats a run."""
    names = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
    kept: list[str] = []
    for i, argument in enumerate(arguments):
        if argument.startswith(tuple(f"{name}=" for name in names)):
            kept.append(argument)
        elif argument in names:
            kept.extend(arguments[i : i + 2])
    return kept


def _wants_traceback() -> bool:
    return os.environ.get("LSHBENCH_TRACEBACK") == "1"


def _log_to_file_only(folder: Path, error: Exception) -> None:
    """Put the traceback into the run's log: the screen gets one line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            record = log.makeRecord(
                log.name,
                logging.ERROR,
                __file__,
                0,
                "traceback",
                (),
                (type(error), error, error.__traceback__),
            )
            handler.handle(record)


def _from_job(error: BaseException) -> bool:
    """Whether an exception comes out of a job rather than out of composing its configuration."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is task.__code__:
            return True
        traceback = traceback.tb_next
    return False


def _readable(error: Exception, arguments: list[str]) -> str:
    """Return one message for an error of Hydra's or OmegaConf's: the key, the value, what would be right."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or "")
    given = next((argument for argument in arguments if argument.lstrip("+~").split("=")[0] == key), key)
    parent = getattr(cause, "parent_node", None)
    if key and re.search(r"Key '.*' (is )?not in ", str(cause)) and isinstance(parent, DictConfig):
        known = [str(name) for name in parent if not str(name).startswith("_") and name != "hydra"]
        prefix = key.rpartition(".")[0]
        close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.6)
        hint = f"; did you mean {f'{prefix}.{close[0]}' if prefix else close[0]}?" if close else ""
        if option := _variant(given, arguments):
            hint = f"; expected method={option}, an option of its own"
        where = f"{prefix} has" if prefix else "there are"
        return f"{given}: no such key{hint} ({where}: {', '.join(known)})"
    first = str(cause).split("\n")[0]
    if key and cause is not error:
        return f"{given}: {first}"
    lines = [line.rstrip() for line in str(error).replace("\t", "  ").split("\n")]
    text = "\n".join(line for line in lines if line.strip())
    if "See https://hydra.cc" in text:
        return quoting_hint(text, arguments, _is_read)
    # Where Hydra looked helps nobody who misspelt an option.
    return text.split("\nConfig search path:")[0]


def _variant(given: str, arguments: list[str]) -> str | None:
    """Return the option of ``method=`` that has what a refused key asks for, such as ``method.recipe=paper``."""
    key, _, value = given.partition("=")
    suffix = {"method.recipe": value, "method.supervision": "unsupervised" if value == "none" else ""}.get(key)
    methods = [argument.partition("=")[2] for argument in arguments if argument.startswith("method=")]
    option = f"{methods[-1] if methods else 'fourier'}_{suffix}"
    return option if option in dict(options("method")) else None


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"lshbench: {message}\n")
    sys.exit(2)
