"""One run on one thread against NumPy and plain JAX, every target beside its measurement.

Contestants take turns (A B C A B C ...) inside one process, so that whatever else the machine does hits all of them;
verdicts are ratios of medians. Each contestant also runs alone in a fresh process, for its compile time and peak
memory. All of it happens in child processes whose environment pins them to one thread before JAX and NumPy start.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench import harness, rivals
from experiments.bench.harness import Contestant, Target, peak_mib, race, seconds
from experiments.bench.workloads import FEDAVG, GRADIENT_ONLY, Size, Work, w1
from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.running.run import run

OURS = "fedjax_lc"
DIANA, AVERAGING, LOCODL = "W1(a) DIANA, rand-k", "W1(b) FedAvg, full-batch steps", "LoCoDL on W1, p = 0.1"
LOOP, BATCHED, PLAIN, SCAN = "NumPy client loop", "NumPy batched", "plain JAX", "gradient-only scan"
LOOP_SHARE = 10  #: a block of the client loop, which is slow, has this many times fewer rounds
PROGRAMS = ("pass", "import jax", "import fedjax_lc")


def run_single(
    size: Size | None = None,
    *,
    repeats: int = 15,
    starts: int = 3,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure everything and print the tables.

    Args:
        size: shape and block length; W1 itself if None.
        repeats: how often every contestant takes its turn.
        starts: fresh processes behind each start-up, compile and memory figure, their median.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`: start-up in seconds, compilation in seconds of its core, rounds in
        milliseconds, memory in MiB.

    Raises:
        InputError: a count below 1, or `out` cannot be written; before any work starts.
    """
    size = size or Size()
    if repeats < 1 or starts < 1:
        raise InputError(f"bench needs repeats >= 1 and starts >= 1, got {repeats} and {starts}")
    return harness.written(lambda: _measured(size, repeats, starts, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench single`."""
    harness.options(parser, __doc__, 15)
    parser.set_defaults(command=lambda options: run_single(repeats=options.repeats, out=options.out) and 0)


def contests(size: Size, work: Work) -> dict[str, dict[str, Contestant]]:
    """Per workload, its contestants by name, ours first."""
    return {DIANA: _diana(size, work), AVERAGING: _averaging(size, work), LOCODL: _locodl(size, work)}


def _ours(method: Any, work: Work, hp: Any, rounds: int) -> Contestant:
    """A whole call of `fl.run`, measuring F once at its end."""
    return Contestant(
        rounds, lambda: run(method, work.problem, hp, jax.random.key(0), steps=rounds, every=rounds, progress=False)
    )


def _diana(size: Size, work: Work) -> dict[str, Contestant]:
    hp = algorithms.get("diana").theory(work.problem, compressor=f"rand_k:{size.k}")
    numbers = (work.l2, float(hp.gamma), float(hp.alpha))
    A, b, shape = jax.device_put(work.A), jax.device_put(work.b), (size.clients, size.dim, size.k)
    pick, rounds, few = rivals.random_top_k(*shape), size.diana_rounds, max(1, size.diana_rounds // LOOP_SHARE)

    def batched() -> Any:
        return rivals.diana_batched(work.A, work.b, *numbers, rivals.random_batched(_rng(), *shape, rounds))

    def plain() -> Any:
        return rivals.diana_jax(A, b, *numbers, jax.random.split(jax.random.key(0), rounds), pick).block_until_ready()

    def loop() -> Any:
        return rivals.diana_loop(work.A, work.b, *numbers, rivals.random_loop(_rng(), *shape, few))

    return {
        OURS: _ours("diana", work, hp, rounds),
        BATCHED: Contestant(rounds, batched),
        PLAIN: Contestant(rounds, plain),
        LOOP: Contestant(few, loop),
    }


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _averaging(size: Size, work: Work) -> dict[str, Contestant]:
    hp = FEDAVG.theory(work.problem, local_steps=size.local_steps)
    numbers = (work.l2, hp.client_lr, hp.local_steps)
    A, b = jax.device_put(work.A), jax.device_put(work.b)
    rounds, few = size.fedavg_rounds, max(1, size.fedavg_rounds // LOOP_SHARE)
    return {
        OURS: _ours(FEDAVG, work, hp, rounds),
        BATCHED: Contestant(rounds, lambda: rivals.fedavg_batched(work.A, work.b, *numbers, rounds)),
        PLAIN: Contestant(rounds, lambda: rivals.fedavg_jax(A, b, *numbers, rounds).block_until_ready()),
        LOOP: Contestant(few, lambda: rivals.fedavg_loop(work.A, work.b, *numbers, few)),
    }


def _locodl(size: Size, work: Work) -> dict[str, Contestant]:
    hp = algorithms.get("locodl").theory(work.problem, compressor=f"rand_k:{size.k}", p=0.1)
    return {
        OURS: _ours("locodl", work, hp, size.locodl_steps),
        SCAN: _ours(GRADIENT_ONLY, work, GRADIENT_ONLY.theory(work.problem), size.locodl_steps),
    }


def alone(contestant: Contestant) -> dict[str, float]:
    """What a fresh process pays: seconds of its one core for the first block beyond those of a later one (tracing,
    lowering and compiling all it needs), and peak memory."""
    first = seconds(contestant.run, time.process_time)
    return {"compile_s": first - seconds(contestant.run, time.process_time), "peak_mib": peak_mib()}


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_do)


def _do(job: dict[str, Any]) -> Any:
    size = Size(*job["size"])
    entries = contests(size, w1(size))
    if "alone" in job:
        workload, name = job["alone"]
        return alone(entries[workload][name])
    with harness.bar(job["repeats"] * sum(map(len, entries.values())), "turns", job["progress"]) as bar:
        return {workload: race(entries[workload], job["repeats"], bar.update) for workload in entries}


def _child(size: Size, **job: Any) -> Any:
    return harness.ask("single", {"size": size, **job})


def _measured(size: Size, repeats: int, starts: int, progress: bool) -> dict[str, Any]:
    machine = harness.machine()
    startup = _startup(starts, progress)
    times = _child(size, repeats=repeats, progress=progress)
    lone = _alone(size, times, starts, progress)
    results = {
        "size": size._asdict(),
        "repeats": repeats,
        "startup_s": startup,
        "contests": {workload: _rows(times[workload], lone[workload]) for workload in times},
        **machine,
        **environment(),
    }
    results["targets"] = [target.facts() for target in targets(results)]
    return results


def _startup(starts: int, progress: bool) -> dict[str, float]:
    """Median seconds that a process needs for each of PROGRAMS, in turns."""
    times: dict[str, list[float]] = {program: [] for program in PROGRAMS}
    with harness.bar(starts * len(PROGRAMS), "start-up", progress) as bar:
        for _ in range(starts):
            for program in PROGRAMS:
                times[program].append(seconds(partial(harness.python, program)))
                bar.update()
    return {program: statistics.median(seconds) for program, seconds in times.items()}


def _alone(
    size: Size, times: dict[str, dict[str, Any]], starts: int, progress: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians of `alone` over `starts` fresh processes, for every contestant of `times`."""
    with harness.bar(starts * sum(map(len, times.values())), "compile and memory", progress) as bar:

        def one(workload: str, name: str) -> dict[str, float]:
            found: list[dict[str, float]] = []
            for _ in range(starts):
                found.append(_child(size, alone=(workload, name)))
                bar.update()
            return {what: statistics.median(each[what] for each in found) for what in found[0]}

        return {workload: {name: one(workload, name) for name in names} for workload, names in times.items()}


def _rows(times: dict[str, list[float]], lone: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Per contestant: min and median ms per round, ours over it (of medians and of minima), compile time, memory."""
    ours = times[OURS]
    return {
        name: {
            "min_ms": min(ms),
            "median_ms": statistics.median(ms),
            "ratio": statistics.median(ours) / statistics.median(ms),
            "ratio_of_minima": min(ours) / min(ms),
            **lone[name],
        }
        for name, ms in times.items()
    }


def targets(results: dict[str, Any]) -> list[Target]:
    """The targets, each with what was measured."""
    contests, startup = results["contests"], results["startup_s"]
    ratio = lambda workload, name: contests[workload][name]["ratio"]
    compile_s = max(rows[OURS]["compile_s"] for rows in contests.values())
    return [
        Target("W1(b): ours / batched NumPy", 1.0, ratio(AVERAGING, BATCHED)),
        Target("W1(a): ours / batched NumPy", 1.25, ratio(DIANA, BATCHED)),
        Target("LoCoDL, p = 0.1: ours / gradient-only scan", 1.3, ratio(LOCODL, SCAN)),
        Target("start-up beyond Python and jax, s", 1.3, startup["import fedjax_lc"] - startup["import jax"]),
        Target("compile, our slowest, CPU s", 3.0, compile_s),
    ]


def text(results: dict[str, Any]) -> str:
    """What is printed."""
    size = Size(**results["size"])
    head = [
        f"fedjax-lc bench single: one thread, {results['repeats']} turns each, whole calls of fl.run on our side",
        f"W1: {size.clients} clients x {size.rows} rows x {size.dim} features, float32; k = {size.k}, "
        f"{size.local_steps} local steps",
        *harness.made_on(results),
    ]
    startup = ", ".join(f"{program} {value:.2f} s" for program, value in results["startup_s"].items())
    tables = report.table(_contest_rows(results)), harness.target_table(results["targets"])
    return "\n".join([*head, "", tables[0], "", f"start-up: {startup}", "", tables[1], ""])


def _contest_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "per round": workload,
            "contestant": name,
            "min ms": f"{row['min_ms']:.3f}",
            "median ms": f"{row['median_ms']:.3f}",
            "ours / it": f"{row['ratio']:.2f}",
            "of minima": f"{row['ratio_of_minima']:.2f}",
            "compile CPU s": f"{row['compile_s']:.2f}",
            "peak MiB": f"{row['peak_mib']:.0f}",
        }
        for workload, rows in results["contests"].items()
        for name, row in rows.items()
    ]
