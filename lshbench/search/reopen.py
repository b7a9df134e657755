"""The data behind a finished run, found again: the pictures of its gallery, and the features that rescoring reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lshbench.config import build
from lshbench.data.base import Dataset, Source
from lshbench.errors import UsageError
from lshbench.features.backbone import Backbone
from lshbench.features.roles import load_roles
from lshbench.protocols.splits import EvaluationProtocol
from lshbench.run_folder import Run
from lshbench.run_folder.contents import GALLERY_LABELS
from lshbench.run_folder.items import GalleryItems
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.threads import available_cores
from lshbench.types import Progress

log = logging.getLogger(__name__)

RECORD = ".hydra/hydra.yaml"
"""Where Hydra writes down which folder a run was made in."""

PATHS = {"dataset": ("path", "gallery", "query", "gallery_labels", "query_labels", "root"), "backbone": ("weights",)}
"""Keys that hold paths.  Any other text may be called as a file is by chance."""


def located(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with relative paths as they were meant: from the folder that the run was made in.

    The run itself keeps them as they were given, as they are part of its identity, and so that it can be moved along
    with its data.  What is not, or no longer, in that folder stays relative to the current one.
    """
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for node, key in _relative_paths(found):
        place = (_made_in(run) or Path()) / node[key]
        if place.exists():
            node[key] = str(place.resolve())
    return found


def _relative_paths(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where relative paths stand in a configuration: a node and the path's key in it."""
    for node, keys in ((config, ("cache",)), *((config[group], keys) for group, keys in PATHS.items())):
        for key in keys:
            value = node.get(key)
            word = key == "weights" and not str(value).endswith(".safetensors")  # such as hub
            if isinstance(value, str) and not word and not Path(value).expanduser().is_absolute():
                yield node, key


def _made_in(run: Run) -> Path | None:
    """Return the folder that a run was made in; None for one that was made without the command."""
    try:
        record = yaml.safe_load((run.path / RECORD).read_text(encoding="utf-8"))
        return Path(record["hydra"]["runtime"]["cwd"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def reopen_dataset(run: Run, config: dict[str, Any], progress: Progress) -> Dataset:
    """Open a run's data set again, for the pictures of its items.

    Args:
        run: a finished run.
        config: its resolved configuration, :func:`located`.
        progress: told about downloads and listings.

    Raises:
        UsageError: it can't be found, or holds other items than it did.
    """
    items = GalleryItems.open(run)
    if items is None:
        raise UsageError(f"{run.path} doesn't say which items are in its gallery: expected a run of a later version")
    _, dataset = _open(run, config, progress)
    labels = dataset.labels
    if items.ids[-1] >= len(labels) or not np.array_equal(labels[items.ids], run.array(GALLERY_LABELS)):
        raise UsageError(f"the run's data set, {dataset.name}, is there, but its items are no longer those of the run")
    return dataset


def gallery_features(run: Run, config: dict[str, Any], progress: Progress) -> np.ndarray:
    """Return the features of a run's gallery, float32 ``(n, d)``, a memory map where they are a whole split.

    They come from the feature cache.  What is no longer there is read or extracted again, as the run did.

    Args:
        run: a finished run.
        config: its resolved configuration, :func:`located`.
        progress: told about downloads and extraction.

    Raises:
        UsageError: the data set can't be found or has changed, or its features can't be had.
    """
    source, dataset = _open(run, config, progress)
    protocol, backbone = build(config, "protocol", EvaluationProtocol), build(config, "backbone", Backbone)
    # All of the run's items, not the gallery alone: the cache keeps a split's features by the rows that were asked for.
    selection = protocol.select(dataset, config["seed"], source.max_gallery, source.max_queries)
    if dataset.fingerprint(selection.items()) != run.metrics["dataset"]["fingerprint"]:
        raise UsageError(
            f"the run's data set, {dataset.name}, has changed since the run, whose index compares features of what it "
            "was: expected the same files"
        )
    cache = cache_dir(config["cache"])
    log.info("the run's index compares features: those of its gallery are in %s, or made again", cache)
    roles = load_roles(
        dataset,
        asdict(selection),
        backbone,
        cache=cache,
        device=config["device"],
        threads=config["threads"] or available_cores(),
        progress=progress,
    )
    if roles.seconds_extracting:
        log.warning("features of %s were no longer in %s, and are again", dataset.name, cache)
    return roles.gallery.x


def _open(run: Run, config: dict[str, Any], progress: Progress) -> tuple[Source, Dataset]:
    try:
        source = build(config, "dataset", Source)
        return source, source.open(cache_dir(config["cache"]), progress)
    except UsageError as error:
        name = run.metrics["dataset"]["name"]
        raise UsageError(f"the run's data set, {name}, can't be opened again: {error}{_where(run, config)}") from error


def _where(run: Run, config: dict[str, Any]) -> str:
    """Return what to do about a relative path that leads nowhere."""
    if not any(node is config["dataset"] for node, _ in _relative_paths(config)):
        return ""
    directory = _made_in(run)
    made = f"nor from {directory}, where the run was made" if directory else "and the run doesn't say where it was made"
    return f"; {made}: expected the data there, or a search from the folder that the path starts from"
