"""What a sweep computes, apart from where: its groups of lanes, and how a part of them runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.running.options import Task
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.fit import Blocks, Room
from fedjax_lc.sweeping.groups import Group, group
from fedjax_lc.sweeping.store import UnderWay


def unseen(*_: Any) -> None:
    """Look at no records."""


class Part(NamedTuple):
    """Lanes that run, and are saved, together.

    Attributes:
        group: the number of their group.
        places: their places in the group.
        lanes: their numbers in the sweep.
        block: how many of them run side by side.
        number, parts: which part it is of how many of the group.
        under_way: keeps the lanes while they run.
    """

    group: int
    places: np.ndarray
    lanes: np.ndarray
    block: int
    number: int
    parts: int
    under_way: UnderWay


class Eyes(NamedTuple):
    """What an engine reports to while parts run.

    Attributes:
        at: called with a part when it begins.
        advanced: called with the records made and the lanes that ended, now and then.
        interrupted: whether to stop.
        recorded: called with the lanes of a part that runs in this process, and what `Watch.recorded` is given.
    """

    at: Callable[[Part], Any]
    advanced: Callable[[int, int], Any]
    interrupted: Callable[[], bool]
    recorded: Callable[..., Any] = unseen


@dataclasses.dataclass
class Work:
    """The lanes of a sweep, as any process can run them.

    Attributes:
        hparams: the configurations.
        shares: among how many workers or shards the lanes are dealt.
        say: prints a line for people.
        parted: whether lanes side by side may be at different steps, though none waits for another.
    """

    algorithm: Algorithm
    task: Task
    hparams: Sequence[Any]
    seeds: tuple[int, ...]
    masked: tuple[str, ...]
    room: Room
    shares: int
    say: Callable[[str], None]
    parted: bool = False

    def __post_init__(self) -> None:
        self._blocks: tuple[int, Blocks] | None = None

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The groups of lanes that share a program."""
        return group(self.hparams, self.task.problem.dtype, self.seeds, self.masked)

    def blocks(self, number: int, begun: int | None) -> Blocks:
        """The blocks of a group; those of the group before are forgotten.

        Args:
            begun: lanes side by side with which the group began earlier, or None.
        """
        if self._blocks is None or self._blocks[0] != number:
            members = self.groups[number]
            more = (begun, self.shares, self.parted)
            self._blocks = number, Blocks(self.algorithm, self.task, self.room, members, self.say, *more)
        return self._blocks[1]

    def run(
        self,
        part: Part,
        advanced: Callable[[int, int], Any],
        interrupted: Callable[[], bool],
        recorded: Callable[..., Any] = unseen,
    ) -> Ended:
        """Run a part, from where it stopped if it is under way; arguments as in `Eyes`."""
        lanes = self.groups[part.group].lanes.take(part.places)
        return self.blocks(part.group, part.block).run(
            lanes, advanced, interrupted, part.under_way, functools.partial(recorded, part.lanes)
        )


#: runs parts of a sweep and yields the results of each as soon as it has ended
Engine = Callable[[Work, Iterator[Part], Eyes], Iterator[Ended]]


def local(work: Work, parts: Iterator[Part], eyes: Eyes) -> Iterator[Ended]:
    """The engine of one process: one part after the other on its devices."""
    for part in parts:
        eyes.at(part)
        yield work.run(part, eyes.advanced, eyes.interrupted, eyes.recorded)
        if eyes.interrupted():
            return
