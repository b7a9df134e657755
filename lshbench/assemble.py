"""From a resolved configuration to a finished run: checks everything, builds the objects, runs, prints.

Python users can call :func:`run_config` with a dictionary; the command line does nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash
from filelock import FileLock, Timeout

from lshbench.config import build, check_root
from lshbench.errors import UsageError
from lshbench.run_folder import Run, RunFolder, find_finished

if TYPE_CHECKING:
    from lshbench.methods.base import Method

log = logging.getLogger(__name__)


def run_config(config: dict[str, Any], folder: Path, command: list[str]) -> float | None:
    """Run one experiment.

    Args:
        config: the resolved configuration, plain dictionaries and values.
        folder: where the run's files go.
        command: what repeats the run.

    Returns:
        The run's mAP, for sweepers that look for the best.

    Raises:
        UsageError: wrong use, before any expensive work wherever it can be seen that early.
    """
    try:
        check_root(config)
    except UsageError:
        RunFolder.discard(folder)
        raise
    # Imports stand here because they take seconds, and a wrong bits= should not.
    from lshbench.data.base import Source
    from lshbench.experiment import Experiment, prepare, run_experiment
    from lshbench.features.backbone import Backbone
    from lshbench.index.base import Index
    from lshbench.methods.base import Method
    from lshbench.protocols.splits import EvaluationProtocol
    from lshbench.report.summary import print_summary
    from lshbench.runtime.cache import cache_dir
    from lshbench.runtime.logs import console
    from lshbench.runtime.progress import progress_for
    from lshbench.runtime.threads import set_threads
    from lshbench.training.pca import PCA

    try:
        protocol = build(config, "protocol", EvaluationProtocol)
        dataset = build(config, "dataset", Source)
        backbone = build(config, "backbone", Backbone)
        index = build(config, "index", Index)
        method = build(config, "method", Method)
        ranking = index.check(method.kind, config["ranking"])
        pca = config["pca"]
        experiment = Experiment(
            config=config,
            command=command,
            dataset=dataset,
            backbone=backbone,
            protocol=protocol,
            pca=None if pca["dim"] is None else PCA(pca["dim"], whiten=pca["whiten"], seed=config["seed"]),
            method=method,
            index=index,
            ranking=ranking,
            threads=set_threads(config["threads"]),
            cache=cache_dir(config["cache"]),
        )
        progress = progress_for(console())
        prepared = prepare(experiment, progress)
    except UsageError:
        RunFolder.discard(folder)
        raise
    if config["resume"] and (finished := find_finished(Path(config["output"]), prepared.run_id)) is not None:
        log.info("already finished in %s (resume=true)", finished)
        RunFolder.discard(folder)
        metrics, folder = Run.open(finished).metrics, finished
    else:
        with RunFolder.claim(folder) as run_folder, checkpoint(method, experiment.cache, prepared.run_id):
            metrics = run_experiment(prepared, run_folder, progress)
    print_summary(metrics, folder)
    return metrics["metrics"]["mAP"]


@contextmanager
def checkpoint(method: Method, cache: Path, run_id: str) -> Iterator[None]:
    """Let a method that trains keep its state where the same run, started again after a kill, finds it.

    Of two equal runs at the same time only the first keeps one.  Removed once the run is finished.
    """
    # A recipe's own settings are not in the configuration: a state made by others must not be gone on from.
    settings = json.dumps(method.in_effect(), sort_keys=True, default=str).encode()
    folder = cache / "checkpoints" / f"{run_id}-{xxhash.xxh3_64_hexdigest(settings)[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield
        return
    try:
        method.checkpoint = folder / "training.safetensors"
        yield
        for file in folder.glob("training*"):
            file.unlink()
    finally:
        lock.release()
