"""The folder of a run: written by :class:`RunFolder`, read by :class:`Run`.

``metrics.json`` is written last and in one step, so that its existence means that the run is finished.  Every
other file is written in one step too: a temporary file beside it, flushed to the disk, then renamed.  Nothing
here reads or writes a pickle.
"""

from __future__ import annotations

from lshbench.run_folder.disk import atomic_file
from lshbench.run_folder.metrics import SCHEMA_VERSION, RunMetrics
from lshbench.run_folder.reader import Run, find_finished, finished_runs, metrics_schema
from lshbench.run_folder.writer import RunFolder, computing

__all__ = [
    "SCHEMA_VERSION",
    "Run",
    "RunFolder",
    "RunMetrics",
    "atomic_file",
    "computing",
    "find_finished",
    "finished_runs",
    "metrics_schema",
]
