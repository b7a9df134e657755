"""Nested keys of a run's files as single names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(node: Mapping[str, Any], separator: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested mappings by its joined keys, such as ``method.bits``; an empty mapping is a value."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value
