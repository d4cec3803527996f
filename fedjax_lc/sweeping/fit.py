"""Blocks for the lanes of a group: planned to fit into memory, and halved if memory does not suffice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import entry_count, lanes_side_by_side, memory_share, on_cpu
from fedjax_lc.core.progress import bar
from fedjax_lc.running.options import Task
from fedjax_lc.running.programs import free_bytes, out_of_memory
from fedjax_lc.sweeping import planner
from fedjax_lc.sweeping.blocks import Block, Ended, buffered
from fedjax_lc.sweeping.groups import Group
from fedjax_lc.sweeping.planner import Plan
from fedjax_lc.sweeping.program import Axes, Lanes, Program, start_shapes
from fedjax_lc.sweeping.store import UnderWay
from fedjax_lc.sweeping.watching import Watch


class Room(NamedTuple):
    """The resources that a sweep may use.

    Attributes:
        mesh: devices.
        block_size: lanes side by side; None for as many as fit and pay.
        memory: bytes on each device; None for a share of what is free.
    """

    mesh: Mesh
    block_size: int | None
    memory: int | None


class RecordsBar:
    """A progress bar over the records of all lanes; it shows the lanes that ended and the current part."""

    def __init__(self, title: str, lanes: int, records: int, progress: bool) -> None:
        self.lanes, self.ended, self.where = lanes, 0, ""
        layout = "{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
        self.bar = bar(lanes * records, title, shown=progress, bar_format=layout)

    def at(self, part: int, parts: int) -> None:
        """Show part number `part` of `parts`."""
        self.where = f", part {part + 1}/{parts}" if parts > 1 else ""

    def show(self, records: int, ended: int) -> None:
        """Add this many records, and lanes that ended."""
        self.ended += ended
        self.bar.set_postfix_str(f"{self.ended}/{self.lanes} lanes{self.where}", refresh=False)
        self.bar.update(records)

    def __enter__(self) -> RecordsBar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()


@dataclasses.dataclass
class Blocks:
    """Blocks for the lanes of one group: the first is planned to fit, and halved if a device runs out of memory.

    Attributes:
        members: the group.
        say: prints a line for people.
        begun: lanes side by side with which the group began in an earlier process, or None.
        shares: among how many workers or shards its lanes are dealt.
        parted: whether lanes may be at different steps, though none waits for another.
    """

    algorithm: Algorithm
    task: Task
    room: Room
    members: Group
    say: Callable[[str], None]
    begun: int | None = None
    shares: int = 1
    parted: bool = False

    def __post_init__(self) -> None:
        self.built: dict[int, Block] = {}
        self.width: int | None = None

    @property
    def side_by_side(self) -> int:
        """Lanes at most that run side by side: those of a share."""
        return -(-self.members.largest // self.shares)

    def parts(self, places: np.ndarray, at_once: bool = False) -> list[np.ndarray]:
        """These places of the group's lanes, in parts.

        Args:
            at_once: whether no lane of a part waits for another.
        """
        size = self.plan.block if at_once else planner.part_size(self.side_by_side, self.plan.block)
        return np.split(places, range(size, len(places), size))

    @functools.cached_property
    def start(self) -> Any:
        """The shapes of what `loop.start` returns for one lane."""
        one = Program(self.algorithm, self.task.every, 1, self.task.metrics, Axes((), 0, 0), self.room.mesh)
        return start_shapes(one, self.task.problem, self.members.lanes)

    @functools.cached_property
    def plan(self) -> Plan:
        """The plan, made (and its block compiled) when lanes have to run, but not if all of them are saved."""
        task, room, at = self.task, self.room, self.start
        placed = jax.eval_shape(lambda problem: problem.for_lanes(), task.problem)
        plan = planner.plan(
            self.side_by_side,
            (planner.COPIES * pytree.nbytes(at), pytree.nbytes(placed)),
            self._bytes,
            memory=room.memory or _free(room.mesh),
            most=lanes_side_by_side(entry_count(at)),
            block_size=room.block_size,
            begun=self.begun,
            devices=room.mesh.size,
        )
        self.say(f"  {plan}; traced and compiled in {self._block(plan.block).compile_seconds:.1f} s")
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
            task, members = self.task, self.members
            self.built.clear()  # a block of another size did not fit: free its arrays
            axes = Axes(
                leaves=tuple(0 if varies else None for varies in members.lanes.varies),
                key=None if members.one_seed else 0,
                # one number of steps for all where none waits for a slot
                first=None if members.largest <= size and not self.parted else 0,
            )
            program = Program(
                self.algorithm, task.every, buffered(task.every, size), task.metrics, axes, self.room.mesh
            )
            self.built[size] = Block(
                program, task.problem, size, task.records, task.rel_gap, task.budget, members.lanes
            )
        return self.built[size]

    def run(
        self,
        lanes: Lanes,
        advanced: Callable[[int, int], Any],
        interrupted: Callable[[], bool],
        under_way: UnderWay,
        recorded: Callable[..., Any],
    ) -> Ended:
        """Run these lanes, from where they stopped if they are under way; if the device runs out of memory, run them
        again in a block of half the size.

        Args:
            advanced, recorded: as in `Watch`.
            interrupted: whether to stop now.
            under_way: keeps the lanes while they run.

        Raises:
            InputError: not even one lane per device fits into memory.
        """
        while True:
            width, shown = self.width or self.plan.block, [0, 0]

            def count(records: int, ended: int, shown: list[int] = shown) -> None:
                shown[0], shown[1] = shown[0] + records, shown[1] + ended
                advanced(records, ended)

            try:
                block = self._block(width)
                kept = under_way.latest(block.shapes_under_way)
                if kept is not None:
                    count(*block.progress(kept.facts))
                return block.run(lanes, Watch(count, interrupted, under_way.save, under_way.keeps, recorded), kept)
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
            advanced(-shown[0], -shown[1])
            self.built.clear()
            under_way.forget()
            self.width = self._half(width)
            self.say(f"  out of memory with {width} lanes side by side: going on with {self.width}")

    def _half(self, width: int) -> int:
        devices = self.room.mesh.size
        if width <= devices:
            raise InputError(f"{width} lanes side by side do not fit into the device's memory: use float32, fewer "
                             "clients or fewer rows")  # fmt: skip
        return max(devices, width // 2 // devices * devices)


def _free(chosen: Mesh) -> int:
    """Bytes that a sweep may take on each device."""
    free = [each for each in map(free_bytes, chosen.devices.flat) if each is not None]
    if not free:
        return planner.UNKNOWN
    return int(memory_share() * min(free)) // (chosen.size if on_cpu() else 1)  # a host's devices share one memory
