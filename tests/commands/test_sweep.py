"""Sweeps as their users see them: no job is lost or done twice, whatever is killed, fails or is started beside them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pandas
import pytest
from filelock import FileLock

from lshbench.run_folder import computing, finished_runs

SMALL = (
    "dataset=synthetic", "dataset.items=400", "dataset.queries=40", "dataset.dim=16", "dataset.classes=4",
    "evaluation.plots=false",
)  # fmt: skip
SWEEP = (
    "run",
    "-m",
    "--config-dir",
    "mine",
    *SMALL,
    "method=pca_sign,fragile",
    "bits=8,16",
    "seed=range(6)",
    "threads=1",
)
JOBS = 24
FRAGILE = """
import os
import signal
from pathlib import Path

from lshbench.methods.random_projection import RandomProjection


class Fragile(RandomProjection):
    def fit(self, train, progress):
        if (self.bits, self.seed) == (16, 2):
            if Path("broken").exists():
                raise RuntimeError("the disk is on fire")
            if Path("deadly").exists():
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(train, progress)
"""
TIMES = [
    "qps", "qps_with_encoding", "latency_p95_ms", "latency_with_encoding_p95_ms", "busy", "peak_memory_bytes",
    "total_s",
]  # fmt: skip
"""Columns of the report that no two runs have in common."""


def furnish(place: Path) -> Path:
    """Put a method of a user's own into a folder: its job of 16 bits and seed 2 fails or dies as files there say."""
    (place / "mine" / "method").mkdir(parents=True, exist_ok=True)
    (place / "mine" / "fragile.py").write_text(FRAGILE, encoding="utf-8")
    (place / "mine" / "method" / "fragile.yaml").write_text(
        "# Fails\nname: fragile\n_target_: fragile.Fragile\nbits: ${bits}\nseed: ${seed}\n", encoding="utf-8"
    )
    return place


def start(place: Path, cache: Path, *arguments: str, **keywords: object) -> subprocess.Popen:
    """Start the real command, by default the sweep of 24 jobs."""
    environment = {**os.environ, "LSHBENCH_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    keywords = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | keywords
    # Tests that run in a shell's background ignore interrupts, and what they start would, too.
    keywords["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-m", "lshbench", *(arguments or SWEEP)]
    return subprocess.Popen(command, cwd=place, env=environment, **keywords)


def end(process: subprocess.Popen, code: int = 0) -> str:
    """Return what a command has told once it ends, with the exit code that it must have."""
    told = process.communicate(timeout=400)[1]
    assert process.returncode == code, told
    return told


def kill_after(kept: int, place: Path, process: subprocess.Popen) -> None:
    """Kill a sweep once so many of its runs are finished."""
    while len(finishing_times(place)) < kept:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()


def finishing_times(place: Path) -> dict[Path, int]:
    """Return when each run was finished; folders come and go while a sweep is under way."""
    found = (
        Path(folder) / "metrics.json" for folder, _, files in os.walk(place / "outputs") if "metrics.json" in files
    )
    return {file: file.stat().st_mtime_ns for file in found}


def figures(place: Path) -> dict[str, dict]:
    """Return the figures of the finished runs below a folder, by identity; none is there twice."""
    runs = list(finished_runs(place / "outputs"))
    found = {run.metrics.run_id: run.metrics.metrics | run.metrics.definitions for run in runs}
    assert len(found) == len(runs), "a run was made twice"
    return found


def report(place: Path) -> pandas.DataFrame:
    """Return the rows of the report of a sweep, but for times and memory."""
    return pandas.read_csv(place / "outputs" / "report" / "report.csv").drop(columns=TIMES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return furnish(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(shared_folder: Path, shared_cache: Path) -> Path:
    """The folder of a sweep that nothing happened to, which all processes of the test session share."""
    folder = furnish(shared_folder / "undisturbed")
    with FileLock(shared_folder / "undisturbed.lock"):
        if not (folder / "outputs" / "report").exists():
            end(start(folder, shared_cache))
    return folder


def test_refused_jobs_cost_no_other_and_are_told_at_the_end(lshbench, tmp_path: Path) -> None:
    sweep = ("run", "-m", *SMALL, "method=random_projection,pca_sign", "bits=8,24")
    done = lshbench(*sweep, check=False)
    assert done.returncode == 2, "nothing but wrong use failed"
    assert len(figures(tmp_path)) == 3
    told = done.stderr[done.stderr.index("4 jobs: 3 computed, 1 refused") :]
    assert "method=pca_sign bits=24" in told
    assert "bits=24: expected at most 16" in told
    again = lshbench(*sweep, check=False)
    assert again.returncode == 2
    assert "4 jobs: 3 finished before, 1 refused" in again.stderr
    assert (tmp_path / "outputs" / "report" / "report.html").stat().st_size > 10**6
    assert "pca_sign 8 bits" in (tmp_path / "outputs" / "report" / "report.csv").read_text()
    assert len(figures(tmp_path)) == 3
    assert list((tmp_path / "outputs" / ".computing").iterdir()) == []
    assert not (tmp_path / "outputs" / ".sweeps").exists()


PIXELS = ("backbone=pixels", "backbone.image_size=8", "dataset.max_gallery=400", "dataset.max_queries=20", "threads=1")
PIXELS += ("evaluation.plots=false", "reference.cosine=false")
SHARED = {
    "method=none index=pq_fastscan,ivf_pq index.nbits=16": {("pq_fastscan", 16), ("ivf_pq", 16)},
    "method=none index=glob(*pq_fastscan) index.nbits=16,32": {("pq_fastscan", 16), ("pq_fastscan", 32)},
    "method=sq,turboquant method.bits_per_dimension=4 bits=16 seed=${worker}": {("sq", 4), ("turboquant", 4)},
    "--config-dir mine experiment=kinds index.nbits=16": {("pq_fastscan", 16), ("ivf_pq", 16)},
}
"""Commands whose key the default option lacks, and the options and values of their jobs."""


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=[pytest.mark.slow] * ("glob" in command)) for command in SHARED]
)
def test_a_key_that_swept_options_share_is_theirs(command: str, lshbench, tmp_path: Path) -> None:
    experiment(tmp_path)
    multirun = [] if "experiment" in command else ["-m"]
    told = lshbench("run", *multirun, *command.split(), *PIXELS).stderr
    assert "2 jobs: 2 computed" in told
    assert "Warning" not in told
    found = set()
    for run in finished_runs(tmp_path / "outputs"):
        index, method = run.config()["index"], run.config()["method"]
        found.add(
            (index["name"], index["nbits"]) if "nbits" in index else (method["name"], method["bits_per_dimension"])
        )
    assert found == SHARED[command]


