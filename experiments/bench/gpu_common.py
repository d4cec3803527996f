"""What the parts of `fedjax-lc bench gpu` share: their sizes, their time, and how contestants are timed and told.

A part is a function of `Given` and finds plain values, in a child process; another one tells them as tables. Blocks are
timed after everything is compiled and has run once; calls are queued and waited for at the end of a block.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax

from experiments.bench import harness, neural_parts
from experiments.bench.harness import Clock, Contestant, Target
from experiments.bench.workloads import Size, Work
from fedjax_lc.core.errors import InputError
from fedjax_lc.running.run import run
from fedjax_lc.sweeping.sweep import sweep

T = TypeVar("T")
NO_TIME = "no time was left"
AT_ONCE = min(16, os.cpu_count() or 1)  #: programs that are compiled side by side
CHOSEN = 1.3  #: the most that what the package chooses may take of the fastest way


class Sizes(NamedTuple):
    """Of all parts; the defaults are what is measured on a GPU."""

    right: Size = Size(clients=8, rows=10, dim=20)
    right_steps: int = 20
    methods: tuple[str, ...] = ()  #: of `right` and `single`; all if empty
    w1: Size = Size()
    precise_lanes: int = 64  #: of `precision`, compared with float64
    timed_lanes: int = 1024
    calls: int = 20  #: of a block, where a block is calls of one program
    steps: int = 3000  #: of `single`
    lanes: tuple[int, ...] = (1, 16, 256, 1024, 2048, 4096)
    plain_lanes: tuple[int, ...] = (256, 1024)  #: those that the plain vmap does too
    lane_steps: int = 200_000  #: of a block of `lanes`, within these bounds for each lane
    least_steps: int = 60
    most_steps: int = 1000
    selections: tuple[tuple[int, int, int], ...] = (
        (100, 123, 12),
        (6400, 123, 12),
        (100, 1024, 100),
        (6400, 1024, 100),
        (100, 20_000, 200),
        (10, 1_000_000, 10_000),
    )  #: rows, d, k
    numbers: tuple[int, ...] = (2**12, 2**16, 2**19, 2**21, 2**24)  #: of `branches`, of an operand
    turns: int = 50
    configurations: tuple[int, int] = (40, 25)  #: of `sweep`, step sizes x probabilities
    sweep_steps: int = 10_000
    sweep_clients: int = 288
    network: neural_parts.Sizes = neural_parts.Sizes(rounds=5)
    routes: tuple[str, ...] = ("patches", "native")  #: of convolutions
    precisions: tuple[str, ...] = ("default", "high", "highest")  #: of products in networks

    def steps_of(self, lanes: int) -> int:
        """Steps of a block of so many lanes."""
        return max(self.least_steps, min(self.most_steps, self.lane_steps // lanes))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Sizes:
        """From JSON."""
        known = {name: _tuples(value) for name, value in given.items()}
        w1, right, network = Size(*known["w1"]), Size(*known["right"]), neural_parts.Sizes(*known["network"])
        return cls(**known | {"w1": w1, "right": right, "network": network})


#: Every part in a second or so on one core of a CPU.
TINY = Sizes(
    right=Size(clients=3, rows=4, dim=6),
    right_steps=3,
    methods=("ef21",),
    w1=Size(clients=3, rows=4, dim=30, local_steps=10),
    precise_lanes=4,
    timed_lanes=5,
    calls=2,
    steps=4,
    lanes=(5,),
    plain_lanes=(5,),
    lane_steps=20,
    least_steps=4,
    selections=((3, 300, 30),),
    numbers=(2**10,),
    turns=3,
    configurations=(2, 2),
    sweep_steps=20,
    sweep_clients=3,
    network=neural_parts.Sizes(clients=3, cohort=2, rows=4, batch=2, side=8, rounds=1),
    routes=("patches",),
    precisions=(),
)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


class Given(NamedTuple):
    """What a part is given."""

    sizes: Sizes = Sizes()
    repeats: int = 5  #: turns of every contestant
    ends: float = float("inf")  #: by `time.time()`; a part starts nothing new after that
    progress: bool = False

    @property
    def late(self) -> bool:
        return time.time() > self.ends


class Told(NamedTuple):
    """Tables of a part, what else there is to say, and its targets."""

    tables: list[list[dict[str, str]]]
    notes: list[str]
    targets: list[Target]


# --- contestants ---


def ran(method: Any, work: Work, hp: Any, steps: int) -> Contestant:
    """A call of `fl.run`, measuring F once at its end."""
    return Contestant(steps, lambda: run(method, work.problem, hp, steps=steps, every=steps, progress=False))


def swept(method: Any, work: Work, hp: Any, lanes: int, steps: int) -> Contestant:
    """A call of `fl.sweep` whose lanes are seeds, measuring F once at its end; a round is a lane's step."""
    options: Any = {"seeds": lanes, "block_size": lanes, "steps": steps, "every": steps, "progress": False}
    return Contestant(lanes * steps, lambda: sweep(method, work.problem, hp, **options))


