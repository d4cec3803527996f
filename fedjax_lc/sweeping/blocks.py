"""Blocks: one compiled program advances many lanes side by side; when a lane ends, the next one takes its slot."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from fedjax_lc.core import pytree
from fedjax_lc.core.devices import EVERYWHERE, SPREAD, put
from fedjax_lc.core.typing import PyTree
from fedjax_lc.problems import Problem
from fedjax_lc.results import ledger
from fedjax_lc.results.columns import column
from fedjax_lc.running import loop
from fedjax_lc.running.checkpoints import Checkpoint
from fedjax_lc.running.loop import DIVERGED, GO_ON, SPENT, STATUS, At, Limits, Ran
from fedjax_lc.running.programs import compile_once, memory_bytes
from fedjax_lc.sweeping.program import Lanes, Program, advance, begin, start_shapes
from fedjax_lc.sweeping.watching import Watch

if TYPE_CHECKING:
    import pandas as pd

BUFFER_BYTES = 2**23  #: bytes that the costs of one chunk may take
OUTCOME = ("status", "initial", "seconds")  #: columns of Ended.lanes
IDLE = -1  #: stands for the lane of an empty slot
WORTH_COMPILING = 4e9  #: updates of numbers in idle slots that cost as much as compiling a smaller program


@dataclasses.dataclass
class Ended:
    """The results of a part's lanes.

    Attributes:
        records: as `Table.records`, sorted by lane and step.
        lanes: indexed by lane; columns status, initial, seconds.
        block: lanes side by side when the part began.
        last: the leaves of `At` after the last step, for lanes that made all steps or spent their budget, where that
            is kept.
    """

    records: pd.DataFrame
    lanes: pd.DataFrame
    block: int
    last: dict[int, list[Any]] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every lane ran to its end."""
        return not (self.lanes["status"] == "interrupted").any()


