"""MLflow."""

from __future__ import annotations

import re

from lshbench.run_folder import Run
from lshbench.trackers.base import Tracker, epochs, figures, files, parameters, pictures, precision_at_k, require, title

BATCH = 100
"""Parameters and metrics that MLflow takes in one request."""

LONGEST = 500
"""Characters that MLflow takes of a parameter's value."""


class MlflowTracker(Tracker):
    """Runs in MLflow: a local folder or database, or a server."""

    def __init__(self, uri: str | None, experiment: str) -> None:
        """Check that MLflow is there.

        Args:
            uri: of the tracking store, such as ``sqlite:///mlflow.db`` or ``http://host:5000``; None: MLflow's default.
            experiment: under which runs are filed; made if it isn't there.
        """
        require("mlflow", "mlflow", "mlflow")
        self.uri = uri
        self.experiment = experiment

    def log(self, run: Run) -> None:
        """Send a finished run."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(self.experiment)
        number = client.create_experiment(self.experiment) if found is None else found.experiment_id
        sent = client.create_run(number, run_name=title(run)).info.run_id
        settings = [Param(_name(key), str(value)[:LONGEST]) for key, value in parameters(run).items()]
        values = [Metric(_name(key), value, 0, 0) for key, value in figures(run).items()]
        for epoch, terms in epochs(run):
            values += [Metric(_name(key), value, 0, epoch) for key, value in terms.items()]
        values += [Metric("curves/precision_at_k", value, 0, k) for k, value in precision_at_k(run)]
        for start in range(0, max(len(settings), len(values)), BATCH):
            part = slice(start, start + BATCH)
            client.log_batch(sent, params=settings[part], metrics=values[part])
        for path in files(run):
            client.log_artifact(sent, str(path))
        for path in pictures(run):
            client.log_artifact(sent, str(path), "plots")
        client.set_terminated(sent)


def _name(key: str) -> str:
    """Return a key with the characters that MLflow takes in names."""
    return re.sub(r"[^\w./ -]", "_", key)
