"""``lshbench run``: one experiment, or a Hydra multirun (:mod:`lshbench.commands.sweep`)."""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable
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

from lshbench.commands import sweep
from lshbench.commands.refusals import (
    expected_kind,
    explain,
    missing_option,
    missing_working_folder,
    owners,
    quoting_hint,
    taken,
    wrong_flag,
)
from lshbench.commands.sweep_composition import share_composition
from lshbench.config import GROUPS, RootSchema, check_root, conf_folder, options, use_modules_beside
from lshbench.errors import UsageError
from lshbench.report.summary import print_line, print_summary
from lshbench.run_folder import Run, RunFolder
from lshbench.run_folder.contents import LOG
from lshbench.runtime.cache import share_cache
from lshbench.runtime.journal import Reporter, State
from lshbench.runtime.logs import console, output_console, shown_live
from lshbench.runtime.progress import progress_for, silent

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"


def run_name(bits: int, used: int | None) -> str:
    """Return the name of a run's folder: the code's length, if the method has one, the time and four random bytes.

    Args:
        bits: of the configuration.
        used: by the method; None where it gives no codes.
    """
    token = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"
    return token if used is None else f"{bits}-{token}"


def option_groups() -> str:
    """Return the groups with their options for ``--help``, without those that options are made of."""
    return "\n".join(f"{group}: {', '.join(name for name, _ in options(group))}" for group in GROUPS)


# At import, so that a launcher's worker processes have them too.
OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("option_groups", option_groups, replace=True)
ConfigStore.instance().store(name="schema", node=RootSchema)


def task(config: DictConfig) -> float | None:
    """Run one job of Hydra's: the composed configuration, in the folder that Hydra made.  Returns its mAP."""
    return carry_out(config, _compute)


def carry_out(config: DictConfig, compute: Callable[..., Run | None]) -> float | None:
    """Do one job of Hydra's, and explain how it fails.

    Args:
        config: the composed configuration.
        compute: takes it, the job's folder, the command and whether to resume, and returns the run; None where it
            makes none.

    Returns:
        The run's mAP.
    """
    context = HydraConfig.get()
    for source in context.runtime.config_sources:
        if source.provider == "command-line" and source.schema == "file":
            use_modules_beside(Path(source.path))
    folder = Path(context.runtime.output_dir)
    # As given: what an override refers to may not be there, which is explained below.
    given = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    overrides = [str(override) for override in given]
    command = ["lshbench", "run", *sweep.kept_flags(), *overrides]
    if context.mode == RunMode.MULTIRUN and (reporter := sweep.reporter(context.job.num, overrides)):
        with sweep.working:
            return _job(config, compute, folder, command, reporter)
    single = context.mode == RunMode.RUN
    try:
        run = compute(config, folder, command, resume=not single)
    except UsageError as error:
        log.error("%s", error)
        RunFolder.discard(folder)
        if single and not _wants_traceback():
            sys.exit(2)
        raise
    except OmegaConfBaseException:
        raise
    except Exception as error:
        if _wants_traceback():
            raise
        _log_failure(folder, error)
        if single:
            sys.exit(1)
        raise
    if run is None:
        RunFolder.discard(folder)
        return None
    return run.metrics.metrics["mAP"]


def _job(
    config: DictConfig, compute: Callable[..., Run | None], folder: Path, command: list[str], reporter: Reporter
) -> float | None:
    """Run one job of a sweep and note what became of it: a failure must not stop the others.

    Returns:
        The mAP; NaN after a failure.
    """
    try:
        run = compute(config, folder, command, resume=True, reporter=reporter)
    except UsageError as error:
        log.error("%s", error, exc_info=_wants_traceback())
        RunFolder.discard(folder)
        reporter.end("refused", message=str(error))
        return math.nan
    except Exception as error:
        _log_failure(folder, error)
        reporter.end("failed", message=f"{type(error).__name__}: {error}", log=str(folder / LOG))
        return math.nan
    if run is None:
        RunFolder.discard(folder)
        reporter.end("computed")
        return None
    figures = run.metrics.metrics
    state: State = "computed" if run.path.resolve() == folder.resolve() else "finished before"
    reporter.end(state, measures={name: figures[name] for name in ("mAP", "P@10")}, run=str(run.path.resolve()))
    return figures["mAP"]


