"""Rules for hyper-parameters that are given as ``auto``; a run records the values in effect.

``temperature`` and ``balance_weight`` of the options without labels depend on the code's length; ``training.precision``
depends on the processor (:func:`lshbench.runtime.device.resolve_precision`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lshbench.errors import wrong_value


def resolve(method: Any, balance: Callable[[int], float]) -> None:
    """Set ``balance_weight`` and ``temperature`` of a method without labels to numbers where they are ``auto``.

    Args:
        method: has these two as attributes, and a code length ``bits`` that is checked.
        balance: the weight of balance for a code length: :func:`balance_ratio` or :func:`balance_share`.

    Raises:
        UsageError: another word.
    """
    for key, rule in {"balance_weight": balance, "temperature": temperature}.items():
        value = getattr(method, key)
        if value == "auto":
            setattr(method, key, rule(method.bits))
        elif isinstance(value, str):
            raise wrong_value(f"method.{key}", value, "a number, or auto")


def temperature(bits: int) -> float:
    """Return the temperature of :func:`lshbench.training.losses.contrastive`, in units of ``bits ** -0.5``.

    Neighbours are less certain than labels, and fewer than the items of a class: a softer ranking draws together what
    is near them, too.  Few bits would leave no order at as many units.
    """
    return min(3.0, 0.5 * bits**0.5)


def balance_ratio(bits: int) -> float:
    """Return the weight of :func:`lshbench.training.losses.bit_balance` where the ranking term has a weight of 1.

    What neighbours leave open, balance decides: bits that halve the items tell larger groups apart.  Codes of 16 bits
    or less have no bits to spare for it.
    """
    return min(4.0, max(0.05, (bits - 16) / 4))


def balance_share(bits: int, fence_weight: float) -> float:
    """Return the weight of balance in :func:`balance_ratio` where fence, balance and ranking add up to 1."""
    ratio = balance_ratio(bits)
    return (1 - fence_weight) * ratio / (1 + ratio)
