"""The script that makes the runs of the documentation's tables."""

from __future__ import annotations

import copy
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from example_run import METRICS
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lshbench.config import RootSchema, build, conf_folder
from lshbench.errors import UsageError
from lshbench.methods.base import Method
from lshbench.run_folder import Run
from lshbench.runtime.progress import silent
from lshbench.types import Features

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_methods.py"
SMALL = ("--datasets", "digits", "--run", "backbone=pixels", "backbone.image_size=8")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield importlib.import_module("bench_methods")


@pytest.fixture
def start(tmp_path: Path, shared_cache: Path):
    """Start the real script in an empty folder."""

    def run(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--out", "out", *SMALL, *arguments],
            cwd=tmp_path,
            env={**os.environ, "LSHBENCH_CACHE": str(shared_cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.mark.slow
def test_a_killed_sweep_loses_only_what_was_under_way_and_its_table_is_that_of_the_runs(
    start, tmp_path, lshbench
) -> None:
    asked = ("--methods", "random_projection", "itq", "--bits", "16", "--seeds", "0", "1", "--workers", "1")
    killed = start(*asked)
    assert killed.stdout.readline().startswith("[1/4] digits itq 16 bits seed 0: mAP 0.")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    first = tmp_path / "out/digits/itq/16-0/metrics.json"
    before = first.stat()

    again = start(*asked)
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert "[4/4] digits random_projection 16 bits seed 1" in output
    assert "itq 16 bits seed 0" not in output
    assert first.stat() == before
    (command,) = [line for line in output.splitlines() if line.startswith("lshbench report")]
    printed = lshbench(*command.split()[1:], "--format", "markdown").stdout
    for method in ("itq", "random_projection"):
        found = [Run.open(tmp_path / f"out/digits/{method}/16-{seed}").metrics.metrics["mAP"] for seed in (0, 1)]
        shown = f"| `{method}` | {np.mean(found):.4f} ± {np.std(found, ddof=1):.4f} |"
        assert shown.replace(" 0.", " .") in printed
    assert "7 cells lack runs" in printed, "the other rows of the table"


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
def test_a_method_that_refuses_or_fails_ends_no_other_and_is_reported(start, tmp_path: Path) -> None:
    asked = ("--methods", "itq", "random_projection", "--bits", "250", "--seeds", "0")
    process = start(*asked)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, "there is no such code, and all that there is has been made"
    assert "[1/2] digits random_projection 250 bits seed 0: mAP 0." in output
    assert "digits itq 250 bits seed 0 refused:" in errors
    assert "250" in (tmp_path / "out/digits/itq/250-0.log").read_text()
    assert "missing" not in output
    process = start("--methods", "itq", "--bits", "16", "--seeds", "0")
    while not (tmp_path / "out/digits/itq/16-0.log").exists():
        time.sleep(0.05)
    (run,) = (grandchild for child in children(process.pid) for grandchild in children(child))
    os.kill(run, signal.SIGKILL)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "digits itq 16 bits seed 0 failed: ended by signal 9" in errors


def test_runs_made_with_other_settings_are_not_taken_for_finished(script, tmp_path: Path) -> None:
    options = script.parse(["--out", str(tmp_path), "--datasets", "digits", "--run", "pca.dim=8"])
    sweep = script.sweep_of(options)
    point = sweep.points()[0]
    metrics = copy.deepcopy(METRICS)
    metrics["command"] = ["lshbench", "run", *sweep.overrides(point)]
    metrics["environment"]["lshbench"] = script.__version__
    write(sweep.folder(point) / "metrics.json", metrics)
    assert sweep.find(point).path == sweep.folder(point)
    other = script.sweep_of(script.parse(["--out", str(tmp_path), "--datasets", "digits", "--run", "pca.dim=9"]))
    with pytest.raises(UsageError, match=r"fourier/16-0 was made with pca.dim=8, and pca.dim=9 is asked for"):
        other.find(point)
    metrics["environment"]["lshbench"] = "0.0.1"
    write(sweep.folder(point) / "metrics.json", metrics)
    with pytest.raises(UsageError, match=r"made by lshbench 0\.0\.1"):
        sweep.find(point)


def write(path: Path, metrics: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))


def test_the_rows_of_tables_are_run_in_their_order_and_methods_take_their_place(script) -> None:
    def rows(*arguments: str) -> list[str]:
        return script.sweep_of(script.parse(list(arguments))).methods

    labels = ["fourier", "neural", "orthohash", "csq", "dpn", "greedyhash", "hashnet", "fourier-small"]
    assert rows("--tables", "labels") == labels
    assert rows()[: len(labels)] == labels
    assert rows("--tables", "wide", "ablation")[:2] == ["fourier", "neural"]
    assert rows("--methods", "itq", "fourier-relu") == ["fourier-relu", "itq"]


def test_a_row_s_runs_are_asked_for_what_the_table_looks_for(script) -> None:
    sweep = script.sweep_of(script.parse(["--methods", "fourier-no-map", "fourier-linear"]))
    asked = [sweep.overrides(script.Point("digits", name, 64, 0))[1:4] for name in sweep.methods]
    assert asked == [
        ["method=fourier", "method.map_dim=0", "method.head.hidden=[774]"],
        ["method=fourier", "method.head.batch_norm=false", "method.head.dropout=0"],
    ]


def parameters(row) -> int:
    """Return how many parameters a row has at 64 bits on 1,280 features."""
    ConfigStore.instance().store(name="schema", node=RootSchema)
    short = ["method.training.epochs=1", "method.training.min_batches=1", "method.training.max_batches=1"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        keys = [f"{key}={value}" for key, value in row.where.items()]
        config = compose("config", [*keys, *short, "bits=64", "device=cpu"])
    x = np.random.default_rng(0).normal(size=(140, 1280)).astype(np.float32)
    labels = np.arange(140) % 2
    method = build({"method": OmegaConf.to_container(config.method, resolve=True)}, "method", Method)
    return method.fit(Features(x, labels, np.arange(140)), silent).parameters


@pytest.mark.slow
def test_rows_of_equal_size_have_the_parameters_of_the_default(script) -> None:
    default = parameters(script.METHODS["fourier"])
    for name, row in script.METHODS.items():
        equal = name in ("fourier-no-map", "fourier-shared-encoder", "fourier-large-map")
        if equal or ("-wide" in name and name != "fourier-wide"):
            assert default <= parameters(row) <= 1.01 * default, name
    peer = parameters(script.METHODS["csq"])
    for name in ("fourier-small", "fourier-no-map-small"):
        assert 0.99 * peer <= parameters(script.METHODS[name]) <= peer, name


def test_code_lengths_of_one_data_set_stand_beside_the_common_ones(script) -> None:
    asked = ["--datasets", "cifar10_images", "cifar100_images", "--bits", "64", "16", "cifar100_images=128"]
    assert script.sweep_of(script.parse(asked)).bits == {"cifar10_images": [16, 64], "cifar100_images": [16, 64, 128]}
    points = script.sweep_of(script.parse([])).points()
    assert len(points) == len(set(points)) == 2 * 17 * 3 * 3
    assert points[0].method == "fourier"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "x"], "--bits x: expected a number"),
        (["--bits", "digits=16"], "--bits digits=16: expected a number, or DATASET=NUMBER of one of cifar10_images"),
        (["--bits", "cifar10_images=16"], "expected a code length for each data set"),
        (["--path", "cifar10_images=absent"], "--path cifar10_images=absent: expected"),
        (["--path", "digits=."], "--path digits=.: expected one of cifar10_images"),
        (["--workers", "0"], "--workers 0: expected at least 1"),
        (
            ["--tables", "absent"],
            "--table absent: expected the path of a YAML file, or one of ablation, bytes, bytes_trained, containment, "
            "engines, labels",
        ),
        (["--tables", "study"], "--tables study: expected tables whose rows are of base/methods"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_ends_with_2_and_one_line(script, arguments, message, capsys) -> None:
    assert script.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_time_runs_nothing_and_lists_say_what_is_left(script, tmp_path: Path, capsys) -> None:
    asked = ["--out", str(tmp_path), *SMALL, "--methods", "itq", "fourier", "--bits", "16", "--seeds", "0"]
    assert script.main([*asked, "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in listed[:-1]] == [
        "digits fourier 16 bits seed 0",
        "digits itq 16 bits seed 0",
    ]
    assert listed[-1].startswith("0 of 2 runs are there; about ")
    assert script.main([*asked, "--minutes", "0"]) == 0
    assert "2 of 2 runs are missing" in capsys.readouterr().out
