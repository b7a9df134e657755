"""Sweeps as their users see them: through launchers, and in a table or lines."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lshbench.commands.sweep_view import Lines, LiveTable, table, time_left
from lshbench.run_folder import finished_runs
from lshbench.runtime.journal import Job, Journal, Reporter
from lshbench.runtime.logs import shown_live
from lshbench.runtime.progress import silent

SMALL = (
    "dataset=synthetic", "dataset.items=400", "dataset.queries=40", "dataset.dim=16", "dataset.classes=4",
    "evaluation.plots=false",
)  # fmt: skip
OFTEN_FAILING = """
from pathlib import Path
import os
import signal

from lshbench.methods.random_projection import RandomProjection


class Failing(RandomProjection):
    def fit(self, train, progress):
        if self.seed == 1 and Path("broken").exists():
            raise RuntimeError("the disk is on fire")
        if self.seed == 1 and Path("deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(train, progress)
"""


def figures(place: Path) -> dict[str, dict]:
    """Return the figures of the finished runs below a folder, by identity; none is there twice."""
    runs = list(finished_runs(place / "outputs"))
    found = {run.metrics.run_id: run.metrics.metrics | run.metrics.definitions for run in runs}
    assert len(found) == len(runs), "a run was made twice"
    return found


def finishing_times(place: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (place / "outputs").rglob("metrics.json")}


def start(place: Path, *arguments: str, **keywords: object) -> subprocess.Popen:
    """Start the real command, in a process group of its own."""
    environment = {**os.environ, "LSHBENCH_CACHE": str(place / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    keywords = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | keywords
    command = [sys.executable, "-m", "lshbench", *arguments]
    return subprocess.Popen(command, cwd=place, env=environment, start_new_session=True, **keywords)


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The arguments that choose a method of the user's own which fails for one seed."""
    (tmp_path / "outside.py").write_text(OFTEN_FAILING, encoding="utf-8")
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "failing.yaml").write_text(
        "# Fails\nname: failing\n_target_: outside.Failing\nbits: ${bits}\nseed: ${seed}\n", encoding="utf-8"
    )
    return "--config-dir", "mine", *SMALL, "method=failing", "bits=8"


