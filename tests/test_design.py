"""`experiment=design`: its rows, and what they measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lshbench.config import build, check_root
from lshbench.config import options as options_of
from lshbench.methods.base import Method
from lshbench.report.select import Settings
from lshbench.run_folder import Run
from lshbench.run_folder.reader import finished_runs
from lshbench.system import build_index
from tests import options

ROWS = [name for name, _ in options_of("experiment/design")]
DIGITS = ("experiment=design", "dataset=digits", "backbone=pixels", "backbone.image_size=8", "evaluation.plots=false")


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
    index = build_index(config, method.gives)
    assert len(index.points()) == 1, "a row has one figure in each column"
    assert index.ranking == "cosine", "candidates are ranked by cosine"
    assert method.bits == config["bits"] or method.gives != "binary"


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
def test_fourier_leads_the_table_of_the_digits_and_pca_does_not_hurt(lshbench, tmp_path: Path) -> None:
    lshbench("run", *DIGITS)
    rows = {Settings(run).get("experiment/design")[1]: run for run in finished_runs(tmp_path / "outputs")}
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
