"""An exponential average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential average of a model's weights; running statistics are taken as they are.

    Attributes:
        state: the averages by the weights' names, and how many ``steps`` they are of: what a checkpoint keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(model.named_parameters()) if decay else {}
        self.state = {name: value.detach().clone() for name, value in self._parameters.items()}
        self.state["steps"] = torch.zeros(())

    def update(self) -> None:
        """Take in the weights of another step."""
        if not self.decay:
            return
        self.state["steps"] += 1
        # A short memory at first, or the initial weights would linger.
        decay = min(self.decay, (1 + float(self.state["steps"])) / (10 + float(self.state["steps"])))
        names = list(self._parameters)
        torch._foreach_lerp_(
            [self.state[name] for name in names],
            [self._parameters[name].detach() for name in names],
            1 - decay,
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights within the ``with`` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                kept = parameter.detach().clone()
                parameter.copy_(self.state[name])
                self.state[name].copy_(kept)
