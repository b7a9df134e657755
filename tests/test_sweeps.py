"""Sweeps: no job is lost or done twice, failures are told at the end, and a reader that leaves does not matter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lshbench.run_folder import computing

SMALL = (
    "dataset=synthetic", "dataset.items=400", "dataset.queries=40", "dataset.dim=16", "dataset.classes=4",
    "evaluation.plots=false",
)  # fmt: skip
SWEEP = ("run", "-m", *SMALL, "method=random_projection,pca_sign", "bits=8,16", "seed=range(6)")
JOBS = 24


def results(folder: Path) -> dict[str, dict]:
    """Return the metrics of the finished runs below a folder by identity; each must be there once."""
    found = [json.loads(path.read_text()) for path in folder.rglob("metrics.json")]
    by_id = {metrics["run_id"]: metrics["metrics"] for metrics in found}
    assert len(by_id) == len(found), "a run was done twice"
    return by_id


def finished(folder: Path) -> list[Path]:
    """Return the paths of finished runs; folders come and go while a sweep is under way."""
    return [Path(place) / "metrics.json" for place, _, files in os.walk(folder) if "metrics.json" in files]


def started(folder: Path, cache: Path, *arguments: str, **keywords: object) -> subprocess.Popen:
    environment = {**os.environ, "LSHBENCH_CACHE": str(cache)}
    command = [sys.executable, "-m", "lshbench", *(arguments or SWEEP)]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **keywords)


def test_a_failing_job_costs_no_other_and_is_told_at_the_end(lshbench, tmp_path: Path) -> None:
    sweep = ("run", "-m", *SMALL, "method=random_projection,pca_sign", "bits=8,24")
    done = lshbench(*sweep, check=False)
    assert done.returncode == 2, "nothing but wrong use failed"
    assert len(results(tmp_path / "outputs")) == 3
    end = done.stderr[done.stderr.index("4 jobs: 3 computed, 1 refused") :]
    assert "method=pca_sign bits=24" in end
    assert "bits=24: expected at most 16" in end
    again = lshbench(*sweep, check=False)
    assert again.returncode == 2
    assert "4 jobs: 3 finished before, 1 refused" in again.stderr
    assert (tmp_path / "outputs" / "report" / "report.html").stat().st_size > 10**6
    assert "pca_sign 8 bits" in (tmp_path / "outputs" / "report" / "report.csv").read_text()
    assert len(results(tmp_path / "outputs")) == 3
    assert list((tmp_path / "outputs" / ".computing").iterdir()) == []


@pytest.mark.slow
def test_a_single_run_is_computed_again_unless_asked_not_to(lshbench, tmp_path: Path) -> None:
    single = ("run", *SMALL, "method=random_projection", "bits=8")
    for resume in ("auto", "true", "false"):
        lshbench(*single, f"resume={resume}")
    assert len(finished(tmp_path / "outputs")) == 2
    assert "resume='often': expected auto, true or false" in lshbench(*single, "resume=often", check=False).stderr


def test_one_process_computes_and_another_waits(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lshbench.run_folder import computing\n"
        "with computing(Path(sys.argv[1]), 'id'):\n    print('computing', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "computing\n"
    killed = time.monotonic() + 0.5
    import threading

    threading.Timer(0.5, other.kill).start()
    with computing(tmp_path, "id"):
        assert time.monotonic() >= killed - 0.05
    other.wait()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, shared_cache: Path) -> None:
    for kept in (3, 11):
        process = started(tmp_path, shared_cache, stdout=subprocess.DEVNULL)
        while len(finished(tmp_path / "outputs")) < kept:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.kill()
        process.communicate()
    before = {path: path.stat().st_mtime_ns for path in finished(tmp_path / "outputs")}
    process = started(tmp_path, shared_cache, stdout=subprocess.DEVNULL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert f"{JOBS} jobs: {JOBS - len(before)} computed, {len(before)} finished before" in told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    swept = results(tmp_path / "outputs")

    start = time.monotonic()
    again = started(tmp_path, shared_cache, stdout=subprocess.DEVNULL)
    assert f"{JOBS} jobs: {JOBS} finished before" in again.communicate(timeout=300)[1]
    print(f"a second pass took {time.monotonic() - start:.1f} s")

    shutil.rmtree(tmp_path / "outputs")
    undisturbed = started(tmp_path, shared_cache, stdout=subprocess.DEVNULL)
    undisturbed.communicate(timeout=300)
    assert results(tmp_path / "outputs") == swept
    assert len(swept) == JOBS


@pytest.mark.slow
def test_two_equal_sweeps_at_once_do_every_job_once(tmp_path: Path, shared_cache: Path) -> None:
    both = [started(tmp_path, shared_cache, stdout=subprocess.DEVNULL) for _ in range(2)]
    told = [process.communicate(timeout=500)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(results(tmp_path / "outputs")) == JOBS


@pytest.mark.slow
def test_a_reader_that_leaves_stops_no_sweep(tmp_path: Path, shared_cache: Path) -> None:
    words = ("run", "-m", *SMALL, "method=random_projection", "bits=8,16", "seed=0,1")
    process = started(tmp_path, shared_cache, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    assert process.wait(timeout=200) == 0, told
    assert "4 jobs: 4 computed" in told
    assert len(results(tmp_path / "outputs")) == 4


@pytest.mark.slow
def test_an_interrupted_sweep_ends_at_once_and_says_how_to_go_on(tmp_path: Path, shared_cache: Path) -> None:
    process = started(tmp_path, shared_cache, stdout=subprocess.DEVNULL)
    while not finished(tmp_path / "outputs"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - start < 10
    assert "goes on where it was" in told.splitlines()[-1]
