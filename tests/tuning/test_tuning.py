"""Tuning: what is searched, what trials are judged on, and studies that go on where they were."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.run_folder import finished_runs
from lshbench.tuning.space import Choice, Range, read_space
from lshbench.tuning.validation import cut_validation

NOISY = """
import os
import signal
from pathlib import Path

import numpy as np

from lshbench.methods.random_projection import RandomProjection


class Noisy(RandomProjection):
    def __init__(self, bits, seed, noise):
        super().__init__(bits=bits, seed=seed)
        self.noise = noise

    def fit(self, train, progress):
        with Path("fits").open("a") as file:
            print(self.noise, file=file)
        if Path("deadly").exists() and len(Path("fits").read_text().splitlines()) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.noise > 4:
            raise MemoryError("too loud")
        return super().fit(train, progress)

    def project(self, x, side):
        noise = np.random.default_rng(0).normal(size=(len(x), self.bits)) * self.noise
        return (super().project(x, side) + noise).astype(np.float32)
"""


def test_a_space_has_ranges_and_choices_by_key() -> None:
    search = {"method": {"map_dim": [0, 128], "head": {"dropout": {"low": 0.0, "high": 0.5, "step": 0.1}}}}
    assert read_space({**search, "head@method.head": ["linear"]}) == {
        "method.map_dim": Choice((0, 128)),
        "method.head.dropout": Range(0.0, 0.5, step=0.1),
        "head@method.head": Choice(("linear",)),
    }
    assert read_space({"pca": {"dim": {"low": 0.1, "high": 0.3, "step": 0.2}}}) == {
        "pca.dim": Range(0.1, 0.3, step=0.2)
    }


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, "expected keys to search"),
        ({"seed": [1, 2]}, "tune.search.seed: expected a key of method"),
        ({"bits": 16}, "tune.search.bits=16: expected a list"),
        ({"bits": []}, r"tune.search.bits=\[\]: expected values"),
        ({"bits": {"low": 1}}, "tune.search.bits.high=None: expected a number"),
        ({"bits": {"low": 9, "high": 8}}, "bits.high=8: expected more than low=9"),
        ({"bits": {"low": 0, "high": 8, "log": True}}, "bits.low=0: expected more than 0"),
        ({"bits": {"low": 1, "high": 8, "steps": 2}}, "bits.steps=2: no such key"),
        ({"bits": {"low": 1, "high": 8, "step": 0.5}}, "bits.step=0.5: expected a whole number"),
        ({"bits": {"low": 1, "high": math.inf}}, "bits.high=inf: expected a finite number"),
        ({"bits": {"low": -math.inf, "high": 1}}, "bits.low=-inf: expected a finite number"),
        ({"bits": {"low": math.nan, "high": 1}}, "bits.low=nan: expected a finite number"),
        ({"bits": {"low": 0.0, "high": 1.0, "step": math.inf}}, "bits.step=inf: expected a finite number"),
        ({"bits": {"low": 1, "high": 8, "step": 8}}, "bits.step=8: expected at most 7, from low=1 to high=8"),
        ({"bits": {"low": 0.1, "high": 0.3, "step": 0.21}}, "bits.step=0.21: expected at most 0.2, from low=0.1"),
    ],
)
def test_what_is_no_space_is_refused_by_its_key(search: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_space(search)


def test_trials_are_judged_on_training_items_alone() -> None:
    labels = np.repeat(np.arange(5), 20)
    items = np.arange(7, 107)
    cut = cut_validation(items, labels, labels, part=0.2, most=1000, seed=0)
    assert np.bincount(labels[cut.queries - 7]).tolist() == [4] * 5
    assert not np.isin(cut.queries, cut.train).any()
    assert np.array_equal(cut.gallery, cut.train)
    assert np.array_equal(cut.items(), items)
    assert len(cut_validation(items, labels, labels, part=0.2, most=3, seed=0).queries) == 3
    other = cut_validation(items, labels, labels, part=0.2, most=1000, seed=1)
    assert not np.array_equal(other.queries, cut.queries)


def test_where_queries_are_of_unseen_classes_those_of_trials_are_too() -> None:
    labels = np.repeat(np.arange(5), 20)
    cut = cut_validation(np.arange(100), labels, np.array([7, 8]), part=0.4, most=1000, seed=0)
    assert len(np.unique(labels[cut.train])) == 3
    assert not np.isin(labels[cut.queries], labels[cut.train]).any()
    assert set(labels[cut.queries]) == set(labels[cut.gallery])
    assert not np.isin(cut.queries, cut.gallery).any()
    with pytest.raises(UsageError, match="too few to hold out"):
        cut_validation(np.arange(60), labels[:60], np.array([7]), part=0.5, most=9, seed=0)


def test_without_optuna_one_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from lshbench.commands.tune import main

    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        main(["method=csq"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "lshbench: lshbench tune: the package optuna is not installed: pip install 'lshbench[tune]'"
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with features in a file, and with a method and a space of a user's own."""
    generator = np.random.default_rng(0)
    labels = np.arange(500) % 5
    x = (generator.normal(size=(500, 16)) + 3 * np.eye(16)[labels]).astype(np.float32)
    for name, found in (("features", labels), ("shuffled", generator.permutation(5)[labels])):
        found = np.concatenate([labels[:400], found[400:]])
        parts = {"x_train": x[:400], "x_test": x[400:], "y_train": found[:400], "y_test": found[400:]}
        np.savez(tmp_path / f"{name}.npz", **parts)
    mine = tmp_path / "mine"
    (mine / "method").mkdir(parents=True)
    (mine / "tune").mkdir()
    (mine / "noisy.py").write_text(NOISY, encoding="utf-8")
    (mine / "method" / "noisy.yaml").write_text(
        "# Noisy\nname: noisy\n_target_: noisy.Noisy\nbits: ${bits}\nseed: ${seed}\nnoise: 2.0\n", encoding="utf-8"
    )
    (mine / "tune" / "noise.yaml").write_text(
        "# How noisy\ndefaults:\n  - base/study@_here_\n  - _self_\nname: noise\ntrials: 8\n"
        "search:\n  method:\n    noise: {low: 0.01, high: 10.0, log: true}\n",
        encoding="utf-8",
    )
    return tmp_path


