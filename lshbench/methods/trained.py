"""Base classes of methods that train a network on frozen features.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.errors import wrong_value
from lshbench.methods.base import BinaryHasher, check_bits
from lshbench.runtime.device import resolve_device
from lshbench.training import auto
from lshbench.training.constraints import Count, CountsFromZero, Positive, check_fields
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import Head, Standardise
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.neighborhoods import Neighborhoods, neighborhoods
from lshbench.training.settings import Training
from lshbench.training.single import Step, for_one_item
from lshbench.types import Features, Progress, Side

Criterion = Callable[[nn.Sequential, Batch], Terms]
"""A loss: the encoder and a batch to named, weighted terms."""


@dataclass(kw_only=True, eq=False)
class TrainedHasher(BinaryHasher):
    """Base class of trained methods: a dataclass whose fields are the keys of the method's YAML.

    The constructor takes ``device``, ``head`` and ``training`` as the configuration has them, and keeps the objects
    that they describe.  A subclass is a dataclass with fields of its own, whose annotations may hold constraints
    (:mod:`lshbench.training.constraints`); it sets ``smallest_batch`` and ``smallest_bits`` if its loss needs more than
    one item or bit.

    Attributes:
        bits: the code's length.
        seed: decides weights, batches and the validation part.
        device: where the network is; given as ``auto``, ``cpu``, ``cuda``, ...
        head: given as the keys of :class:`lshbench.training.heads.Head`.
        training: given as the keys of :class:`lshbench.training.settings.Training`.

    Raises:
        UsageError: a value that can't be used.
    """

    bits: int
    seed: int
    device: torch.device
    head: Head
    training: Training

    smallest_batch: ClassVar[int] = 1
    smallest_bits: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__init__(self.bits, self.seed)
        if self.bits < self.smallest_bits:
            raise wrong_value("bits", self.bits, f"at least {self.smallest_bits} for this method")
        self.device = resolve_device(str(self.device))
        self.head, self.training = Head.of(self.head), Training.of(self.training)
        if self.head.batch_norm and self.head.hidden and self.training.batch_size < 2:
            expected = "at least 2, or method.head.batch_norm=false: the spread of one item is unknown"
            raise wrong_value("method.training.batch_size", self.training.batch_size, expected)
        if self.training.batch_size < self.smallest_batch:
            expected = f"at least {self.smallest_batch} for this method"
            raise wrong_value("method.training.batch_size", self.training.batch_size, expected)
        check_fields("method", self)

    def in_effect(self) -> dict[str, Any]:
        nodes = {"head": self.head.in_effect(), "training": self.training.in_effect(self.device)}
        return super().in_effect() | nodes


@dataclass(kw_only=True, eq=False)
class HeadHasher(TrainedHasher):
    """Base class of methods with one head: standardised features to ``bits`` projections, whose signs are the code.

    A subclass gives the loss by :meth:`criterion`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder: nn.Sequential | None = None
        self._single: Step | None = None

    @abstractmethod
    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        """Return the loss for a training set: a module if it has parameters or a state of its own, else a function."""

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
        trained = nn.ModuleList([encoder, criterion] if isinstance(criterion, nn.Module) else [encoder])
        result = train_model(
            trained.to(self.device),
            lambda batch: criterion(encoder, batch),
            lambda x, side: encoder(x),
            data,
            self.training,
            self.seed,
            progress,
            self.checkpoint,
        )
        self.history, self.chosen_epoch = result.history, result.chosen_epoch
        return self.keep(encoder)

    def keep(self, encoder: nn.Sequential) -> Self:
        """Encode by a fitted encoder from now on."""
        self.encoder = encoder
        self._single = for_one_item(encoder) if self.device.type == "cpu" else None
        return self

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        assert self.encoder is not None, "fit or restore first"
        return project_block(self.encoder, x, self.device, self._single)

    def state(self) -> dict[str, np.ndarray]:
        assert self.encoder is not None, "fit or restore first"
        return arrays(self.encoder)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        return self.keep(loaded(lambda: self.build(len(state["0.mean"])), state, self.device))


@dataclass(kw_only=True, eq=False)
class NeighborhoodHasher(TrainedHasher):
    """Base class of methods that learn from neighbourhoods in place of labels.

    ``temperature`` may be ``auto``: see :mod:`lshbench.training.auto`.

    Attributes:
        neighbors: nearest neighbours that are looked at, fewer among few items; features are averaged over the mutual
            ones.
        averagings: how often they are, or an ascending list of such numbers: relevance goes by the mean of the cosines
            after each; 0: those of the features.
        relevance_temperature: of the cosines whose softmax says how relevant an item is.
        temperature: of the softmax over products divided by the square root of bits.
    """

    supervision = "none"

    neighbors: Count
    averagings: CountsFromZero
    relevance_temperature: Positive
    temperature: Positive

    def __post_init__(self) -> None:
        check_bits(self.bits)
        self.temperature = auto.temperature(self.temperature, self.bits, auto.NEIGHBORS_APART)
        super().__post_init__()

    def neighborhoods(self, data: TrainingData, progress: Progress) -> Neighborhoods:
        """Return the neighbourhoods of a training set."""
        steps = [self.averagings] if isinstance(self.averagings, int) else self.averagings
        return neighborhoods(data, self.neighbors, steps, self.relevance_temperature, self.seed, progress)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a module's weights and statistics as NumPy arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


Module = TypeVar("Module", bound=nn.Module)


def loaded(build: Callable[[], Module], state: Mapping[str, np.ndarray], device: torch.device) -> Module:
    """Return the module that ``build`` makes with what :func:`arrays` returned, on a device, ready to encode.

    It is made without memory of its own, so that a description of a huge one takes none.

    Raises:
        ValueError: the arrays are another module's.
    """
    with torch.device("meta"):
        module = build()
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != expected:
        raise ValueError("the arrays are not those of the network that model.json describes")
    module.load_state_dict(tensors, assign=True)
    return module.to(device).eval()


def project_block(
    encoder: Callable[[Tensor], Tensor], x: np.ndarray, device: torch.device, single: Step | None
) -> np.ndarray:
    """Return the outputs, float32, of an encoder in evaluation mode and on ``device`` for a block of features.

    Args:
        single: what the encoder does, for a block of one item, by NumPy; None if only torch can.
    """
    if single is not None and len(x) == 1:
        return single(np.asarray(x[0], np.float32))[None]
    with torch.inference_mode():
        # A copy, because torch refuses to share read-only memory maps quietly.
        return encoder(torch.tensor(np.asarray(x, np.float32), device=device)).float().cpu().numpy()
