"""Access to the data behind a finished run: pictures of its gallery, and the features that its index compares."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.base import Dataset
from lshbench.errors import UsageError, wrong_value
from lshbench.features.weights import PACKAGES
from lshbench.inputs import Inputs, OpenedData
from lshbench.run_folder import Run
from lshbench.run_folder.contents import CONFIG
from lshbench.run_folder.items import GalleryItems
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.threads import available_cores
from lshbench.types import Progress

log = logging.getLogger(__name__)

PATHS = {
    "dataset": ("path", "gallery", "query", "queries", "gallery_labels", "query_labels", "root"),
    "backbone": ("weights",),
}
"""Keys that hold paths.  Any other text may be called as a file is by chance."""


NEEDED: dict[str, tuple[type, ...]] = {
    "dataset": (dict,),
    "backbone": (dict,),
    "protocol": (dict,),
    "relevance": (dict, type(None)),
    "seed": (int,),
    "device": (str,),
    "threads": (int, type(None)),
    "cache": (str, type(None)),
}
"""Keys of a configuration that are read here, and the types of their values."""

OR_DATA = ", or --data PATH, which says where the data set lies"

LARGEST_IMAGE = 4096
"""Pixels of a side of an encoder's input at most, for a run from elsewhere."""


def located(run: Run, device: str | None = None) -> dict[str, Any]:
    """Return a run's configuration with relative paths as they were meant: from the folder that it was started in.

    The run keeps paths as they were given, as they are part of its identity, and so that it can be moved along with
    its data.  What is not, or no longer, in that folder stays relative to the current one.

    Args:
        run: a finished run.
        device: where an image encoder runs; None takes the run's own.
    """
    config = run.config()
    for key, types in NEEDED.items():
        if not isinstance(config.get(key), types):
            raise UsageError(f"{run.path / CONFIG} is damaged: it has no {key}, or of another kind")
    config["threads"] = min(max(config["threads"] or available_cores(), 1), available_cores())
    for node, key in _relative_paths(config):
        place = _started_in(run) / node[key]
        if place.exists():
            node[key] = str(place.resolve())
    if device is not None:
        config["device"] = device
    return config


def use_data(run: Run, config: dict[str, Any], data: Path) -> None:
    """Let a run's data set be one that the user names, and the cache the user's own.

    What it finds elsewhere than in that place stays out.

    Args:
        run: a finished run.
        config: its :func:`located` configuration, which is changed.
        data: the file or folder.

    Raises:
        UsageError: it is not there, or the run's kind of data set is not found by one path alone.
    """
    if not data.exists():
        raise wrong_value("--data", str(data), "the file or folder of the run's data set; it is not there")
    node, name = config["dataset"], run.metrics.dataset.name
    others = [key for key in PATHS["dataset"] if key != "path" and node.get(key) not in (None, "auto")]
    if "path" not in node or others:
        found = f"found by dataset.{others[0]}" if others else "of a kind that has no dataset.path"
        raise wrong_value(
            "--data", str(data), f"a run whose data set is found by dataset.path; {name} is {found} (--trust uses it)"
        )
    node["path"], config["cache"] = str(data.resolve()), None


def check_outside(run: Run, what: str, trusted: bool, instead: str = "") -> None:
    """Refuse to use what a run names outside its folder, unless the run was made here or the user says so.

    Args:
        run: a finished run.
        what: what it is, as a part of a sentence, such as "the pictures of its hits are in its data set".
        trusted: whether it may be used.
        instead: what else lets it be used.

    Raises:
        UsageError: it may not.
    """
    if not trusted:
        raise UsageError(
            f"{run.path} was not made here, or with another cache folder, and {what}, outside of it: expected --trust, "
            "with which a run may use the data, weights, cache and classes that it names" + instead
        )


