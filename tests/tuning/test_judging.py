"""Trials are judged by the run's own rule of relevance, whatever it is, on training items alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.inputs import Inputs
from lshbench.relevance.base import RelevanceRule
from lshbench.relevance.labels import LabelRule
from lshbench.relevance.neighbors import NeighborRule
from lshbench.relevance.qrels import QrelRule
from lshbench.runtime.progress import silent
from lshbench.system import System
from lshbench.tuning.settings import Relevant
from lshbench.tuning.validation import Judge, cut_validation, rule_of_trials
from lshbench.types import Codes
from tests.options import composed
from tests.relevance.test_runs import expected_map

ITEMS, CLASSES = 150, 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of items with up to three of six labels, and with a label of their own (``alone.npz``)."""
    random = np.random.default_rng(0)
    several = random.random((ITEMS + 50, CLASSES)) < 0.3
    x = (several @ random.normal(size=(CLASSES, 8)) + random.normal(size=(ITEMS + 50, 8))).astype(np.float32)
    for name, labels in (("several", several), ("alone", np.eye(ITEMS + 50, dtype=bool)[:, ::-1])):
        parts = {"x_train": x[:ITEMS], "x_test": x[ITEMS:], "y_train": labels[:ITEMS], "y_test": labels[ITEMS:]}
        np.savez(tmp_path / f"{name}.npz", **parts)
    return tmp_path


def judge_of(folder: Path, *words: str, name: str = "several", relevant: Relevant = "auto") -> tuple[Judge, System]:
    config = composed(
        "dataset=features", f"dataset.path={folder / name}.npz", "method=random_projection", "bits=8", *words
    )
    inputs = Inputs.from_config(config, 1, folder / "cache")
    rule = rule_of_trials(inputs.relevance, relevant, "labels")
    judge = Judge.of(inputs.open(silent), inputs, part=0.2, most=25, rule=rule, measure="mAP", progress=silent)
    return judge, System.from_config(config)


@pytest.mark.parametrize("kind", ["shared", "subset"])
def test_labels_judge_as_the_run_says(folder: Path, kind: str) -> None:
    judge, system = judge_of(folder, f"relevance.kind={kind}")
    asked, there = judge.queries.y, judge.gallery.y
    common = asked.astype(int) @ there.T.astype(int)
    wanted = common > 0 if kind == "shared" else (common == asked.sum(1)[:, None]) & asked.any(1)[:, None]
    found = judge.quality(system, silent)
    codes, sought = system.encode(judge.gallery.x, "gallery").codes, system.encode(judge.queries.x, "query").codes
    assert isinstance(codes, Codes)
    assert isinstance(sought, Codes)
    distances = (sought.unpack()[:, None] != codes.unpack()).sum(2)
    answered = wanted.any(1)
    part = expected_map(distances[answered], wanted[answered], np.ones_like(wanted[answered]))
    assert found == pytest.approx(part * answered.mean(), abs=1e-12)
    assert (judge.by, judge.rule) == ("labels", {"shared": "a shared label", "subset": "all labels of the query"}[kind])


def test_neighbors_judge_by_the_runs_metric_and_number(folder: Path) -> None:
    judge, _ = judge_of(folder, "relevance=neighbors", "relevance.k=4", "relevance.metric=euclidean")
    distances = np.linalg.norm(judge.queries.x[:, None].astype(float) - judge.gallery.x, axis=2)
    listed = judge.relevance.listed
    assert listed is not None
    assert listed.rows.reshape(-1, 4).tolist() == np.sort(np.argsort(distances, axis=1)[:, :4], axis=1).tolist()
    assert (judge.by, judge.rule) == ("neighbors", "the 4 nearest by euclidean (exact search, ties included)")
    assert judge_of(folder, "relevance=neighbors", "relevance.k=4", relevant="labels")[0].rule == "a shared label"


def test_methods_that_know_no_labels_are_not_judged_by_them_unless_asked_to_be() -> None:
    subset, nearest = LabelRule("subset"), NeighborRule(7, "euclidean")
    assert rule_of_trials(subset, "auto", "labels") is subset
    assert isinstance(rule_of_trials(subset, "auto", "none"), NeighborRule)
    assert rule_of_trials(subset, "labels", "none") is subset
    assert isinstance(rule_of_trials(subset, "neighbors", "labels"), NeighborRule)
    assert rule_of_trials(nearest, "auto", "labels") is nearest
    assert rule_of_trials(nearest, "neighbors", "none") is nearest


@pytest.mark.parametrize(
    ("name", "rule", "message"),
    [
        ("several", QrelRule(), "tune.relevant=auto: the pairs of several were judged .* expected labels or neighbors"),
        ("alone", LabelRule(), "tune.validation=0.2: none of the 25 validation queries has anything to find"),
    ],
)
def test_what_says_nothing_of_training_items_is_refused(
    folder: Path, name: str, rule: RelevanceRule, message: str
) -> None:
    config = composed("dataset=features", f"dataset.path={folder / name}.npz", "relevance=neighbors", "relevance.k=3")
    inputs = Inputs.from_config(config, 1, folder / "cache")
    with pytest.raises(UsageError, match=message):
        Judge.of(inputs.open(silent), inputs, part=0.2, most=25, rule=rule, measure="mAP", progress=silent)


def test_where_queries_are_of_unseen_classes_those_of_trials_with_several_labels_are_too() -> None:
    labels = np.random.default_rng(0).random((400, 10)) < 0.15
    labels[:, 8:] = False  # the classes of the protocol's queries
    gallery = np.zeros((5, 10), bool)
    gallery[:, 8:] = True
    cut = cut_validation(np.arange(400), labels, gallery, part=0.3, most=1000, seed=0)
    learnt, asked = labels[cut.train].any(0), labels[np.concatenate([cut.queries, cut.gallery])].any(0)
    assert (int(learnt.sum()), int(asked.sum())) == (6, 2)
    assert not (learnt & asked).any()
    assert not np.isin(cut.queries, cut.gallery).any()
