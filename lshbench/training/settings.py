"""The budget and schedule of a training, as a method's configuration gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from lshbench.errors import UsageError, wrong_value
from lshbench.runtime.device import resolve_precision


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
        validation: the part of the training set that models are chosen by, 2,500 items at most; 0 trains on
            all and keeps the last epoch.
        patience: epochs without a better validation result before training stops; None goes on to the end.
        precision: of hidden layers' matrix products while training: ``float32``, ``bfloat16`` (sums, losses, weights
            and all else stay float32), or ``auto``, bfloat16 where the processor computes in it.
    """

    epochs: int = 20
    batch_size: int = 512
    min_batches: int = 8
    max_batches: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 2e-2
    schedule: str = "one_cycle"
    weight_decay: float = 1e-2
    validation: float = 0.1
    patience: int | None = None
    precision: str = "auto"

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
        if not 0 <= self.validation <= 0.5:
            raise wrong_value("method.training.validation", self.validation, "from 0 to 0.5")
        if self.patience is not None and self.patience < 1:
            raise wrong_value("method.training.patience", self.patience, "at least 1, or null to go on to the end")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise wrong_value("method.training.precision", self.precision, "auto, float32 or bfloat16")

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

    def in_effect(self, device: torch.device) -> dict[str, Any]:
        """Return all keys with their values; the precision is the one that ``auto`` stands for on a device."""
        return asdict(self) | {"precision": resolve_precision(self.precision, device)}

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
