"""A curve of a figure: a method, what is set of it, and what is tried."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_lc import algorithms, compressors
from fedjax_lc.problems import Problem
from fedjax_lc.problems.drift import Drifting
from fedjax_lc.sweeping.grid import Grid, grid

WAYS = {"compressor", "downlink", "reset"}  #: fields that are compressors


@dataclasses.dataclass(frozen=True)
class Contender:
    """A method, choices of its theory, fields that are changed afterwards, and values that are tried.

    `tune` maps names to the values that are tried, all combinations. A value of `choices` or `tune` may be a function
    of the problem, and one of `changes` a function of the problem and theory's hyperparameters. `paper` is a published
    value, shown beside ours. `scaled` names the fields that are multiplied where step sizes are. The curve is called
    `name`, or after its method, its compressor and `note`. `pace`: steps that it takes where others take one, of
    methods whose steps are local ones.
    """

    method: str
    compressor: str | None = None
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tune: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    name: str = ""
    paper: Any = None
    scaled: Sequence[str] = ("gamma",)
    pace: int = 1

    @property
    def label(self) -> str:
        title = algorithms.get(self.method).title
        return self.name or ", ".join(filter(None, (title, self.compressor, self.note)))

    def hparams(self, problem: Problem, **more: Any) -> Any:
        """Theory's with the choices (and `more`, which come before them) and the changes."""
        choices = ({"compressor": self.compressor} if self.compressor else {}) | _values(self.choices, problem) | more
        hp = algorithms.get(self.method).theory(problem, **choices)
        return dataclasses.replace(hp, **_values(self.changes, problem, hp))

    def tried(self, problem: Problem) -> dict[str, Sequence[Any]]:
        """Values by name."""
        return _values(self.tune, problem)

    def on(self, problem: Any) -> Any:
        """The problem as this curve meets it: data that drift do so in as many more steps as it takes."""
        if not isinstance(problem, Drifting):
            return problem
        return dataclasses.replace(problem, every=self.pace * problem.every)

    def grid(self, problem: Problem) -> Grid:
        """All that is tried."""
        return grid(self.hparams(problem), **self.tried(problem))


def fields(method: str) -> set[str]:
    """Names of a method's hyperparameters."""
    return {field.name for field in dataclasses.fields(algorithms.get(method).Hparams)}


def everywhere(method: str, compressor: str) -> dict[str, Any]:
    """Changes that compress this way wherever the method compresses."""
    return dict.fromkeys(WAYS & fields(method), compressors.parse(compressor))


def _values(given: Mapping[str, Any], *arguments: Any) -> dict[str, Any]:
    return {name: value(*arguments) if inspect.isfunction(value) else value for name, value in given.items()}
