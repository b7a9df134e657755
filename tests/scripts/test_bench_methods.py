"""The script that makes the documentation's tables."""

from __future__ import annotations

import copy
import csv
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from example_run import METRICS
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lshbench.config import RootSchema, build, conf_folder
from lshbench.errors import UsageError
from lshbench.methods.base import Method
from lshbench.run_folder import Run, RunMetrics
from lshbench.runtime.progress import silent
from lshbench.types import Features

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_methods.py"
SMALL = ("--datasets", "digits", "--run", "backbone=pixels", "backbone.image_size=8")
QUERIES = 200


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield importlib.import_module("bench_methods")


@pytest.fixture(scope="module")
def tables(script):
    return importlib.import_module("bench_methods_tables")


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
def test_a_killed_sweep_loses_only_what_was_under_way_and_its_tables_are_those_of_the_runs(start, tmp_path) -> None:
    asked = ("--methods", "random_projection", "itq", "--bits", "16", "--seeds", "0", "1", "--workers", "1")
    killed = start(*asked)
    assert killed.stdout.readline().startswith("[1/4] digits itq 16 bits seed 0: mAP .")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    first = tmp_path / "out/digits/itq/16-0/metrics.json"
    before = first.stat()

    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- table:begin -->\nold\n<!-- table:end -->\nbelow\n")
    again = start(*asked, "--readme", "README.md")
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert "[4/4] digits random_projection 16 bits seed 1" in output
    assert "itq 16 bits seed 0" not in output
    assert first.stat() == before

    runs = {
        (method, seed): Run.open(tmp_path / f"out/digits/{method}/16-{seed}").metrics
        for method in ("itq", "random_projection")
        for seed in (0, 1)
    }
    with (tmp_path / "out/table.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["exact_cosine", "itq", "random_projection"]
    for method in ("itq", "random_projection"):
        values = [runs[method, seed].metrics["mAP"] for seed in (0, 1)]
        assert float(rows[method]["mAP"]) == pytest.approx(np.mean(values), abs=1e-6)
        assert float(rows[method]["mAP_std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-6)
        assert rows[method]["mAP_winner"] == str(method == "itq")
    assert float(rows["exact_cosine"]["mAP"]) == pytest.approx(runs["itq", 0].reference.cosine["mAP"], abs=1e-6)
    table = (tmp_path / "out/table.md").read_text()
    assert f"| `itq` | **{float(rows['itq']['mAP']):.4f}".replace("**0", "**") in table
    assert "lack runs" not in table
    assert readme.read_text() == f"above\n<!-- table:begin -->\n{table}<!-- table:end -->\nbelow\n"


@pytest.mark.slow
def test_a_method_that_fails_ends_no_other_and_is_reported(start, tmp_path: Path) -> None:
    process = start("--methods", "itq", "random_projection", "--bits", "250", "--seeds", "0")
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "[1/2] digits random_projection 250 bits seed 0: mAP ." in output
    assert "digits itq 250 bits seed 0 failed:" in errors
    assert "250" in (tmp_path / "out/digits/itq/250-0.log").read_text()
    table = (tmp_path / "out/table.md").read_text()
    assert "| `itq` | - |" in table
    assert "1 cell lacks runs" in table


def cell(tables, root: Path, name: str, values: np.ndarray, *, seeds: int = 2, complete: bool = True):
    """Return a cell whose runs have those values of AP, a row for each seed."""
    runs = []
    for seed in range(seeds):
        folder = root / f"{name}-{seed}"
        folder.mkdir(parents=True)
        columns = {"query": np.arange(QUERIES), "label": np.arange(QUERIES) % 10, "AP": values[seed]}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "per_query.parquet")
        metrics = copy.deepcopy(METRICS)
        metrics["seed"] = seed
        metrics["metrics"]["mAP"] = float(values[seed].mean())
        runs.append(Run(folder, RunMetrics.from_json(metrics)))
    return tables.Cell(name, f"`{name}`", runs, complete)


def test_a_winner_is_significantly_better_than_each_other(tables, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = generator.uniform(0.2, 0.8, (2, QUERIES))
    noise = generator.normal(0, 0.05, (3, 2, QUERIES))
    worst = cell(tables, tmp_path, "worst", base - 0.2 + noise[0])
    middle = cell(tables, tmp_path, "middle", base + noise[1])
    near = cell(tables, tmp_path, "near", base + noise[2] - noise[2].mean() + noise[1].mean() + 0.0005)
    best = cell(tables, tmp_path, "best", base + 0.1 + noise[0])
    assert tables.find_winner([worst, middle], "mAP") == "middle"
    assert tables.find_winner([worst, middle, near], "mAP") is None  # better than one, level with the other
    assert tables.find_winner([worst, middle, near, best], "mAP") == "best"
    assert tables.find_winner([best], "mAP") is None


def test_holms_correction_takes_a_mark_that_a_single_test_would_give(tables, tmp_path: Path) -> None:
    # Eight of nine queries that differ are better: p = 20/512 = .039, and twice that for two others.
    values = np.full((1, QUERIES), 0.5)
    better = values.copy()
    better[0, :8] += 0.1
    better[0, 8] -= 0.1
    first, second = (cell(tables, tmp_path, name, values, seeds=1) for name in ("first", "second"))
    best = cell(tables, tmp_path, "best", better, seeds=1)
    assert tables.find_winner([first, best], "mAP") == "best"
    assert tables.find_winner([first, second, best], "mAP") is None


def test_no_winner_is_marked_while_runs_are_missing(tables, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(size=(2, QUERIES))
    worse = cell(tables, tmp_path, "worse", values - 0.3, seeds=1, complete=False)
    better = cell(tables, tmp_path, "better", values)
    assert tables.find_winner([worse, better], "mAP") is None
    assert tables.figure(worse, "mAP").endswith(" (1)")


def test_figures_have_mean_spread_and_mark(tables, tmp_path: Path) -> None:
    values = np.stack([np.full(QUERIES, 0.5), np.full(QUERIES, 0.52)])
    assert tables.figure(cell(tables, tmp_path / "a", "two", values), "mAP", bold=True) == "**.5100 ± .0141**"
    assert tables.figure(cell(tables, tmp_path / "b", "one", values, seeds=1), "mAP") == ".5000"
    assert tables.figure(tables.Cell("none", "`none`", [], False), "mAP") == "-"


def test_an_ablation_shows_how_far_each_variant_is_from_the_default(tables, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = generator.uniform(0.2, 0.8, (2, QUERIES))
    noise = generator.normal(0, 0.05, (2, QUERIES))
    cells = [
        cell(tables, tmp_path, "fourier", base),
        cell(tables, tmp_path, "worse", base - 0.05 + noise - noise.mean()),
        cell(tables, tmp_path, "level", base + 0.0005 + noise - noise.mean()),
        cell(tables, tmp_path, "partly", base, seeds=1, complete=False),
    ]
    column = tables.column_of(64, {one.name: one for one in cells}, "fourier")
    assert list(column.differences) == ["worse", "level"]
    text = tables.markdown_table([column], ["mAP"], tables.comparisons(tables.TABLES["ablation"], [column]))
    rows = {line.split(" | ")[0]: line.strip("| ").split(" | ")[-2:] for line in text.splitlines()}
    assert rows["| method"] == ["difference from the default, 64 bits", "parameters, 64 bits"]
    assert rows["| exact cosine, no code"] == ["-", "-"]
    assert rows["| `fourier`"] == ["-", "123"]
    assert rows["| `worse`"] == ["-.0500", "123"]
    assert rows["| `level`"] == ["+.0005 (n.s.)", "123"]
    assert rows["| `partly`"] == ["-", "123"]
    written = {
        row["method"]: row for row in csv.DictReader(io.StringIO(tables.csv_text({"x": {"ablation": [column]}})))
    }
    assert written["worse"]["difference"] == "-0.050000"
    assert float(written["worse"]["difference_p"]) < 0.05
    assert [written[name]["difference_significant"] for name in ("worse", "level", "fourier")] == ["True", "False", ""]
    assert [written[name]["parameters"] for name in ("worse", "exact_cosine")] == ["123", ""]


def test_exact_cosine_is_the_mean_of_what_each_seed_has(tables, tmp_path: Path) -> None:
    one = cell(tables, tmp_path, "one", np.full((2, QUERIES), 0.5), complete=False)
    for run, value in zip(one.runs, (0.2, 0.4), strict=True):
        run.metrics.reference.cosine["mAP"] = value
    other = cell(tables, tmp_path, "other", np.full((2, QUERIES), 0.5), seeds=1, complete=False)
    other.runs[0].metrics.reference.cosine["mAP"] = 0.2
    column = tables.column_of(16, {"one": one, "other": other}, None)
    assert tables.figure(tables.reference_of([column]), "mAP") == ".3000 ± .1414 (2)"  # seeds are missing


@pytest.mark.slow
def test_held_out_classes_make_a_table_of_methods_with_labels_and_without(start, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- unseen:begin -->\n<!-- unseen:end -->\n")
    asked = ("--tables", "transfer", "--methods", "itq", "--bits", "16", "--seeds", "0", "1")
    process = start("protocol=unseen_classes", *asked, "--readme", "README.md", "--marker", "unseen")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    runs = [Run.open(tmp_path / f"out/digits/itq/16-{seed}").metrics for seed in (0, 1)]
    exact = [run.reference.cosine["mAP"] for run in runs]
    assert exact[0] != exact[1], "each seed holds out classes of its own"
    text = readme.read_text()
    assert f"| exact cosine, no code | {np.mean(exact):.4f}".replace(" 0.", " .") in text
    assert "2 classes; pixels, 192 dims; protocol unseen_classes" in text


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


LABELS = ["fourier", "neural", "orthohash", "csq", "dpn", "greedyhash", "hashnet"]
NONE = ["fourier-none", "neural-none", "cibhash", "bihalf", "spectral", "itq", "pca_rotation", "pca_sign"]
NONE += ["random_projection"]


def test_tables_have_their_rows_in_the_order_of_running(script) -> None:
    def rows(*arguments: str) -> list[str]:
        return script.sweep_of(script.parse(list(arguments))).methods

    assert rows() == LABELS + NONE
    ablation, wide, transfer = (rows("--tables", table) for table in ("ablation", "wide", "transfer"))
    assert ablation[:2] == ["fourier", "fourier-no-map"]
    assert len(ablation) == 12
    assert sorted(wide) == [
        "csq-wide",
        "dpn-wide",
        "fourier",
        "fourier-wide",
        "greedyhash-wide",
        "hashnet-wide",
        "neural-wide",
        "orthohash-wide",
    ]
    assert transfer == ["fourier", "fourier-transfer", *(name for name in NONE if name not in ("spectral", "pca_sign"))]
    assert rows("--tables", "none", "labels", "--methods", "itq", "fourier") == ["fourier", "itq"]


def test_rows_show_what_tells_them_apart(script) -> None:
    assert script.label("fourier-none", "none") == "`fourier_unsupervised`"
    assert script.label("fourier-relu", "ablation") == "rectifiers for Gaussian error units"
    assert script.label("fourier", "transfer") == "`fourier`, with labels"
    assert script.label("fourier-none", "transfer") == "`fourier_unsupervised`"


def parameters(row) -> int:
    """Return how many parameters a row has at 64 bits on 1,280 features."""
    ConfigStore.instance().store(name="schema", node=RootSchema)
    short = ["method.training.epochs=1", "method.training.min_batches=1", "method.training.max_batches=1"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", [*row.keys, *short, "bits=64", "device=cpu"])
    x = np.random.default_rng(0).normal(size=(140, 1280)).astype(np.float32)
    labels = np.arange(140) % 2
    method = build({"method": OmegaConf.to_container(config.method, resolve=True)}, "method", Method)
    return method.fit(Features(x, labels, np.arange(140)), silent).parameters


@pytest.mark.slow
def test_rows_of_equal_size_have_the_parameters_of_the_default(script) -> None:
    default = parameters(script.METHODS["fourier"])
    for name, row in script.METHODS.items():
        if name == "fourier-no-map" or (row.tables == ("wide",) and name != "fourier-wide"):
            assert default <= parameters(row) <= 1.01 * default, name


def test_code_lengths_of_one_data_set_stand_beside_the_common_ones(script) -> None:
    asked = ["--datasets", "cifar10_images", "cifar100_images", "--bits", "64", "16", "cifar100_images=128"]
    assert script.sweep_of(script.parse(asked)).bits == {"cifar10_images": [16, 64], "cifar100_images": [16, 64, 128]}
    points = script.sweep_of(script.parse([])).points()
    assert len(points) == len(set(points)) == 2 * 16 * 3 * 3
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
        (["--methods", "fourier-relu"], "--methods fourier-relu: expected rows of --tables labels none"),
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
    assert "No run is finished." in (tmp_path / "table.md").read_text()