TUNE = ("tune", "--config-dir", "mine", "dataset=features", "method=noisy", "bits=16", "tune=noise")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune=noises"], "did you mean tune=noise?"),
        (["tune.trials=0"], "tune.trials=0: expected at least 1"),
        (["tune.validation=0.6"], "tune.validation=0.6: expected more than 0, and at most 0.5"),
        (["tune.queries=0"], "tune.queries=0: expected at least 1"),
        (["tune.relevant=qrels"], "tune.relevant='qrels': expected auto or labels or neighbors"),
        (["tune.measure=recall"], "tune.measure='recall': expected mAP or P@10"),
        (["tune.trial=9"], "tune.trial=9: no such key; did you mean tune.trials?"),
        (["tune=training"], "tune.search: a key that this configuration lacks: method.training"),
    ],
)
def test_wrong_use_is_one_message(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    pytest.importorskip("optuna", reason="needs the extra: pip install -e '.[tune]'")
    from lshbench.commands.tune import main

    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as stopped:
        main([*TUNE[1:], "dataset.path=features.npz", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_study_comes_to_the_same_as_another_whatever_the_queries_are(place: Path, lshbench) -> None:
    pytest.importorskip("optuna", reason="needs the extra: pip install -e '.[tune]'")

    def best(output: str) -> dict:
        (file,) = (place / output).glob("tuning/*/best.json")
        found = json.loads(file.read_text(encoding="utf-8"))
        for trial in found["trials"]:
            del trial["seconds"]
        return found

    done = lshbench(*TUNE, "dataset.path=shuffled.npz", "output=other", check=False)
    assert done.returncode == 1, "a trial failed"
    assert "failed: MemoryError: too loud" in done.stdout
    expected = best("other")
    (place / "fits").unlink()

    command = (*TUNE, "dataset.path=features.npz", "output=killed")
    (place / "deadly").touch()
    assert lshbench(*command, check=False).returncode == -9
    (place / "deadly").unlink()
    done = lshbench(*command, "tune.trials=9", check=False)
    tried = (place / "fits").read_text().split()
    assert len(tried) == 1 + 9 + 1, "as given, the trials, and once more the one that was under way"
    assert tried[4] == tried[5]
    found = best("killed")
    assert found["trials"][:8] == expected["trials"]
    assert found["validation_as_given"] == expected["validation_as_given"] < found["validation"]
    assert found["relevant"] == "neighbors", "a method that knows of no labels is not judged by them"
    assert (found["queries"], found["train"]) == (80, 320)

    printed = next(line for line in done.stdout.splitlines() if line.startswith("  lshbench run"))
    assert shlex.split(printed) == found["command"]
    lshbench(*found["command"][1:])
    (run,) = finished_runs(place / "killed")
    assert run.config()["method"]["noise"] == found["values"]["method.noise"]
