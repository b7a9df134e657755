"""Trackio."""

from __future__ import annotations

from lshbench.run_folder import Run
from lshbench.trackers.base import Tracker, epochs, figures, parameters, pictures, precision_at_k, require, title


class TrackioTracker(Tracker):
    """Runs of a Trackio project, on this machine; ``trackio show`` opens them."""

    def __init__(self, project: str) -> None:
        """Check that Trackio is there.

        Args:
            project: under which runs are filed.
        """
        require("trackio", "trackio", "trackio")
        self.project = project

    def log(self, run: Run) -> None:
        """Send a finished run."""
        import trackio

        name = f"{title(run)} {run.metrics.run_id}"
        sent = trackio.init(project=self.project, name=name, config=parameters(run), embed=False)
        for epoch, terms in epochs(run):
            sent.log({"epoch": epoch, **terms})
        for k, value in precision_at_k(run):
            sent.log({"k": k, "curves/precision_at_k": value})
        sent.log({**figures(run), **{f"plots/{path.stem}": trackio.Image(path) for path in pictures(run)}})
        sent.finish()
