"""Rules for hyper-parameters that are given as ``auto``; a run records the values in effect.

Of the options without labels, ``temperature`` depends on the code's length and ``neighbors`` on the number of training
items; ``training.precision`` depends on the processor (:func:`lshbench.runtime.device.resolve_precision`).
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


def neighbors(value: int | str, items: int) -> int:
    """Return how many nearest neighbours averages are looked for among.

    Classes have more items where there are more in all, but hardly in proportion: there are more classes, too.

    Args:
        value: a number, which is returned as it is, or ``auto``.
        items: that are learnt from.
    """
    return value if isinstance(value, int) else round(min(50.0, max(20.0, items**0.5 / 4)))