def experiment(place: Path) -> None:
    """Put an experiment into a folder whose sweep is over two indexes."""
    (place / "mine" / "experiment").mkdir(parents=True)
    (place / "mine" / "experiment" / "kinds.yaml").write_text(
        "# @package _global_\n# Two indexes\ndefaults:\n  - override /method: none\n  - override /index: buckets\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      index: pq_fastscan,ivf_pq\n",
        encoding="utf-8",
    )


REFUSED = {
    "-m index=flat,pq_fastscan index.nbits=128 method=none":
        "index.nbits=128: index=flat has no such key, index=pq_fastscan has it; expected only options that have it",
    "-m index=choice(flat,pq_fastscan) index.nbits=64,128 method=none,sq":
        "index.nbits=64,128: index=flat has no such key, index=pq_fastscan has it; ",
    "-m method=kmeans,csq,neural method.training.epochs=3":
        "method.training.epochs=3: method=kmeans has no such key, method=csq, method=neural have it; ",
    "-m bits=8,16 hydra.sweep.dirr=a": "hydra.sweep.dirr=a: no such key; did you mean hydra.sweep.dir? ",
    "-m index=flat,buckets index.nbits=128":
        "index.nbits=128: no such key; it is a key of index=ivf_pq and of ",
    "-m index=flat,pq_fastscn index.nbits=128": "index=flat,pq_fastscn: there is no option 'pq_fastscn'; did you mean",
    "--config-dir mine experiment=kinds index.nprobe=3":
        "index.nprobe=3: index=pq_fastscan has no such key, index=ivf_pq has it; ",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] * (place > 0 and "mine" not in command))
        for place, command in enumerate(REFUSED)
    ],
)
def test_a_key_that_swept_options_lack_is_refused_before_any_run(command: str, lshbench, tmp_path: Path) -> None:
    experiment(tmp_path)
    done = lshbench("run", *command.split(), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lshbench: {REFUSED[command]}")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_one_process_computes_and_another_waits(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lshbench.run_folder import computing\n"
        "with computing(Path(sys.argv[1]), 'id'):\n    print('computing', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "computing\n"
    killed = time.monotonic() + 0.5
    threading.Timer(0.5, other.kill).start()
    with computing(tmp_path, "id"):
        assert time.monotonic() >= killed - 0.05
    other.wait()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_failed_job_of_24_is_named_shown_as_a_gap_and_all_that_is_done_again(
    place: Path, lshbench, undisturbed: Path
) -> None:
    (place / "broken").touch()
    done = lshbench(*SWEEP, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = done.stderr[done.stderr.index(f"{JOBS} jobs: {JOBS - 1} computed, 1 failed") :].splitlines()
    assert told[1].startswith("  failed: ")
    assert told[1].endswith("method=fragile bits=16 seed=2 threads=1")
    message, _, log = told[2].strip().removesuffix(")").partition(" (log: ")
    assert message == "RuntimeError: the disk is on fire"
    assert "Traceback" in Path(log).read_text(encoding="utf-8")
    before = finishing_times(place)
    assert len(before) == JOBS - 1
    rows = report(place)
    rows = rows[(rows.record == "mean") & (rows.measure == "mAP")]
    assert dict(zip(rows.configuration, rows.seeds, strict=True)) == {
        "pca_sign 8 bits": "0 1 2 3 4 5",
        "fragile 8 bits": "0 1 2 3 4 5",
        "pca_sign 16 bits": "0 1 2 3 4 5",
        "fragile 16 bits": "0 1 3 4 5",
    }
    (place / "broken").unlink()
    assert f"{JOBS} jobs: 1 computed, {JOBS - 1} finished before" in lshbench(*SWEEP).stderr
    assert before.items() <= finishing_times(place).items()
    assert figures(place) == figures(undisturbed)


@pytest.mark.slow
def test_a_single_run_is_computed_again_unless_asked_not_to(lshbench, tmp_path: Path) -> None:
    single = ("run", *SMALL, "method=random_projection", "bits=8")
    for resume in ("auto", "true", "false"):
        lshbench(*single, f"resume={resume}")
    assert len(finishing_times(tmp_path)) == 2
    assert "resume='often': expected auto, true or false" in lshbench(*single, "resume=often", check=False).stderr


@pytest.mark.slow
def test_a_sweep_killed_twice_goes_on_where_it_was_and_a_finished_one_is_soon_over(
    place: Path, shared_cache: Path, undisturbed: Path
) -> None:
    for kept in (3, 11):
        kill_after(kept, place, start(place, shared_cache))
    before = finishing_times(place)
    told = end(start(place, shared_cache))
    assert f"{JOBS} jobs: {JOBS - len(before)} computed, {len(before)} finished before" in told
    assert before.items() <= finishing_times(place).items()
    assert figures(place) == figures(undisturbed)
    pandas.testing.assert_frame_equal(report(place), report(undisturbed))

    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"{JOBS} jobs: {JOBS} finished before" in end(start(place, shared_cache))
    again = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert again.ru_utime + again.ru_stime - spent.ru_utime - spent.ru_stime < 10, "CPU seconds of a second pass"


@pytest.mark.slow
def test_a_joblib_sweep_killed_twice_and_robbed_of_a_worker_loses_and_repeats_nothing(
    place: Path, shared_cache: Path, undisturbed: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra: pip install -e '.[joblib]'")
    sweep = (*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    for kept in (3, 11):
        kill_after(kept, place, start(place, shared_cache, *sweep))
    before = finishing_times(place)
    (place / "deadly").touch()
    told = end(start(place, shared_cache, *sweep), 1)
    assert "The launcher gave up: TerminatedWorkerError" in told
    # The worker that died stops the other one, which may be in the middle of a job or between two.
    assert re.search(r"\b[12] stopped", told), told
    assert before.items() <= finishing_times(place).items()
    before = finishing_times(place)
    (place / "deadly").unlink()
    told = end(start(place, shared_cache, *sweep))
    assert f"{JOBS} jobs: {JOBS - len(before)} computed, {len(before)} finished before\n" in told
    assert before.items() <= finishing_times(place).items()
    assert figures(place) == figures(undisturbed)
    pandas.testing.assert_frame_equal(report(place), report(undisturbed))
    command = json.loads(next(iter(before)).read_text(encoding="utf-8"))["command"]
    assert command[:4] == ["lshbench", "run", "--config-dir", "mine"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin", "extra"),
    [("submitit_local", "hydra_submitit_launcher", "submitit"), ("ray", "hydra_ray_launcher", "ray")],
)
def test_launchers_run_a_sweep_on_this_machine_and_a_failure_is_named(
    place: Path, shared_cache: Path, launcher: str, plugin: str, extra: str
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"needs the extra: pip install -e '.[{extra}]'")
    sweep = (
        "run", "-m", "--config-dir", "mine", *SMALL, "method=fragile", "bits=16", "seed=range(3)", "threads=1",
        f"hydra/launcher={launcher}",
    )  # fmt: skip
    (place / "broken").touch()
    told = end(start(place, shared_cache, *sweep), 1)
    assert "3 jobs: 2 computed, 1 failed" in told
    assert "RuntimeError: the disk is on fire" in told
    (place / "broken").unlink()
    assert "3 jobs: 1 computed, 2 finished before" in end(start(place, shared_cache, *sweep))
    assert len(figures(place)) == 3


@pytest.mark.slow
def test_two_equal_sweeps_at_once_do_every_job_once(place: Path, shared_cache: Path, undisturbed: Path) -> None:
    both = [start(place, shared_cache) for _ in range(2)]
    for process in both:
        end(process)
    assert figures(place) == figures(undisturbed)


@pytest.mark.slow
def test_a_reader_that_leaves_stops_no_sweep(tmp_path: Path, shared_cache: Path) -> None:
    words = ("run", "-m", *SMALL, "method=random_projection", "bits=8,16", "seed=0,1")
    process = start(tmp_path, shared_cache, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    assert process.wait(timeout=200) == 0, told
    assert "4 jobs: 4 computed" in told
    assert len(figures(tmp_path)) == 4


@pytest.mark.slow
def test_an_interrupted_sweep_ends_at_once_and_says_how_to_go_on(place: Path, shared_cache: Path) -> None:
    process = start(place, shared_cache)
    while not finishing_times(place):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    told = end(process, 130)
    assert time.monotonic() - begun < 10
    assert "goes on where it was" in told.splitlines()[-1]
