"""What looks on while a run goes: its trackers, and the model of the best record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.problems.metric_names import unknown_metric
from fedjax_lc.results.columns import best_record, is_accuracy
from fedjax_lc.results.trace import Trace
from fedjax_lc.running import folder as folders
from fedjax_lc.running.folder import Folder
from fedjax_lc.tracking.base import About, Tracking


class Watch(NamedTuple):
    """Options of `fl.run` that look at its records, explained there."""

    track: Any = None
    keep_best: str | None = None


class Best:
    """The point of the record where a metric is best, of a run that records it.

    Attributes:
        x: (d,) the point; None before the first record, or without a metric.

    Raises:
        InputError: the metric is not recorded.
    """

    def __init__(self, metric: str | None, names: Sequence[str]) -> None:
        if metric is not None and metric not in names:
            raise unknown_metric(metric, names)
        self.metric, self.score = metric, np.inf
        self.x: np.ndarray | None = None

    def check(self, initial: Mapping[str, Any]) -> None:
        """Raise InputError if the metric is more than one number; `initial` has its value at the start."""
        if self.metric is not None and np.ndim(initial[self.metric]):
            raise InputError(f"keep_best={self.metric!r} is a number for each client: give a metric that is one number")

    def see(self, block: Mapping[str, np.ndarray], x: Any) -> None:
        """See a record, the last one of the block, and its point."""
        if self.metric is None or not len(block["step"]):
            return
        score = self._signed(block[self.metric][-1])
        if self.x is None or not (self.score <= score or np.isnan(score)):
            self.score, self.x = score, np.asarray(x, np.float64)

    def go_on(self, block: Mapping[str, np.ndarray], tree: Mapping[str, Any]) -> None:
        """Go on after these records, from the tree of a checkpoint."""
        if self.metric is not None:
            row = best_record(self.metric, block[self.metric])
            self.score = np.nan if row is None else self._signed(block[self.metric][row])
            self.x = tree["best"]

    def _signed(self, value: float) -> float:
        """The less, the better."""
        return -value if is_accuracy(str(self.metric)) else value


def tracking(trackers: Sequence[Any], folder: Folder, trace: Trace) -> Tracking:
    """Trackers that have seen the records of a trace."""
    known = json.dumps([folders.name(folder.identity), str(folder.path)]) if folder.path else os.urandom(16).hex()
    identity = hashlib.sha256(known.encode()).hexdigest()[:16]
    config = json.loads(json.dumps(trace.config, default=str))
    about = About(trace.method, "", {"method": trace.method}, config, folder.path, identity)
    seen = Tracking.begun(trackers, about)
    seen.add(trace.columns())
    return seen


def with_records(trace: Trace, block: Mapping[str, np.ndarray]) -> Trace:
    """The trace with these records in place of those it has."""
    series: dict[str, Any] = {name: block[name] for name in block if name not in trace.metrics}
    return dataclasses.replace(trace, metrics={name: block[name] for name in trace.metrics}, **series)
