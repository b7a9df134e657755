"""Rules for hyper-parameters that are given as ``auto``; a run records the values in effect.

``temperature`` of the neural options and of those without labels depends on the code's length; ``training.precision``
depends on the processor (:func:`lshbench.runtime.device.resolve_precision`).
"""

from __future__ import annotations

from lshbench.errors import wrong_value

NEIGHBORS_APART = 10.0
"""Least exponent between the same code and the opposite one where relevance goes by degrees."""

CLASSES_APART = 16.0
"""The same with labels: an item's class has to outweigh a batch of other ones, so it takes 8 above unrelated codes."""


def temperature(value: float | str, bits: int, apart: float) -> float:
    """Return the temperature of :func:`lshbench.training.losses.contrastive`, in units of ``bits ** -0.5``.

    At 1, what unrelated codes' products come to spreads by 1, whatever their length.  Few bits leave less room between
    the same code and the opposite one: too little, and the nearest items hardly count more than others.

    Args:
        value: a number, which is returned as it is, or ``auto``.
        bits: the code's length, which is checked already.
        apart: how far apart the two are to be at least, in units of the temperature.

    Raises:
        UsageError: another word.
    """
    if value == "auto":
        return min(1.0, bits**0.5 / (apart / 2))
    if isinstance(value, str):
        raise wrong_value("method.temperature", value, "a number, or auto")
    return value
