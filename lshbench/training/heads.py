"""Networks on frozen features: standardisation, linear or hidden layers, and hashers made of one head.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.errors import UsageError, wrong_value
from lshbench.methods.base import BinaryHasher
from lshbench.runtime.device import resolve_device
from lshbench.training.data import Batch, TrainingData
from lshbench.training.layers import Dropout, HiddenLinear
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.settings import Training
from lshbench.types import Features, Progress, Side

STATISTICS_ROWS = 16_384
"""Rows read at a time for means and deviations."""

SMALLEST = 1e-12
"""What features count as at least before their square root is taken."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}

COMPONENT_ROWS = 20_000
"""Items that principal components are learnt from at most."""


@dataclass(frozen=True)
class Head:
    """The layers between standardised features and projections; the keys of a method's ``head``.

    Attributes:
        hidden: widths of the hidden layers; none for a linear head.
        batch_norm: batch normalisation before each activation.
        activation: of the hidden layers, ``gelu`` or ``relu``.
        dropout: the part of each hidden layer's outputs that is dropped in training.
    """

    hidden: tuple[int, ...] = (512,)
    batch_norm: bool = True
    activation: str = "gelu"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in self.hidden):
            raise wrong_value("method.head.hidden", list(self.hidden), "a list of positive widths, such as [512]")
        if self.activation not in ACTIVATIONS:
            raise wrong_value("method.head.activation", self.activation, " or ".join(ACTIVATIONS))
        if not 0 <= self.dropout < 1:
            raise wrong_value("method.head.dropout", self.dropout, "at least 0 and below 1")

    def updated(self, keys: Mapping[str, Any] | None) -> Head:
        """Return these settings with the given keys in place; a value of None leaves a setting as it is.

        Raises:
            UsageError: an unknown key, or a value that can't be used.
        """
        given = {key: value for key, value in (keys or {}).items() if value is not None}
        check_keys("method.head", given, [field.name for field in fields(self)])
        if "hidden" in given:
            if isinstance(given["hidden"], str) or not isinstance(given["hidden"], Sequence):
                raise wrong_value("method.head.hidden", given["hidden"], "a list of widths, such as [512] or []")
            given["hidden"] = tuple(given["hidden"])
        return replace(self, **given)

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


def check_batch_size(training: Training, head: Head, smallest: int = 1) -> None:
    """Raise the error for batches of too few items for a loss or for batch normalisation."""
    if head.batch_norm and head.hidden and training.batch_size < 2:
        expected = "at least 2, or method.head.batch_norm=false: the spread of one item is unknown"
        raise wrong_value("method.training.batch_size", training.batch_size, expected)
    if training.batch_size < smallest:
        raise wrong_value("method.training.batch_size", training.batch_size, f"at least {smallest} for this method")


def check_weight(key: str, value: float) -> None:
    """Raise the error for a method's key that must be 0 or a positive number, and isn't."""
    if not 0 <= value < math.inf:  # not a number is neither
        raise wrong_value(f"method.{key}", value, "0 or a positive number")


def check_positive(key: str, value: float) -> None:
    """Raise the error for a method's key that must be a positive number, and isn't."""
    if not 0 < value < math.inf:
        raise wrong_value(f"method.{key}", value, "a positive number")


def without_effect(key: str, value: object, where: str) -> UsageError:
    """Return the error for a method's key that was given where nothing reads it: it would be taken to count.

    Args:
        key: its name.
        value: what was given.
        where: the key that takes its effect away, with its value.
    """
    return wrong_value(f"method.{key}", value, f"null with {where}, which makes no use of it")


def check_keys(group: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise the error for a key that a configuration group doesn't have."""
    for key in given:
        if key not in known:
            raise UsageError(f"{group}.{key}={given[key]!r}: no such key; {group} takes: {', '.join(known)}")


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a module's weights and statistics as NumPy arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_arrays(module: nn.Module, state: Mapping[str, np.ndarray], device: torch.device) -> None:
    """Put what :func:`arrays` returned into a module of the same shape, and that on a device, ready to encode."""
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    module.to(device).eval()


def project_block(encoder: Callable[[Tensor], Tensor], x: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the outputs, float32, of an encoder in evaluation mode and on ``device`` for a block of features."""
    with torch.inference_mode():
        # A copy, because torch refuses to share read-only memory maps quietly.
        return encoder(torch.tensor(np.asarray(x, np.float32), device=device)).float().cpu().numpy()


class HeadHasher(BinaryHasher):
    """A trained method that is one head: standardised features to ``bits`` projections, whose signs are the
    code.

    A subclass sets ``supervision``, ``smallest_batch`` and ``smallest_bits`` if its loss needs more items or bits than
    one, and gives the loss: :meth:`criterion` makes a module, which may have parameters of its own, that is called as
    ``criterion(encoder, batch)`` and returns named, weighted terms to be summed.

    Args:
        bits: the code's length.
        seed: decides weights, batches and the validation part.
        device: ``auto``, ``cpu``, ``cuda``, ...
        head: keys of :class:`Head`; None or missing: the defaults.
        training: keys of :class:`lshbench.training.settings.Training`; None or missing: the defaults.
    """

    default_head = Head()
    default_training = Training()
    smallest_batch: ClassVar[int] = 1
    smallest_bits: ClassVar[int] = 1

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed)
        if bits < self.smallest_bits:
            raise wrong_value("bits", bits, f"at least {self.smallest_bits} for this method")
        self.device = resolve_device(device)
        self.head = self.default_head.updated(head)
        self.training = self.default_training.updated(training)
        check_batch_size(self.training, self.head, self.smallest_batch)
        self.encoder: nn.Module | None = None

    @abstractmethod
    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        """Return the loss: called with the encoder (features to projections) and a batch, it returns its
        terms.
        """

    def build(self, inputs: int) -> nn.Sequential:
        """Return the encoder for features of a width, its first layer a :class:`Standardise` yet to learn."""
        return nn.Sequential(Standardise(inputs), *self.head.build(inputs, self.bits))

    def fit(self, train: Features, progress: Progress) -> Self:
        data = TrainingData(train, self.training, self.seed, self.device, self.supervision)
        with seeded(self.seed, self.device):
            encoder = self.build(data.inputs)
            first = encoder[0]
            assert isinstance(first, Standardise), "build() must begin with a Standardise"
            first.learn(train.x)
            criterion = self.criterion(data, progress)
        model = nn.ModuleList([encoder, criterion]).to(self.device)

        def loss(batch: Batch) -> Terms:
            return criterion(encoder, batch)

        result = train_model(
            model, loss, lambda x, side: encoder(x), data, self.training, self.seed, progress, self.checkpoint
        )
        self.history, self.chosen_epoch, self.encoder = result.history, result.chosen_epoch, encoder
        return self

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        assert self.encoder is not None, "fit or restore first"
        return project_block(self.encoder, x, self.device)

    def in_effect(self) -> dict[str, Any]:
        return {"head": asdict(self.head), "training": self.training.in_effect(self.device)}

    def state(self) -> dict[str, np.ndarray]:
        assert self.encoder is not None, "fit or restore first"
        return arrays(self.encoder)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        self.encoder = self.build(len(state["0.mean"]))
        load_arrays(self.encoder, state, self.device)
        return self
