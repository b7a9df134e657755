"""The summary: every figure that matters, on 80 columns, in plain text too."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from example_run import METRICS, make_run
from rich.console import Console

from lshbench.report.summary import print_summary
from lshbench.run_folder import Run, RunMetrics


def printed(metrics: dict[str, Any], folder: Path = Path("outputs/digits/fourier/64-x")) -> str:
    stream = io.StringIO()
    print_summary(Run(folder, RunMetrics.from_json(metrics)), Console(file=stream, width=80))
    return stream.getvalue()


@pytest.fixture
def metrics() -> dict[str, Any]:
    return copy.deepcopy(METRICS)


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [name])


def test_figures_stand_beside_their_bounds_and_exact_cosine(metrics: dict[str, Any]) -> None:
    text = printed(metrics)
    assert row(text, "mAP") == ["mAP", "0.3000", "0.2900", "to", "0.3100", "0.1900", "+0.1100"]
    assert row(text, "P@50") == ["P@50", "0.5000", "0.4000", "+0.1000"]
    assert "fourier, 64 bits (trained with labels), ranked by hamming distance" in text
    assert "10,000 queries, 50,000 in the gallery" in " ".join(text.split())
    assert "LEAK" not in text


def test_a_skipped_reference_leaves_its_columns_out(metrics: dict[str, Any]) -> None:
    metrics["reference"]["cosine"] = None
    text = printed(metrics)
    assert "cosine" not in text
    assert row(text, "P@10") == ["P@10", "0.6000"]


def test_queries_that_are_left_out_of_their_own_rankings_are_counted_and_so_are_their_copies(
    metrics: dict[str, Any],
) -> None:
    metrics["protocol"] |= {
        "leave_one_out": True, "query_gallery_overlap": 300, "query_train_overlap": 200, "exact_duplicates": 40,
    }  # fmt: skip
    text = " ".join(printed(metrics).split())
    wanted = (
        "300 queries are left out of their own rankings, and 200 are in training; 40 have exact copies, which stay in"
    )
    assert wanted in text
    assert "LEAK" not in text


def test_what_labels_give_without_a_code_is_a_line_of_its_own(metrics: dict[str, Any]) -> None:
    text = " ".join(printed(metrics).split())
    assert "labels classifier, no code: mAP 0.3200, P@10 0.6200, P@50 0.5500" in text
    assert "predicted class as code: mAP 0.2500, P@10 0.5000, P@50 0.5000" in text
    assert "it is right for 70.0% of the queries; fourier has -0.0200 mAP" in text
    metrics["reference"]["classifier"]["accuracy"] = 0.0
    assert "right for no query" in printed(metrics)
    metrics["reference"]["classifier"] = None
    assert "classifier" not in printed(metrics)


def test_figures_that_are_not_known_are_dashes(metrics: dict[str, Any]) -> None:
    metrics["metrics"]["mAP"] = None
    metrics["ties"]["mAP"] = dict.fromkeys(("expected", "optimistic", "pessimistic"))
    metrics["search"] |= {
        "qps": None,
        "recall@10": None,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
    }
    metrics["dataset"]["backbone"] = None
    metrics["time_s"]["extract"] = None
    metrics["memory"]["peak_rss_bytes"] = None
    assert row(printed(metrics), "mAP") == ["mAP", "-", "-", "to", "-", "0.1900", "-"]


def test_the_summary_says_whether_the_code_or_the_index_loses_quality(metrics: dict[str, Any]) -> None:
    text = printed(metrics)
    assert row(text, "loss") == ["loss", "mAP", "code", "+0.1200,", "index", "-0.0100:", "lost", "by", "the", "index"]
    assert row(text, "P@10") == ["P@10", "0.6000", "0.4700", "+0.1300"]
    assert "P@10 code -0.0300, index +0.1600: lost by the code" in text
    metrics["loss"]["index"]["P@10"] = 0.40
    assert "P@10 code -0.0300, index -0.0400: most is lost by the index" in printed(metrics)
    metrics["loss"]["codes"] = None
    assert "mAP  index +0.1100: nothing is lost" in printed(metrics)
    metrics["loss"]["features"] = None
    assert "lost" not in printed(metrics)
    del metrics["loss"]
    assert "lost" not in printed(metrics), "a run of an earlier version"


def test_speed_is_said_with_encoding_first_and_a_busy_machine_is_named(metrics: dict[str, Any]) -> None:
    assert "flat: 1,000 queries/s, 0.2 ms for 95 % of single queries" in " ".join(printed(metrics).split())
    metrics["search"]["latency_ms"] |= {"with_encoding_batch": 2.0, "with_encoding_p95": 0.7}
    text = " ".join(printed(metrics).split())
    expected = "500 queries/s, 0.7 ms for 95 % of single queries, with encoding (without: 1,000/s, 0.2 ms)"
    assert f"search flat: {expected}" in text
    assert "BUSY" not in text
    metrics["environment"]["busy"] = "load 5.1 on 4 cores"
    assert "BUSY load 5.1 on 4 cores: other work slowed the machine down" in " ".join(printed(metrics).split())


def test_bytes_an_item_are_said_apart(metrics: dict[str, Any]) -> None:
    metrics["memory"] |= {"index_bytes": 50000 * 30, "feature_bytes": 50000 * 5120, "bytes_per_item": 5158.0}
    text = " ".join(printed(metrics).split())
    assert "memory 1 GB at most; 5,158 bytes an item: code 8, index 30, features 5,120 folder" in text
    metrics["memory"] |= {
        "index_bytes": 50000 * 30,
        "fixed_bytes": 50000 * 4,
        "feature_bytes": 0,
        "bytes_per_item": 38.0,
    }
    text = " ".join(printed(metrics).split())
    assert "38 bytes an item: code 8, index 30 (4 in codebooks and centroids) folder" in text
    metrics["memory"]["bytes_per_item"] = 5158.0
    for name in ("code_bytes", "feature_bytes", "fixed_bytes"):
        del metrics["memory"][name]
    assert "5,158 bytes an item folder" in " ".join(printed(metrics).split()), "a run of an earlier version"


def test_all_settings_of_a_grid_stand_in_a_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=300, queries=20, fraction=0.5, settings=3)
    stream = io.StringIO()
    print_summary(run, Console(file=stream, width=80))
    columns = run.tradeoff()
    lines = stream.getvalue().splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["probes"])
    assert lines[head].split() == ["probes", "mAP", "P@10", "recall@10", "compared", "queries/s", "bytes"]
    for place, line in enumerate(lines[head + 2 : head + 5]):
        cells = line.split()
        assert cells[0] == str(columns["probes"][place])
        assert cells[1] == f"{columns['mAP'][place]:.4f}"
        assert cells[5:] == [f"{columns['qps_with_encoding'][place]:,.0f}", "38.6"]
    cosine = run.metrics.reference.cosine
    assert cosine is not None
    figures = [f"{cosine[name]:.4f}" for name in ("mAP", "P@10")]
    assert lines[head + 5].split() == ["exact", "scan", *figures, "1.000", "300", "500", "-"]
    one = make_run(tmp_path / "one", gallery=300, queries=20)
    stream = io.StringIO()
    print_summary(one, Console(file=stream, width=80))
    assert "probes" not in stream.getvalue()


def test_a_leak_is_shouted(metrics: dict[str, Any]) -> None:
    metrics["protocol"] |= {"leak": True, "query_gallery_overlap": 12, "query_train_overlap": 3}
    assert "LEAK: 12 queries are in the gallery and 3 in training" in " ".join(printed(metrics).split())


def test_copies_that_leak_are_counted_too(metrics: dict[str, Any]) -> None:
    metrics["protocol"] |= {"leak": True, "exact_duplicates": 60, "exact_duplicates_train": 59}
    text = " ".join(printed(metrics).split())
    assert "60 have an exact copy in the gallery and 59 in training: these figures are too good" in text


def test_an_index_of_features_does_not_stand_under_the_method_s_name(metrics: dict[str, Any]) -> None:
    metrics["search"] |= {"index": "hnsw", "ranks": "features"}
    text = printed(metrics)
    assert "features by hnsw (no method), ranked by" in " ".join(text.split())
    assert text.count("fourier") == 1, "in the folder's name only"


def test_an_index_that_skips_items_says_how_many_it_compared(metrics: dict[str, Any]) -> None:
    metrics["search"] |= {
        "index": "buckets",
        "candidates_mean": 512.3,
        "candidates_fraction": 0.010246,
        "queries_without_candidates": 7,
        "recall@10": 0.87,
    }
    text = " ".join(printed(metrics).split())
    assert "512 compared of 50,000 (1.02%), recall@10 0.870, 7 queries without candidates" in text


def test_lines_fit_80_columns_but_the_path_that_is_to_be_copied(metrics: dict[str, Any]) -> None:
    metrics["method"]["name"] = "random_projection"
    metrics["dataset"]["name"] = "a_data_set_with_quite_a_long_name"
    folder = Path("outputs") / ("x" * 120)
    *lines, last = printed(metrics, folder).splitlines()
    assert max(map(len, lines)) <= 80
    assert last.endswith(str(folder))


def test_a_stream_that_knows_ascii_only_gets_the_summary_too(metrics: dict[str, Any]) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_summary(Run(Path("outputs"), RunMetrics.from_json(metrics)), Console(file=stream, width=80))
    stream.flush()
    assert b"0.3000" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_what_ties_do_to_an_index_over_codes_is_said_by_item_and_by_distance(metrics: dict[str, Any]) -> None:
    found = {"item": 0.512, "distance": 0.987, "rescored_item": None, "rescored_distance": None}
    metrics["search"] |= {"index": "binary_hnsw", "recall@10/codes": found}
    text = " ".join(printed(metrics).split())
    assert "0.512 found by item, 0.987 by distance search" in text
    metrics["search"]["recall@10/codes"] = found | {"rescored_item": 0.876, "rescored_distance": 0.88}
    assert "0.987 by distance; rescored 0.876 and 0.880" in " ".join(printed(metrics).split())