def check_encoder_inside(run: Run, config: dict[str, Any], trusted: bool) -> None:
    """Refuse an encoder that is read from a file or the Hub, or takes any memory, as :func:`check_outside` does.

    Of networks, those are left whose weights are installed with lshbench: timm has models of any size.
    """
    node = config["backbone"]
    weights, model, size = node.get("weights"), str(node.get("model", "auto")), node.get("image_size", "auto")
    model = str(node.get("name")) if model == "auto" else model
    network = weights is not None or ":" in model or str(node.get("_target_")).endswith(".TimmBackbone")
    if network and (weights != "package" or model not in PACKAGES):
        check_outside(run, f"the weights of its encoder {model} ({weights}) are, or may take any memory", trusted)
    if size != "auto" and not (isinstance(size, int) and size <= LARGEST_IMAGE):
        check_outside(run, f"its encoder takes images of {size} pixels a side, which may take any memory", trusted)


def open_inputs(run: Run, config: dict[str, Any], progress: Progress) -> tuple[Inputs, OpenedData]:
    """Open a run's data set again, given its :func:`located` configuration.

    Raises:
        UsageError: it can't be found.
    """
    with _reopening(run):
        inputs = _inputs(config)
        return inputs, inputs.open(progress)


def _inputs(config: dict[str, Any]) -> Inputs:
    return Inputs.from_config(config, config["threads"], cache_dir(config["cache"]))


@contextmanager
def _reopening(run: Run) -> Iterator[None]:
    """Say in errors that it is the run's data set that can't be opened, and where it was looked for."""
    try:
        yield
    except UsageError as error:
        name = run.metrics.dataset.name
        raise UsageError(f"the run's data set, {name}, can't be opened again: {error}{_where(run)}") from error


def _relative_paths(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where relative paths stand in a configuration: a node and the path's key in it."""
    for node, keys in ((config, ("cache",)), *((config[group], keys) for group, keys in PATHS.items())):
        for key in keys:
            value = node.get(key)
            if isinstance(value, str) and _is_path(key, value) and not Path(value).expanduser().is_absolute():
                yield node, key


def _is_path(key: str, value: str) -> bool:
    """Return whether the text of one of :data:`PATHS`' keys is a path, and no word such as ``auto`` or ``hub``."""
    if key == "root":
        return value != "auto"
    return key != "weights" or value.endswith(".safetensors")


def _started_in(run: Run) -> Path:
    return Path(str(run.metrics.environment["directory"]))


def reopen_dataset(run: Run, config: dict[str, Any], progress: Progress) -> Dataset:
    """Open a run's data set again, for the pictures of its items.

    Raises:
        UsageError: it can't be found, or holds other items than it did.
    """
    with _reopening(run):
        dataset = _inputs(config).dataset(progress)  # without a fingerprint, which reads all items
    items = GalleryItems.open(run)
    if items.ids.max() >= len(dataset.labels) or not np.array_equal(dataset.labels[items.ids], items.labels):
        raise UsageError(f"the run's data set, {dataset.name}, is there, but its items are no longer those of the run")
    return dataset


def gallery_features(run: Run, config: dict[str, Any], progress: Progress) -> np.ndarray:
    """Return the features of a run's gallery, float32 ``(n, d)``, a memory map where they are a whole split.

    They come from the feature cache.  What is no longer there is read or extracted again, as the run did.

    Raises:
        UsageError: the data set can't be found or has changed, or its features can't be had.
    """
    inputs, data = open_inputs(run, config, progress)
    if data.fingerprint != run.metrics.dataset.fingerprint:
        raise UsageError(
            f"the run's data set, {data.dataset.name}, has changed since the run, whose index compares features of "
            "what it was: expected the same files"
        )
    log.info("the run's index compares features: those of its gallery are in %s, or made again", inputs.cache)
    # All of the run's items, not the gallery alone: the cache keeps a split's features by the rows that were asked for.
    roles = inputs.load(data, progress)
    if roles.seconds_extracting:
        log.warning("features were no longer in %s, and are again", inputs.cache)
    return roles.gallery.x


def _where(run: Run) -> str:
    """Return what to do about a relative path that leads nowhere."""
    config = run.config()
    if not any(node is config["dataset"] for node, _ in _relative_paths(config)):
        return ""
    return (
        f"; nor from {_started_in(run)}, where the run was made: expected the data there, or a search from the folder "
        "that the path starts from"
    )
