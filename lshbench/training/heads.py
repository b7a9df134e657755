"""Layers on frozen features: standardisation, principal components, and the layers of a head.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.errors import wrong_value
from lshbench.training.constraints import Dropped, Switch, one_of
from lshbench.training.layers import Dropout, HiddenLinear
from lshbench.training.settings import Group

STATISTICS_ROWS = 16_384
"""Rows read at a time for means and deviations."""

SMALLEST = 1e-12
"""What features count as at least before their square root is taken."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}

COMPONENT_ROWS = 20_000
"""Items that principal components are learnt from at most."""


@dataclass(frozen=True)
class Head(Group):
    """Layers between standardised features and projections: the keys of a method's ``head``.

    Attributes:
        hidden: widths of the hidden layers; none for a linear head.
        batch_norm: batch normalisation before each activation.
        activation: of the hidden layers, ``gelu`` or ``relu``.
        dropout: the part of each hidden layer's outputs that is dropped in training.
    """

    prefix = "method.head"

    hidden: Sequence[int]
    batch_norm: Switch
    activation: Annotated[str, one_of(*ACTIVATIONS)]
    dropout: Dropped

    def __post_init__(self) -> None:
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence):
            raise wrong_value("method.head.hidden", self.hidden, "a list of widths, such as [512] or []")
        if any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in self.hidden):
            raise wrong_value("method.head.hidden", list(self.hidden), "a list of positive widths, such as [512]")
        super().__post_init__()

    def in_effect(self) -> dict[str, Any]:
        """Return all keys with their values, as :meth:`of` takes them."""
        return asdict(self) | {"hidden": list(self.hidden)}

    def build(self, inputs: int, outputs: int) -> nn.Sequential:
        """Return the layers from ``inputs`` to ``outputs`` features, freshly drawn from torch's generator."""
        return nn.Sequential(*self._layers(inputs, outputs))

    def _layers(self, inputs: int, outputs: int) -> Iterator[nn.Module]:
        for width in self.hidden:
            yield HiddenLinear(inputs, width, bias=not self.batch_norm)
            if self.batch_norm:
                yield nn.BatchNorm1d(width)
            yield ACTIVATIONS[self.activation]()
            if self.dropout > 0:
                yield Dropout(self.dropout)
            inputs = width
        yield nn.Linear(inputs, outputs)


class Standardise(nn.Module):
    """Takes each input dimension to mean 0 and deviation 1 by training statistics, and clips what lies far
    out.

    Features that are never negative in training, as pooled outputs of rectifiers are, enter by their square
    root: else their few large values decide (Perronnin et al., Improving the Fisher kernel for large-scale
    image classification, ECCV 2010, section 3.2).  Dimensions that don't vary come out as 0.

    Args:
        inputs: how many dimensions.
        clip: largest absolute value that is let through, in deviations.
    """

    mean: Tensor
    inverse_deviation: Tensor
    rooted: Tensor

    def __init__(self, inputs: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("inverse_deviation", torch.ones(inputs))
        self.register_buffer("rooted", torch.zeros((), dtype=torch.bool))

    def learn(self, x: np.ndarray) -> None:
        """Take the statistics of features ``(n, d)``, read in blocks."""
        rooted = all(float(block.min(initial=0)) >= 0 for block in blocks_of(x))
        mean, deviation = mean_and_deviation(x, np.sqrt if rooted else None)
        varies = deviation > 1e-6 * max(float(deviation.max(initial=0)), 1e-30)
        inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        self.rooted = torch.tensor(rooted)
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self.inverse_deviation = torch.tensor(inverse, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        if self.rooted:
            # A query may have a negative number where no training item has one; roots of exact zeros take ten times
            # as long.
            x = x.clamp(min=SMALLEST).sqrt_()
        return ((x - self.mean) * self.inverse_deviation).clamp_(-self.clip, self.clip)


class Components(nn.Module):
    """Rotates standardised features to their leading principal components, scaled by one common factor.

    Args:
        inputs: the features' width.
        outputs: how many components; of at most ``inputs``.
        scale: the components' root mean square over the training items.
    """

    directions: Tensor

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("directions", torch.zeros(inputs, outputs))

    def learn(self, standardise: Standardise, x: np.ndarray, seed: int) -> None:
        """Take the directions from features ``(n, d)``, standardised; from a sample where there are many."""
        rows = np.sort(np.random.default_rng([seed, 6]).permutation(len(x))[:COMPONENT_ROWS])
        standard = standardise(torch.tensor(np.asarray(x[rows], np.float32)))
        centred = standard - standard.mean(0)
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / len(rows))
        count = self.directions.shape[1]
        vectors, values = vectors.flip(1)[:, :count], values.flip(0)[:count].clamp(min=0)
        # An eigenvector's sign is arbitrary: fix it, or it would depend on the library.
        vectors = vectors * torch.sign(vectors[vectors.abs().argmax(0), torch.arange(count)])
        self.directions = (vectors * self.scale / values.mean().clamp(min=1e-12).sqrt()).float()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.directions


def blocks_of(x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield features ``(n, d)`` in blocks of rows."""
    for start in range(0, len(x), STATISTICS_ROWS):
        yield x[start : start + STATISTICS_ROWS]


def mean_and_deviation(
    x: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each dimension's mean and standard deviation, float64 ``(d,)``, reading ``x`` in blocks.

    Args:
        x: ``(n, d)``.
        transform: applied to each block first.
    """
    count, mean, squares = 0, np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in blocks_of(x):
        block = np.asarray(rows, np.float64)
        if transform is not None:
            block = transform(block)
        block_mean = block.mean(0)
        total = count + len(block)
        # Chan et al.'s update: sums of squares about the mean don't cancel.
        squares += ((block - block_mean) ** 2).sum(0) + (block_mean - mean) ** 2 * count * len(block) / total
        mean += (block_mean - mean) * len(block) / total
        count = total
    return mean, np.sqrt(squares / max(count, 1))
