"""Progress: bars on a terminal, log lines elsewhere, the work itself untouched."""

from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from lshbench.runtime.progress import Bars, LogLines, amount, duration, progress_for, silent, speed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=width, _environ={"TERM": "xterm-256color"}), stream


def final_lines(stream: io.StringIO) -> list[str]:
    """What stands on the screen in the end: the last drawing of each line, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    return [line.split("\r")[-1].rstrip() for line in text.split("\n") if line.strip()]


def test_a_terminal_gets_bars_and_everything_else_log_lines() -> None:
    assert isinstance(progress_for(terminal()[0]), Bars)
    assert isinstance(progress_for(Console(file=io.StringIO())), LogLines)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(progress_for(dumb), LogLines)


def test_a_bar_shows_what_how_much_and_how_fast_within_80_columns() -> None:
    console, stream = terminal()
    with Bars(console)("extracting features of train", total=50_000, unit="images") as advance:
        advance(20_000)
        advance(30_000)
    last = final_lines(stream)[-1]
    assert last.startswith("extracting features of train")
    assert "50,000/50,000 images" in last
    assert re.search(r"[\d,]+/s +\d+\.\d s$", last)
    assert len(last) <= 80


def test_consecutive_work_leaves_its_bars_and_nested_work_does_not() -> None:
    console, stream = terminal()
    bars = Bars(console)
    for name in ("first", "second"):
        with bars(name, total=2, unit="epochs") as advance:
            for _ in range(2):
                with bars("inner", total=3, unit="batches") as inner:
                    inner(3)
                advance(1)
    lines = final_lines(stream)
    done = [line for line in lines if "2/2 epochs" in line]
    assert any(line.startswith("first") for line in done)
    assert lines[-1].startswith("second")
    assert "2/2 epochs" in lines[-1]


def test_work_of_unknown_length_ends_with_what_was_counted() -> None:
    console, stream = terminal()
    with Bars(console)("reading", total=None, unit="rows") as advance:
        advance(7)
    assert "7/7 rows" in final_lines(stream)[-1]


def test_bars_give_the_terminal_back_when_work_fails_and_can_be_used_again() -> None:
    console, stream = terminal()
    bars = Bars(console)

    def fail() -> None:
        with bars("work", total=5, unit="items") as advance:
            advance(2)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert "2/5 items" in final_lines(stream)[-1]
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again
    with bars("work", total=1, unit="items") as advance:
        advance(1)
    assert "1/1 items" in final_lines(stream)[-1]


def test_log_lines_come_at_the_start_every_ten_seconds_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    with LogLines(clock=clock)("encoding", total=100, unit="images") as advance:
        for _ in range(20):
            clock.now += 1.5
            advance(5)
    assert caplog.messages == [
        "encoding: 100 images to do",
        "encoding: 35/100 images, 3.3 images/s, 20 s left",
        "encoding: 70/100 images, 3.3 images/s, 9.0 s left",
        "encoding: 100 images in 30 s (3.3 images/s)",
    ]


def test_nested_work_is_logged_only_if_it_takes_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    lines = LogLines(clock=clock)
    with lines("training", total=2, unit="epochs") as epoch:
        for seconds in (1, 12):
            with lines("batches", total=2, unit="batches") as batch:
                clock.now += seconds
                batch(1)
                batch(1)
            epoch(1)
    assert [line for line in caplog.messages if line.startswith("batches")] == [
        "batches: 1/2 batches, 12.0 s each, 12 s left",
        "batches: 2 batches in 12 s (6.0 s each)",
    ]
    assert caplog.messages[-1] == "training: 2 epochs in 13 s (6.5 s each)"


def test_work_that_fails_is_said_to_have_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def fail() -> None:
        with LogLines(clock=Clock())("reading", total=9, unit="rows") as advance:
            advance(4)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert caplog.messages[-1] == "reading: stopped at 4/9 rows after 0.0 s"


def test_no_work_at_all_needs_no_rate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with LogLines(clock=Clock())("reading", total=0, unit="rows"):
        pass
    with silent("reading", total=None, unit="rows") as advance:
        advance(3)
    assert caplog.messages == ["reading: 0 rows to do", "reading: 0 rows in 0.0 s"]


def test_numbers_are_written_for_people() -> None:
    assert amount(12345, 50000, "images") == "12,345/50,000 images"
    assert amount(1.2e9, 3.4e9, "bytes") == "1.2/3.4 GB"
    assert amount(900, None, "bytes") == "0.9 kB"
    assert [speed(rate, "epochs") for rate in (1234.5, 2, 0.1, 0)] == [
        "1,234 epochs/s",
        "2.0 epochs/s",
        "10.0 s each",
        "0 epochs/s",
    ]
    assert speed(2.5e6, "bytes") == "2.5 MB/s"
    assert [duration(s) for s in (0.44, 9.97, 59.7, 185, 7620)] == [
        "0.4 s",
        "10 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
