"""A method's values are checked before any work, and a wrong one is named with its key."""

from __future__ import annotations

from typing import Any

import pytest

from lshbench.config import build
from lshbench.errors import UsageError
from lshbench.methods.base import Method
from tests.options import node


@pytest.mark.parametrize(
    ("option", "changes", "message"),
    [
        ("csq", {"quantization_weight": "much"}, "method.quantization_weight='much': expected 0 or a positive number"),
        ("csq", {"quantization_weight": None}, "method.quantization_weight=None: expected 0 or a positive number"),
        ("csq", {"training": {"epochs": 1.5}}, "method.training.epochs=1.5: expected a whole number"),
        ("csq", {"training": {"max_batches": "all"}}, "method.training.max_batches='all': expected a whole number"),
        ("csq", {"head": {"batch_norm": "no"}}, "method.head.batch_norm='no': expected true or false"),
        ("fourier", {"temperature": "auto"}, "method.temperature='auto': expected a positive number"),
        ("fourier", {"skip": "no"}, "method.skip='no': expected true or false"),
        ("fourier_unsupervised", {"temperature": "warm"}, "method.temperature='warm': expected a number, or auto"),
        ("itq", {"iterations": 1.5}, "method.iterations=1.5: expected a whole number"),
        ("itq", {"max_points": 0.5}, "method.max_points=0.5: expected a whole number, or null"),
        ("kmeans", {"clusters": "ten"}, "method.clusters='ten': expected a whole number"),
        ("spectral", {"quantile": "small"}, "method.quantile='small': expected a number"),
    ],
)
def test_values_of_another_type_are_named(option: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        build({"method": node(option, **changes)}, "method", Method)
