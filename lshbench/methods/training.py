"""The training loop that every trained method shares: the same data, budget and choice of weights for all.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.errors import UsageError, wrong_value
from lshbench.methods.base import Epoch
from lshbench.methods.checkpoint import Checkpoint
from lshbench.methods.validation import cosine_quality, hamming_quality, nearest_by_cosine, sharing_labels
from lshbench.types import Features, Progress, Side, Supervision

log = logging.getLogger(__name__)

SMALL_BATCH = 1 << 19
"""Numbers in a batch below which training takes one thread."""

Terms = dict[str, Tensor]
"""A loss as named terms, already weighted; their sum is minimised."""

RESIDENT_BYTES = 2 << 30
"""A training set up to this size is moved to the device once; a larger one is read batch by batch."""

VALIDATION_ITEMS = 2_500
"""Items held out at most: enough for a standard error of mAP of some .005."""

VALIDATION_GALLERY = 10_000
"""Items that they are looked for among at most."""

VALIDATION_ROWS = 4_096


@dataclass(frozen=True)
class Training:
    """The budget and schedule of a training; the keys of a method's ``training``.

    Attributes:
        epochs: passes over the training set at most.
        batch_size: items in a batch.
        min_batches: batches in an epoch at least: a small training set is passed through repeatedly.
        max_batches: batches in an epoch at most; None passes through the whole set.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        learning_rate: the largest step size.
        schedule: ``one_cycle`` (a warm-up over the first fifth, then a cosine down to 0), ``cosine`` or
            ``constant``.
        weight_decay: of weight matrices; decoupled for ``adamw``.
        averaging: decay of the exponential average of the weights, a step; 0 uses the last weights.
        validation: the part of the training set that models are chosen by, 2,500 items at most; 0 trains on
            all and keeps the last epoch.
        patience: epochs without a better validation result before training stops; None goes on to the end.
    """

    epochs: int = 15
    batch_size: int = 512
    min_batches: int = 8
    max_batches: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 1e-2
    schedule: str = "one_cycle"
    weight_decay: float = 1e-2
    averaging: float = 0.0
    validation: float = 0.1
    patience: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "min_batches"):
            if getattr(self, key) < 1:
                raise wrong_value(f"method.training.{key}", getattr(self, key), "at least 1")
        if self.max_batches is not None and self.max_batches < self.min_batches:
            raise wrong_value(
                "method.training.max_batches",
                self.max_batches,
                f"null, or at least min_batches={self.min_batches}",
            )
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise wrong_value("method.training.optimizer", self.optimizer, "adamw, adam or sgd")
        if self.schedule not in ("one_cycle", "cosine", "constant"):
            raise wrong_value("method.training.schedule", self.schedule, "one_cycle, cosine or constant")
        if self.learning_rate <= 0:
            raise wrong_value("method.training.learning_rate", self.learning_rate, "a positive number")
        if self.weight_decay < 0:
            raise wrong_value("method.training.weight_decay", self.weight_decay, "0 or a positive number")
        if not 0 <= self.averaging < 1:
            raise wrong_value("method.training.averaging", self.averaging, "at least 0 and below 1")
        if not 0 <= self.validation <= 0.5:
            raise wrong_value("method.training.validation", self.validation, "from 0 to 0.5")
        if self.patience is not None and self.patience < 1:
            raise wrong_value("method.training.patience", self.patience, "at least 1, or null to go on to the end")

    def updated(self, keys: Mapping[str, Any] | None) -> Training:
        """Return these settings with the given keys in place; a value of None leaves a setting as it is.

        Raises:
            UsageError: an unknown key, or a value that can't be used.
        """
        given = {key: value for key, value in (keys or {}).items() if value is not None}
        known = [field.name for field in fields(self)]
        for key in given:
            if key not in known:
                raise UsageError(
                    f"method.training.{key}={given[key]!r}: no such key; method.training takes: {', '.join(known)}"
                )
        return replace(self, **given)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of ``steps``."""
        done = (step + 0.5) / steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "one_cycle":
            if done < 0.2:
                return self.learning_rate * (0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.2)) / 2)
            done = (done - 0.2) / 0.8
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Batch:
    """Items of the training part.

    Attributes:
        x: features as they came, float32 ``(n, d)``, on the device.
        y: labels, int64 ``(n,)``, or bool ``(n, classes)``, on the device.
        rows: which items of :class:`TrainingData`'s training part they are, int64 ``(n,)``.
        generator: for what a loss draws in NumPy; decided by seed, epoch and the batch's number.
    """

    x: Tensor
    y: Tensor
    rows: np.ndarray
    generator: np.random.Generator


