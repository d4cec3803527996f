"""Blocks: one compiled program advances many lanes side by side; when a lane ends, the next one takes its slot."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.devices import EVERYWHERE, SPREAD, SPREAD_SECOND, over_devices, put
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import PyTree
from fedjax_lc.problems import Problem
from fedjax_lc.results import ledger
from fedjax_lc.results.columns import column
from fedjax_lc.running import loop
from fedjax_lc.running.loop import DIVERGED, GO_ON, STATUS, At, Limits, Metrics, Ran
from fedjax_lc.running.programs import compile_once, memory_bytes

if TYPE_CHECKING:
    import pandas as pd

BUFFER_BYTES = 2**23  #: bytes that the costs of one chunk may take
IDLE = -1  #: stands for the lane of an empty slot
WORTH_COMPILING = 4e9  #: updates of numbers in idle slots that cost as much as compiling a smaller program


class Axes(NamedTuple):
    """The axis of lanes (0, or None where lanes share it) of hp's leaves, the key and the number of the next step."""

    leaves: tuple[int | None, ...]
    key: int | None
    first: int | None


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that determines the compiled code of a block, apart from shapes."""

    algorithm: Algorithm
    every: int
    capacity: int  #: records a chunk can hold
    metrics: Metrics
    axes: Axes
    mesh: Mesh

    def specs(self) -> tuple[PyTree, PyTree, PyTree, PyTree, PyTree, PyTree, PyTree]:
        """How each argument of `loop.chunk` is placed on the devices."""
        place = lambda axis: SPREAD if axis == 0 else EVERYWHERE
        return (
            EVERYWHERE,
            [place(a) for a in self.axes.leaves],
            SPREAD,
            place(self.axes.key),
            SPREAD,
            EVERYWHERE,
            SPREAD,
        )


@functools.cache
def advance(program: Program) -> Callable[..., Ran]:
    """A function (problem, hp, at, key, first, count, limits) -> Ran over lanes; devices run independently.

    `first` and `done` have one entry per device if all lanes are at the same step, else one per lane.
    """

    def run_chunk(problem, leaves, at, key, first, count, limits, structure):  # type: ignore[no-untyped-def]
        chunk = loop.chunk(program.algorithm, program.every, program.capacity, program.metrics, tuple(program.axes))
        first = first[0] if program.axes.first is None else first
        ran = chunk(problem, jax.tree.unflatten(structure, leaves), at, key, first, count, limits)
        return ran._replace(done=ran.done[None])

    out: Any = Ran(SPREAD, SPREAD, SPREAD_SECOND, SPREAD_SECOND, SPREAD, SPREAD)  # type: ignore[arg-type]

    def call(problem, hp, at, key, first, count, limits):  # type: ignore[no-untyped-def]
        leaves, structure = jax.tree.flatten(hp)
        inner = functools.partial(run_chunk, structure=structure)
        return over_devices(inner, program.mesh, program.specs(), out)(problem, leaves, at, key, first, count, limits)

    return call


@functools.cache
def begin(program: Program) -> Callable[..., Any]:
    """A function (problem, hp, at, key, fresh) -> (at, metrics) that starts the lanes of the `fresh` slots.

    `fresh` holds a boolean for each slot; the other slots are unchanged.
    """

    def one(problem, leaves, at, key, fresh, structure):  # type: ignore[no-untyped-def]
        started, values = loop.start(
            program.algorithm, problem, jax.tree.unflatten(structure, leaves), key, program.metrics
        )
        return jax.tree.map(lambda new, old: jnp.where(fresh, new, old), started, at), values

    @functools.partial(jax.jit, donate_argnums=2)
    def call(problem, hp, at, key, fresh):  # type: ignore[no-untyped-def]
        leaves, structure = jax.tree.flatten(hp)
        inner = functools.partial(one, structure=structure)
        many = jax.vmap(inner, (None, list(program.axes.leaves), 0, program.axes.key, 0))
        _, leaf_specs, at_spec, key_spec, *_ = program.specs()
        into = (EVERYWHERE, leaf_specs, at_spec, key_spec, SPREAD)
        return over_devices(many, program.mesh, into, (SPREAD, SPREAD))(problem, leaves, at, key, fresh)

    return call


class Lanes(NamedTuple):
    """The hyperparameters and keys of lanes.

    Attributes:
        numbers: (lanes,) the lanes' numbers in the sweep.
        leaves: hp's leaves in the problem's dtype, (lanes, ...) where they vary, else (...).
        varies: for each leaf, whether it varies over lanes.
        structure: hp's tree structure.
        keys: (lanes, ...) key data.
    """

    numbers: np.ndarray
    leaves: list[np.ndarray]
    varies: tuple[bool, ...]
    structure: Any
    keys: np.ndarray

    def take(self, places: np.ndarray) -> Lanes:
        """The lanes at these places."""
        leaves = [x[places] if varies else x for x, varies in zip(self.leaves, self.varies, strict=True)]
        return self._replace(numbers=self.numbers[places], leaves=leaves, keys=self.keys[places])

    def one(self) -> tuple[Any, Any]:
        """The shapes of one lane's hp and key."""
        shapes = [x.shape[1:] if varies else x.shape for x, varies in zip(self.leaves, self.varies, strict=True)]
        hp = [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in zip(shapes, self.leaves, strict=True)]
        return jax.tree.unflatten(self.structure, hp), jax.eval_shape(lambda: jax.random.wrap_key_data(self.keys[0]))