def buffered(every: int, size: int) -> int:
    """How many records a chunk of `size` lanes can hold."""
    return int(np.clip(BUFFER_BYTES // (4 * len(ledger.COSTS) * every * size), 1, loop.CHUNK_RECORDS))


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
        self.devices, self.like = program.mesh.size, lanes
        self.steps, self.begun = 0, size
        self.log: list[pd.DataFrame] = []
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.last: dict[int, list[Any]] = {}  # by a lane's place in the part
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

    def run(self, lanes: Lanes, watch: Watch, kept: Checkpoint | None = None) -> Ended:
        """Run all `lanes`; when interrupted, stop, and lanes that still run get the status "interrupted".

        When a lane ends, its slot takes the waiting lane with the lowest number. The results of a lane depend only on
        the part that it belongs to.

        Args:
            kept: what `under_way` gave when these lanes were stopped before; they go on from there.
        """
        if kept is None:
            self._reset(lanes)
            return self._go(watch)
        size = len(kept.facts["lane"])
        block = self if size == self.size else self._of_size(size)
        block._restore(lanes, kept)
        watch.recorded(block.log[-1], block.outcomes)
        return block._go(watch)

    def _go(self, watch: Watch) -> Ended:
        count = 1
        while np.any(self.lane != IDLE):
            smaller = self._smaller()
            if smaller < self.size:
                return self._packed(smaller)._go(watch)
            longest = int(np.max(np.where(self.lane == IDLE, 0, self.made)))
            count = min(count, self.records - longest)
            started = time.perf_counter()
            ran = self._advance(count)
            seconds = time.perf_counter() - started
            self.steps += int(np.max(np.asarray(ran.done))) * self.program.every
            watch.advanced(*self._book(ran, seconds, watch.keeps))
            watch.recorded(self.log[-1], self.outcomes)
            count = loop.next_count(int(np.max(np.asarray(ran.done))), self.program.capacity, seconds)
            del ran  # its buffers, before the next chunk has others
            self._refill()
            stops = watch.interrupted()
            if np.any(self.lane != IDLE):
                watch.save(self, stops)
            if stops:
                break
        return ended(self._logged(), self.outcomes, self.lanes.numbers, self.begun, self.last)

    # --- lanes under way ---

    def under_way(self) -> tuple[PyTree, dict[str, Any]]:
        """All that `run` needs to go on: arrays, and plain facts about slots and lanes."""
        log = {name: column.to_numpy() for name, column in self._logged().items()}
        facts = {
            "lane": self.lane.tolist(),
            "made": self.made.tolist(),
            "waiting": [list(map(int, places)) for places in self.waiting],
            "outcomes": [[lane, *(row[name] for name in OUTCOME)] for lane, row in self.outcomes.items()],
            "columns": list(log),
            "records": len(log["lane"]),
            "last": list(self.last),
            "steps": self.steps,
            "block": self.begun,
        }
        return {"at": jax.device_get(self.at), "log": log, "last": pytree.stacked([*self.last.values()])}, facts

    def shapes_under_way(self, facts: Mapping[str, Any]) -> PyTree:
        """The shapes of the arrays that belong to such facts; nothing is computed."""
        one = start_shapes(self.program, self.problem, self.like)[0]
        many = lambda leaf, name="lane": jax.ShapeDtypeStruct((len(facts[name]), *leaf.shape), leaf.dtype)
        whole = ("lane", "step")
        log = {
            name: jax.ShapeDtypeStruct((facts["records"],), np.int64 if name in whole else np.float64)
            for name in self._columns()
        }
        last = [many(leaf, "last") for leaf in jax.tree.leaves(one)] if facts["last"] else []
        return {"at": jax.tree.map(many, one), "log": log, "last": last}

    def progress(self, facts: Mapping[str, Any]) -> tuple[int, int]:
        """Records made, or not needed any more, and lanes that ended, of facts that `under_way` gave."""
        over = sum(1 for row in outcomes(facts).values() if row["status"])
        live = [made for lane, made in zip(facts["lane"], facts["made"], strict=True) if lane != IDLE]
        return over * self.records + sum(live), over

    def _restore(self, lanes: Lanes, kept: Checkpoint) -> None:
        import pandas as pd

        facts = kept.facts
        self.lanes, self.steps, self.begun = lanes, facts["steps"], facts["block"]
        self.lane, self.made = np.array(facts["lane"]), np.array(facts["made"])
        self.waiting, self.outcomes = facts["waiting"], outcomes(facts)
        self.log = [pd.DataFrame(kept.tree["log"])[facts["columns"]]]
        self.last = pytree.unstacked(facts["last"], kept.tree["last"])
        self.limits = self._no_limits()
        for slot in map(int, np.flatnonzero(self.lane != IDLE)):
            self._limit(slot, self.outcomes[int(self.lane[slot])]["initial"])
        self.at = put(kept.tree["at"], self.program.mesh, SPREAD)
        self._place()

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

    def _of_size(self, size: int) -> Block:
        return Block(self.program, self.problem, size, self.records, self.rel_gap, self.budget, self.like)

    def _packed(self, size: int) -> Block:
        """A block of that size with the lanes that still run."""
        block = self._of_size(size)
        block.steps, block.begun, block.last = self.steps, self.begun, self.last
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
        self.steps, self.begun = 0, self.size
        self.lanes, self.waiting = lanes, [list(places[d :: self.devices]) for d in range(self.devices)]
        self.lane = np.full(self.size, IDLE)  # the lane's place in the part, not its number in the sweep
        self.made = np.zeros(self.size, np.int64)  # records made by each slot's lane
        self.log, self.outcomes, self.last = [], {}, {}
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
            self._limit(slot, float(values[slot]))
            self.outcomes[int(self.lane[slot])] = {"status": "", "initial": float(values[slot]), "seconds": 0.0}

    def _limit(self, slot: int, initial: float) -> None:
        """Set the limits of a slot whose lane starts at F = `initial`."""
        limits = loop.make_limits(self.problem, initial, self.rel_gap, self.budget)
        for of_slots, limit in zip(self.limits, limits, strict=True):
            of_slots[slot] = limit

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

    def _book(self, ran: Ran, seconds: float, keeps: bool) -> tuple[int, int]:
        """Log the records of a chunk and free the slots whose lanes ended; returns the counts that `run` reports."""
        live, stop = self.lane != IDLE, np.asarray(ran.stop)
        done = np.where(live, np.repeat(np.asarray(ran.done), self.size // self.devices).astype(np.int64), 0)
        self._log(ran, np.where(live, done - (stop == DIVERGED), 0), seconds / max(1, int(np.sum(done))))
        self.made += done
        over = live & ((stop != GO_ON) | (self.made >= self.records))
        for slot in np.flatnonzero(over):
            self.outcomes[int(self.lane[slot])]["status"] = STATUS[int(stop[slot])] or "finished"
        whole = np.flatnonzero(over & ((stop == GO_ON) | (stop == SPENT))) if keeps else ()
        leaves = jax.tree.leaves(jax.device_get(self.at)) if len(whole) else []
        self.last |= {int(self.lane[slot]): [leaf[slot].copy() for leaf in leaves] for slot in whole}
        self.lane[over] = IDLE
        self.limits.live[over] = False
        return int(np.sum(done) + np.sum(self.records - self.made[over])), int(np.sum(over))

    def _log(self, ran: Ran, kept: np.ndarray, seconds: float) -> None:
        import pandas as pd

        slot = np.repeat(np.arange(self.size), kept)
        record = np.arange(len(slot)) - np.repeat(np.cumsum(kept) - kept, kept)
        costs = np.asarray(ran.costs)[: int(kept.max(initial=0))]
        spent = np.asarray(np.sum(costs, axis=2, dtype=np.float64))  # (records, slots, 4)
        columns: list[Any] = [self.lane[slot], (self.made[slot] + record + 1) * self.program.every]
        columns += [spent[record, slot, place] for place in range(len(ledger.COSTS))]
        columns += [np.asarray(ran.values[n], np.float64)[record, slot] for n in self.program.metrics.names]
        columns.append(np.full(len(slot), seconds))
        self.log.append(pd.DataFrame(dict(zip(self._columns(), columns, strict=True))))

    def _columns(self) -> list[str]:
        metrics = [name if name == "value" else column(name) for name in self.program.metrics.names]
        return ["lane", "step", *ledger.COSTS, *metrics, "seconds"]

    def _logged(self) -> pd.DataFrame:
        """All that is logged, in one frame."""
        import pandas as pd

        self.log = [pd.concat(self.log, ignore_index=True)]
        return self.log[0]


def outcomes(facts: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The outcomes of lanes by their places in the part, of facts that `Block.under_way` gave."""
    return {lane: dict(zip(OUTCOME, row, strict=True)) for lane, *row in facts["outcomes"]}


def ended(
    log: pd.DataFrame,
    outcomes: Mapping[int, dict[str, Any]],
    numbers: np.ndarray,
    block: int,
    last: Mapping[int, list[Any]],
) -> Ended:
    """The results of a part: sorted by lane and step, with cumulative costs and seconds.

    Args:
        log: records as a block logs them, which has the lanes' places in the part and the costs of each record.
        outcomes: status, initial and seconds by a lane's place.
        numbers: (lanes,) the lanes' numbers in the sweep.
        block: lanes side by side.
        last: as `Ended.last`, by a lane's place.
    """
    import pandas as pd

    records = log.sort_values(["lane", "step"], kind="stable", ignore_index=True)
    sums = [*ledger.COSTS, "seconds"]
    records[sums] = records.groupby("lane", sort=False)[sums].cumsum()
    lanes = pd.DataFrame.from_dict(outcomes, orient="index").sort_index()
    lanes.loc[lanes["status"] == "", "status"] = "interrupted"
    lanes["seconds"] = records.groupby("lane")["seconds"].last().reindex(lanes.index).fillna(0.0)
    records["lane"] = numbers[records["lane"].to_numpy()]
    lanes.index = pd.Index(numbers[lanes.index.to_numpy()], name="lane")
    return Ended(records, lanes, block, {int(numbers[place]): leaves for place, leaves in last.items()})
