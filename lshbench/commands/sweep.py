"""Outcomes of a sweep's jobs, written by whichever process runs a job and read at the end by the one that swept."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from lshbench.errors import UsageError

log = logging.getLogger(__name__)

JOURNAL = "LSHBENCH_SWEEP_JOURNAL"
"""Environment variable with the journal's path: launchers hand the environment on to their processes."""

State = Literal["computed", "finished before", "failed", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: its overrides, such as ``method=itq bits=16``.
        state: ``refused`` is wrong use, ``failed`` any other failure.
        message: of the failure.
        log: path of the failed job's log, if it has one.
        run: path of the finished run's folder, if there is one.
        output: path below which the sweep's folders lie.
    """

    job: str
    state: State
    message: str = ""
    log: str = ""
    run: str = ""
    output: str = ""

    def record(self) -> None:
        """Append this outcome to the journal of the sweep, if there is one."""
        if path := os.environ.get(JOURNAL):
            # One write of less than a page: lines of several processes don't mix.
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self)) + "\n")


class Journal:
    """Journal of a sweep: a temporary file, one line a job."""

    def __enter__(self) -> Self:
        descriptor, path = tempfile.mkstemp(prefix="lshbench-sweep-", suffix=".jsonl")
        os.close(descriptor)
        self.path = Path(path)
        os.environ[JOURNAL] = path
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(JOURNAL, None)
        self.path.unlink(missing_ok=True)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes so far."""
        return [Outcome(**json.loads(line)) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def report(self) -> int:
        """Say on standard error what became of the jobs; return the exit code: 0, 1 or, all failures wrong use, 2."""
        outcomes = self.outcomes()
        if not outcomes:
            return 0
        counts = Counter(outcome.state for outcome in outcomes)
        parts = [f"{counts[state]} {state}" for state in State.__args__ if counts[state]]  # type: ignore[attr-defined]
        lines = [f"{len(outcomes)} jobs: {', '.join(parts)}"]
        bad = [outcome for outcome in outcomes if outcome.state in ("failed", "refused")]
        for outcome in bad:
            lines.append(f"  {outcome.state}: {outcome.job or '(no overrides)'}")
            lines.append(f"    {outcome.message}" + (f" (log: {outcome.log})" if outcome.log else ""))
        if bad:
            lines.append("The same command does what is missing, and nothing again.")
        if (page := _page(outcomes)) is not None:
            lines.append(f"report of these runs: {page}")
        sys.stderr.write("\n" + "\n".join(lines) + "\n")
        return 0 if not bad else 1 if counts["failed"] else 2


def _page(outcomes: list[Outcome]) -> Path | None:
    """Write the report of a sweep's finished runs below its output folder; return the page's path."""
    from lshbench.report import write_report
    from lshbench.run_folder import Run

    folders = dict.fromkeys(outcome.run for outcome in outcomes if outcome.run)
    if not folders:
        return None
    try:
        return write_report([Run.open(Path(folder)) for folder in folders], Path(outcomes[0].output) / "report")
    except (UsageError, OSError) as error:
        log.warning("the report is missing: %s", error)
        return None
