"""Query settings that one built index can serve one after the other."""

from __future__ import annotations

from lshbench.errors import wrong_value


def query_values(key: str, value: object, least: int = 1) -> list[int]:
    """Return a key's values, ascending and each once.

    Args:
        key: the dotted configuration key, such as ``index.probes``.
        value: what was given: one number or a list of them.
        least: the smallest number that makes sense.

    Raises:
        UsageError: not whole numbers of at least ``least``.
    """
    values = value if isinstance(value, list | tuple) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
        raise wrong_value(key, value, f"at least {least}: one whole number, or a list of them such as [1,2,4]")
    return sorted(set(values))
