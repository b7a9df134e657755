"""What a sweep shows while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lshbench.commands.sweep_view import Lines, LiveTable, table, time_left
from lshbench.runtime.journal import Job
from lshbench.runtime.logs import shown_live


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
