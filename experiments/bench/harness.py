"""What suites share: contestants in turns, fresh pinned processes, targets beside measurements, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.core.progress import bar as progress_bar
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace
from fedjax_lc.running.programs import compile_count

ROOT = Path(__file__).parents[2]  #: of the repository
#: Environment of a process with one thread.
PINNED = {
    "NPROC": "1",  # threads of XLA
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "0",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


class Contestant(NamedTuple):
    """`run()` does one block of `rounds` rounds, from a fresh start, and waits for its result."""

    rounds: int
    run: Callable[[], Any]


class Target(NamedTuple):
    """A measured number beside the most, or the least, it may be."""

    what: str
    most: float | None
    measured: float
    least: float | None = None

    @property
    def met(self) -> bool:
        above = self.least is None or self.measured >= self.least
        return bool(above and (self.most is None or self.measured <= self.most))

    def facts(self) -> dict[str, Any]:
        """As in a result file."""
        return self._asdict() | {"met": self.met}


class Ratio(NamedTuple):
    """Of two contestants, turn by turn."""

    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.turns)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{min(self.turns):.2f}, {max(self.turns):.2f}]"

    def target(self, what: str, most: float | None, least: float | None = None) -> tuple[Target, list[str]]:
        """Judged by the median, with a note where not every turn says the same."""
        verdicts = [Target(what, most, turn, least).met for turn in self.turns]
        unsure = [f"{what}: {sum(verdicts)} of {len(verdicts)} turns meet it, {self}"]
        return Target(what, most, self.median, least), unsure * (len(set(verdicts)) > 1)


def ratio(rows: Mapping[str, Any], it: str, other: str) -> Ratio:
    """Time of `it` over that of `other`."""
    return Ratio(tuple(a / b for a, b in zip(rows[it]["turns_ms"], rows[other]["turns_ms"], strict=True)))


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """What `work()` takes by that clock."""
    started = clock()
    work()
    return clock() - started


def race(
    entries: Mapping[str, Contestant],
    repeats: int,
    tick: Callable[[], Any] = lambda: None,
    timed: Callable[[Callable[[], Any]], float] = seconds,
) -> dict[str, list[float]]:
    """Milliseconds per round of each turn, in turns; every contestant first runs once untimed."""
    for contestant in entries.values():
        contestant.run()
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(repeats):
        for name, contestant in entries.items():
            times[name].append(1e3 * timed(contestant.run) / contestant.rounds)
            tick()
    return times


class Clock:
    """Seconds of a contestant's run: of the loop alone for sweeps and runs of ours, which say it, else all of it."""

    def __init__(self) -> None:
        self.outside: list[float] = []  #: of each call
        self.cpu: list[float] = []  #: the processor's seconds of each call, of all threads
        self.warm: int | None = None  #: programs compiled before the first one

    def __call__(self, work: Callable[[], Any]) -> float:
        self.warm = compile_count() if self.warm is None else self.warm
        started, started_cpu = time.perf_counter(), time.process_time()
        result = work()
        whole = inside = time.perf_counter() - started
        self.cpu.append(time.process_time() - started_cpu)
        if isinstance(result, Table):
            inside = float(result.lanes["seconds"].sum())
        elif isinstance(result, Trace):
            inside = float(result.config["seconds"])
        self.outside.append(whole - inside)
        return inside


def raced(entries: Mapping[str, Contestant], repeats: int, title: str, progress: bool) -> dict[str, Any]:
    """Per contestant: ms per round of each turn and their median, seconds of a call outside its loop; and programs
    compiled late."""
    clock = Clock()
    with bar(repeats * len(entries), title, progress) as shown:
        found = race(entries, repeats, shown.update, clock)
    outside = {name: clock.outside[place :: len(entries)] for place, name in enumerate(entries)}
    rows = {
        name: {"turns_ms": ms, "ms": statistics.median(ms), "outside_s": statistics.median(outside[name])}
        for name, ms in found.items()
    }
    return {"rows": rows, "compiled_late": compile_count() - (clock.warm or 0)}


def late_notes(found: Mapping[str, Any]) -> list[str]:
    """A warning where programs were compiled after the first turn."""
    late = found["compiled_late"]
    return [f"{late} programs were compiled after the first turn: the times are not steady"] if late else []


class Told(NamedTuple):
    """A part's table, what else there is to say, and its targets."""

    rows: list[dict[str, str]]
    notes: list[str]
    targets: list[Target]

    @classmethod
    def of(cls, rows: list[dict[str, str]], notes: list[str], judged: Iterable[tuple[Target, list[str]]]) -> Told:
        """With targets as `Ratio.target` gives them."""
        judged = list(judged)
        return cls(rows, [*notes, *(note for _, unsure in judged for note in unsure)], [target for target, _ in judged])


