"""Configuration: the root schema, where conf/ lies, and objects out of configuration nodes.

Knows no Hydra: the command line composes, and hands over plain dictionaries.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lshbench.errors import UsageError, wrong_value

GROUPS = ("dataset", "backbone", "method", "index", "protocol", "experiment", "row")

NOT_IDENTITY = ("output", "cache", "resume", "threads", "device")
"""Root keys that don't decide what a run computes, and so are no part of its identity."""

NOT_IDENTITY_IN = {"method": ("device",), "backbone": ("workers", "batch_size")}
"""The same for keys within a group."""

Built = TypeVar("Built")


@dataclass
class PcaSchema:
    dim: Any = None
    whiten: bool = False


@dataclass
class ReferenceSchema:
    cosine: bool = True
    time: bool = True


@dataclass
class EvaluationSchema:
    definitions: bool = True
    plots: bool = True


@dataclass
class RootSchema:
    """The types of the root keys: a wrong value or a misspelt key is refused while composing."""

    dataset: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    bits: int = 64
    pca: PcaSchema = field(default_factory=PcaSchema)
    ranking: str = "auto"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    output: str = "outputs"
    cache: str | None = None
    reference: ReferenceSchema = field(default_factory=ReferenceSchema)
    evaluation: EvaluationSchema = field(default_factory=EvaluationSchema)


def conf_folder() -> Path:
    """Return the folder of the shipped configuration: inside an installed package, else the checkout's."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def options(group: str, folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield each option of a group with its one-line description (the first comment line of its YAML)."""
    for path in sorted(((folder or conf_folder()) / group).glob("*.yaml")):
        with path.open(encoding="utf-8") as file:
            lines = [line[1:].strip() for line in file if line.startswith("#") and "@package" not in line]
        yield path.stem, lines[0] if lines else ""


def check_root(config: dict[str, Any]) -> None:
    """Check the root keys' values, which the schema gives types only.

    Raises:
        UsageError: a value out of range.
    """
    if not 1 <= config["bits"] <= 4096:
        raise wrong_value("bits", config["bits"], "a code length from 1 to 4096")
    if config["seed"] < 0:
        raise wrong_value("seed", config["seed"], "0 or a positive number")
    if config["ranking"] not in ("auto", "hamming", "cosine"):
        raise wrong_value("ranking", config["ranking"], "auto, hamming or cosine")
    if config["threads"] is not None and config["threads"] < 1:
        raise wrong_value("threads", config["threads"], "at least 1, or null for all cores")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config["device"]):
        raise wrong_value("device", config["device"], "auto, cpu, cuda, cuda:N or mps")


def build(config: dict[str, Any], group: str, base: type[Built]) -> Built:
    """Return the object that a group's node describes: its ``_target_`` called with its other keys.

    Args:
        config: the whole resolved configuration.
        group: the node's key, such as ``method``.
        base: what the object must be.

    Raises:
        UsageError: no such class, a key that its constructor doesn't take, or a value it refuses.
    """
    node = dict(config[group])
    target = node.pop("_target_", None)
    if not isinstance(target, str) or "." not in target:
        raise wrong_value(f"{group}._target_", target, f"the import path of a {base.__name__} class")
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{group}._target_={target!r} can't be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise wrong_value(f"{group}._target_", target, f"a subclass of {base.__module__}.{base.__name__}")
    taken = inspect.signature(found).parameters
    if "name" not in taken:
        node.pop("name", None)
    unknown = sorted(set(node) - set(taken))
    if unknown:
        known = ", ".join(key for key in taken)
        raise UsageError(f"{group}.{unknown[0]}={node[unknown[0]]!r}: no such key; {group} takes: {known}")
    missing = [k for k, p in taken.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY and k not in node]
    missing += [
        k for k, p in taken.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and k not in node
    ]
    if missing:
        raise UsageError(f"{group}.{missing[0]} is not set; expected a value for it")
    try:
        return found(**node)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{group}: a value that {class_name} can't use: {error}") from error


def identity(config: dict[str, Any], fingerprint: str, version: str) -> str:
    """Return what names a run's results: a hash of its configuration, its data and the program's version.

    Two runs with the same identity compute the same figures.
    """
    kept = {key: value for key, value in config.items() if key not in NOT_IDENTITY}
    for group, keys in NOT_IDENTITY_IN.items():
        kept[group] = {key: value for key, value in kept.get(group, {}).items() if key not in keys}
    parts = {
        "config": kept,
        "fingerprint": fingerprint,
        "lshbench": version,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
