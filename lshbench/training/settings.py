"""Budget and schedule of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from lshbench.errors import UsageError, wrong_value
from lshbench.runtime.device import resolve_precision


@dataclass(frozen=True)
class Training:
    """Budget and schedule of a training: the keys of a method's ``training``.

    Attributes:
        epochs: passes over the training set at most.
        batch_size: items in a batch.
        min_batches: batches in an epoch at least: a small training set is passed through repeatedly.
        max_batches: batches in an epoch at most; 0: no limit.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        learning_rate: the largest step size.
        schedule: ``one_cycle`` (a warm-up over the first fifth, then a cosine down to 0), ``cosine`` or ``constant``.
        weight_decay: of weight matrices; decoupled for ``adamw``.
        validation: the part of the training set that models are chosen by, 2,500 items at most; 0 trains on
            all and keeps the last epoch.
        patience: epochs without a better validation result before training stops; 0: training never stops early.
        precision: of hidden layers' matrix products in training: ``float32``, ``bfloat16`` (sums, losses, weights
            and all else stay float32), or ``auto``: bfloat16 where the processor computes in it.
    """

    epochs: int
    batch_size: int
    min_batches: int
    max_batches: int
    optimizer: str
    learning_rate: float
    schedule: str
    weight_decay: float
    validation: float
    patience: int
    precision: str

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "min_batches"):
            if getattr(self, key) < 1:
                raise wrong_value(f"method.training.{key}", getattr(self, key), "at least 1")
        if self.max_batches != 0 and self.max_batches < self.min_batches:
            expected = f"0 for no limit, or at least min_batches={self.min_batches}"
            raise wrong_value("method.training.max_batches", self.max_batches, expected)
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
        if self.patience < 0:
            raise wrong_value("method.training.patience", self.patience, "at least 1, or 0 to never stop early")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise wrong_value("method.training.precision", self.precision, "auto, float32 or bfloat16")

    @classmethod
    def of(cls, keys: Mapping[str, Any] | Training) -> Training:
        """Return the settings that a configuration's keys describe.

        Raises:
            UsageError: an unknown or missing key, or a value that can't be used.
        """
        if isinstance(keys, Training):
            return keys
        check_keys("method.training", keys, cls)
        return cls(**keys)

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


def check_keys(group: str, keys: Mapping[str, Any], kind: type) -> None:
    """Raise the error for a configuration group that lacks a field of a dataclass, or has another key."""
    known = [field.name for field in fields(kind)]
    for key in keys:
        if key not in known:
            raise UsageError(f"{group}.{key}={keys[key]!r}: no such key; {group} takes: {', '.join(known)}")
    for key in known:
        if keys.get(key) is None:
            raise UsageError(f"{group}.{key} is not set; expected a value for it")
