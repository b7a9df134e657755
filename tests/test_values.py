"""Every option refuses what is no number for each of its keys that take nothing else."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import yaml

from lshbench.config import _check_numbers, conf_folder
from lshbench.errors import UsageError


@pytest.mark.parametrize(
    ("value", "annotation", "right"),
    [
        (3, "int", True),
        (3, int, True),
        (3.5, "float", True),
        (3, "float", True),
        (None, "int | None", True),
        ("auto", "int | str", True),
        ([1, 2], "int | list[int]", True),
        (math.inf, "float", True),
        (math.nan, "float", False),
        (math.nan, "int | str", False),
        (1e3, "int", False),
        ("abc", "int", False),
        (True, "int", False),
        (None, "int", False),
        ([1], "int | None", False),
        (-1, "int", False),
    ],
)
def test_numbers_are_numbers(value: Any, annotation: object, right: bool) -> None:
    if right:
        _check_numbers("method", {"seed": (value, annotation)})
    else:
        with pytest.raises(UsageError, match=r"method\.seed=.*: expected"):
            _check_numbers("method", {"seed": (value, annotation)})


def test_shipped_values_are_right() -> None:
    from importlib import import_module

    for group in ("dataset", "backbone", "method", "index", "protocol"):
        for path in sorted((conf_folder() / group).glob("*.yaml")):
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
            module, _, name = str(node.get("_target_", "")).rpartition(".")
            if not module:
                continue
            keys = inspect.signature(getattr(import_module(module), name)).parameters
            plain = {key: value for key, value in node.items() if key in keys and not isinstance(value, str)}
            _check_numbers(group, {key: (value, keys[key].annotation) for key, value in plain.items()})