def called(program: Callable[..., Any], *operands: Any, calls: int, rounds: int = 1) -> Contestant:
    """Calls of a compiled program one after the other, each of so many rounds."""

    def block() -> None:
        for _ in range(calls):
            result = program(*operands)
        jax.block_until_ready(result)

    return Contestant(calls * rounds, block)


def raced(makers: Mapping[str, Callable[[], Contestant]], given: Given, title: str, at_once: int = 1) -> dict[str, Any]:
    """Per contestant ms a round of each turn, and their median; how many turns there were; why others are missing.

    at_once: makers that work side by side; one at a time where XLA tries kernels out on the device as it compiles.
    """
    clock = Clock()
    with harness.bar(len(makers) * (1 + given.repeats), title, given.progress) as bar:

        def prepared(make: Callable[[], Contestant]) -> Contestant | str:
            found = made(make, given)
            bar.update()
            return found

        all_ = dict(zip(makers, side_by_side(prepared, makers.values(), at_once), strict=True))
        ready = {name: found for name, found in all_.items() if isinstance(found, Contestant)}
        times: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(given.repeats):
            if turn and given.late:
                break
            for name, contestant in ready.items():
                times[name].append(1e3 * clock(contestant.run) / contestant.rounds)
                bar.update()
    return {
        "rows": {name: {"turns_ms": turns, "ms": statistics.median(turns)} for name, turns in times.items()},
        "turns": {"wanted": given.repeats, "taken": min(map(len, times.values()), default=0)},
        "missing": {name: found for name, found in all_.items() if isinstance(found, str)},
    }


def made(make: Callable[[], Contestant], given: Given) -> Contestant | str:
    """A contestant that has run once, or why there is none."""
    if given.late:
        return NO_TIME
    try:
        contestant = make()
        contestant.run()
    except (jax.errors.JaxRuntimeError, InputError, ImportError) as error:  # one that needs too much memory, say
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return contestant


def side_by_side(work: Callable[[Any], T], items: Iterable[Any], at_once: int) -> Iterator[T]:
    """`work` of all items in order, so many at once."""
    if at_once == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(work, items)


# --- what is told ---


def us(found: Mapping[str, Any], name: str, digits: int = 1) -> str:
    """Microseconds a round of a contestant, "-" where it is missing."""
    row = found["rows"].get(name)
    return "-" if row is None else f"{1e3 * row['ms']:,.{digits}f}"


def missing(found: Mapping[str, Any]) -> list[str]:
    """Notes on contestants and turns that are missing."""
    turns = found.get("turns", {"wanted": 0, "taken": 0})
    few = turns["taken"] < turns["wanted"] and bool(found["rows"])
    late = [name for name, why in found["missing"].items() if why == NO_TIME]
    notes = [f"left out, as {NO_TIME}: {'; '.join(late)}"] if late else []
    notes += [f"{turns['taken']} of {turns['wanted']} turns, as {NO_TIME}"] if few else []
    return notes + [f"left out: {name}: {why}" for name, why in found["missing"].items() if why != NO_TIME]


def judged(target: Target | None) -> dict[str, str]:
    """The last two columns of a row."""
    if target is None:
        return {"target": "-", "verdict": "-"}
    return {"target": f"<= {target.most:g}", "verdict": "met" if target.met else "not met"}
