"""Rules for hyper-parameters that are given as ``auto``; a run records the values in effect.

``temperature`` of the options without labels depends on the code's length; ``training.precision`` depends on the
processor (:func:`lshbench.runtime.device.resolve_precision`).
"""

from __future__ import annotations

from lshbench.errors import wrong_value


def temperature(value: float | str, bits: int) -> float:
    """Return the temperature of :func:`lshbench.training.losses.contrastive`, in units of ``bits ** -0.5``.

    At 1, what unrelated codes' products come to spreads by 1, whatever their length.  Few bits leave less room between
    the same code and the opposite one: it is to be at least 10, or the nearest items hardly count more than others.

    Args:
        value: a number, which is returned as it is, or ``auto``.
        bits: the code's length, which is checked already.

    Raises:
        UsageError: another word.
    """
    if value == "auto":
        return min(1.0, bits**0.5 / 5)
    if isinstance(value, str):
        raise wrong_value("method.temperature", value, "a number, or auto")
    return value
