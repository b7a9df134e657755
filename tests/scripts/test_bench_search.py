"""The benchmark of search, on small data: every comparison runs and compares like with like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/bench_search.py"


@pytest.mark.slow
def test_every_comparison_runs_on_small_data(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--quick", "--threads", "1", "--runs", tmp_path, "--output", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    result = json.loads((tmp_path / "bench_search.json").read_text())
    engines = result["engines"]["comparisons"]
    compared = {"buckets", "IndexBinaryMultiHash", "IndexBinaryHash", "IndexLSH"}
    assert {name for row in engines for name in row["engines"]} == compared
    assert all(0 < own["us"] < 1e6 for row in engines for own in row["engines"].values())
    assert [row["items"] for row in result["scaling"]["rows"]] == [10_000, 20_000]
    assert all(row["recall"] >= 0.9 for row in result["scaling"]["rows"])
    assert {name for row in result["tables"]["rows"] for name in row["candidates"]} == {
        "random_projection",
        "neural",
        "fourier",
    }
    tables = {(row["bits"], row["recall"], row["probes"]): row.get("tables") for row in result["probes"]["rows"]}
    for (bits, recall, probes), count in tables.items():
        if probes > 1 and count and tables[bits, recall, 1]:
            assert count <= tables[bits, recall, 1]
    assert result["flat"]["P@10"] > result["flat"]["exact_P@10"]
    assert (tmp_path / "bench_search_scaling.png").stat().st_size > 10_000
