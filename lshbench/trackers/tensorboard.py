"""TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path

from lshbench.run_folder import Run
from lshbench.trackers.base import Tracker, epochs, figures, parameters, pictures, precision_at_k, require, title


class TensorBoardTracker(Tracker):
    """Event files that ``tensorboard --logdir FOLDER`` shows, a folder for each run."""

    def __init__(self, folder: str) -> None:
        """Check that TensorBoard is there.

        Args:
            folder: where event files go.
        """
        require("tensorboard", "tensorboard", "tensorboard")
        self.folder = folder

    def log(self, run: Run) -> None:
        """Send a finished run."""
        import numpy as np
        from PIL import Image
        from torch.utils.tensorboard import SummaryWriter

        name = re.sub(r"\W+", "-", title(run))
        with SummaryWriter(str(Path(self.folder) / f"{name}-{run.metrics.run_id}")) as writer:
            settings = {key: value if isinstance(value, int | float | str) else str(value)
                        for key, value in parameters(run).items()}  # fmt: skip
            # Without a name of its own, the hyper-parameters become a run beside this one.
            writer.add_hparams(settings, figures(run), run_name=".")
            for epoch, terms in epochs(run):
                for key, value in terms.items():
                    writer.add_scalar(key, value, epoch)
            for k, value in precision_at_k(run):
                writer.add_scalar("curves/precision_at_k", value, k)
            for path in pictures(run):
                with Image.open(path) as image:
                    writer.add_image(f"plots/{path.stem}", np.asarray(image.convert("RGB")), dataformats="HWC")
