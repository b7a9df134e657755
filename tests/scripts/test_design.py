"""`experiment=design`: its rows, what they measure, and the table that is made of them."""

from __future__ import annotations

import copy
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_run import METRICS

from lshbench.config import build, check_root
from lshbench.config import options as options_of
from lshbench.errors import UsageError
from lshbench.index.base import Index
from lshbench.methods.base import Method
from lshbench.run_folder import Run, RunMetrics
from lshbench.run_folder.reader import finished_runs
from tests import options

SCRIPTS = Path(__file__).parents[2] / "scripts"
ROWS = [name for name, _ in options_of("experiment/design")]
DIGITS = ("experiment=design", "dataset=digits", "backbone=pixels", "backbone.image_size=8", "evaluation.plots=false")


@pytest.fixture(scope="module")
def script() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("table_design")


def composed(row: str) -> dict:
    """Return the configuration of a row."""
    return options.composed("experiment=design", f"experiment/design={row}")


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_method_and_an_index_that_fit_each_other(row: str) -> None:
    config = composed(row)
    check_root(config)
    assert config["backbone"]["image_size"] == 128
    method = build(config, "method", Method)
    index = build(config, "index", Index, gives=method.gives, ranking=config["ranking"])
    assert len(index.points()) == 1, "a row has one figure in each column"
    assert index.ranking == "cosine", "candidates are ranked by cosine"
    assert method.bits == config["bits"] or method.gives != "binary"


def test_the_experiment_runs_every_row_once(script: Any) -> None:
    assert sorted(script.row_names()) == sorted(ROWS)
    first = next(iter(script.row_names()))
    assert first == "exact", "the order is the experiment's, not that of names"


def test_the_rows_are_the_reproduced_designs() -> None:
    hyperplanes = composed("hyperplanes_14x5")
    assert (hyperplanes["bits"], hyperplanes["index"]["tables"], hyperplanes["index"]["draw"]) == (70, 5, "disjoint")
    design = composed("neural_design")
    assert (design["bits"], design["method"]["name"], design["index"]["tables"]) == (16, "neural_design", 8)
    second = composed("fourier_design")
    assert (second["bits"], second["index"]["tables"], second["index"]["bits_per_table"]) == (16, 2, 14)
    assert [composed(f"kmeans_100{end}")["pca"]["dim"] for end in ("", "_pca", "_pca95")] == [None, 100, 0.95]


def check_definitions(run: Run) -> None:
    """Compute the design's own measures from the first hits and their labels."""
    found, _ = run.neighbors()
    gallery, asked = run.array("codes/gallery_labels.npy"), run.array("codes/query_labels.npy")
    relevant = (gallery[found[:, :50]] == asked[:, None]) & (found[:, :50] >= 0)
    counted = found[:, 0] >= 0
    precisions = []
    for hits in relevant[counted]:
        at = np.flatnonzero(hits)
        precisions.append(np.mean(np.arange(1, len(at) + 1) / (at + 1)) if len(at) else 0.0)
    expected = {
        "mAP@50/hits_nonempty": np.mean(precisions),
        "P@10/nonempty": relevant[counted, :10].sum(axis=1).mean() / 10,
        "P@50/nonempty": relevant[counted].sum(axis=1).mean() / 50,
    }
    for name, value in expected.items():
        assert run.metrics.definitions[name] == pytest.approx(value, abs=1e-6), name
    assert run.metrics.search.queries_without_candidates == (~counted).sum()


@pytest.mark.slow
def test_queries_without_candidates_are_left_out_of_the_designs_measures(lshbench, tmp_path: Path) -> None:
    lshbench("run", *DIGITS, "experiment/design=hyperplanes_14x5,kmeans_500_pca", "dataset.max_gallery=700")
    runs = list(finished_runs(tmp_path / "outputs"))
    assert len(runs) == 2
    for run in runs:
        check_definitions(run)
    empty = {run.metrics.method.name: run.metrics.search.queries_without_candidates for run in runs}
    assert empty["random_projection"] > 0
    assert empty["kmeans"] == 0


@pytest.mark.slow
def test_fourier_leads_the_table_of_the_digits_and_pca_does_not_hurt(lshbench, tmp_path: Path, script: Any) -> None:
    lshbench("run", *DIGITS)
    (tables,) = [script.grouped(list(finished_runs(tmp_path / "outputs")))]
    (rows,) = tables.values()
    assert set(rows) == set(ROWS)
    for run in rows.values():
        check_definitions(run)
    for name in ("mAP", "P@10", "P@50"):
        figures = {row: run.metrics.metrics[name] for row, run in rows.items()}
        # So few digits have their ten nearest found by either of fourier's rankings.
        leaders = ("fourier", "fourier_cosine") if name == "P@10" else ("fourier",)
        assert max(figures, key=figures.get) in leaders, name
        assert figures["fourier_cosine"] > figures["exact"]
        for clusters in (10, 100, 500):
            assert figures[f"kmeans_{clusters}_pca"] > figures[f"kmeans_{clusters}"] - 0.02


# The table


def finished_run(row: str, created: str = "2025-01-01T00:00:00Z", **figures: float) -> Run:
    metrics = copy.deepcopy(METRICS)
    metrics["command"] = ["lshbench", "run", "experiment=design", f"experiment/design={row}"]
    metrics["created"] = created
    metrics["definitions"] = {"mAP@50/hits_nonempty": 0.5, "P@10/nonempty": 0.4, "P@50/nonempty": 0.3}
    metrics["search"]["latency_ms"] |= {"with_encoding_p50": 0.125}
    metrics["metrics"].update(figures)
    return Run(Path(row), RunMetrics.from_json(metrics))


def test_the_newest_run_of_a_row_counts_and_the_best_of_a_column_is_bold(script: Any) -> None:
    runs = [
        finished_run("fourier", mAP=0.9),
        finished_run("kmeans_10", "2025-01-02T00:00:00Z", mAP=0.2),
        finished_run("kmeans_10", mAP=0.99),
        finished_run("mine", mAP=0.1),
        Run(Path("other"), RunMetrics.from_json(METRICS)),
    ]
    text = script.markdown(script.grouped(runs))
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| k-means, 10 clusters, with labels",
        "| `fourier`, 64 bits, 8 tables, candidates by the query's projections, with labels",
        "| mine, with labels",
    ]
    assert [line.split(" | ")[1] for line in lines] == [".200", "**.900**", ".100"]
    assert "**cifar100_images**: 10,000 queries, 50,000 in the gallery, 100 classes; efficientnet_lite0, 1,280" in text


def test_runs_that_are_no_rows_are_refused(script: Any) -> None:
    with pytest.raises(UsageError, match="no run of these folders has experiment/design="):
        script.grouped([Run(Path("other"), RunMetrics.from_json(METRICS))])
    run = finished_run("fourier")
    without = replace(run, metrics=replace(run.metrics, definitions={}))
    with pytest.raises(UsageError, match=r"expected a run with evaluation\.definitions=true"):
        script.grouped([without])


def test_the_script_says_what_is_wrong_in_one_line(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert script.main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
