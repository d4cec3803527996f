"""How many lanes run side by side: what fits in memory, and no more than pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


import jax

from fedjax_lc.errors import InputError
from fedjax_lc.programs import free_bytes

MEMORY_SHARE = 0.5  #: of free memory, where no budget is given
CPU_LANES = 256  #: side by side on a CPU: more take no less time a lane, and end later
WAVES = 4  #: a part, which is saved as one, holds up to this many blocks of lanes


class Plan(NamedTuple):
    """How lanes of one program run: `block` side by side, `part` of them saved together."""

    lanes: int
    block: int
    lane_bytes: int  #: what one lane takes
    fixed_bytes: int  #: what is there once: the problem, the compiled program's own
    memory: int  #: what they may take together

    @property
    def part(self) -> int:
        return min(self.lanes, WAVES * self.block)

    @property
    def parts(self) -> int:
        return -(-self.lanes // self.part)

    @property
    def in_step(self) -> bool:
        """Whether no lane ever waits for a slot, so that all of them step together."""
        return self.lanes <= self.block

    def __str__(self) -> str:
        how = "in one block" if self.in_step else f"{self.block} side by side, saved in {self.parts} parts"
        needed = self.fixed_bytes + self.block * self.lane_bytes
        return f"{self.lanes} lanes {how}; {size(self.lane_bytes)} a lane, {size(needed)} of {size(self.memory)}"


def size(number: float) -> str:
    """Bytes for people.

    >>> size(1_230_000)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def plan(
    lanes: int,
    guess: tuple[int, int],
    measure: Callable[[Plan], int],
    *,
    block_size: int | None = None,
    memory: int | None = None,
    devices: int = 1,
) -> Plan:
    """The block of lanes that fits.

    Args:
        lanes: how many there are in all.
        guess: bytes of one lane and of what is there once, before anything is compiled.
        measure: compiles a plan's program and returns the bytes it holds.
        block_size: lanes side by side, instead of what fits.
        memory: bytes to use on each device; half of what is free if None.
        devices: how many share the lanes; a block is a multiple of them.

    Raises:
        InputError: not even one lane per device fits, or `block_size` lanes do not.
    """
    free = free_bytes()
    memory = memory if memory is not None else int(MEMORY_SHARE * free) if free else 2**62
    most = CPU_LANES * devices if jax.default_backend() == "cpu" else lanes
    lane_bytes, fixed = guess
    block = block_size or _even(lanes, min(most, _fits(memory, fixed, lane_bytes, devices)), devices)
    while True:
        tried = Plan(lanes, -(-block // devices) * devices, lane_bytes, fixed, memory)
        needed = measure(tried)
        lane_bytes = max(1, (needed - fixed) * devices // tried.block)
        found = tried._replace(lane_bytes=lane_bytes)
        if needed <= memory:
            return found
        fewer = _even(lanes, min(_fits(memory, fixed, lane_bytes, devices), tried.block - devices), devices)
        if block_size or fewer < devices:
            raise InputError(f"{tried.block} lanes side by side need {size(needed)} and {size(memory)} may be used: "
                             "use fewer (block_size), more memory, or float32")  # fmt: skip
        block = fewer


def _fits(memory: int, fixed: int, lane_bytes: int, devices: int) -> int:
    return max(0, memory - fixed) // max(1, lane_bytes) * devices


def _even(lanes: int, most: int, devices: int) -> int:
    """At most `most` lanes a block (one per device at least), so that blocks come out even."""
    most = max(most // devices * devices, devices)
    waves = -(-lanes // most)
    return -(-lanes // (waves * devices)) * devices