@dataclasses.dataclass
class Ended:
    """The results of a part's lanes.

    Attributes:
        records: as `Table.records`, sorted by lane and step.
        lanes: indexed by lane; columns status, initial, seconds.
    """

    records: pd.DataFrame
    lanes: pd.DataFrame


def buffered(every: int, size: int) -> int:
    """How many records a chunk of `size` lanes can hold."""
    return int(np.clip(BUFFER_BYTES // (4 * len(ledger.COSTS) * every * size), 1, loop.CHUNK_RECORDS))


def start_shapes(program: Program, problem: Problem, lanes: Lanes) -> Any:
    """The shapes of what `loop.start` returns for one lane; nothing is computed.

    Raises:
        InputError: a metric consists of several numbers.
    """
    one = functools.partial(loop.start, program.algorithm, metrics=program.metrics)
    hp, key = lanes.one()
    shapes = jax.eval_shape(lambda problem, hp, key: one(problem, hp, key), problem, hp, key)
    for name, value in shapes[1].items():
        if value.shape:
            raise InputError(
                f"metric {name} has shape {value.shape}: a sweep records single numbers; measure it in a run"
            )
    return shapes


class Block:
    """`size` slots and the program that advances them, compiled for lanes like `lanes`; it runs parts of a sweep."""

    def __init__(
        self,
        program: Program,
        problem: Problem,
        size: int,
        records: int,
        rel_gap: float | None,
        budget: Mapping[str, float],
        lanes: Lanes,
    ) -> None:
        self.program, self.size, self.records = program, size, records
        self.problem, self.rel_gap, self.budget = problem, rel_gap, budget
        self.placed = put(problem.for_lanes(), program.mesh, EVERYWHERE)
        self.devices = program.mesh.size
        self.compiled, self.compile_seconds = compile_once(advance(program), self._shapes(lanes))
        self.memory = memory_bytes(self.compiled)  #: on each device

    def _shapes(self, lanes: Lanes) -> tuple[Any, ...]:
        """The shapes of the program's arguments for lanes like these; nothing is computed."""
        axes = self.program.axes
        many = lambda one: jax.ShapeDtypeStruct((self.size, *one.shape), one.dtype)
        hp, key = lanes.one()
        shared = [
            one if axis is None else many(one) for one, axis in zip(jax.tree.leaves(hp), axes.leaves, strict=True)
        ]
        at = jax.tree.map(many, start_shapes(self.program, self.problem, lanes)[0])
        first = jax.ShapeDtypeStruct((self.devices if axes.first is None else self.size,), jnp.uint32)
        count = jax.ShapeDtypeStruct((), jnp.uint32)
        limits = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._no_limits())
        key = key if axes.key is None else many(key)
        arguments = (self.placed, jax.tree.unflatten(lanes.structure, shared), at, key, first, count, limits)
        return tuple(self._placed(a, s) for a, s in zip(arguments, self.program.specs(), strict=True))

    def _placed(self, shapes: Any, spec: Any) -> Any:
        """The shapes with the placement of each array on the devices; `spec` is one for all leaves, or one for each."""
        leaves, structure = jax.tree.flatten(shapes)
        specs = spec if isinstance(spec, list) else [spec] * len(leaves)
        place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(self.program.mesh, s))
        return jax.tree.unflatten(structure, [place(x, s) for x, s in zip(leaves, specs, strict=True)])

    def _no_limits(self) -> Limits:
        """Limits of slots that are all idle."""
        numbers = np.zeros(self.size, self.problem.dtype)
        return Limits(numbers, numbers.copy(), np.zeros((self.size, 2, 4), np.float32), np.zeros(self.size, bool))

    def run(self, lanes: Lanes, advanced: Callable[[int, int], Any], interrupted: Callable[[], bool]) -> Ended:
        """Run all `lanes`; when `interrupted()`, stop, and lanes that still run get the status "interrupted".

        When a lane ends, its slot takes the waiting lane with the lowest number. The results of a lane depend only on
        the part that it belongs to.

        Args:
            advanced: called after each chunk with the number of records made (or not needed any more, as their lane
                ended early) and of lanes that ended.
        """
        self._reset(lanes)
        return self._go(advanced, interrupted)

    def _go(self, advanced: Callable[[int, int], Any], interrupted: Callable[[], bool]) -> Ended:
        count = 1
        while np.any(self.lane != IDLE):
            smaller = self._smaller()
            if smaller < self.size:
                return self._packed(smaller)._go(advanced, interrupted)
            longest = int(np.max(np.where(self.lane == IDLE, 0, self.made)))
            count = min(count, self.records - longest)
            started = time.perf_counter()
            ran = self._advance(count)
            seconds = time.perf_counter() - started
            advanced(*self._book(ran, seconds))
            count = loop.next_count(int(np.max(np.asarray(ran.done))), self.program.capacity, seconds)
            self._refill()
            if interrupted():
                break
        return self._ended()

    # --- few lanes left ---

    def _smaller(self) -> int:
        """The size to go on with: this one, or a quarter of it if that holds all lanes left and repays compiling.

        The choice depends only on the lanes' progress, so that a repeated sweep repeats it. With several devices the
        progress seen here depends on their speed, so blocks keep their size.
        """
        smaller = -(-self.size // 4)
        live = self.lane != IDLE
        if self.devices > 1 or any(self.waiting) or np.sum(live) > smaller or smaller == self.size:
            return self.size
        steps = (self.records - int(self.made[live].min())) * self.program.every
        numbers = sum(leaf.size for leaf in jax.tree.leaves(self.at.state)) // self.size
        return smaller if steps * numbers * (self.size - smaller) > WORTH_COMPILING else self.size

    def _packed(self, size: int) -> Block:
        """A block of that size with the lanes that still run."""
        block = Block(self.program, self.problem, size, self.records, self.rel_gap, self.budget, self.lanes)
        slots = np.argsort(self.lane == IDLE, kind="stable")[:size]
        block.lanes, block.waiting, block.log, block.outcomes = self.lanes, self.waiting, self.log, self.outcomes
        block.lane, block.made = self.lane[slots], self.made[slots]
        block.limits = Limits(*(limit[slots] for limit in self.limits))
        block.at = put(jax.tree.map(lambda leaf: leaf[slots], self.at), self.program.mesh, SPREAD)
        block._place()
        return block

    # --- slots ---

    def _reset(self, lanes: Lanes) -> None:
        # Lanes are assigned to devices beforehand, so that no device's work depends on the speed of another.
        places = np.arange(len(lanes.numbers))
        self.lanes, self.waiting = lanes, [list(places[d :: self.devices]) for d in range(self.devices)]
        self.lane = np.full(self.size, IDLE)  # the lane's place in the part, not its number in the sweep
        self.made = np.zeros(self.size, np.int64)  # records made by each slot's lane
        self.log: list[pd.DataFrame] = []
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.limits = self._no_limits()
        self.at = self._blank()
        self._refill()

    def _refill(self) -> None:
        """Assign waiting lanes to the empty slots of their device, both in order."""
        filled = []
        for slot in np.flatnonzero(self.lane == IDLE):
            waiting = self.waiting[slot * self.devices // self.size]
            if waiting:
                self.lane[slot], self.made[slot] = waiting.pop(0), 0
                filled.append(slot)
        if filled:
            self._begin(np.array(filled))

    def _place(self) -> None:
        """Put the hyperparameters and keys of the slots' lanes on the devices."""
        mesh, axes = self.program.mesh, self.program.axes
        spec = lambda axis: EVERYWHERE if axis is None else SPREAD
        chosen = self.lanes.take(np.where(self.lane == IDLE, 0, self.lane))
        leaves = [put(x, mesh, spec(axis)) for x, axis in zip(chosen.leaves, axes.leaves, strict=True)]
        self.hp = jax.tree.unflatten(chosen.structure, leaves)
        keys = jax.random.wrap_key_data(jnp.asarray(chosen.keys[0] if axes.key is None else chosen.keys))
        self.key = put(keys, mesh, spec(axes.key))

    def _begin(self, slots: np.ndarray) -> None:
        """Start the lanes that these slots have now."""
        self._place()
        fresh = put(np.isin(np.arange(self.size), slots), self.program.mesh, SPREAD)
        self.at, measured = begin(self.program)(self.placed, self.hp, self.at, self.key, fresh)
        values = np.asarray(measured["value"], np.float64)
        for slot in slots:
            limits = loop.make_limits(self.problem, float(values[slot]), self.rel_gap, self.budget)
            for of_slots, limit in zip(self.limits, limits, strict=True):
                of_slots[slot] = limit
            self.outcomes[int(self.lane[slot])] = {"status": "", "initial": values[slot], "seconds": 0.0}

    def _blank(self) -> At:
        """Empty slots, with the shapes that `begin` returns."""
        shapes = start_shapes(self.program, self.problem, self.lanes)[0]
        blank = jax.tree.map(lambda leaf: jnp.zeros((self.size, *leaf.shape), leaf.dtype), shapes)
        return put(blank, self.program.mesh, SPREAD)

    # --- one chunk ---

    def _advance(self, count: int) -> Ran:
        mesh, in_step = self.program.mesh, self.program.axes.first is None
        steps = (self.made * self.program.every).astype(np.uint32)
        first = put(steps.reshape(self.devices, -1).max(axis=1) if in_step else steps, mesh, SPREAD)
        limits = put(self.limits, mesh, SPREAD)
        ran = self.compiled(
            self.placed, self.hp, self.at, self.key, first, put(np.uint32(count), mesh, EVERYWHERE), limits
        )
        self.at = ran.at
        return jax.block_until_ready(ran)

    def _book(self, ran: Ran, seconds: float) -> tuple[int, int]:
        """Log the records of a chunk and free the slots whose lanes ended; returns the counts that `run` reports."""
        live, stop = self.lane != IDLE, np.asarray(ran.stop)
        done = np.where(live, np.repeat(np.asarray(ran.done), self.size // self.devices).astype(np.int64), 0)
        self._log(ran, np.where(live, done - (stop == DIVERGED), 0), seconds / max(1, int(np.sum(done))))
        self.made += done
        over = live & ((stop != GO_ON) | (self.made >= self.records))
        for slot in np.flatnonzero(over):
            self.outcomes[int(self.lane[slot])]["status"] = STATUS[int(stop[slot])] or "finished"
        self.lane[over] = IDLE
        self.limits.live[over] = False
        return int(np.sum(done) + np.sum(self.records - self.made[over])), int(np.sum(over))

    def _log(self, ran: Ran, kept: np.ndarray, seconds: float) -> None:
        import pandas as pd

        slot = np.repeat(np.arange(self.size), kept)
        record = np.arange(len(slot)) - np.repeat(np.cumsum(kept) - kept, kept)
        costs = np.asarray(ran.costs)[: int(kept.max(initial=0))]
        spent = np.asarray(np.sum(costs, axis=2, dtype=np.float64))  # (records, slots, 4)
        columns: dict[str, Any] = {
            "lane": self.lane[slot],
            "step": (self.made[slot] + record + 1) * self.program.every,
        }
        columns |= {name: spent[record, slot, place] for place, name in enumerate(ledger.COSTS)}
        columns |= {_column(n): np.asarray(ran.values[n], np.float64)[record, slot] for n in self.program.metrics.names}
        columns["seconds"] = np.full(len(slot), seconds)
        self.log.append(pd.DataFrame(columns))

    def _ended(self) -> Ended:
        """The logged records, sorted by lane and step, with cumulative costs and seconds, and the lanes' outcomes."""
        import pandas as pd

        records = pd.concat(self.log, ignore_index=True)
        records = records.sort_values(["lane", "step"], kind="stable", ignore_index=True)
        sums = [*ledger.COSTS, "seconds"]
        records[sums] = records.groupby("lane", sort=False)[sums].cumsum()
        lanes = pd.DataFrame.from_dict(self.outcomes, orient="index").sort_index()
        lanes.loc[lanes["status"] == "", "status"] = "interrupted"
        lanes["seconds"] = records.groupby("lane")["seconds"].last().reindex(lanes.index).fillna(0.0)
        names = self.lanes.numbers
        records["lane"] = names[records["lane"].to_numpy()]
        lanes.index = pd.Index(names[lanes.index.to_numpy()], name="lane")
        return Ended(records, lanes)


def _column(metric: str) -> str:
    return metric if metric == "value" else column(metric)
