"""From a resolved configuration to a finished run: checks everything, builds the objects, runs, prints.

Python users can call :func:`run_config` with a dictionary; the command line does nothing else.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lshbench.config import build, check_root
from lshbench.errors import UsageError

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
    # Imports stand here because they take seconds, and a wrong bits= should not.
    check_root(config)
    from lshbench.cache import cache_dir
    from lshbench.data.base import Source
    from lshbench.experiment import Experiment, run_experiment
    from lshbench.features.backbone import Backbone
    from lshbench.index.base import Index
    from lshbench.logs import console
    from lshbench.methods.base import Method
    from lshbench.progress import progress_for
    from lshbench.protocols import Protocol
    from lshbench.reduction import PCA
    from lshbench.run_folder import RunFolder
    from lshbench.summary import print_summary
    from lshbench.threads import set_threads

    try:
        protocol = build(config, "protocol", Protocol)
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
            cache=Path(config["cache"]) if config["cache"] else cache_dir(),
        )
    except UsageError:
        RunFolder.discard(folder)
        raise
    with RunFolder.claim(folder) as run_folder:
        metrics = run_experiment(experiment, run_folder, progress_for(console()))
    print_summary(metrics, folder)
    return metrics["metrics"]["mAP"]
