"""Extraction alone: the features of a configuration's items into the store, and as Parquet files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lshbench.config import check_root
from lshbench.errors import UsageError
from lshbench.features.load import load_split_features
from lshbench.features.parquet import write_parquet
from lshbench.features.store import FeatureStore
from lshbench.inputs import Inputs
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.threads import available_cores, set_threads
from lshbench.types import Progress

log = logging.getLogger(__name__)


def extract_config(config: dict[str, Any], progress: Progress, parquet: Path | None = None) -> None:
    """Extract the features of the items that a run of a configuration takes, where they are not in the store.

    Args:
        config: the resolved configuration, of which method and index do not count.
        progress: receives the progress of long work.
        parquet: a folder; the gallery's split is written there as ``train.parquet``, that of the queries as
            ``test.parquet``, and the data set's own training set, if it has one, as ``training_set.parquet``.

    Raises:
        UsageError: a data set of ready features, where ``parquet`` is None, or what a run would refuse of its data.
    """
    check_root(config)
    threads = config["threads"] or available_cores()
    inputs = Inputs.from_config(config, threads, cache_dir(config["cache"]))
    set_threads(threads)
    data = inputs.open(progress)
    dataset = data.dataset
    if dataset.kind == "features" and parquet is None:
        raise UsageError(
            f"dataset={config['dataset']['name']} has features already: expected a data set of images, or --parquet DIR"
        )
    store = FeatureStore(inputs.cache)
    for split, rows, _ in dataset.split_rows(data.selection.items()):
        loaded = load_split_features(
            split,
            rows,
            inputs.backbone,
            store=store,
            device=inputs.device,
            threads=threads,
            progress=progress,
            fingerprint=data.split_fingerprints.get(split.name),
        )
        if parquet is not None:
            names = (("train", dataset.gallery), ("test", dataset.query), ("training_set", dataset.train))
            path = parquet / next(f"{name}.parquet" for name, one in names if one is split)
            try:
                count = write_parquet(path, split, rows, loaded.x, loaded.unreadable, progress)
            except OSError as error:
                raise UsageError(f"--parquet={parquet}: can't be written: {error.strerror or error}") from error
            left_out = f"; {len(rows) - count} that can't be read are left out" if count < len(rows) else ""
            log.info("%s has %d items of %s%s", path, count, split.name, left_out)
    if parquet is not None:
        log.info("the Hub takes it by: hf upload OWNER/NAME %s --repo-type=dataset", parquet)
