"""Sweeps: every configuration and seed of a method is one lane of one batched program."""

from __future__ import annotations

import dataclasses
import functools
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.platforms import lanes_side_by_side, memory_share, numbers, on_cpu
from fedjax_lc.problems import Problem
from fedjax_lc.results.provenance import describe, describe_problem, digest, environment
from fedjax_lc.results.table import SERIES, Table, column
from fedjax_lc.running import loop
from fedjax_lc.running.loop import Metric, Metrics
from fedjax_lc.running.programs import free_bytes, out_of_memory
from fedjax_lc.sweeping import mesh, planner
from fedjax_lc.sweeping.blocks import Axes, Block, Ended, Lanes, Program, buffered, start_shapes
from fedjax_lc.sweeping.grid import Grid
from fedjax_lc.sweeping.groups import TRIP_COUNTS, Group, group
from fedjax_lc.sweeping.planner import Plan
from fedjax_lc.sweeping.store import Store

if TYPE_CHECKING:
    import pandas as pd


def sweep(
    method: str | Algorithm,
    problem: Problem,
    hparams: Any = None,
    *,
    seeds: int | Sequence[int] = 1,
    steps: int = 10_000,
    every: int = 10,
    rel_gap: float | None = None,
    budget: Mapping[str, float] | None = None,
    x0: Any = None,
    measure: Sequence[str] | Mapping[str, Metric] = (),
    masked: Sequence[str] = (),
    out: str | Path | None = None,
    block_size: int | None = None,
    memory: int | None = None,
    devices: int | Sequence[Any] | None = None,
    progress: bool = True,
) -> Table:
    """Run `method` once for every configuration and seed, as lanes of one batched program.

    A lane computes what `fl.run` with its hyperparameters and `key=jax.random.key(seed)` does, to rounding: lanes of
    one seed use common random numbers. Configurations whose trees have one structure share a program; numbers never
    recompile. A lane that diverges, or reaches a limit, gives its slot to the next one and disturbs no other.

    Args:
        method: a name of `fl.algorithms.names()`, or an Algorithm.
        hparams: `fl.grid(...)`, `fl.sample(...)`, one Hparams or a list of them; the method's theory if None.
        seeds: S for seeds 0..S-1, or their numbers. Seed s is `jax.random.key(s)`.
        steps, every, rel_gap, budget, x0, measure: as in `fl.run`, for every lane.
        masked: of "local_steps": run lanes with different numbers of local steps side by side, each masked when it is
            done, in place of one number after the other.
        out: folder of the results. Parts are written as they finish; the same call continues after whatever ended it.
        block_size: lanes side by side; default: what fits in `memory`, at most 256 on a CPU.
        memory: bytes to use on each device; default: half of what is free.
        devices: number of local devices, or a list of them; default: all.
        progress: print the plan (on stderr) and show a bar.

    Returns:
        The Table, lane number = configuration * number of seeds + place of the seed. After Ctrl-C it holds what is
        done, lanes cut short with the status "interrupted".

    Raises:
        InputError: in one line, before any work starts; also where `out` holds a different sweep.

    Example:
        >>> grid = fl.grid(alg.theory(problem), gamma=fl.times([0.5, 1, 2]), p=[0.05, 0.1])
        >>> table = fl.sweep("locodl", problem, grid, seeds=8, steps=20_000, rel_gap=1e-8)
        >>> table.best("bits_up", rel_gap=1e-8)
    """
    algorithm = algorithms.get(method)
    problem = loop.start_at(x0, problem)
    grid = Grid.of(algorithm.theory(problem) if hparams is None else hparams)
    for hp in grid.hparams:
        algorithm.check(problem, hp)
    masked = (masked,) if isinstance(masked, str) else tuple(masked)
    for name in masked:
        if name not in TRIP_COUNTS:
            raise unknown("field to mask", name, TRIP_COUNTS)
    records, every, notes = loop.whole_records(steps, every)
    metrics = loop.choose_metrics(algorithm, problem, measure)
    rel_gap, budget = loop.plain_limits(rel_gap, budget)
    loop.make_limits(problem, float(jax.jit(_first_value)(problem)), rel_gap, budget)  # refuses what has no meaning
    work = _Sweep(
        algorithm=algorithm,
        problem=problem.solved() if loop.needs_solution(metrics) else problem,
        grid=grid,
        seeds=_seeds(seeds),
        records=records,
        every=every,
        rel_gap=rel_gap,
        budget=budget,
        metrics=metrics,
        masked=masked,
        mesh=mesh.mesh(devices),
        block_size=_whole_number("block_size", block_size),
        memory=_whole_number("memory", memory),
        progress=progress,
    )
    for note in notes:
        work.say(f"note: {note}")
    return work.go(None if out is None else Path(out))


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
    """The host's side of a sweep."""

    algorithm: Algorithm
    problem: Problem
    grid: Grid
    seeds: tuple[int, ...]
    records: int
    every: int
    rel_gap: float | None
    budget: dict[str, float]
    metrics: Metrics
    masked: tuple[str, ...]
    mesh: Mesh
    block_size: int | None
    memory: int | None
    progress: bool

    def say(self, line: str) -> None:
        if self.progress:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)  # beside a bar that may be shown

    def go(self, out: Path | None) -> Table:
        self.store = Store(out, self._identity())
        finished = self.store.table()
        if finished is not None:
            self.say(f"{out} holds this sweep, finished")
            return finished
        groups = group(self.grid.hparams, self.problem.dtype, self.seeds, self.masked)
        programs = len({str(g.lanes.structure) for g in groups})
        self.say(f"{self.algorithm.title}: {len(self.grid)} configurations x {len(self.seeds)} seeds = "
                 f"{self.lanes} lanes in {programs} program{'s' * (programs > 1)}")  # fmt: skip
        ended: list[Ended] = []
        with _Bar(self) as bar, loop.interruptible() as interrupted:
            for number, members in enumerate(groups):
                if not interrupted():
                    ended += self._run(number, members, bar, interrupted)
        table = self._table(ended)
        self._tell(table)
        if _whole(table.lanes):
            self.store.finish(table)
        return table

    @property
    def lanes(self) -> int:
        return len(self.grid) * len(self.seeds)

    def _run(self, number: int, members: Group, bar: _Bar, interrupted: Callable[[], bool]) -> list[Ended]:
        """The parts of one group: those that are saved, and those that run now."""
        blocks = _Blocks(self, number, members)
        size = blocks.part_size
        places = np.arange(len(members.lanes.numbers))
        ended = []
        shares = np.split(places, range(size, len(places), size))
        for part, chosen in enumerate(shares):
            bar.at(part, len(shares))
            found = self.store.part(number, part)
            if found is None:
                found = blocks.run(members.lanes.take(chosen), bar, interrupted)
                if _whole(found.lanes):
                    self.store.save(number, part, found)
            else:
                bar.show(len(chosen) * self.records, len(chosen))
            ended.append(found)
            if interrupted():
                break
        return ended

    # --- results ---

    def _identity(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {
            "method": self.algorithm.name,
            "hyperparameters": digest(self.grid.hparams),
            "problem": digest(self.problem),
            "seeds": list(self.seeds),
            "steps": self.records * self.every,
            "every": self.every,
            "rel_gap": self.rel_gap,
            "budget": self.budget,
            "metrics": list(self.metrics.names),
            "masked": list(self.masked),
            "block_size": self.block_size,
            "devices": self.mesh.size,
        }

    def _table(self, ended: list[Ended]) -> Table:
        """All lanes; those that never began are interrupted."""
        import pandas as pd

        number = np.arange(self.lanes)
        config, seed = np.divmod(number, len(self.seeds))
        settings, names, rows = self._columns()
        lanes = pd.DataFrame({"method": self.algorithm.name, "config": config, "seed": np.array(self.seeds)[seed]})
        for name in dict.fromkeys([*settings, *names]):
            lanes[name] = [rows[c].get(name) for c in config]
        names_of = [*SERIES, *(column(name) for name in self.metrics.names[1:]), "seconds"]
        nothing = Ended(pd.DataFrame(columns=names_of), pd.DataFrame(columns=["status", "initial", "seconds"]))
        ended = ended or [nothing]
        found = pd.concat([e.lanes for e in ended]).reindex(number)
        lanes["status"] = found["status"].fillna("interrupted")
        lanes["initial"], lanes["f_star"] = found["initial"], self.problem.f_star
        lanes["seconds"] = found["seconds"].fillna(0.0)
        records = pd.concat([e.records for e in ended], ignore_index=True).sort_values("lane", kind="stable")
        return Table(lanes, records.reset_index(drop=True), self._config(settings, names))

    def _columns(self) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        """Columns of settings, columns of hyperparameters, and the values of both by configuration."""
        metrics = self.metrics.names
        columns = lambda row: {column(name, metrics): value for name, value in row.items()}
        chosen = [columns(row) for row in self.grid.settings]
        described = [columns(describe(hp)) for hp in self.grid.hparams]
        names = [list(dict.fromkeys(name for row in rows for name in row)) for rows in (chosen, described)]
        return names[0], names[1], [one | other for one, other in zip(chosen, described, strict=True)]

    def _config(self, settings: list[str], hyperparameters: list[str]) -> dict[str, Any]:
        metrics = self.metrics.names
        axes = {column(name, metrics): list(values) for name, values in self.grid.axes.items()}
        own = {"axes": axes, "settings": settings, "hyperparameters": hyperparameters}
        return {
            "methods": {self.algorithm.name: own},
            "problem": describe_problem(self.problem) | {"digest": digest(self.problem)},
            "steps": self.records * self.every,
            "every": self.every,
            "rel_gap": self.rel_gap,
            "budget": self.budget,
            "seeds": list(self.seeds),
            **self.store.config,
            **environment(),
        }

    def _tell(self, table: Table) -> None:
        """Name the lanes that diverged."""
        lost = table.diverged()
        if len(lost):
            varied = [name for name in table.names if table.lanes[name].nunique(dropna=False) > 1]
            told = [", ".join(f"{n} = {row[n]}" for n in [*varied, "seed"]) for row in lost.to_dict("records")[:3]]
            more = f" and {len(lost) - 3} more (table.diverged())" if len(lost) > 3 else ""
            self.say(f"{len(lost)} of {len(table)} lanes diverged: {'; '.join(told)}{more}")


class _Blocks:
    """What the lanes of one group run in: a block planned to fit, halved where a device has no room for it after all.

    Parts, which are saved, keep the size they began with.
    """

    def __init__(self, work: _Sweep, number: int, members: Group) -> None:
        self.work, self.members, self.built = work, members, dict[int, Block]()
        self.begun = work.store.block(number)
        self.width: int | None = None
        if self.begun is None:
            work.store.begin(number, self.plan.block)

    @property
    def part_size(self) -> int:
        """Lanes that are saved together."""
        return planner.part_size(self.members.largest, self.begun or self.plan.block)

    @functools.cached_property
    def plan(self) -> Plan:
        """Made, and its block compiled, when lanes are to run: not where all of them are saved."""
        work = self.work
        one = Program(work.algorithm, work.every, 1, work.metrics, Axes((), 0, 0), work.mesh)
        at = start_shapes(one, work.problem, self.members.lanes)
        there = jax.eval_shape(lambda problem: problem.for_lanes(), work.problem)
        plan = planner.plan(
            self.members.largest,
            (planner.COPIES * pytree.nbytes(at), pytree.nbytes(there)),
            self._bytes,
            memory=work.memory or _free(work.mesh),
            most=lanes_side_by_side(numbers(at)),
            block_size=work.block_size,
            begun=self.begun,
            devices=work.mesh.size,
        )
        work.say(f"  {plan}; traced and compiled in {self._block(plan.block).compile_seconds:.1f} s")
        return plan

    def _bytes(self, size: int) -> int | None:
        try:
            return self._block(size).memory
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            return None

    def _block(self, size: int) -> Block:
        if size not in self.built:
            work, members = self.work, self.members
            self.built.clear()  # another size has failed: its arrays leave their room to this one
            axes = Axes(
                leaves=tuple(0 if varies else None for varies in members.lanes.varies),
                key=None if members.one_seed else 0,
                first=None if members.largest <= size else 0,  # in step, as none waits for a slot
            )
            program = Program(work.algorithm, work.every, buffered(work.every, size), work.metrics, axes, work.mesh)
            self.built[size] = Block(
                program, work.problem, size, work.records, work.rel_gap, work.budget, members.lanes
            )
        return self.built[size]

    def run(self, lanes: Lanes, bar: _Bar, interrupted: Callable[[], bool]) -> Ended:
        """Run these lanes, again in a smaller block where the device ran out of memory.

        Raises:
            InputError: not even one lane per device has room.
        """
        while True:
            width, shown = self.width or self.plan.block, [0, 0]

            def tell(records: int, ended: int, shown: list[int] = shown) -> None:
                shown[0], shown[1] = shown[0] + records, shown[1] + ended
                bar.show(records, ended)

            try:
                return self._block(width).run(lanes, tell, interrupted)
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
            bar.show(-shown[0], -shown[1])
            self.built.clear()
            self.width = self._half(width)
            self.work.say(f"  out of memory with {width} lanes side by side: going on with {self.width}")

    def _half(self, width: int) -> int:
        devices = self.work.mesh.size
        if width <= devices:
            raise InputError(f"{width} lanes side by side do not fit into the device's memory: use float32, fewer "
                             "clients or fewer rows")  # fmt: skip
        return max(devices, width // 2 // devices * devices)


def _free(chosen: Mesh) -> int:
    """Bytes that a sweep may take on each device."""
    found = [free for free in map(free_bytes, chosen.devices.flat) if free is not None]
    if not found:
        return planner.UNKNOWN
    return int(memory_share() * min(found)) // (chosen.size if on_cpu() else 1)  # a host's devices share one memory


class _Bar:
    """A progress bar over all lanes' records, which appears after two seconds."""

    def __init__(self, work: _Sweep) -> None:
        from tqdm import tqdm

        self.lanes, self.ended, self.where = work.lanes, 0, ""
        layout = "{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
        hidden = None if work.progress else True  # None: shown on a terminal only
        self.bar = tqdm(
            total=work.lanes * work.records, desc=work.algorithm.title, bar_format=layout, delay=2, disable=hidden,
            leave=False,
        )  # fmt: skip

    def at(self, part: int, parts: int) -> None:
        self.where = f", part {part + 1}/{parts}" if parts > 1 else ""

    def show(self, records: int, ended: int) -> None:
        self.ended += ended
        self.bar.set_postfix_str(f"{self.ended}/{self.lanes} lanes{self.where}", refresh=False)
        self.bar.update(records)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()


def _whole(lanes: pd.DataFrame) -> bool:
    """Whether every lane ran to its end."""
    return not (lanes["status"] == "interrupted").any()
