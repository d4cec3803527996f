"""How many lanes run side by side: as many as fit into memory and still gain speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.memory import size

UNKNOWN = 2**62  #: bytes assumed for a device that does not report its memory
COPIES = 8  #: first guess of the memory of a step, in arrays of the size of a state
WAVES = 4  #: a part, saved in one file, holds up to this many blocks of lanes


class Plan(NamedTuple):
    """How the lanes of one program run.

    Attributes:
        lanes: number of lanes.
        block: how many of them run side by side.
        lane_bytes: bytes of one lane.
        fixed_bytes: bytes that do not depend on the lanes: the problem and the program.
        memory: bytes that may be used on each device.
        devices: number of devices.
    """

    lanes: int
    block: int
    lane_bytes: int
    fixed_bytes: int
    memory: int
    devices: int = 1

    def __str__(self) -> str:
        parts = -(-self.lanes // part_size(self.lanes, self.block))
        together = f"{self.block} side by side, saved in {parts} part{'s' * (parts > 1)}"
        how = "in one block" if self.lanes <= self.block else together
        needed = self.fixed_bytes + self.block // self.devices * self.lane_bytes
        where = "" if self.devices == 1 else f" on each of {self.devices} devices"
        limit = f"{size(needed)} of {size(self.memory)}" if self.memory < UNKNOWN else size(needed)
        return f"{self.lanes} lanes {how}; {size(self.lane_bytes)} a lane, {limit}{where}"


def part_size(lanes: int, block: int) -> int:
    """Lanes that are saved together."""
    return min(lanes, WAVES * block)


def plan(
    lanes: int,
    guess: tuple[int, int],
    measure: Callable[[int], int | None],
    *,
    memory: int,
    most: int | None = None,
    block_size: int | None = None,
    begun: int | None = None,
    devices: int = 1,
) -> Plan:
    """Plan the largest block of lanes that fits into memory, up to `most`.

    Args:
        lanes: number of lanes in all.
        guess: estimated bytes of one lane, and of the rest, before anything is compiled.
        measure: compiles the program for a number of lanes side by side and returns its bytes on each device, or None
            if the device ran out of memory.
        memory: bytes that may be used on each device.
        most: lanes side by side on each device beyond which nothing is gained; None for no limit.
        block_size: lanes side by side that the user asks for.
        begun: lanes side by side of an earlier plan, taken again if they fit.
        devices: number of devices; a block is a multiple of it.

    Raises:
        InputError: not even one lane per device fits, or `block_size` lanes do not.
    """
    most = lanes if most is None else most * devices
    lane_bytes, fixed = guess
    block = min(block_size or begun or lanes, lanes)
    if not (block_size or begun):
        block = _even(lanes, min(most, _fits(memory, fixed, lane_bytes, devices)), devices)
    while True:
        block = -(-block // devices) * devices
        needed = measure(block)
        if needed is None:
            if block_size or block <= devices:
                raise InputError(f"the device has no room to compile {block} lanes side by side: use fewer "
                                 "(block_size), or float32")  # fmt: skip
            block = _even(lanes, block // 2, devices)
            continue
        # A program leaves out what it does not use; a lane takes its state at least.
        fixed = max(0, min(fixed, needed - block // devices * guess[0] // COPIES))
        lane_bytes = max(1, (needed - fixed) * devices // block)
        if needed <= memory:
            return Plan(lanes, block, lane_bytes, fixed, memory, devices)
        if block_size or block <= devices:
            raise InputError(f"{block} lanes side by side need {size(needed)} and {size(memory)} may be used: "
                             "use fewer (block_size), more memory, or float32")  # fmt: skip
        block = _even(lanes, min(_fits(memory, fixed, lane_bytes, devices), block - devices), devices)


def _fits(memory: int, fixed: int, lane_bytes: int, devices: int) -> int:
    return max(0, memory - fixed) // max(1, lane_bytes) * devices


def _even(lanes: int, most: int, devices: int) -> int:
    """At most `most` lanes a block (one per device at least), so that blocks come out even."""
    most = max(most // devices * devices, devices)
    waves = -(-lanes // most)
    return -(-lanes // (waves * devices)) * devices
