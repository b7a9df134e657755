"""The discriminant directions, against scikit-learn and on classes that were not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from lshbench.methods.fourier import discriminant
from lshbench.methods.fourier.discriminant import Discriminant
from lshbench.training.data import TrainingData
from lshbench.types import Features
from tests.methods.clusters import clusters, several_labels
from tests.options import training


def learnt(items: Features) -> Discriminant:
    data = TrainingData(items, training(validation=0), 0, torch.device("cpu"))
    result = Discriminant(data.inputs, data.classes)
    result.learn(data, nn.Identity())
    return result


def test_without_shrinkage_they_span_fishers_discriminant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "SHRINKAGE", 0.0)
    items = clusters(500)
    ours = learnt(items).directions.double().numpy()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(items.x.astype(float), items.y).scalings_[:, :4]
    assert ours.shape == (12, 4)
    for direction, reference in zip(ours.T, theirs.T, strict=True):
        cosine = direction @ reference / np.linalg.norm(direction) / np.linalg.norm(reference)
        assert abs(cosine) == pytest.approx(1, abs=1e-4)


def test_items_of_several_labels_count_once_for_each() -> None:
    items = clusters(500)
    assert torch.allclose(learnt(items).directions.abs(), learnt(several_labels(items)).directions.abs(), atol=1e-5)


def test_they_tell_classes_apart_that_were_not_seen() -> None:
    generator = np.random.default_rng(0)
    # Classes differ in the first 3 of 20 dimensions; items of a class vary most in the others.
    centres = np.pad(generator.normal(size=(12, 3)) * 2, ((0, 0), (0, 17)))
    labels = np.arange(1200) % 12
    spread = np.where(np.arange(20) < 3, 0.5, 4.0)
    x = (centres[labels] + spread * generator.normal(size=(1200, 20))).astype(np.float32)
    seen = labels < 8
    directions = learnt(Features(x[seen], labels[seen], np.arange(seen.sum())))

    def share(vectors: np.ndarray) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T - 2 * np.eye(len(unit))
        nearest = np.argsort(-cosines, axis=1)[:, :10]
        return float((labels[~seen][nearest] == labels[~seen][:, None]).mean())

    assert share(directions(torch.tensor(x[~seen])).numpy()) > share(x[~seen]) + 0.05


@pytest.mark.parametrize("count", [1, 2])
def test_few_classes_leave_at_least_one_direction(count: int) -> None:
    directions = learnt(clusters(60, classes=count)).directions
    assert directions.shape == (12, 1)
    assert torch.isfinite(directions).all()
