"""Trackers: a finished run is sent to the real packages and read back from what they wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from example_run import make_run

from lshbench.errors import UsageError
from lshbench.run_folder import Run
from lshbench.trackers import base
from tests import options

CONFIG = "method:\n  name: fourier\n  bits: 64\npca:\n  dim: null\nseed: 0\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a configuration, a training curve and one picture."""
    from PIL import Image

    run = make_run(tmp_path / "run", gallery=200, queries=10, epochs=3)
    (run.path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (run.path / "metrics.json").write_text(json.dumps(run.metrics.to_json()), encoding="utf-8")
    (run.path / "plots").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30), "teal").save(run.path / "plots" / "precision_at_k.png")
    return run


def made(option: str, **changes: object) -> Any:
    """Return a tracker as its YAML describes it, with some keys changed."""
    from lshbench.config import build

    node = options.composed(f"tracker={option}")["tracker"] | changes
    return build({"tracker": node}, "tracker", base.Tracker)


def test_figures_are_numbers_and_parameters_the_values_in_effect(run: Run) -> None:
    figures = base.figures(run)
    assert figures["metrics/mAP"] == run.metrics.metrics["mAP"]
    assert figures["search/recall_at_10/cosine"] == 0.9
    assert figures["ties/mAP/optimistic"] == 0.31
    assert not any("@" in name for name in figures)
    parameters = base.parameters(run)
    assert parameters["method.bits"] == 64
    assert parameters["method.a"] == 1, "what the method says is in effect"
    assert parameters["run_id"] == run.metrics.run_id
    assert [epoch for epoch, _ in base.epochs(run)] == [1, 2, 3]
    assert {path.name for path in base.files(run)} >= {"metrics.json", "config.yaml"}


def test_a_package_that_is_not_there_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for option in ("mlflow", "tensorboard", "wandb", "trackio"):
        with pytest.raises(UsageError, match=rf"tracker={option}: .* pip install 'lshbench\[{option}\]'"):
            made(option)


@pytest.mark.slow
def test_a_tracker_that_fails_leaves_the_run_whole(lshbench, tmp_path: Path) -> None:
    (tmp_path / "mine" / "tracker").mkdir(parents=True)
    (tmp_path / "mine" / "tracker" / "failing.yaml").write_text("name: failing\n_target_: failing.Failing\n")
    (tmp_path / "mine" / "tracker" / "failing.py").write_text(
        "from lshbench.trackers.base import Tracker\n"
        "class Failing(Tracker):\n    def log(self, run):\n        raise OSError('no disk')\n"
    )
    small = ("dataset=synthetic", "dataset.items=200", "dataset.queries=20", "dataset.dim=8", "dataset.classes=3")
    done = lshbench(
        "run", "--config-dir", "mine", *small, "method=random_projection", "bits=8", "evaluation.plots=false",
        "tracker=failing",
    )  # fmt: skip
    assert "not sent to the tracker: OSError: no disk" in done.stderr
    assert len(list((tmp_path / "outputs").rglob("metrics.json"))) == 1


@pytest.mark.slow
def test_mlflow_has_the_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra: pip install -e '.[mlflow]'")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    made("mlflow", uri=uri).log(run)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lshbench")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["method.bits"] == "64"
    assert found.data.metrics["metrics/mAP"] == pytest.approx(run.metrics.metrics["mAP"])
    assert [point.step for point in client.get_metric_history(found.info.run_id, "training/loss")] == [1, 2, 3]
    assert {artifact.path for artifact in client.list_artifacts(found.info.run_id)} >= {"metrics.json", "plots"}


@pytest.mark.slow
def test_tensorboard_has_the_run(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made("tensorboard", folder=str(tmp_path / "events")).log(run)
    (folder,) = (tmp_path / "events").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert events.Scalars("metrics/mAP")[0].value == pytest.approx(run.metrics.metrics["mAP"])
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]
    assert tags["images"] == ["plots/precision_at_k"]


@pytest.mark.slow
def test_wandb_has_the_run_offline(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra: pip install -e '.[wandb]'")
    made("wandb", folder=str(tmp_path / "out")).log(run)
    (folder,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    content = record.read_bytes()
    for text in (b"metrics/mAP", b"training/loss", b"method.bits", b"plots/precision_at_k"):
        assert text in content, text
    assert (folder / "files" / "metrics.json").is_file()
    with pytest.raises(UsageError, match=r"tracker\.mode='hidden': expected offline or online"):
        made("wandb", mode="hidden")


@pytest.mark.slow
def test_trackio_has_the_run(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="needs the extra: pip install -e '.[trackio]'")
    from tests.command import run_code

    program = """
import os
from pathlib import Path
from lshbench.run_folder import Run
from tests.trackers.test_trackers import made
made("trackio").log(Run.open(Path(os.environ["RUN"])))
import trackio
(found,) = trackio.Api().runs("lshbench")
print(sorted(found.config)[:3], found.config["method.bits"])
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "RUN": str(run.path), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[1])])
    done = run_code(program, Path(__file__).parents[2], environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "64" in done.stdout.splitlines()[-1]
