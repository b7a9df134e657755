"""Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from lshbench.errors import wrong_value
from lshbench.run_folder import Run
from lshbench.trackers.base import Tracker, epochs, figures, files, parameters, pictures, precision_at_k, require, title

Mode = Literal["offline", "online"]


class WandbTracker(Tracker):
    """Runs of a Weights & Biases project; offline ones are files until ``wandb sync`` sends them."""

    def __init__(self, project: str, folder: str, mode: Mode) -> None:
        """Check that wandb is there.

        Args:
            project: under which runs are filed.
            folder: where files go; ``wandb/`` is made in it.
            mode: ``offline`` sends nothing.
        """
        if mode not in get_args(Mode):
            raise wrong_value("tracker.mode", mode, " or ".join(get_args(Mode)))
        require("wandb", "wandb", "wandb")
        self.project = project
        self.folder = folder
        self.mode: Mode = mode

    def log(self, run: Run) -> None:
        """Send a finished run."""
        import wandb

        Path(self.folder).mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, disable_git=True, disable_code=True, x_disable_stats=True)
        sent = wandb.init(
            project=self.project, dir=self.folder, mode=self.mode, name=title(run), config=parameters(run),
            settings=settings, reinit="create_new",
        )  # fmt: skip
        # Epochs and ranks are axes of their own: the tracker's own steps only ever grow.
        sent.define_metric("epoch")
        sent.define_metric("training/*", step_metric="epoch")
        sent.define_metric("k")
        sent.define_metric("curves/*", step_metric="k")
        for epoch, terms in epochs(run):
            sent.log({"epoch": epoch, **terms})
        for k, value in precision_at_k(run):
            sent.log({"k": k, "curves/precision_at_k": value})
        sent.log({f"plots/{path.stem}": wandb.Image(str(path)) for path in pictures(run)})
        sent.summary.update(figures(run))
        for path in files(run):
            sent.save(str(path), base_path=str(run.path), policy="now")
        sent.finish()
