"""The classifier beside runs with labels: its two rankings, what it is trained on, and that it is trained once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods.clusters import clusters, several_labels, silent

from lshbench.evaluation.classifier import ClassifierReference, classifier_reference
from lshbench.training import classifier
from lshbench.types import Features, Relevance
from tests.options import head, training

HEAD, TRAINING = head(hidden=[16]), training(epochs=2, precision="float32")
SETTINGS = {"head": HEAD.in_effect(), "training": asdict(TRAINING)}


def reference(cache: Path, queries: Features, train: Features | None = None, **changed: Any) -> ClassifierReference:
    gallery = clusters(200)
    if queries.y.ndim == 2:
        gallery = several_labels(gallery)
    relevance, settings = Relevance(queries.y, gallery.y), SETTINGS | changed
    sides = (train or gallery, gallery, queries)
    return classifier_reference(*sides, relevance, settings, seed=0, device="cpu", cache=cache, progress=silent)


def trained(train: Features) -> classifier.Classifier:
    return classifier.train_classifier(train, HEAD, TRAINING, 0, torch.device("cpu"), silent)


def average_precision(similarities: np.ndarray, relevant: np.ndarray) -> float:
    order = np.argsort(-similarities, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(1) / hits.sum(1)).mean())


@pytest.mark.parametrize("several", [False, True])
def test_both_rankings_are_those_of_the_classifier_s_probabilities(tmp_path: Path, several: bool) -> None:
    gallery, queries = clusters(200), clusters(40, seed=1)
    relevant = queries.y[:, None] == gallery.y
    if several:
        gallery, queries = several_labels(gallery), several_labels(queries)
    figures = reference(tmp_path, queries).figures
    model = trained(gallery)
    known, asked = model.probabilities(gallery.x), model.probabilities(queries.x)
    assert figures["outputs"] == ("sigmoid" if several else "softmax")
    if not several:
        np.testing.assert_allclose(asked.sum(1), 1, rtol=1e-5)
    products = asked.astype(np.float64) @ known.T.astype(np.float64)
    assert figures["probabilities"]["mAP"] == pytest.approx(average_precision(products, relevant), abs=2e-3)
    same = asked.argmax(1)[:, None] == known.argmax(1)
    # Any of the items of one predicted class are as likely to come first, then any of the others.
    first = np.minimum(same.sum(1), 10)
    hits = first * (relevant & same).sum(1) / np.maximum(same.sum(1), 1)
    hits += (10 - first) * (relevant & ~same).sum(1) / (~same).sum(1)
    expected = (hits / 10).mean()
    assert figures["predicted_class"]["P@10"] == pytest.approx(expected)
    right = (asked.argmax(1) == queries.y.argmax(1) if several else model.classes[asked.argmax(1)] == queries.y).mean()
    assert figures["accuracy"] == pytest.approx(right) != 0.2
    assert figures["parameters"] == model.parameters
    assert figures["classes"] == 5


def test_it_is_trained_once_for_the_same_content_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clusters(40, seed=1)
    first = reference(tmp_path, queries)

    def refuse(*given: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(classifier, "train_classifier", refuse)
    again = reference(tmp_path, queries, balance_weight=3.0)
    assert again.figures == first.figures
    assert np.array_equal(again.precision, first.precision)
    for changed in (
        {"queries": clusters(40, seed=2)},
        {"train": clusters(200, seed=3)},
        {"head": SETTINGS["head"] | {"dropout": 0.3}},
    ):
        with pytest.raises(AssertionError, match="trained again"):
            reference(tmp_path, **{"queries": queries} | changed)


def test_queries_labels_have_no_part_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Features] = []
    train = classifier.train_classifier
    monkeypatch.setattr(classifier, "train_classifier", lambda items, *rest: seen.append(items) or train(items, *rest))
    reference(tmp_path, clusters(40, seed=1))
    assert len(seen) == 1
    assert len(seen[0]) == 200


def test_of_classes_that_training_had_not_it_knows_none(tmp_path: Path) -> None:
    queries, train = clusters(40, seed=1), clusters(200, seed=3)
    others = reference(tmp_path, queries, train=replace(train, y=train.y + 100)).figures
    assert others["accuracy"] == 0
    assert 0 < others["predicted_class"]["mAP"] < 1
