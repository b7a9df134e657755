"""Budget and schedule of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, Self

import torch

from lshbench.errors import UsageError, wrong_value
from lshbench.runtime.device import resolve_precision
from lshbench.training.constraints import WHOLE, Count, Positive, Weight, at_least, between, check_fields, one_of


@dataclass(frozen=True)
class Group:
    """Base class of a group of a method's keys: a dataclass whose fields are the keys, annotated with constraints.

    Attributes:
        prefix: the dotted key of the group.
    """

    prefix: ClassVar[str]

    def __post_init__(self) -> None:
        check_fields(self.prefix, self)

    @classmethod
    def of(cls, keys: Mapping[str, Any] | Self) -> Self:
        """Return the group that a configuration's keys describe.

        Raises:
            UsageError: an unknown or missing key, or a value that can't be used.
        """
        if not isinstance(keys, Mapping):
            return keys
        known = [field.name for field in fields(cls)]
        for key in keys:
            if key not in known:
                raise UsageError(
                    f"{cls.prefix}.{key}={keys[key]!r}: no such key; {cls.prefix} takes: {', '.join(known)}"
                )
        for field in fields(cls):
            # A key with a default is one that runs of earlier versions lack.
            if keys.get(field.name) is None and field.default is MISSING:
                raise UsageError(f"{cls.prefix}.{field.name} is not set; expected a value for it")
        return cls(**keys)


@dataclass(frozen=True)
class Training(Group):
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
        relevance: what makes an item relevant to a query in validation, and in losses that ask: ``shared``, a label in
            common, or ``subset``, all of the query's labels.
    """

    prefix = "method.training"

    epochs: Count
    batch_size: Count
    min_batches: Count
    max_batches: Annotated[int, WHOLE]
    optimizer: Annotated[str, one_of("adamw", "adam", "sgd")]
    learning_rate: Positive
    schedule: Annotated[str, one_of("one_cycle", "cosine", "constant")]
    weight_decay: Weight
    validation: Annotated[float, between(0, 0.5, "from 0 to 0.5")]
    patience: Annotated[int, WHOLE, at_least(0, "at least 1, or 0 to never stop early")]
    precision: Annotated[str, one_of("auto", "float32", "bfloat16")]
    relevance: Annotated[str, one_of("shared", "subset")] = "shared"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_batches != 0 and self.max_batches < self.min_batches:
            expected = f"0 for no limit, or at least min_batches={self.min_batches}"
            raise wrong_value("method.training.max_batches", self.max_batches, expected)

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
