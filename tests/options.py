"""Options of conf/ as the command line composes them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import lshbench.commands.run  # noqa: F401 (registers the schema and the resolvers)
from lshbench.config import build, conf_folder, options
from lshbench.methods.base import Method
from lshbench.training.heads import Head
from lshbench.training.settings import Training

METHODS = [name for name, _ in options("method")]


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def composed(*overrides: str) -> dict[str, Any]:
    """Return the resolved configuration for overrides, such as ``method=csq``."""
    return copy.deepcopy(_composed(overrides))


def node(option: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a method with some keys changed; ``head`` and ``training`` are changed key by key."""
    keys = composed(f"method={option}", "device=cpu")["method"]
    for key, value in changes.items():
        keys[key] = keys[key] | value if isinstance(value, dict) else value
    return keys


def make(option: str, bits: int = 16, **changes: Any) -> Any:
    """Return a method with some keys changed."""
    return build({"method": node(option, bits=bits, **changes)}, "method", Method)


def head(**changes: Any) -> Head:
    """Return the usual head with some keys changed."""
    return Head.of(node("neural")["head"] | changes)


def training(**changes: Any) -> Training:
    """Return the usual training budget with some keys changed."""
    return Training.of(node("neural")["training"] | changes)
