"""`extend`: more steps of a run that is done."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.compressors import Compressor, parse
from fedjax_lc.core.devices import of_clients, together
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems import Problem
from fedjax_lc.problems.from_data import remade
from fedjax_lc.results.trace import Trace
from fedjax_lc.running import folder as folders
from fedjax_lc.running import loop
from fedjax_lc.running.checkpoints import Schedule
from fedjax_lc.running.options import task
from fedjax_lc.running.placing import Places
from fedjax_lc.running.run import Run
from fedjax_lc.running.watch import Watch

#: entries of config.json that are made anew
OF_TRACE = ("status", "f_star", "initial", "notes", "identity")


class How(TypedDict, total=False):
    """Options that decide no number, explained in `fl.run`."""

    checkpoint_every: float | str | None
    other_code: bool
    devices: Mesh | None
    track: Any


def extend(
    out: str | Path,
    steps: int,
    *,
    problem: Problem | None = None,
    hp: Any = None,
    x0: Any = None,
    measure: Sequence[str] | Mapping[str, loop.Metric] | None = None,
    on_chunk: Callable[[Trace], Any] | None = None,
    progress: bool = True,
    **how: Unpack[How],
) -> Trace:
    """Continue a run that is done, by more steps. The trace is, bit for bit, that of one run of the total length.

    What the folder cannot make again must be given as it was given to `fl.run`; anything else than that is refused. An
    extension that was interrupted goes on when the same call is made again.

    Args:
        out: the folder of `fl.run(..., out=...)` or of `fedjax-lc run ... --out`.
        steps: how many more, cut to a multiple of the run's `every`.
        problem: that of the run. It may be left out where `fl.problem` made it from the name of a data set (or a file)
            and plain options, or the command line did.
        hp: the hyperparameters of the run. They may be left out if they consist of numbers, words and compressors.
        x0: the start, if one was given.
        measure: further metrics, if one of them is a function.
        on_chunk, progress, checkpoint_every, other_code, devices, track: as in `fl.run`.

    Raises:
        InputError: the run was not finished, or ended before its last step (it reached its target, spent its budget or
            diverged); an argument is missing, or is not that of the run.

    Example:
        >>> fl.run("diana", fl.problem("a9a", clients=20), steps=10_000, out="runs/a")
        >>> trace = fl.extend("runs/a", steps=10_000)
        >>> len(trace)
        2000
    """
    path = Path(out)
    config = folders.read(path)
    if config is None:
        raise InputError(f"{path} holds no run: expected the out of a run that is done")
    begun = _Begun(path, config)
    total, more, notes = begun.total(steps)
    algorithm = algorithms.get(config["method"])
    problem = begun.problem() if problem is None else problem
    measure = begun.metrics(algorithm, problem) if measure is None else measure
    options = {"steps": total, "x0": x0, "measure": measure, **begun.options}
    checked_task = task("extend", algorithm, problem, options)  # type: ignore[arg-type]
    hp = begun.hparams(algorithm) if hp is None else hp
    algorithm.check(checked_task.problem, hp)
    checked_task.notes.extend(notes)
    facts = begun.facts(total, more)
    places = Places(of_clients(how.get("devices") or problem.mesh))
    watch = Watch(how.get("track"), config["identity"].get("keep_best"))
    work = Run(algorithm, checked_task, hp, begun.key(), progress, facts, places, watch)
    schedule, other_code = Schedule(how.get("checkpoint_every")), how.get("other_code", False)
    with contextlib.ExitStack() as stack:
        with together(places.mesh):
            before = work.identity() | {folders.LENGTH: begun.steps}
            opened = folders.opened(path, before, schedule, other_code=other_code, extended=True, mesh=places.mesh)
            folder = stack.enter_context(opened)
        with together(places.mesh):  # once all have seen what the folder holds
            if total != begun.steps:
                folder.lengthen(total, work.shapes, facts)
        return work.result(folder, on_chunk)


def metrics(path: Path, names: list[str], algorithm: Algorithm, problem: Problem) -> list[str]:
    """The names of the metrics that a folder's results have.

    Raises:
        InputError: one of them is a function.
    """
    try:
        loop.choose_metrics(algorithm, problem, names)
    except InputError:
        raise InputError(f"{path} has metrics that are functions ({', '.join(names)}): give measure=") from None
    return names


@dataclasses.dataclass
class _Begun:
    """A run as its config.json describes it."""

    path: Path
    config: dict[str, Any]

    def __post_init__(self) -> None:
        identity = self.config["identity"]
        kinds = {"steps": int, "every": int, "rel_gap": float | int | None, "budget": dict, "metrics": list}
        if not all(isinstance(identity.get(name, ...), kind) for name, kind in kinds.items()):
            raise self._damaged()
        self.steps, self.names = identity["steps"], [str(name) for name in identity["metrics"]]
        self.options = {name: identity[name] for name in ("every", "rel_gap", "budget")}

    def total(self, steps: int) -> tuple[int, int, list[str]]:
        """The steps of the whole run, by how many it is extended, and notes.

        Raises:
            InputError: it cannot be extended.
        """
        records, every, notes = loop.whole_records(steps, self.options["every"])
        status, more = self.config.get("status"), records * every
        if status == "interrupted" and self.config.get(folders.EXTENDED) == more:
            return self.steps, more, notes  # the extension that was interrupted
        if status == "interrupted":
            raise InputError(f"{self.path} holds a run that is not done: let it go on to step {self.steps} by the call "
                             "that began it, then extend it")  # fmt: skip
        made = len(Trace.load(self.path)) * every
        if status != "finished" or made < self.steps:
            why = {"target": "reached its target", "diverged": "diverged"}.get(str(status), "spent its budget")
            raise InputError(
                f"{self.path} holds a run that {why} at step {made}: with more steps it would end there too"
            )
        return self.steps + more, more, notes

    def problem(self) -> Problem:
        """The problem, made again.

        Raises:
            InputError: the folder does not say how.
        """
        if self.config.get("recipe") is None:
            raise InputError(f"{self.path} does not say how its problem was made: give problem=")
        return remade(self.config["recipe"])

    def metrics(self, algorithm: Algorithm, problem: Problem) -> list[str]:
        """The names of the metrics.

        Raises:
            InputError: one of them is a function.
        """
        return metrics(self.path, self.names, algorithm, problem)

    def hparams(self, algorithm: Algorithm) -> Any:
        """The hyperparameters, made again from their description.

        Raises:
            InputError: it does not describe them.
        """

        def value(name: str, described: Any) -> Any:
            if isinstance(described, str) and algorithm.options[name].admits(Compressor):
                return parse(described)
            return np.asarray(described) if isinstance(described, list) else described

        try:
            described = dict(self.config["hyperparameters"])
            return algorithm.Hparams(**{name: value(name, each) for name, each in described.items()})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(f"{self.path} does not say all of its hyperparameters: give hp=") from None

    def key(self) -> jax.Array:
        """The key of the run."""
        try:
            data = jnp.asarray(np.array(self.config["key"], np.uint32))
            return jax.random.wrap_key_data(data, impl=self.config["key_impl"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._damaged() from None

    def facts(self, total: int, more: int) -> dict[str, Any]:
        """What else config.json holds, and what the extension changes there."""
        facts = {name: fact for name, fact in self.config.items() if name not in OF_TRACE}
        if isinstance(settings := facts.get("settings"), dict):
            facts["settings"] = settings | {"steps": total}
        return facts | {folders.EXTENDED: more}

    def _damaged(self) -> InputError:
        return InputError(f"{self.path}/config.json is damaged: restore it, or run anew in another folder")
