"""The directions that tell classes apart: what labels teach that holds for classes not seen, too.

Fisher's discriminant with shrunk within-class scatter (Fisher, The use of multiple measurements in taxonomic
problems, 1936; shrinkage as in Friedman, Regularized discriminant analysis, JASA 1989).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.training.class_codes import memberships
from lshbench.training.data import TrainingData

SHRINKAGE = 0.8
"""Share of the within-class scatter that is replaced by its mean variance.

Much of it is noise: how items of the training's classes vary is only a hint at how others do.
"""

DIRECTIONS = 64
"""Directions kept at most, those that tell most apart."""

ROWS = 8192


class Discriminant(nn.Module):
    """Takes standardised features along the discriminant directions, each scaled to within-class variance 1.

    Args:
        inputs: the features' width.
        classes: how many classes there are.
    """

    directions: Tensor

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        # One class, or fewer dimensions than directions: at least one direction, so that cosines exist.
        self.register_buffer("directions", torch.zeros(inputs, max(1, min(DIRECTIONS, classes - 1, inputs))))

    def learn(self, data: TrainingData, standardise: nn.Module) -> None:
        """Take the directions from the training part; an item of several classes counts once for each."""
        inputs = len(self.directions)
        total = torch.zeros(inputs, inputs, dtype=torch.float64)
        sums = torch.zeros(data.classes, inputs, dtype=torch.float64)
        counts = torch.zeros(data.classes, dtype=torch.float64)
        for rows in np.array_split(np.arange(len(data)), max(1, len(data) // ROWS)):
            x, y = data.take(rows)
            x = standardise(x).cpu()
            member = memberships(y.cpu(), data.classes)
            weighted = x * member.sum(1, keepdim=True)
            total += (weighted.T @ x).double()
            sums += (member.T @ x).double()
            counts += member.sum(0).double()
        present = counts > 0
        means = sums[present] / counts[present, None]
        items = counts.sum().clamp(min=1)
        within = (total - means.T @ sums[present]) / items
        variance = within.diagonal().mean().clamp(min=1e-12)
        within = (1 - SHRINKAGE) * within + SHRINKAGE * variance * torch.eye(inputs, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(within)
        whiten = (vectors / values.clamp(min=1e-12).sqrt()) @ vectors.T
        centred = means - means.mean(0)
        _, between = torch.linalg.eigh(whiten @ (centred.T @ centred) @ whiten)
        self.directions.copy_((whiten @ between.flip(1)[:, : self.directions.shape[1]]).float())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.directions
