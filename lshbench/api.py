"""Runs from Python: make one as ``lshbench run`` does, and read finished ones into a table."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lshbench.errors import UsageError
from lshbench.run_folder import Run, finished_runs
from lshbench.runtime.cache import share_cache
from lshbench.runtime.threads import let_waiting_threads_sleep

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)


def run(
    *overrides: str,
    config_dir: str | PathLike[str] | None = None,
    folder: str | PathLike[str] | None = None,
    **keys: object,
) -> Run:
    """Make one run, as ``lshbench run`` does, and return it.

    ``lshbench.run(method="kmeans", bits=32)`` is ``lshbench run method=kmeans bits=32``; keys with dots are given as
    ``"method.training.epochs=5"`` or by ``**{"method.training.epochs": 5}``.

    Args:
        overrides: as on the command line.
        config_dir: a folder with options of your own, as ``--config-dir`` names one.
        folder: where the run's files go; by default as on the command line, below ``output``.
        keys: overrides by key; None is null.

    Raises:
        UsageError: what the command would refuse with exit code 2.
    """
    let_waiting_threads_sleep()
    from lshbench.commands.compose import compose, override

    given = [*overrides, *(override(key, value) for key, value in keys.items())]
    config, proposed = compose(given, None if config_dir is None else Path(config_dir))
    share_cache(config["cache"])
    from lshbench.experiment import run_config

    flags = [] if config_dir is None else ["--config-dir", str(config_dir)]
    return run_config(config, proposed if folder is None else Path(folder), ["lshbench", "run", *flags, *given])


def load_runs(*folders: str | PathLike[str]) -> pandas.DataFrame:
    """Return the finished runs in and below folders as a table with a row for each.

    Columns are the keys of ``metrics.json`` joined by dots, such as ``dataset.name``, ``method.bits``, ``metrics.mAP``
    and ``search.qps``, and ``folder``; a key that a run does not have is NaN or None in its row. Runs that were made
    more than once are all there: ``run_id`` says which are the same.

    Raises:
        UsageError: a folder is not there, or there is no finished run.
    """
    import pandas

    rows = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: expected a run, or a folder of runs")
        rows += [{"folder": str(run.path), **run.metrics.to_json()} for run in finished_runs(folder)]
    if not rows:
        raise UsageError(f"no finished run in or below {', '.join(map(str, folders)) or 'no folder'}")
    return pandas.json_normalize(rows)
