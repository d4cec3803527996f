"""Sweeps: every configuration and seed of a method is one lane of one batched program."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.devices import of_lanes
from fedjax_lc.core.digest import digest
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.lock import locked
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.progress import say
from fedjax_lc.problems import Problem
from fedjax_lc.results.columns import SERIES, column
from fedjax_lc.results.provenance import describe, describe_problem, environment, identity
from fedjax_lc.results.table import Table
from fedjax_lc.running import loop
from fedjax_lc.running.options import Options, Task, task
from fedjax_lc.running.signals import interruptible
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.fit import Blocks, RecordsBar, Room
from fedjax_lc.sweeping.grid import Grid
from fedjax_lc.sweeping.groups import TRIP_COUNTS, Group, group
from fedjax_lc.sweeping.store import Store

if TYPE_CHECKING:
    import pandas as pd


class SweepOptions(Options, total=False):
    """Options of `fl.sweep`, explained there."""

    other_code: bool


def sweep(
    method: str | Algorithm,
    problem: Problem,
    hparams: Any = None,
    *,
    seeds: int | Sequence[int] = 1,
    masked: Sequence[str] = (),
    out: str | Path | None = None,
    block_size: int | None = None,
    memory: int | None = None,
    devices: Mesh | Sequence[Any] | int | None = None,
    progress: bool = True,
    **options: Unpack[SweepOptions],
) -> Table:
    """Run `method` once for every configuration and seed, as lanes of one batched program.

    A lane computes what `fl.run` with its hyperparameters and `key=jax.random.key(seed)` does, to rounding: lanes of
    one seed use common random numbers. Configurations whose trees have one structure share a program; numbers never
    recompile. A lane that diverges, or reaches a limit, gives its slot to the next one and disturbs no other.

    Args:
        method: a name of `fl.algorithms.names()`, or an Algorithm.
        hparams: `fl.grid(...)`, `fl.sample(...)`, one Hparams or a list of them; None for those of the method's theory.
        seeds: the number S of seeds 0..S-1, or a list of seeds. Seed s is `jax.random.key(s)`.
        masked: ["local_steps"] runs lanes with different numbers of local steps side by side, each masked once it is
            done; by default one number of local steps runs after the other.
        out: folder of the results. Parts are written as they finish; the same call continues an unfinished sweep. One
            process at a time may have it. Other code of the method, functions, source of this package or versions of
            JAX than those that began it are refused.
        block_size: lanes side by side; default: what fits in `memory`, at most 256 on a CPU.
        memory: bytes to use on each device; default: half of what is free.
        devices: number of local devices, a list of them, or `fl.devices(lanes=...)`; default: all.
        progress: print the plan (on stderr) and show a bar.
        other_code: whether to keep what such other code or versions computed in `out`, and to go on from there.
        options: steps, every, rel_gap, budget, x0 and measure, as in `fl.run`, for every lane.

    Returns:
        The Table; lane number = configuration * number of seeds + place of the seed. After Ctrl-C it holds what was
        done; unfinished lanes have the status "interrupted".

    Raises:
        InputError: an argument cannot be used, or `out` holds a different sweep; raised before any work starts.

    Example:
        >>> grid = fl.grid(alg.theory(problem), gamma=fl.times([0.5, 1, 2]), p=[0.05, 0.1])
        >>> table = fl.sweep("locodl", problem, grid, seeds=8, steps=20_000, rel_gap=1e-8)
        >>> table.best("bits_up", rel_gap=1e-8)
    """
    algorithm = algorithms.get(method)
    refuse_unknown("sweep", options, SweepOptions)
    other_code = options.pop("other_code", False)
    checked_task = task("sweep", algorithm, problem, options)
    problem = checked_task.problem
    grid = Grid.of(algorithm.theory(problem) if hparams is None else hparams)
    for hp in grid.hparams:
        algorithm.check(problem, hp)
    masked = (masked,) if isinstance(masked, str) else tuple(masked)
    for name in masked:
        if name not in TRIP_COUNTS:
            raise unknown("field to mask", name, TRIP_COUNTS)
    # raises if a limit has no meaning for this problem
    loop.make_limits(problem, float(jax.jit(_first_value)(problem)), checked_task.rel_gap, checked_task.budget)
    room = Room(of_lanes(devices), _whole_number("block_size", block_size), _whole_number("memory", memory))
    work = _Sweep(algorithm, checked_task, grid, _seeds(seeds), masked, room, say if progress else _nothing)
    for note in checked_task.notes:
        work.say(f"note: {note}")
    with contextlib.nullcontext() if out is None else locked(out):
        return work.go(None if out is None else Path(out), progress, other_code)


def _nothing(line: str) -> None:
    """Ignore a line for people."""


def _first_value(problem: Problem) -> jax.Array:
    return problem.value(problem.x0)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    wrong = InputError(f"seeds must be a number >= 1 or different whole numbers >= 0, got {seeds}")
    try:
        chosen = tuple(map(operator.index, seeds if isinstance(seeds, Iterable) else range(operator.index(seeds))))
    except TypeError:
        raise wrong from None
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise wrong
    return chosen


def _whole_number(name: str, number: Any) -> int | None:
    """None, or a whole number >= 1."""
    if number is None:
        return None
    if int(number) != number or number < 1:
        raise InputError(f"{name} must be a whole number >= 1, got {number}")
    return int(number)


@dataclasses.dataclass
class _Sweep:
    """A sweep as the host sees it: groups of lanes, their parts, and the table."""

    algorithm: Algorithm
    task: Task
    grid: Grid
    seeds: tuple[int, ...]
    masked: tuple[str, ...]
    room: Room
    say: Callable[[str], None]

    def go(self, out: Path | None, progress: bool, other_code: bool) -> Table:
        self.store = Store(out, self._identity(), self.say, other_code)
        finished = self.store.table()
        if finished is not None:
            self.say(f"{out} holds this sweep, finished")
            return finished
        groups = group(self.grid.hparams, self.task.problem.dtype, self.seeds, self.masked)
        programs = len({str(g.lanes.structure) for g in groups})
        self.say(f"{self.algorithm.title}: {len(self.grid)} configurations x {len(self.seeds)} seeds = "
                 f"{self.lanes} lanes in {programs} program{'s' * (programs > 1)}")  # fmt: skip
        ended: list[Ended] = []
        with (
            RecordsBar(self.algorithm.title, self.lanes, self.task.records, progress) as bar,
            interruptible() as interrupted,
        ):
            for number, members in enumerate(groups):
                if not interrupted():
                    ended += self._run(number, members, bar, interrupted)
        table = self._table(ended)
        self._report_diverged(table)
        if _whole(table.lanes):
            self.store.finish(table)
        return table

    @property
    def lanes(self) -> int:
        return len(self.grid) * len(self.seeds)

    def _run(self, number: int, members: Group, bar: RecordsBar, interrupted: Callable[[], bool]) -> list[Ended]:
        """The results of all parts of one group: read if they are saved, else run now."""
        blocks = Blocks(self.algorithm, self.task, self.room, self.store, number, members, self.say)
        size = blocks.part_size
        places = np.arange(len(members.lanes.numbers))
        ended = []
        shares = np.split(places, range(size, len(places), size))
        for part, chosen in enumerate(shares):
            bar.at(part, len(shares))
            results = self.store.part(number, part)
            if results is None:
                results = blocks.run(members.lanes.take(chosen), bar, interrupted)
                if _whole(results.lanes):
                    self.store.save(number, part, results)
            else:
                bar.show(len(chosen) * self.task.records, len(chosen))
            ended.append(results)
            if interrupted():
                break
        return ended

    # --- results ---

    def _identity(self) -> dict[str, Any]:
        """Everything that determines the results."""
        return {
            **identity(self.algorithm, self.task.problem, self.grid.hparams, self.task.metrics.of_state),
            "seeds": list(self.seeds),
            "steps": self.task.records * self.task.every,
            "every": self.task.every,
            "rel_gap": self.task.rel_gap,
            "budget": self.task.budget,
            "metrics": list(self.task.metrics.names),
            "masked": list(self.masked),
            "block_size": self.room.block_size,
            "devices": self.room.mesh.size,
        }

    def _table(self, ended: list[Ended]) -> Table:
        """The table of all lanes; lanes that never began have the status "interrupted"."""
        import pandas as pd

        number = np.arange(self.lanes)
        config, seed = np.divmod(number, len(self.seeds))
        settings, names, rows = self._columns()
        lanes = pd.DataFrame({"method": self.algorithm.name, "config": config, "seed": np.array(self.seeds)[seed]})
        for name in dict.fromkeys([*settings, *names]):
            lanes[name] = [rows[c].get(name) for c in config]
        names_of = [*SERIES, *(column(name) for name in self.task.metrics.names[1:]), "seconds"]
        nothing = Ended(pd.DataFrame(columns=names_of), pd.DataFrame(columns=["status", "initial", "seconds"]))
        ended = ended or [nothing]
        outcomes = pd.concat([e.lanes for e in ended]).reindex(number)
        lanes["status"] = outcomes["status"].fillna("interrupted")
        lanes["initial"], lanes["f_star"] = outcomes["initial"], self.task.problem.f_star
        lanes["seconds"] = outcomes["seconds"].fillna(0.0)
        records = pd.concat([e.records for e in ended], ignore_index=True).sort_values("lane", kind="stable")
        return Table(lanes, records.reset_index(drop=True), self._config(settings, names))

    def _columns(self) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        """The columns of settings, those of hyperparameters, and the values of both for each configuration."""
        metrics = self.task.metrics.names
        columns = lambda row: {column(name, metrics): value for name, value in row.items()}
        chosen = [columns(row) for row in self.grid.settings]
        described = [columns(describe(hp)) for hp in self.grid.hparams]
        names = [list(dict.fromkeys(name for row in rows for name in row)) for rows in (chosen, described)]
        return names[0], names[1], [one | other for one, other in zip(chosen, described, strict=True)]

    def _config(self, settings: list[str], hyperparameters: list[str]) -> dict[str, Any]:
        metrics = self.task.metrics.names
        axes = {column(name, metrics): list(values) for name, values in self.grid.axes.items()}
        facts = {"axes": axes, "settings": settings, "hyperparameters": hyperparameters}
        return {
            "methods": {self.algorithm.name: facts},
            "problem": describe_problem(self.task.problem) | {"digest": digest(self.task.problem)},
            "steps": self.task.records * self.task.every,
            "every": self.task.every,
            "rel_gap": self.task.rel_gap,
            "budget": self.task.budget,
            "seeds": list(self.seeds),
            **self.store.config,
            **environment(),
        }

    def _report_diverged(self, table: Table) -> None:
        """Print how many lanes diverged, and the settings of the first three."""
        lost = table.diverged()
        if len(lost):
            varied = [name for name in table.names if table.lanes[name].nunique(dropna=False) > 1]
            named = [", ".join(f"{n} = {row[n]}" for n in [*varied, "seed"]) for row in lost.to_dict("records")[:3]]
            more = f" and {len(lost) - 3} more (table.diverged())" if len(lost) > 3 else ""
            self.say(f"{len(lost)} of {len(table)} lanes diverged: {'; '.join(named)}{more}")


def _whole(lanes: pd.DataFrame) -> bool:
    """Whether every lane ran to its end."""
    return not (lanes["status"] == "interrupted").any()
