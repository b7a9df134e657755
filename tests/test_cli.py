"""The real command, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from lshbench.run_folder import Run, metrics_schema

SMALL = (
    "dataset=synthetic",
    "dataset.items=400",
    "dataset.queries=40",
    "dataset.dim=16",
    "dataset.classes=4",
)
QUICK = (*SMALL, "method=random_projection", "bits=16", "evaluation.plots=false")
VOLATILE = ("created", "time_s", "memory", "environment")


def finished(folder: Path) -> list[Path]:
    return sorted(folder.rglob("metrics.json"))


def comparable(path: Path) -> dict:
    metrics = json.loads(path.read_text(encoding="utf-8"))
    for key in VOLATILE:
        del metrics[key]
    del metrics["search"]["qps"], metrics["search"]["latency_ms"]
    return metrics


def test_smoke_runs_all_four_methods_and_every_folder_is_whole(lshbench, tmp_path: Path) -> None:
    done = lshbench("run", "experiment=smoke")
    found = finished(tmp_path / "outputs")
    assert sorted(path.parents[1].name for path in found) == [
        "fourier",
        "kmeans",
        "neural",
        "random_projection",
    ]
    for path in found:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(metrics, metrics_schema())
        assert metrics["metrics"]["mAP"] > 0.15, "chance is 0.1"
        assert (metrics["reference"]["classifier"] is None) == (metrics["method"]["supervision"] == "none")
        folder = path.parent
        for name in (
            "config.yaml", "per_query.parquet", "neighbors.npz", "codes/gallery.npy", "codes/queries.npy",
            "codes/gallery_labels.npy", "codes/query_labels.npy", "model/method.safetensors", "index", "run.log",
            "plots/retrieval.png", "plots/precision_recall.png", "plots/precision_at_k.png",
        ):  # fmt: skip
            assert (folder / name).exists(), f"{folder.name}: {name}"
        run = Run.open(folder)
        assert (folder / "plots" / "tradeoff.png").exists() == (len(run.tradeoff()["mAP"]) > 1)
        assert run.neighbors()[0].shape == (50, 100)
        assert run.per_query().num_rows == 50
        assert str(folder.name) in done.stdout.replace("\n", "")


@pytest.mark.slow
def test_two_runs_at_the_same_moment_share_neither_folder_nor_damage(tmp_path: Path) -> None:
    environment = {**os.environ, "LSHBENCH_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable, "-m", "lshbench", "run", "dataset=digits", "backbone=pixels", "backbone.image_size=8",
        "dataset.max_queries=20",
        "method=random_projection", "evaluation.plots=false",
    ]  # fmt: skip
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    first, second = finished(tmp_path / "outputs")
    assert comparable(first) == comparable(second)
    assert len(list((tmp_path / "cache" / "features").glob("*/meta.json"))) == 2, "gallery and queries, once each"


@pytest.mark.slow
def test_a_sweep_makes_a_folder_for_each_job_and_a_resumed_one_makes_none(lshbench, tmp_path: Path) -> None:
    sweep = ("run", "-m", *QUICK, "seed=range(2)", "bits=8,16", "resume=true")
    lshbench(*sweep)
    found = finished(tmp_path / "outputs")
    assert len(found) == 4
    assert len({json.loads(path.read_text())["run_id"] for path in found}) == 4
    done = lshbench(*sweep)
    assert finished(tmp_path / "outputs") == found
    assert done.stderr.count("already finished") == 4
    folders = set((tmp_path / "outputs" / "synthetic" / "random_projection").iterdir())
    assert folders == {path.parent for path in found}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bits=0"], ["bits=0", "1 to 4096"]),
        (["bits=4097"], ["bits=4097", "1 to 4096"]),
        (["method=foruier"], ["method=foruier", "no option", "did you mean method=fourier?"]),
        (["method=kmeans", "index=flat"], ["index", "cluster numbers", "ivf"]),
        (["index=hnsw"], ["index='hnsw'", "or method=none with index=hnsw"]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (["bit=3"], ["bit=3", "no such key", "did you mean bits?"]),
                (["dataset=folder", "dataset.path=/no/such/place"], ["dataset.path", "/no/such/place"]),
                (["method=none", "index=ivf", "index.nprobe=0"], ["index.nprobe=0", "at least 1"]),
                (["method=fourier", "method.recipe=paper"], ["method.recipe=paper", "expected method=fourier_paper"]),
                (["method=neural", "method.supervision=none"], ["expected method=neural_unsupervised"]),
                (["bits=many"], ["bits=many", "many"]),
                (["method.centre=true"], ["method.centre=true", "no such key", "method.center"]),
                (["+method.width=3"], ["method.width=3", "no such key", "center"]),
                (["dataset=folder"], ["dataset.path"]),
                (["index.nprobe=3"], ["index.nprobe=3", "no such key"]),
                (["ranking=euclid"], ["ranking='euclid'", "hamming"]),
                (["pca.dim=-2"], ["pca.dim=-2"]),
                (["protocol.duplicates=maybe"], ["protocol.duplicates", "report or error"]),
                (["threads=0"], ["threads=0"]),
            ]
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_wrong_use_gets_one_message_exit_code_2_and_no_folder(lshbench, tmp_path: Path, arguments, words) -> None:
    base = (
        []
        if any(argument.startswith(("method=", "index=")) for argument in arguments)
        else ["method=random_projection"]
    )
    data = [] if any(argument.startswith("dataset") for argument in arguments) else list(SMALL)
    done = lshbench("run", *data, *base, *arguments, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.rglob("run.log"))


def test_a_failing_job_exits_1_and_its_log_has_the_traceback(lshbench, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("a file where the cache folder should be")
    done = lshbench("run", *QUICK, check=False, env={"LSHBENCH_CACHE": str(tmp_path / "broken")})
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert not finished(tmp_path)


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "lshbench", "bits=3"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "lshbench run bits=3" in done.stderr


@pytest.mark.slow
def test_hydras_own_flags_work(lshbench) -> None:
    shown = lshbench("run", "--cfg", "job", "method=kmeans", "bits=7").stdout
    assert "bits: 7" in shown
    assert "lshbench.index.ivf" in shown, "k-means chooses the index that holds clusters"
    text = lshbench("run", "--help").stdout
    for word in ("dataset: ", "cifar100_images", "random_projection", "--multirun"):
        assert word in text
    assert "fourier" in lshbench("run", "--info", "defaults").stdout


def test_a_users_own_option_is_found_in_a_folder_of_theirs(lshbench, tmp_path: Path) -> None:
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "short.yaml").write_text(
        "# Random hyperplanes of a length of my own\nname: short\n"
        "_target_: lshbench.methods.random_projection.RandomProjection\nbits: 9\nseed: ${seed}\n",
        encoding="utf-8",
    )
    lshbench("run", "--config-dir", "mine", *SMALL, "method=short", "evaluation.plots=false")
    (path,) = finished(tmp_path / "outputs")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    assert metrics["method"]["bits"] == 9
    assert metrics["command"][:4] == ["lshbench", "run", "--config-dir", "mine"]


@pytest.mark.slow
def test_the_recorded_command_gives_the_same_metrics_in_another_folder(lshbench, tmp_path: Path) -> None:
    lshbench("run", *QUICK, "seed=3")
    (first,) = finished(tmp_path / "outputs")
    command = json.loads(first.read_text(encoding="utf-8"))["command"]
    lshbench(*command[1:])
    second = next(path for path in finished(tmp_path / "outputs") if path != first)
    assert comparable(first) == comparable(second)


@pytest.mark.parametrize("command", ["run", "extract"])
def test_completion_offers_methods(lshbench, command: str) -> None:
    line = f"lshbench {command} method=four"
    done = lshbench(
        "-sc",
        "query=bash",
        env={"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "2", "COMP_TYPE": "9"},
    )
    assert "method=fourier" in done.stdout.split()


def test_queries_in_the_gallery_are_refused_unless_asked_for(lshbench, tmp_path: Path) -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "same.npz", x=generator.normal(size=(60, 8)).astype("f4"), y=labels)
    leak = (
        "dataset=features", "dataset.gallery=same.npz", "dataset.query=same.npz",
        "method=random_projection", "evaluation.plots=false",
    )  # fmt: skip
    done = lshbench("run", *leak, check=False)
    assert done.returncode == 2
    assert "60 of 60 queries have an exact copy in the gallery" in done.stderr
    assert not finished(tmp_path)
    done = lshbench("run", *leak, "protocol.allow_leak=true")
    assert json.loads(finished(tmp_path)[0].read_text())["protocol"]["leak"] is True
    assert "leak" in done.stdout.lower()


@pytest.mark.slow
def test_kill_at_any_moment_leaves_no_finished_folder_that_is_not_whole(tmp_path: Path) -> None:
    environment = {**os.environ, "LSHBENCH_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-m",
        "lshbench",
        "run",
        "dataset=digits",
        "dataset.max_gallery=400",
        "dataset.max_queries=40",
        "backbone=pixels",
        "backbone.image_size=8",
        "method=neural",
        "method.training.epochs=4",
        "bits=16",
    ]
    start = time.monotonic()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    whole = time.monotonic() - start
    for i in range(8):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(whole * (0.3 + 0.09 * i))
        process.send_signal(signal.SIGKILL)
        process.wait()
    for path in finished(tmp_path / "outputs"):
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), metrics_schema())
        assert (path.parent / "plots" / "retrieval.png").exists()
    before = len(finished(tmp_path / "outputs"))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert len(finished(tmp_path / "outputs")) == before + 1