@pytest.mark.slow
def test_a_failed_job_stops_no_other_is_named_at_the_end_and_is_all_that_is_done_again(
    lshbench, tmp_path: Path, failing: tuple[str, ...]
) -> None:
    (tmp_path / "broken").touch()
    sweep = ("run", "-m", *failing, "seed=0,1,2")
    done = lshbench(*sweep, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    end = done.stderr[done.stderr.index("3 jobs: 2 computed, 1 failed") :].splitlines()
    assert end[1].startswith("  failed: ")
    assert "seed=1" in end[1]
    message, _, log = end[2].strip().removesuffix(")").partition(" (log: ")
    assert message == "RuntimeError: the disk is on fire"
    assert "Traceback" in Path(log).read_text(encoding="utf-8")
    before = finishing_times(tmp_path)
    assert len(before) == 2
    (tmp_path / "broken").unlink()
    done = lshbench(*sweep)
    assert "3 jobs: 1 computed, 2 finished before" in done.stderr
    after = finishing_times(tmp_path)
    assert len(after) == 3
    assert before.items() <= after.items()
    assert not (tmp_path / "outputs" / ".sweeps").exists()


@pytest.mark.slow
def test_a_killed_joblib_worker_costs_only_what_it_was_doing(tmp_path: Path, failing: tuple[str, ...]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra: pip install -e '.[joblib]'")
    sweep = ("run", "-m", *failing, "seed=range(6)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1")
    (tmp_path / "deadly").touch()
    process = start(tmp_path, *sweep)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "The launcher gave up: TerminatedWorkerError" in errors
    assert "stopped" in errors
    before = finishing_times(tmp_path)
    assert len(before) < 6
    (tmp_path / "deadly").unlink()
    process = start(tmp_path, *sweep)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    old = f", {len(before)} finished before" if before else ""
    assert f"6 jobs: {6 - len(before)} computed{old}\n" in errors
    assert before.items() <= finishing_times(tmp_path).items()
    assert len(figures(tmp_path)) == 6
    command = json.loads(next(iter(finishing_times(tmp_path))).read_text(encoding="utf-8"))["command"]
    assert command[:4] == ["lshbench", "run", "--config-dir", "mine"]


@pytest.mark.slow
def test_submitit_runs_a_sweep_on_this_machine_and_a_failure_is_named(tmp_path: Path, failing: tuple[str, ...]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra: pip install -e '.[submitit]'")
    sweep = ("run", "-m", *failing, "seed=range(3)", "hydra/launcher=submitit_local", "threads=1")
    (tmp_path / "broken").touch()
    process = start(tmp_path, *sweep)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 1, errors
    assert "3 jobs: 2 computed, 1 failed" in errors
    assert "RuntimeError: the disk is on fire" in errors
    (tmp_path / "broken").unlink()
    process = start(tmp_path, *sweep)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert len(figures(tmp_path)) == 3


def job(number: int, state: str, **attributes: object) -> Job:
    return Job(number, ("method=itq", f"bits={8 * (number + 1)}", "seed=0"), state, **attributes)


def test_the_table_has_a_row_for_each_job_with_what_the_sweep_varies() -> None:
    jobs = [
        job(0, "computed", started=100.0, ended=110.0, measures={"mAP": 0.5, "P@10": None}),
        job(1, "running", stage="training 30%", started=110.0),
        job(2, "waiting"),
        job(3, "failed", started=105.0, ended=120.0),
    ]
    stream = io.StringIO()
    Console(file=stream, width=80).print(table(jobs, ["bits"]))
    head, _, first, second, third, fourth, *foot = (line.split() for line in stream.getvalue().splitlines()[1:])
    assert head == ["bits", "state", "mAP", "P@10", "time"]
    assert first == ["8", "computed", "0.5000", "10", "s"]
    assert second[:3] == ["16", "training", "30%"]
    assert third == ["24", "waiting"]
    assert fourth == ["32", "failed", "15", "s"]
    assert " ".join(foot[-1]) == "2 of 4 jobs, 20 s left", "one each 10 s, two to come"


def test_time_left_goes_by_computed_jobs_alone() -> None:
    found = [job(0, "finished before", started=0.0, ended=0.1), job(1, "waiting")]
    assert time_left(found) is None
    assert time_left([*found, job(2, "computed", started=1.0, ended=4.0)]) == pytest.approx(3)


def test_a_table_longer_than_the_screen_shows_the_rows_about_those_that_run() -> None:
    jobs = [job(number, "computed", started=0.0, ended=1.0) for number in range(50)]
    jobs[40] = job(40, "running", started=0.0)
    view = LiveTable(Console(file=io.StringIO(), width=80, height=20, force_terminal=True), ["bits"])
    try:
        view.show(jobs)
        shown = io.StringIO()
        Console(file=shown, width=80).print(view.fitting())
    finally:
        view.close()
    assert "running" in shown.getvalue()
    assert "rows 35 to 46" in shown.getvalue()
    assert not shown_live()


def test_lines_tell_each_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    view = Lines(["bits"])
    jobs = [job(0, "computed", started=0.0, ended=60.0, measures={"mAP": 0.5, "P@10": 0.25}), job(1, "waiting")]
    view.show(jobs)
    view.show(jobs)
    assert caplog.messages == ["job 1 of 2 computed: bits=8, mAP 0.5000, P@10 0.2500; 1 min 00 s left"]


def test_a_journal_is_read_as_it_was_written_and_a_dead_sweeps_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".sweeps" / "dead"
    dead.mkdir(parents=True)
    os.utime(dead, (0, 0))
    with Journal.begin(tmp_path) as journal:
        assert not dead.exists()
        reporter = Reporter(Journal(journal.folder), 3, ["bits=8"])
        with reporter.progress(silent)("training", total=10, unit="epochs"):
            assert journal.jobs()[3].stage == "training"
        reporter.end("failed", message="no")
        with Journal.begin(tmp_path) as other:
            assert journal.jobs() == {3: reporter.job}
            assert other.jobs() == {}
        assert reporter.job.message == "no"
    reporter.end("computed")  # its sweep is gone: no error
    assert not (tmp_path / ".sweeps").exists()
