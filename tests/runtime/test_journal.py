"""The journal of a sweep's jobs."""

from __future__ import annotations

import os
from pathlib import Path

from lshbench.runtime.journal import Journal, Reporter
from lshbench.runtime.progress import silent


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