def status_mib(field: str) -> float | None:
    """A line of Linux's /proc/self/status (VmHWM: peak resident memory, VmRSS: resident now); None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10
    except (OSError, StopIteration):
        return None


def peak_mib() -> float:
    """Peak resident memory of this process. Linux's own counter where there is one: getrusage's also remembers the
    process that started this one."""
    found = status_mib("VmHWM")
    if found is not None:
        return found
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# --- child processes ---


def python(code: str, *arguments: str, environment: Mapping[str, str] = PINNED) -> str:
    """Standard output of a Python process with that environment on top of this one's."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def ask(suite: str, job: Mapping[str, Any], environment: Mapping[str, str] = PINNED) -> Any:
    """What `experiments.bench.SUITE.child()` answers to a job, in a fresh process."""
    return json.loads(python(child_code(suite), json.dumps(job), environment=environment).splitlines()[-1])


def child_code(suite: str) -> str:
    """Python code that a child process of a suite runs, wherever it is started."""
    return f"import sys; sys.path.insert(0, {str(ROOT)!r}); from experiments.bench import {suite}; {suite}.child()"


def asked() -> Any:
    """The job that a child process was given."""
    return json.loads(sys.argv[-1])


def answer(do: Callable[[dict[str, Any]], Any]) -> None:
    """All of a child process: one job, on one core unless it is not `pinned`, and what `do` makes of it as JSON."""
    job = asked()
    if job.get("pinned", True):
        one_core()
    print(json.dumps(do(job)))


def about(job: Mapping[str, Any]) -> Any:
    """What a process sees: JAX's backend, or the environment as the command `argv` has it."""
    if job["task"] == "backend":
        import jax

        return jax.default_backend()
    sys.argv = job["argv"]
    return environment()


# --- the command line ---


def checked(repeats: int, parts: Iterable[str] | None = None, known: Iterable[str] = ()) -> tuple[str, ...]:
    """The parts, all that are known if None.

    Raises:
        InputError: an unknown part, or repeats below 1.
    """
    chosen = tuple(known) if parts is None else tuple(dict.fromkeys(parts))
    if repeats < 1:
        raise InputError(f"bench needs repeats >= 1, got {repeats}")
    if not set(chosen) <= set(known):
        raise InputError(f"parts are {', '.join(known)}, got {', '.join(chosen)}")
    return chosen


def options(parser: argparse.ArgumentParser, about: str | None, repeats: int, parts: Iterable[str] = ()) -> None:
    """Options that every suite has: --part where it has parts, --repeats and --out."""
    parser.description = about
    if parts:
        parser.add_argument("--part", nargs="+", choices=tuple(parts), help="only these parts (default: all)")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"turns of every contestant (default {repeats})")
    parser.add_argument("--out", metavar="FILE", help="also write JSON to FILE and the tables beside it as .txt")


def one_core() -> None:
    """Keep this process on one core, where that can be said."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def bar(total: int, title: str, progress: bool) -> Any:
    """The progress bar of the package, hidden without `progress`."""
    return progress_bar(total, title, shown=progress)


# --- results ---


def written(
    measure: Callable[[], dict[str, Any]], text: Callable[[Any], str], out: str | Path | None
) -> dict[str, Any]:
    """What `measure()` found, printed as `text` tells it; also in `out` as JSON, and the text beside it as .txt.

    Raises:
        InputError: `out` cannot be written; before any work starts.
    """
    if out is None:
        results = measure()
        print(text(results), end="")
        return results
    out = Path(out)
    with replacing(out) as as_json, replacing(out.with_suffix(".txt")) as as_text:
        results = measure()
        as_json.write_text(json.dumps(results, indent=1) + "\n")
        as_text.write_text(text(results))
    print(text(results), end="")
    return results


def machine() -> dict[str, Any]:
    """The processor, and what it was busy with."""
    return {"cpu": _cpu(), "load": os.getloadavg() if hasattr(os, "getloadavg") else ()}


def _cpu() -> str:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def made_on(results: Mapping[str, Any]) -> list[str]:
    """Lines on the machine, the versions and the command behind results."""
    return [
        f"{results['cpu']}; load {', '.join(f'{v:.1f}' for v in results['load'])}; {results['written']}",
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        f"command: {results['command']}",
    ]


def target_table(targets: Iterable[Mapping[str, Any]]) -> str:
    """Targets, as `Target.facts` tells them, beside their measurements."""

    def wanted(target: Mapping[str, Any]) -> str:
        return f"<= {target['most']:.2f}" if target.get("least") is None else f">= {target['least']:.2f}"

    return report.table(
        [
            {
                "target": target["what"],
                "wanted": wanted(target),
                "measured": f"{target['measured']:.2f}",
                "verdict": "met" if target["met"] else "not met",
            }
            for target in targets
        ]
    )
