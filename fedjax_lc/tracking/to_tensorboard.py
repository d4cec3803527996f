"""`tensorboard`: every metric as a series of scalars (float32), in event files that TensorBoard shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import unwritable
from fedjax_lc.tracking.base import About, flat_summary, needed, place, tag


def make(argument: str, folder: Path | None) -> TensorBoard:
    needed("tensorboardX", "tensorboard")
    return TensorBoard(place("tensorboard", argument, folder, "tensorboard"))


class TensorBoard:
    """A folder of event files: that of a run, or one below it for each lane of a sweep."""

    most = 256

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise InputError(f"track tensorboard: {path} is no folder: give one, as in tensorboard:runs")
        self.path = path

    def start(self, about: About) -> TensorBoardLog:
        return TensorBoardLog(self.path / about.name if about.group else self.path)


class TensorBoardLog:
    """The event file of one run. It is written anew where a run goes on, as all records come again."""

    def __init__(self, folder: Path) -> None:
        writer = needed("tensorboardX.event_file_writer", "tensorboard")
        self.event = needed("tensorboardX.proto.event_pb2", "tensorboard").Event
        self.summary = needed("tensorboardX.proto.summary_pb2", "tensorboard").Summary
        self.last = 0
        try:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self.writer = writer.EventFileWriter(str(folder))
        except OSError as error:
            raise unwritable(folder, error) from None

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        now = time.time()
        series = {tag(name): column for name, column in columns.items() if name != "step"}
        for row, step in enumerate(columns["step"]):
            self._write({name: column[row] for name, column in series.items()}, int(step), now)
        self.last = int(columns["step"][-1])
        self.writer.flush()

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        if summary:
            self._write(flat_summary(summary), self.last, time.time())
        self.writer.close()

    def _write(self, numbers: Mapping[str, Any], step: int, now: float) -> None:
        """One event with all numbers, as simple values: TensorBoard's quick reader takes no float64."""
        values = [self.summary.Value(tag=name, simple_value=float(number)) for name, number in numbers.items()]
        self.writer.add_event(self.event(wall_time=now, step=step, summary=self.summary(value=values)))