class TrainingData:
    """A training set, split into the part that is learnt from and the part that models are chosen by.

    The validation part is the same for the same seed, and has each class in proportion.  Labels are renumbered 0 to
    ``classes - 1``; without supervision all are 0, and the validation part is drawn blindly.  A set of up to
    ``RESIDENT_BYTES`` lies on the device; a larger one stays where it is.

    Attributes:
        rows: rows of the training set that are learnt from, int64 ``(n,)``.
        validation_rows: the others, int64; empty for ``validation=0``.
        labels: int64 ``(n,)`` or bool ``(n, classes)``, of the items learnt from.
        classes: how many classes there are.
        source: all features of the training set, as given.
    """

    def __init__(
        self,
        train: Features,
        settings: Training,
        seed: int,
        device: torch.device,
        supervision: Supervision = "labels",
    ) -> None:
        self.supervision = supervision
        if supervision == "none":
            # Labels end here, so that nothing after this line can look at them.
            labels, self.classes = np.zeros(len(train), np.int64), 1
        elif train.y.ndim == 1:
            names, labels = np.unique(train.y, return_inverse=True)
            self.classes = len(names)
        else:
            labels, self.classes = train.y, train.y.shape[1]
        generator = np.random.default_rng([seed, 1])
        part = min(settings.validation, VALIDATION_ITEMS / max(len(labels), 1))
        self.validation_rows = held_out(labels, part, generator)
        self.rows = np.setdiff1d(np.arange(len(labels)), self.validation_rows)
        if len(self.rows) < 2:
            raise UsageError(f"{len(self.rows)} training items are too few to learn from: expected at least 2")
        self.labels = labels[self.rows]
        self.device = device
        self._all_labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        self.source = train.x
        self._resident: Tensor | None = None
        if train.x.nbytes <= RESIDENT_BYTES:
            self._resident = torch.tensor(np.asarray(train.x, np.float32), device=device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def inputs(self) -> int:
        """The features' width."""
        return self.source.shape[1]

    def features(self, rows: np.ndarray) -> Tensor:
        """Return features of rows of the whole training set, float32 ``(len(rows), d)``, on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)]
        order = np.argsort(rows, kind="stable")  # a memory map is read fastest in its own order
        block = np.empty((len(rows), self.inputs), np.float32)
        block[order] = self.source[rows[order]]
        return torch.from_numpy(block).to(self.device)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return features and labels of items of the training part, numbered from 0 to ``len(self) - 1``."""
        whole = self.rows[rows]
        return self.features(whole), self._all_labels[torch.from_numpy(whole).to(self.device)]

    def batches(self, settings: Training, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches: fresh permutations, decided by seed and epoch, cut to equal sizes."""
        generator = np.random.default_rng([seed, 2, epoch])
        size, count = self.batch_size(settings), self.batches_per_epoch(settings)
        passes = math.ceil(count * size / len(self))
        rows = np.concatenate([generator.permutation(len(self)) for _ in range(passes)])
        for number in range(count):
            chosen = rows[number * size : (number + 1) * size]
            yield Batch(*self.take(chosen), chosen, np.random.default_rng([seed, 5, epoch, number]))

    def batches_per_epoch(self, settings: Training) -> int:
        """Return how many batches :meth:`batches` yields."""
        count = max(settings.min_batches, len(self) // self.batch_size(settings))
        return count if settings.max_batches is None else min(count, settings.max_batches)

    def batch_size(self, settings: Training) -> int:
        """Return how many items a batch has."""
        # Small sets take smaller batches, down to 32: too few steps cost more than noisy ones.
        return min(settings.batch_size, max(32, len(self) // 8), len(self))

    def validation_sample(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of the whole training set to take as validation queries and as their gallery."""
        generator = np.random.default_rng([seed, 3])
        queries = self.validation_rows
        gallery = generator.permutation(self.rows)[:VALIDATION_GALLERY]
        return queries, np.sort(gallery)

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """Return labels of rows of the whole training set, on the device."""
        return self._all_labels[torch.from_numpy(rows).to(self.device)]


def held_out(labels: np.ndarray, part: float, generator: np.random.Generator) -> np.ndarray:
    """Return sorted rows of a random part of a data set, from each class in proportion (single labels).

    A class gives none if that would leave it without items to learn from.
    """
    if part == 0:
        return np.empty(0, np.int64)
    shuffled = generator.permutation(len(labels))
    if labels.ndim == 2:
        return np.sort(shuffled[: int(len(labels) * part)])
    # Every 1/part-th item of the shuffled order sorted by class: proportions hold to within one item.
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = ordered[
        (np.arange(len(labels)) * part).astype(np.int64) != ((np.arange(len(labels)) + 1) * part).astype(np.int64)
    ]
    sizes, taken = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    return np.sort(chosen[(taken < sizes)[labels[chosen]]])


@dataclass(frozen=True)
class TrainingResult:
    """What a training gives beside the weights: its curve, and the epoch whose weights were kept."""

    history: list[Epoch]
    chosen_epoch: int | None


def train_model(
    model: nn.Module,
    loss: Callable[[Batch], Terms],
    encode: Callable[[Tensor, Side], Tensor],
    data: TrainingData,
    settings: Training,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
    description: str = "training",
    ranking: Literal["hamming", "cosine"] = "hamming",
) -> TrainingResult:
    """Minimise a loss over batches; leave in the model the weights that retrieve the validation part best.

    The validation quality of an epoch is the expected mAP, validation items as queries against a sample of
    the others.  The result is a function of the arguments: batches come from ``seed`` and the epoch's number,
    and what draws from torch's generator (dropout) is seeded anew at each epoch, so that a training that is
    taken up again from its checkpoint ends as if it had never stopped.

    Args:
        model: all trainable parameters, those of the loss included; on ``data``'s device.
        loss: a batch's terms.
        encode: features to projections, for validation; it must use the modules of ``model``.
        data: the training set.
        settings: budget and schedule.
        seed: decides everything drawn.
        progress: shown while it runs.
        checkpoint: a file to write after each epoch and to go on from; None for none.
        description: what the progress bar says.
        ranking: what validation ranks by: Hamming distances of signs, or cosines of ``encode``'s outputs.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, settings)
    average = _Average(model, settings.averaging)
    best: dict[str, Tensor] = {}
    history: list[Epoch] = []
    store = Checkpoint(checkpoint, {"seed": seed, "items": len(data), **asdict(settings)}) if checkpoint else None
    if store and store.load(model, average.state, optimizer, best, history):
        log.info("%s goes on after epoch %d, from %s", description, len(history), checkpoint)
    per_epoch = data.batches_per_epoch(settings)
    steps = per_epoch * settings.epochs
    validation = _Validation(data, encode, seed, ranking)
    with (
        seeded(seed, data.device),
        threads_for(data.batch_size(settings) * data.inputs),
        progress(description, total=settings.epochs, unit="epochs") as advance,
    ):
        advance(len(history))
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if _stopped(history, settings.patience):
                break
            torch.manual_seed(np.random.SeedSequence([seed, 4, epoch]).generate_state(1, np.uint64)[0].item())
            model.train()
            sums: dict[str, Tensor] = {}
            for number, batch in enumerate(data.batches(settings, seed, epoch)):
                for group in optimizer.param_groups:
                    group["lr"] = settings.rate((epoch - 1) * per_epoch + number, steps)
                terms = loss(batch)
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(terms.values())).sum().backward()
                optimizer.step()
                average.update()
                for name, value in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            means = {name: float(value) / per_epoch for name, value in sums.items()}
            if not all(math.isfinite(value) for value in means.values()):
                raise UsageError(
                    f"{description} diverged in epoch {epoch} ({means}): "
                    f"try a smaller method.training.learning_rate than {settings.learning_rate}"
                )
            with average.in_place():
                quality = validation.quality(model)
                if quality is None or not best or quality > max(e.validation or 0.0 for e in history):
                    best = {name: value.detach().clone() for name, value in model.state_dict().items()}
            history.append(Epoch(epoch, sum(means.values()), quality, means))
            log.debug("%s, epoch %d: loss %.5g, validation mAP %s", description, epoch, history[-1].loss, quality)
            if store:
                store.save(model, average.state, optimizer, best, history)
            advance(1)
    model.load_state_dict(best)
    model.eval()
    return TrainingResult(history, _chosen(history))


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """Train on one thread within the ``with`` block if a batch has few numbers.

    A team of threads gains little on small batches, and loses much where other processes share the cores: each
    operation then waits for the slowest of the team.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if numbers < SMALL_BATCH else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators within the ``with`` block, and leave them outside as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def resolve_device(name: str) -> torch.device:
    """Return the device for a configuration value; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: a device that torch doesn't know or that isn't there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise wrong_value("device", name, "auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise wrong_value("device", name, "auto or cpu: torch finds no CUDA device here")
    return device


def _optimizer(parameters: list[nn.Parameter], settings: Training) -> torch.optim.Optimizer:
    # Biases and the scales of normalisations aren't decayed.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=settings.learning_rate)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _stopped(history: list[Epoch], patience: int | None) -> bool:
    chosen = _chosen(history)
    return patience is not None and chosen is not None and len(history) - chosen >= patience


def _chosen(history: list[Epoch]) -> int | None:
    """Return the first epoch of the best validation quality, or the last epoch where there is none."""
    if not history:
        return None
    if history[-1].validation is None:
        return history[-1].epoch
    return max(history, key=lambda row: (row.validation or 0.0, -row.epoch)).epoch


class _Average:
    """An exponential average of a model's weights; running statistics are taken as they are."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(model.named_parameters()) if decay else {}
        self.state = {name: value.detach().clone() for name, value in self._parameters.items()}
        self.state["steps"] = torch.zeros(())

    def update(self) -> None:
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

    def in_place(self) -> _Swap:
        """Return a context within which the model has the averaged weights."""
        return _Swap(self._parameters, self.state)


class _Swap:
    def __init__(self, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
        self._parameters, self._state = parameters, state

    def _exchange(self) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                kept = parameter.detach().clone()
                parameter.copy_(self._state[name])
                self._state[name].copy_(kept)

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()


class _Validation:
    """Retrieval quality of the validation part."""

    def __init__(
        self,
        data: TrainingData,
        encode: Callable[[Tensor, Side], Tensor],
        seed: int,
        ranking: Literal["hamming", "cosine"],
    ) -> None:
        self._data, self._encode = data, encode
        self._measure = hamming_quality if ranking == "hamming" else cosine_quality
        self._queries, self._gallery = data.validation_sample(seed)
        if data.supervision == "labels":
            self._relevant = sharing_labels(data.labels_of(self._queries), data.labels_of(self._gallery))
        else:
            self._relevant = nearest_by_cosine(data.features(self._queries), data.features(self._gallery))

    def quality(self, model: nn.Module) -> float | None:
        if not len(self._queries):
            return None
        model.eval()
        queries, gallery = self._project(self._queries, "query"), self._project(self._gallery, "gallery")
        return self._measure(queries, gallery, self._relevant)

    def _project(self, rows: np.ndarray, side: Side) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [
                    self._encode(self._data.features(rows[start : start + VALIDATION_ROWS]), side)
                    for start in range(0, len(rows), VALIDATION_ROWS)
                ]
            )
