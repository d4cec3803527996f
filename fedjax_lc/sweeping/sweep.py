"""Sweeps: every configuration and seed of a method is one lane of one batched program."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import of_lanes
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.lock import locked
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.progress import say
from fedjax_lc.problems import Problem
from fedjax_lc.results.provenance import identity
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.running import loop
from fedjax_lc.running.options import Options, task
from fedjax_lc.running.signals import interruptible
from fedjax_lc.sweeping.axes import MOST
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.fit import Blocks, RecordsBar, Room
from fedjax_lc.sweeping.grid import Grid
from fedjax_lc.sweeping.groups import TRIP_COUNTS
from fedjax_lc.sweeping.outline import filled, outline
from fedjax_lc.sweeping.shards import Shard
from fedjax_lc.sweeping.start import Start
from fedjax_lc.sweeping.store import Store
from fedjax_lc.sweeping.watching import Followed
from fedjax_lc.sweeping.work import Engine, Eyes, Part, Work, local

MOST_STATES = 10**9  #: bytes that the last states of all lanes may take on disk


class SweepOptions(Options, total=False):
    """Options of `fl.sweep`, explained there."""

    other_code: bool
    shard: str | tuple[int, int] | None
    engine: Engine
    checkpoint_every: float | str | None
    start: Start | None
    track: Any


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
        out: folder of the results. Parts are written as they finish, and lanes under way now and then; the same call
            continues an unfinished sweep, bit for bit. Last states are kept for `fl.extend` where those of all lanes
            take 1 GB at most. One process at a time may have it. Other code of the method, functions, source of this
            package or versions of JAX than those that began it are refused.
        block_size: lanes side by side; default: those of a sweep that goes on, else what fits in `memory`, at most 256
            on a CPU. Lanes do not depend on it but for rounding, which `sign` or `top_k` may amplify in float32: the
            table's config["side_by_side"] says it for each lane.
        memory: bytes to use on each device; default: half of what is free.
        devices: number of local devices, a list of them, or `fl.devices(lanes=...)`; default: all.
        progress: print the plan (on stderr) and show a bar.
        other_code: whether to keep what such other code or versions computed in `out`, and to go on from there.
        shard: "i/N" runs the share i = 1..N of the lanes, and keeps it in a folder of its name in `out`;
            `fl.merge(out)` makes the table of all shares.
        engine: where the parts of a sweep run; default: in this process.
        checkpoint_every: minutes between two checkpoints of lanes under way, or "steps:N"; default: so that they take
            a hundredth of the time.
        start: the lanes of another sweep that go on here, as `fl.extend` gives them.
        track: as in `fl.run`; every lane is a run, and "csv" writes one file for all of them. Lanes that run
            in other processes are seen when their part has ended.
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
    where = _Where(out, **{name: options.pop(name) for name in WHERE if name in options})  # type: ignore[misc]
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
    seeds = _seeds(seeds)
    if (lanes := len(grid) * len(seeds)) > MOST:
        raise InputError(f"a sweep has at most {MOST:,} lanes, got {len(grid):,} configurations x {len(seeds):,} seeds "
                         f"= {lanes:,}: sweep them in turn")  # fmt: skip
    room = Room(of_lanes(devices), _whole_number("block_size", block_size), _whole_number("memory", memory))
    tell = say if progress else _nothing
    shares = where.shard.of if where.shard else getattr(where.engine, "size", 1)
    work = Work(algorithm, checked_task, grid.hparams, seeds, masked, room, shares, tell)
    for note in checked_task.notes:
        tell(f"note: {note}")
    swept = _Sweep(work, grid, where)
    with contextlib.ExitStack() as stack:
        if where.folder is not None:
            archived = contextlib.suppress(InputError) if is_table(where.folder) else contextlib.nullcontext()
            with archived:  # a sweep that is done is only read, maybe where nothing can be written
                stack.enter_context(locked(where.folder))
        return swept.go(progress)


def _nothing(line: str) -> None:
    """Ignore a line for people."""


def _first_value(problem: Problem) -> jax.Array:
    return problem.value(problem.x0)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    wrong = InputError(f"seeds must be a number >= 1 or different whole numbers >= 0, {MOST:,} at most, got {seeds}")
    try:
        each = seeds if isinstance(seeds, Iterable) else range(min(operator.index(seeds), MOST + 1))
        chosen = tuple(map(operator.index, each))
    except TypeError:
        raise wrong from None
    if len(chosen) > MOST or not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise wrong
    return chosen


def _whole_number(name: str, number: Any) -> int | None:
    """None, or a whole number >= 1."""
    if number is None:
        return None
    if int(number) != number or number < 1:
        raise InputError(f"{name} must be a whole number >= 1, got {number}")
    return int(number)


class _Where:
    """Where a sweep runs and keeps its results: options of `fl.sweep`."""

    def __init__(
        self,
        out: str | Path | None,
        other_code: bool = False,
        shard: str | tuple[int, int] | None = None,
        engine: Engine = local,
        checkpoint_every: float | str | None = None,
        start: Start | None = None,
        track: Any = None,
    ) -> None:
        self.shard = None if shard is None else Shard.of_text(shard)
        if self.shard is not None and out is None:
            raise InputError("a shard needs a folder for its share of the lanes: give out")
        self.folder = None if out is None else Path(out) / (self.shard.folder if self.shard else "")
        self.other_code, self.engine, self.checkpoint_every, self.start = other_code, engine, checkpoint_every, start
        self.track = track

    def holds(self, lanes: np.ndarray) -> np.ndarray:
        """(lanes,) whether the lanes with these numbers run here."""
        if self.start is not None:
            return np.isin(lanes, self.start.lanes)
        return np.full(len(lanes), True) if self.shard is None else self.shard.holds(lanes)


WHERE = SweepOptions.__annotations__.keys() - Options.__annotations__.keys()  #: the names of these options


@dataclasses.dataclass
class _Sweep:
    """A sweep as the host sees it: groups of lanes, their parts, and the table."""

    work: Work
    grid: Grid
    where: _Where

    def __post_init__(self) -> None:
        self.identity = self._identity()
        if self.where.start is not None:
            self.where.start.check(self.identity, self.where.other_code)

    def go(self, progress: bool) -> Table:
        work, where, start = self.work, self.where, self.where.start
        self.store = Store(
            where.folder, self.identity, work.say, other_code=where.other_code, every=where.checkpoint_every
        )
        finished = self.store.table()
        if finished is not None:
            work.say(f"{where.folder} holds this sweep, finished")
            self._followed(finished).ended(finished.records, finished.lanes)
            return finished
        title, lanes = work.algorithm.title, len(self.grid) * len(work.seeds)
        programs = len({str(g.lanes.structure) for g in work.groups})
        share = f", of which this is shard {where.shard}" if where.shard else ""
        share = share if start is None else f", of which {len(start.lanes)} go on from step {start.steps}"
        work.say(f"{title}: {len(self.grid)} configurations x {len(work.seeds)} seeds = "
                 f"{lanes} lanes in {programs} program{'s' * (programs > 1)}{share}")  # fmt: skip
        empty = outline(work.algorithm, work.task, self.grid, work.seeds)
        if start is not None:
            empty, lanes = start.outline(empty), len(start.lanes)
        if where.shard and where.folder is not None:
            where.shard.save(empty, where.folder)
        followed = self._followed(empty)
        stopped: list[Ended] = []
        with (
            RecordsBar(title, lanes, work.task.records, progress) as bar,
            interruptible() as interrupted,
        ):
            for part in self.store.ended:
                followed.ended(part.records, part.lanes)
            eyes = Eyes(lambda part: bar.at(part.number, part.parts), bar.show, interrupted, followed.recorded)
            for part in where.engine(work, self._parts(bar, interrupted), eyes):
                self.store.add(part) if part.whole else stopped.append(part)
                followed.ended(part.records, part.lanes)
            ended = [*self.store.ended, *stopped]
            ended = ended if start is None else start.numbered(ended)
            table = filled(empty, ended, self.store.config)
            self._report_diverged(table)
            if len(self.store.done) == lanes:
                self.store.finish(table)
        return table

    def _followed(self, table: Table) -> Followed:
        if self.where.track is not None and self.where.start is not None:
            raise InputError("lanes that go on from another sweep are not tracked: leave out track")
        return Followed(self.where.track, table, self.where.folder, self.store.name)

    def _parts(self, bar: RecordsBar, interrupted: Callable[[], bool]) -> Iterator[Part]:
        """The parts that are left to run, as they are asked for."""
        work, store, start = self.work, self.store, self.where.start
        for number, members in enumerate(work.groups):
            if interrupted():
                return
            lanes = members.lanes.numbers
            places = np.arange(len(lanes))
            share = places[self.where.holds(lanes)]
            left = self._left(lanes, share)
            if len(left):
                begun = None if start is None else start.blocks.get(str(number))
                blocks = work.blocks(number, store.block(number) or begun)
                keeps = self._keeps(blocks)
                block = blocks.plan.block
                store.begin(number, block)
                cut = [lanes[part] for part in self._cut(number, share)]
                store.keep_finished(lanes, cut, block, work.room.mesh.size)
                left = self._left(lanes, share)
            bar.show((len(share) - len(left)) * work.task.records, len(share) - len(left))
            parts = self._cut(number, share) if len(left) else []
            for i, part in enumerate(parts):
                under_way = store.under_way(lanes[part], block, work.room.mesh.size, keeps)
                if start is not None and not under_way.files():
                    at_end = start.under_way(lanes[part], block, work.room.mesh.size, blocks.start[0])
                    under_way.put(*at_end, start.steps)
                yield Part(number, part, lanes[part], block, i, len(parts), under_way)

    def _left(self, lanes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The places of lanes that are not done."""
        return places[[int(lane) not in self.store.done for lane in lanes[places]]] if len(places) else places

    def _cut(self, number: int, share: np.ndarray) -> list[np.ndarray]:
        """The parts of a group's lanes, without the lanes that are done."""
        lanes = self.work.groups[number].lanes.numbers
        parts = self.work.blocks(number, None).parts(share, at_once=self.where.start is not None)
        cut = [self._left(lanes, part) for part in parts]
        return [part for part in cut if len(part)]

    def _keeps(self, blocks: Blocks) -> bool:
        """Whether the last states of a group's lanes are kept."""
        if self.where.folder is None:
            return False
        lanes = int(self.where.holds(np.arange(len(self.grid) * len(self.work.seeds))).sum())
        needed = lanes * pytree.nbytes(blocks.start[0])
        if needed > MOST_STATES:
            self.work.say(f"  last states are not kept ({needed / 1e9:.1f} GB, {MOST_STATES / 1e9:g} GB at most): "
                          "fl.extend cannot go on with these lanes")  # fmt: skip
        return needed <= MOST_STATES

    def _identity(self) -> dict[str, Any]:
        """Everything that determines the results."""
        work, task = self.work, self.work.task
        return {
            **identity(work.algorithm, task.problem, work.hparams, task.metrics.of_state),
            "seeds": list(work.seeds),
            "steps": task.records * task.every,
            "every": task.every,
            "rel_gap": task.rel_gap,
            "budget": task.budget,
            "metrics": list(task.metrics.names),
            "masked": list(work.masked),
            **({"shard": str(self.where.shard)} if self.where.shard else {}),
            **({"lanes": list(self.where.start.lanes)} if self.where.start else {}),
        }

    def _report_diverged(self, table: Table) -> None:
        """Print how many lanes diverged, and the settings of the first three."""
        lost = table.diverged()
        if len(lost):
            varied = [name for name in table.names if table.lanes[name].nunique(dropna=False) > 1]
            named = [", ".join(f"{n} = {row[n]}" for n in [*varied, "seed"]) for row in lost.to_dict("records")[:3]]
            more = f" and {len(lost) - 3} more (table.diverged())" if len(lost) > 3 else ""
            self.work.say(f"{len(lost)} of {len(table)} lanes diverged: {'; '.join(named)}{more}")
