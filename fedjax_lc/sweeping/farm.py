"""Parts of a sweep on many workers: dealt out as workers fall idle, gathered as they end, begun anew after a death."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

from fedjax_lc.core.errors import InputError
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.work import Eyes, Part, Work


class Lost(Exception):
    """A worker died; the message says why."""


class Crew(Protocol):
    """Workers of a kind, wherever they are.

    Attributes:
        retries: how often a part is begun anew after the death of its worker.
    """

    retries: int

    def hire(self) -> Any:
        """A new worker, which has what it needs to run parts."""

    def begin(self, worker: Any, part: Part) -> None:
        """Let an idle worker run a part."""

    def wait(self) -> list[tuple[Any, Ended | Lost]]:
        """Wait a moment; the workers that have ended their part, with its results, or died."""

    def progress(self) -> tuple[int, int]:
        """Records made and lanes that ended since the last call, of all workers."""

    def stop(self) -> None:
        """Ask all workers to end their parts early."""


def farm(work: Work, parts: Iterator[Part], eyes: Eyes, crew: Crew, workers: int) -> Iterator[Ended]:
    """The results of parts, each as soon as it has ended, on so many workers.

    Raises:
        InputError: a part lost more workers than the crew's retries.
    """
    again: list[Part] = []
    lost: Counter[int] = Counter()
    running: dict[Any, Part] = {}
    idle, asked = [crew.hire() for _ in range(workers)], False
    while True:
        while idle and not asked:
            part = again.pop(0) if again else next(parts, None)
            if part is None:
                break
            eyes.at(part)
            worker = idle.pop(0)
            running[worker] = part
            crew.begin(worker, part)
        if not running:
            return
        for worker, result in crew.wait():
            part = running.pop(worker)
            if isinstance(result, Ended):
                idle.append(worker)
                yield result
                continue
            lost[int(part.lanes[0])] += 1
            if lost[int(part.lanes[0])] > crew.retries:
                raise InputError(f"part {part.number + 1} of {part.parts} lost {lost[int(part.lanes[0])]} workers "
                                 f"({result}): give a worker more memory, or let fewer lanes run side by side "
                                 "(block_size)")  # fmt: skip
            work.say(f"  a worker died ({result}): its part of {len(part.lanes)} lanes begins again")
            again.append(part)
            idle.append(crew.hire())
        eyes.advanced(*crew.progress())
        if eyes.interrupted() and not asked:
            asked = True
            crew.stop()