def _compute(
    config: DictConfig, folder: Path, command: list[str], *, resume: bool, reporter: Reporter | None = None
) -> Run:
    """Compute a configuration's run, or find it finished, and print its summary.

    Args:
        config: composed.
        folder: where the run's files go.
        command: what repeats the run.
        resume: what ``resume=auto`` comes to.
        reporter: of the sweep that the run is a job of.
    """
    plain = resolved(config)
    check_root(plain)
    if plain["resume"] == "auto":
        plain["resume"] = resume
    share_cache(plain["cache"])
    from lshbench.experiment import run_config  # takes seconds, which a wrong bits= should not

    if reporter is None:
        return run_config(plain, folder, command)
    progress = reporter.progress(silent if shown_live() else progress_for(console()))
    results = output_console()
    show = print_summary if not results.is_terminal else print_line
    # On a terminal a job's row in the table is its line.
    return run_config(plain, folder, command, progress, None if results.is_terminal and shown_live() else show)


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return the values in effect.

    Raises:
        UsageError: a value that refers to something that isn't there, such as an environment variable.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        key, first = getattr(error, "full_key", None) or "a value", str(error).split("\n")[0]
        raise UsageError(f"{key}: can't be resolved: {first}") from error


def main(arguments: list[str], function: Callable[[DictConfig], float | None] = task) -> None:
    """Run ``lshbench run`` and exit: 0 done, 1 a job failed, 2 wrong use.

    Args:
        arguments: of the command line.
        function: does each job; a subcommand that composes as ``lshbench run`` does brings its own.
    """
    if "--experimental-rerun" in " ".join(arguments):
        _stop("--experimental-rerun reads a pickle, which lshbench never does: use the command in metrics.json")
    if (gone := missing_working_folder()) is not None:
        _stop(gone)
    if (wrong := wrong_flag(arguments)) is not None:
        _stop(wrong)
    arguments = [taken(argument, _is_read) for argument in arguments]
    verbose = [flag for flag in arguments if flag in ("-v", "--verbose")]
    arguments = [argument for argument in arguments if argument not in verbose]
    traceback = bool(verbose) or os.environ.get(FULL_ERROR) == "1"
    os.environ["LSHBENCH_TRACEBACK"] = "1" if traceback else "0"
    # Makes Hydra raise instead of printing and exiting with 1 whatever the cause.
    os.environ[FULL_ERROR] = "1"
    sys.argv = [sys.argv[0], *arguments]
    sweep.keep_flags(_config_flags(arguments))
    share_composition()
    try:
        _application(function)()
    except KeyboardInterrupt:
        if sweep.current is not None:
            sweep.current.interrupted()
        else:
            sys.stderr.write("\nlshbench: interrupted\n")
        sys.exit(130)
    except Exception as error:
        if sweep.current is not None and sweep.current.begun():
            if traceback:
                log.error("the launcher gave up", exc_info=error)
            sys.exit(sweep.current.end(f"{type(error).__name__}: {error}"))
        if sweep.current is not None:
            sweep.current.abandon()
        if traceback:
            raise
        _refuse(error, arguments)
    sys.exit(sweep.current.end() if sweep.current is not None else 0)


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
    sys.argv = [sys.argv[0], *arguments]
    _application()()


def _application(function: Callable[[DictConfig], float | None] = task) -> Any:
    return hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(function)


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


def _log_failure(folder: Path, error: Exception) -> None:
    """Put the traceback into the run's log, and one line on the screen, or the traceback there too if asked for."""
    what = "the run failed: %s: %s (traceback in %s)"
    if _wants_traceback():
        log.error(what, type(error).__name__, error, folder / LOG, exc_info=error)
        return
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
    log.error(what, type(error).__name__, error, folder / LOG)


def _from_job(error: BaseException) -> bool:
    """Whether an exception comes out of a job rather than out of composing its configuration."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is carry_out.__code__:
            return True
        traceback = traceback.tb_next
    return False


def _readable(error: Exception, arguments: list[str]) -> str:
    """Return one message for an error of Hydra's or OmegaConf's: the key, the value, what would be right."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or "")
    given = next(
        (text for text in reversed(arguments) if text.lstrip("+~").split("=")[0] == key), key
    )  # the last counts
    parent = getattr(cause, "parent_node", None)
    if key and re.search(r"Key '.*' (is )?not in ", str(cause)) and isinstance(parent, DictConfig):
        known = [str(name) for name in parent if not str(name).startswith("_") and name != "hydra"]
        prefix = key.rpartition(".")[0]
        close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.6)
        hint = f"; did you mean {f'{prefix}.{close[0]}' if prefix else close[0]}?" if close else ""
        if option := _variant(given, arguments):
            hint = f"; expected method={option}, an option of its own"
        elif not close and (others := owners(key))[1]:
            group, listed = prefix.partition(".")[0], " and of ".join(others[1][:3])
            meant = "it" if others[0] == key else others[0]
            hint = f"; {meant} is a key of {group}={listed}{', ...' if others[1][3:] else ''}"
        where = f"{prefix} has" if prefix else "there are"
        return f"{given}: no such key{hint} ({where}: {', '.join(known)})"
    if (message := missing_option(str(error), arguments)) is not None:
        return message
    first = str(cause).split("\n")[0]
    if key and cause is not error:
        return f"{given}: {expected_kind(first, given) or first}"
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
