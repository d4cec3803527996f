"""What a tracker is, trackers by name, and a run's records on their way to several of them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from fedjax_lc.core.errors import InputError, one_line, unknown
from fedjax_lc.core.progress import say

NAMES = ("csv", "tensorboard", "wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class About:
    """A run, or one lane of a sweep, as a tracker first hears of it.

    Attributes:
        name: what to call it, as in locodl or locodl-3.
        group: the sweep that it is a lane of; "" for a run.
        labels: what tells it from the others in one table: method; for a lane also lane, seed and settings.
        config: plain values that say what is run.
        folder: where the results are kept; None for a run that is in memory alone.
        identity: a word by which it is known again when it goes on.
    """

    name: str
    group: str
    labels: Mapping[str, Any]
    config: Mapping[str, Any]
    folder: Path | None
    identity: str


class Log(Protocol):
    """Takes the records of one run."""

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take r further records: step and every cost and metric by name, (r,) each, as in `Trace.columns`."""

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        """No record follows. status: as of a Trace; summary: as `Trace.summary` gives it."""


class Tracker(Protocol):
    """Begins a log for every run. Any object of this form can be given to `track=`.

    Attributes:
        most: the lanes of a sweep that it can log side by side.
    """

    most: int

    def start(self, about: About) -> Log:
        """The log of a run. It is given all records of the run, those made before it went on too.

        Raises:
            InputError: it cannot begin, for example as a package is missing.
        """


def names() -> tuple[str, ...]:
    """Names of the trackers that come with the package."""
    return NAMES


def parse(track: Any, folder: Path | None) -> list[Any]:
    """Trackers from "csv", "wandb:PROJECT", a tracker, or a list of these.

    Args:
        folder: where the run keeps its results, or None.

    Raises:
        InputError: a name is unknown, a package is not installed, or there is no place for a tracker's files.

    Example:
        >>> parse(["csv", "tensorboard"], Path("runs/a"))
    """
    each = [] if track is None else list(track) if isinstance(track, list | tuple) else [track]
    return [_made(one, folder) if isinstance(one, str) else _checked(one) for one in each]


def _made(text: str, folder: Path | None) -> Any:
    name, _, argument = text.partition(":")
    if name not in NAMES:
        raise unknown("tracker", name, NAMES)
    module = importlib.import_module(f"fedjax_lc.tracking.to_{name}")
    return module.make(argument, folder)


def _checked(tracker: Any) -> Any:
    if not callable(getattr(tracker, "start", None)):
        raise InputError(f"track takes names ({', '.join(NAMES)}) and trackers with a method start(about), got "
                         f"{type(tracker).__name__}")  # fmt: skip
    return tracker


def needed(package: str, extra: str) -> ModuleType:
    """An optional package.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(f"track {extra}: the package {package.partition('.')[0]} is not installed: pip install "
                         f"'fedjax_lc[{extra}]'") from None  # fmt: skip


def _begun(tracker: Any, about: About) -> Any:
    try:
        return tracker.start(about)
    except InputError:
        raise
    except Exception as error:  # whatever a service answers
        raise InputError(f"track: {type(tracker).__name__} cannot begin: {one_line(error)}") from error


class Tracking:
    """The logs of one run in all trackers. A tracker that fails is left out from then on, and one line says so.

    Args:
        logs: pairs of a tracker and its log.
    """

    def __init__(self, logs: Sequence[tuple[Any, Any]]) -> None:
        self.logs = list(logs)

    @classmethod
    def begun(cls, trackers: Sequence[Any], about: About) -> Tracking:
        """The logs of a run that begins.

        Raises:
            InputError: a tracker cannot begin.
        """
        return cls([(tracker, _begun(tracker, about)) for tracker in trackers])

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        if len(columns["step"]):
            self._all(lambda log: log.add(columns))

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        self._all(lambda log: log.end(status, summary))

    def _all(self, call: Callable[[Any], Any]) -> None:
        for tracker, log in list(self.logs):
            try:
                call(log)
            except Exception as error:  # which must not end the run
                self.logs.remove((tracker, log))
                say(f"note: {type(tracker).__name__} is left out from here on: {one_line(error)}")


def flat_summary(summary: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """A summary under names such as best/value, last/value and best_step/value."""
    kinds = {"last": "last", "best": "best", "step": "best_step"}
    return {
        f"{word}/{name}": each[kind] for name, each in summary.items() for kind, word in kinds.items() if kind in each
    }


def tag(name: str) -> str:
    """The name of a series where brackets may not be used: client_train_loss[3] is client_train_loss/3."""
    return name.replace("[", "/").replace("]", "")


def place(name: str, argument: str, folder: Path | None, usual: str) -> Path:
    """Where a tracker's files go: the path that is given, or one in the folder of the results.

    Raises:
        InputError: there is neither.
    """
    if argument:
        return Path(argument).expanduser()
    if folder is None:
        raise InputError(f"track {name}: there is no folder for its files: give out, or a path, as in {name}:{usual}")
    return folder / usual
