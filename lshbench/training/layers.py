"""Layers that train faster than torch's own, and compute as those do afterwards.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShortProduct:
    """A mix-in for modules whose matrix products may be computed from bfloat16 numbers while they are trained.

    Rounding their factors is noise beside that of batches; all between them, the losses above all, needs float32,
    and so does what is encoded in the end.  See :func:`products_in`.
    """

    training: bool
    short = False

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return ``x @ weight.T``, float32 ``(n, outputs)``."""
        if self.training and self.short:
            return functional.linear(x.bfloat16(), weight.bfloat16()).float()
        return functional.linear(x, weight)


class HiddenLinear(ShortProduct, nn.Linear):
    """A linear layer that isn't a network's last: its product may be short."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.short):
            return super().forward(x)
        product = self.product(x, self.weight)
        return product if self.bias is None else product + self.bias


@contextmanager
def products_in(precision: str, model: nn.Module) -> Iterator[None]:
    """Let a model's :class:`ShortProduct` modules compute in ``bfloat16`` or ``float32`` within the ``with`` block."""
    modules = [module for module in model.modules() if isinstance(module, ShortProduct)]
    for module in modules:
        module.short = precision == "bfloat16"
    try:
        yield
    finally:
        for module in modules:
            module.short = False


class Dropout(nn.Dropout):
    """Dropout; on a CPU, 16 random bits decide about a number, which takes a fraction of the time of a uniform draw.

    The part that is dropped is ``p`` to the nearest 65,536th.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        levels = 1 << 16
        dropped = min(round(self.p * levels), levels - 1)
        drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - levels // 2
        return x * kept.to(x.dtype).mul_(levels / (levels - dropped))
