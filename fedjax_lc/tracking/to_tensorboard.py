"""`tensorboard`: every metric as a series of scalars, in event files that TensorBoard shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import unwritable
from fedjax_lc.tracking.base import About, flat_summary, needed, place, tag

DOUBLE = 2  #: TensorFlow's number of the type float64


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
        protos = ("event", "summary", "tensor", "tensor_shape")
        self.proto = {name: needed(f"tensorboardX.proto.{name}_pb2", "tensorboard") for name in protos}
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
        """One event with all numbers, as float64, which simple values would cut to float32."""
        kinds, tensors = self.proto["summary"], self.proto["tensor"]
        about = kinds.SummaryMetadata(plugin_data=kinds.SummaryMetadata.PluginData(plugin_name="scalars"))
        shape = self.proto["tensor_shape"].TensorShapeProto()
        values = [
            kinds.Summary.Value(tag=name, metadata=about,
                                tensor=tensors.TensorProto(dtype=DOUBLE, double_val=[float(n)], tensor_shape=shape))
            for name, n in numbers.items()
        ]  # fmt: skip
        event = self.proto["event"].Event(wall_time=now, step=step, summary=kinds.Summary(value=values))
        self.writer.add_event(event)
