"""The training curve: one row an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Epoch:
    """One epoch of a training curve.

    Attributes:
        epoch: its number, from 1.
        loss: the mean loss of its batches.
        validation: the validation mAP by which the epoch is chosen, or None.
        terms: the weighted terms whose sum is the loss.
    """

    epoch: int
    loss: float
    validation: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
