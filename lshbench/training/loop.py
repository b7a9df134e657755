"""The training loop of all trained methods.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.errors import DivergedError
from lshbench.runtime.device import resolve_precision
from lshbench.training.checkpoint import Checkpoint
from lshbench.training.data import Batch, TrainingData
from lshbench.training.history import Epoch
from lshbench.training.layers import products_in
from lshbench.training.settings import Training
from lshbench.training.validation import LABEL_PAIRS, Validation
from lshbench.types import Progress, Side

log = logging.getLogger(__name__)

SMALL_BATCH = 1 << 19
"""Numbers in a batch below which training takes one thread."""

Terms = dict[str, Tensor]
"""A loss as named terms, already weighted; their sum is minimised."""


@dataclass(frozen=True)
class TrainingResult:
    """The curve of a finished training, and the epoch whose weights were kept."""

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
    quality: Callable[[nn.Module], float | None] | None = None,
) -> TrainingResult:
    """Train a network and keep the best epoch's weights.

    The validation quality of an epoch is the expected mAP, validation items as queries against a sample of
    the others, unless ``quality`` says otherwise.  The result is a function of the arguments: batches come from
    ``seed`` and the epoch's number, and what draws from torch's generator (dropout) is seeded anew at each epoch, so
    that a training that is taken up again from its checkpoint ends as if it had never stopped.

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
        quality: measures ``model`` on the validation part in place of that mAP; None if there is no such part.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, settings, data.device)
    best: dict[str, Tensor] = {}
    history: list[Epoch] = []
    precision = resolve_precision(settings.precision, data.device)
    identity = {"seed": seed, "items": len(data), **settings.in_effect(data.device)}
    store = Checkpoint(checkpoint, identity) if checkpoint else None
    if store and store.load(model, optimizer, best, history):
        log.info("%s goes on after epoch %d, from %s", description, len(history), checkpoint)
    per_epoch = data.batches_per_epoch(settings)
    steps = per_epoch * settings.epochs
    measure = quality or Validation(data, encode, seed, ranking, LABEL_PAIRS[settings.relevance]).quality
    with (
        seeded(seed, data.device),
        threads_for(data.batch_size(settings) * data.inputs),
        products_in(precision, model),
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
                for name, value in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            means = {name: float(value) / per_epoch for name, value in sums.items()}
            if not all(math.isfinite(value) for value in means.values()):
                raise DivergedError(
                    f"{description} diverged in epoch {epoch} ({means}): "
                    f"try a smaller method.training.learning_rate than {settings.learning_rate}"
                )
            reached = measure(model)
            if reached is None or not best or reached > max(e.validation or 0.0 for e in history):
                best = {name: value.detach().clone() for name, value in model.state_dict().items()}
            history.append(Epoch(epoch, sum(means.values()), reached, means))
            log.debug("%s, epoch %d: loss %.5g, validation %s", description, epoch, history[-1].loss, reached)
            if store:
                store.save(model, optimizer, best, history)
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


def _optimizer(parameters: list[nn.Parameter], settings: Training, device: torch.device) -> torch.optim.Optimizer:
    # Biases and the scales of normalisations aren't decayed.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    # All of a step in one pass over the weights.
    return kind(groups, lr=settings.learning_rate, fused=device.type in ("cpu", "cuda"))


def _stopped(history: list[Epoch], patience: int) -> bool:
    chosen = _chosen(history)
    return patience > 0 and chosen is not None and len(history) - chosen >= patience


def _chosen(history: list[Epoch]) -> int | None:
    """Return the first epoch of the best validation quality, or the last epoch where there is none."""
    if not history:
        return None
    if history[-1].validation is None:
        return history[-1].epoch
    return max(history, key=lambda row: (row.validation or 0.0, -row.epoch)).epoch
