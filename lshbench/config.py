"""Configuration: the root schema, where conf/ lies, and objects out of configuration nodes.

Knows no Hydra: the command line composes, and hands over plain dictionaries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from lshbench.errors import UsageError, wrong_value
from lshbench.types import MOST_BITS

GROUPS = ("dataset", "backbone", "method", "index", "protocol", "relevance", "experiment", "tracker")
"""Groups of `lshbench run`."""

LISTED = (*GROUPS, "choose", "tune", "table")
"""All that a user chooses from, with what `lshbench choose`, `lshbench tune` and `lshbench report --table` take."""

NO_FIGURES = {
    "": ("output", "cache", "resume", "threads", "device", "tracker", "worker", "hydra"),
    "method": ("device",),
    "dataset": ("stream", "full_size", "on_disk"),
    "backbone": ("workers", "batch_size", "shard"),
    "reference": ("time",),
    "evaluation": ("plots",),
}
"""Keys of the root and of its groups that decide no figure, and so are no part of a run's identity."""

NO_FIGURES_SOURCE = (
    "commands", "plots", "report", "run_folder", "schema", "search", "trackers", "tuning",
    "__init__.py", "__main__.py", "api.py", "cli.py", "extraction.py",
)  # fmt: skip
"""Parts of the package that compute no figure: an edit there leaves finished runs valid."""

OWN_ROOMS = {
    "dataset": "data",
    "backbone": "features",
    "method": "methods",
    "index": "index",
    "protocol": "protocols",
    "relevance": "relevance",
    "tracker": "trackers",
}
"""Where the classes of each group lie in this package."""

Built = TypeVar("Built")


@dataclass
class PcaSchema:
    dim: Any = None
    whiten: bool = False


@dataclass
class ReferenceSchema:
    cosine: bool = True
    classifier: bool = True
    time: bool = True


@dataclass
class EvaluationSchema:
    definitions: bool = True
    loss: bool = True
    plots: bool = True


@dataclass
class RootSchema:
    """The types of the root keys: a wrong value or a misspelt key is refused while composing."""

    dataset: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    relevance: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)
    bits: int = 64
    pca: PcaSchema = field(default_factory=PcaSchema)
    ranking: str = "auto"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    worker: int = 0
    resume: Any = "auto"
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


def use_modules_beside(folder: Path) -> None:
    """Let classes be imported that lie beside the YAML files of a user's folder of options.

    The folder and its groups' folders come last on ``sys.path``: nothing that is installed is shadowed by them.
    """
    for path in (folder, *(folder / group for group in GROUPS)):
        if path.is_dir() and str(path.resolve()) not in sys.path:
            sys.path.append(str(path.resolve()))


