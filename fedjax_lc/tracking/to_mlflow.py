"""`mlflow:EXPERIMENT`: every record to MLflow, at the address that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.tracking.base import About, flat_summary, needed, tag

EXPERIMENT = "fedjax_lc"
BATCH = 1000  #: numbers that one request takes
LONGEST = 500  #: letters of a parameter
ENDED = {"interrupted": "KILLED", "diverged": "FAILED"}
KNOWN = "fedjax_lc.identity"  #: the tag by which a run is known again


def make(argument: str, folder: Path | None) -> Mlflow:
    return Mlflow(argument or EXPERIMENT, needed("mlflow", "mlflow"))


class Mlflow:
    """An experiment; a run is one of its runs, and each lane of a sweep too."""

    most = 256

    def __init__(self, experiment: str, mlflow: Any) -> None:
        self.experiment, self.mlflow = experiment, mlflow
        self.client = mlflow.MlflowClient()

    def start(self, about: About) -> MlflowLog:
        known = self.client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else self.client.create_experiment(self.experiment)
        for old in self.client.search_runs([number], f"tags.`{KNOWN}` = '{about.identity}'"):
            self.client.delete_run(old.info.run_id)  # the same run, all records of which come again
        run = self.client.create_run(number, run_name=about.name, tags={KNOWN: about.identity, "group": about.group})
        for name, value in {**about.config, **about.labels}.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            with contextlib.suppress(self.mlflow.exceptions.MlflowException):  # a name that MLflow does not take
                self.client.log_param(run.info.run_id, name, text[:LONGEST])
        return MlflowLog(self.client, run.info.run_id, self.mlflow.entities.Metric)


class MlflowLog:
    """One run of MLflow."""

    def __init__(self, client: Any, run: str, metric: Any) -> None:
        self.client, self.run, self.metric, self.last = client, run, metric, 0

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        steps = columns["step"]
        self.last = int(steps[-1])
        self._log([(tag(name), float(column[row]), int(step)) for row, step in enumerate(steps)
                   for name, column in columns.items()])  # fmt: skip

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        self._log([(name, float(value), self.last) for name, value in flat_summary(summary).items()])
        self.client.set_terminated(self.run, ENDED.get(status, "FINISHED"))

    def _log(self, numbers: list[tuple[str, float, int]]) -> None:
        now = int(1000 * time.time())
        for first in range(0, len(numbers), BATCH):
            batch = [self.metric(name, value, now, step) for name, value, step in numbers[first : first + BATCH]]
            self.client.log_batch(self.run, metrics=batch)