def check_root(config: dict[str, Any]) -> None:
    """Check the root keys' values, which the schema gives types only.

    Raises:
        UsageError: a value out of range.
    """
    if not 1 <= config["bits"] <= MOST_BITS:
        raise wrong_value("bits", config["bits"], f"a code length from 1 to {MOST_BITS}")
    if config["seed"] < 0:
        raise wrong_value("seed", config["seed"], "0 or a positive number")
    if config["ranking"] not in ("auto", "hamming", "cosine", "asymmetric"):
        raise wrong_value("ranking", config["ranking"], "auto, hamming, cosine or asymmetric")
    if config["resume"] not in (True, False, "auto"):
        raise wrong_value("resume", config["resume"], "auto, true or false")
    if config["threads"] is not None and config["threads"] < 1:
        raise wrong_value("threads", config["threads"], "at least 1, or null for all cores")
    for key in (*OWN_ROOMS, "pca", "reference", "evaluation"):
        node = config.get(key, {})
        if not isinstance(node, dict):
            raise wrong_value(key, node, f"keys below it, such as {key}.KEY=VALUE")
        if not isinstance(node.get("name", ""), str):
            raise wrong_value(f"{key}.name", node["name"], f"text, as in {key}.name=\"'{node['name']}'\"")
    for key, target in _targets(config):
        if not isinstance(target, str):
            raise wrong_value(key, target, "the import path of a class")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config["device"]):
        raise wrong_value("device", config["device"], "auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class Trust:
    """What a run folder may use besides its own files and lshbench.

    Attributes:
        everything: whatever it names: classes, data, weights, the cache.
        folders: classes that lie in these folders of the user's own options.
    """

    everything: bool = False
    folders: tuple[Path, ...] = ()


def check_classes(config: dict[str, Any], trust: Trust) -> None:
    """Check, before anything is imported, which classes a run folder names.

    Args:
        config: with nodes of groups; no other node may name a class.
        trust: what it may use besides lshbench's own.

    Raises:
        UsageError: a class that is none of lshbench's, nor in a folder that the user named.
    """
    for key, target in _targets(config):
        module = str(target).rpartition(".")[0]
        room = OWN_ROOMS.get(key.removesuffix("._target_"), "")
        own = room and f"{module}.".startswith(f"lshbench.{room}.")
        if not (own or trust.everything or any(_lies_in(module, folder) for folder in trust.folders)):
            raise UsageError(
                f"{key}={target!r:.200}: expected a class of lshbench, as the run was not made here; --trust uses "
                "whatever it names, --config-dir DIR classes that lie in DIR"
            )


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all classes that a configuration names, and their import paths."""
    if isinstance(node, dict):
        for name, value in node.items():
            below = f"{key}.{name}".lstrip(".")
            if name == "_target_":
                yield below, value
            yield from _targets(value, below)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, key)


def _lies_in(module: str, folder: Path) -> bool:
    """Return whether a module lies in a folder of options or a group's folder there; nothing is imported."""
    parts = module.split(".")
    places = [each.joinpath(*parts) for each in (folder, *(folder / group for group in GROUPS))]
    return all(part.isidentifier() for part in parts) and any(
        place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places
    )


def build(config: dict[str, Any], group: str, base: type[Built], **given: Any) -> Built:
    """Return the object that a group's node describes: its ``_target_`` called with its other keys.

    Args:
        config: the whole resolved configuration.
        group: the node's key, such as ``method``.
        base: what the object must be.
        given: further arguments of the constructor, which are no keys of the node.

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
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{group}._target_={target!r} can't be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise wrong_value(f"{group}._target_", target, f"a subclass of {base.__module__}.{base.__name__}")
    taken = inspect.signature(found).parameters
    if "name" not in taken:
        node.pop("name", None)
    keys = {key: parameter for key, parameter in taken.items() if key not in given}
    if unknown := sorted(set(node) - set(keys)):
        raise UsageError(
            f"{group}.{unknown[0]}={node[unknown[0]]!r}: no such key; {group} takes: {', '.join(keys) or 'no keys'}"
        )
    _check_numbers(group, {key: (node[key], keys[key].annotation) for key in node})
    for key, parameter in keys.items():
        if parameter.default is parameter.empty and key not in node:
            raise UsageError(f"{group}.{key} is not set; expected a value for it")
        # Any other text, such as no, would count as true.
        if parameter.annotation in (bool, "bool") and not isinstance(node.get(key, True), bool):
            raise wrong_value(f"{group}.{key}", node[key], "true or false")
    try:
        return found(**node, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{group}: a value that {class_name} can't use: {error}") from error


def _check_numbers(group: str, values: dict[str, tuple[Any, object]]) -> None:
    """Check that keys which take nothing but numbers have them: whole ones where the constructor says so, and no NaN.

    Args:
        group: the node's key.
        values: each key's value, and the constructor's annotation.
    """
    for key, (value, annotation) in values.items():
        kinds = {part.strip() for part in str(getattr(annotation, "__name__", annotation)).split("|")}
        if isinstance(value, float) and math.isnan(value):
            raise wrong_value(f"{group}.{key}", value, "a whole number" if kinds == {"int"} else "a number")
        if not kinds <= {"int", "float", "None"} or (value is None and "None" in kinds):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or ("float" not in kinds and not isinstance(value, int)):
            what = "a number" if "float" in kinds else "a whole number"
            raise wrong_value(f"{group}.{key}", value, f"{what}, or null" if "None" in kinds else what)
        if key == "seed" and value < 0:
            raise wrong_value(f"{group}.{key}", value, "0 or a positive number")


@dataclass(frozen=True)
class Identity:
    """What determines a run's figures, as hashes.

    Attributes:
        run: of everything; runs that share it are the same run.
        configuration: of everything but the seed, the items that it draws, and which figures are kept besides the
            headline; runs that share it are repeats.
        source: of the source code that computes figures, ``sha256:...``.
    """

    run: str
    configuration: str
    source: str


def identity(
    config: dict[str, Any], params: dict[str, Any], fingerprint: str, encoder: dict[str, Any] | None = None
) -> Identity:
    """Return the identity of a run: the one definition of "the same run" and of "repeats".

    Args:
        config: the resolved configuration.
        params: the method's values in effect, in which what the configuration calls ``auto`` is resolved.
        fingerprint: of the data.
        encoder: what features of images depend on besides them, with what ``auto`` came to and the weights' content.
    """
    kept = {key: value for key, value in config.items() if key not in NO_FIGURES[""]}
    if "bits" not in kept["method"]:  # which has no code, or one whose length the features decide
        kept.pop("bits", None)
    kept["method"] = kept["method"] | params
    for group, keys in NO_FIGURES.items():
        if isinstance(kept.get(group), dict):
            kept[group] = {key: value for key, value in kept[group].items() if key not in keys}
    nodes = [node for node in kept.values() if isinstance(node, dict)]
    source = source_digest(*(node["_target_"] for node in nodes if "_target_" in node))
    compared = {key: value for key, value in kept.items() if key not in ("evaluation", "reference")}
    return Identity(
        run=_digest({"config": kept, "data": fingerprint, "encoder": encoder, "source": source}),
        configuration=_digest({"config": _without_seeds(compared), "encoder": encoder, "source": source}),
        source=source,
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _without_seeds(node: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its seeds, of which groups have copies of the root's."""
    return {
        key: _without_seeds(value) if isinstance(value, dict) else value for key, value in node.items() if key != "seed"
    }


@cache
def source_digest(*targets: str) -> str:
    """Return ``sha256:...`` of the source files that compute figures.

    Args:
        targets: import paths of the classes chosen, whose modules count too where they lie outside this package.
    """
    package = Path(__file__).resolve().parent
    files = [
        path
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] not in (*NO_FIGURES_SOURCE, "conf")
    ]
    named = [(path.relative_to(package).as_posix(), path) for path in files]
    for module in sorted({target.rpartition(".")[0] for target in targets}):
        found = None if module.startswith("lshbench.") else importlib.util.find_spec(module)
        if found is not None and found.origin is not None:
            named.append((module, Path(found.origin)))
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"
