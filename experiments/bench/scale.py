"""Time and memory of a step against clients, dimension, lanes and devices, beside the memory that was predicted.

Every row is a fresh process: it compiles and runs once, then runs again and is measured; its time is the least of some
runs. Memory is the peak of what XLA holds on the device; on a CPU, which does not report that, the growth of the
process while it runs, and the problem's arrays. Predicted is what a run announces, or the plan of a sweep. On all cores
of a CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import harness
from experiments.bench.harness import Clock, Contestant, Target
from fedjax_lc import algorithms, data
from fedjax_lc.core import pytree
from fedjax_lc.core.memory import size
from fedjax_lc.core.typing import PyTree
from fedjax_lc.problems import logistic_regression
from fedjax_lc.problems.features import Dense
from fedjax_lc.problems.linear import LinearModel
from fedjax_lc.results import report
from fedjax_lc.running.run import run
from fedjax_lc.sweeping import planner
from fedjax_lc.sweeping.sweep import sweep

WITHIN = 1.2  #: the most of measured over predicted memory, and of the reverse
LEAST = 50e6  #: bytes from which memory is judged: of less, a process's other arrays are a large share
FLAT = 1.05  #: the most of memory after all rounds over that after a tenth of them
AS_EVEN = 1.5  #: the most of a power law's time and memory over an even split's
COHORT = 100
TURNS = 15  #: of each partition
COPIES = 5  #: of its data, in turns: the time of data that barely fit a cache depends on where they lie in memory
LONGER = 10  #: as many steps of each partition, of which one takes about half a millisecond
METHOD_STEPS = 8
AGAIN = 1.0  #: seconds for which a row is timed again; its time is the least


class Sizes(NamedTuple):
    """Of all parts."""

    clients: tuple[int, ...] = (10**2, 10**3, 10**4, 10**5, 10**6)
    dimension: tuple[int, ...] = (10**2, 10**3, 10**4, 10**5, 10**6, 10**7)
    lanes: tuple[int, ...] = (1, 10, 10**2, 10**3, 10**4)
    devices: tuple[int, ...] = (1, 2, 4, 8)
    ragged: tuple[int, ...] = (50, 1000)  #: clients of the same rows, iid and by a power law
    methods: int = 64  #: lanes of each method
    rounds: int = 10_000
    steps: int = 20
    rows: int = 32_561  #: of `ragged`: those of a9a
    state: int = 1000  #: dimension of `lanes`, `devices`, `methods` and `rounds`
    only: tuple[str, ...] = ()  #: names of `methods`; none for all


TINY = Sizes((120,), (50,), (3,), (2,), (7,), 2, rounds=200, steps=2, rows=150, state=40, only=("gd",))


class Part(NamedTuple):
    """What is measured of a number, in words; `measure` is called with the sizes and that number."""

    what: str
    measure: Callable[[Sizes, int], list[dict[str, Any]]]


def run_scale(
    parts: Sequence[str] | None = None,
    *,
    sizes: Sizes | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the parts and print their table.

    Args:
        parts: of clients, dimension, lanes, devices, ragged, methods, rounds; all if None.
        sizes: what the module says if None.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`: milliseconds per step (of a lane), bytes.

    Raises:
        InputError: an unknown part, or `out` cannot be written; before any work starts.
    """
    chosen = harness.checked(1, parts, PARTS)
    return harness.written(lambda: _measured(chosen, sizes or Sizes(), progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench scale`."""
    harness.options(parser, __doc__, 1, PARTS)
    parser.set_defaults(command=lambda o: run_scale(o.part, out=o.out) and 0)


# --- the parent ---


def _measured(parts: Sequence[str], sizes: Sizes, progress: bool) -> dict[str, Any]:
    machine, backend = harness.machine(), _ask("backend", 1)  # this process takes no memory of a GPU
    about, rows = _ask("environment", 1, backend, argv=sys.argv), []
    numbers = {part: getattr(sizes, part) for part in parts}
    numbers = {part: given if isinstance(given, tuple) else (given,) for part, given in numbers.items()}
    with harness.bar(sum(map(len, numbers.values())), "rows", progress) as bar:
        for part, each in numbers.items():
            for number in each:
                devices = number if part == "devices" else 1
                facts = _ask(part, devices, backend, number=number, sizes=sizes)
                rows += [{"part": part, "number": number, **row} for row in facts]
                bar.update()
    results = {"sizes": sizes._asdict(), "backend": backend, "rows": rows, **machine, **about}
    results["targets"] = [target.facts() for target in targets(results)]
    return results


def _ask(task: str, devices: int, backend: str = "", **job: Any) -> Any:
    """What a fresh process finds: on so many fake devices of a CPU, or on those of an accelerator."""
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "0", "JAX_ENABLE_X64": "0", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if backend == "cpu":
        # a process that keeps what it has freed, as glibc comes to do, takes what the last row took
        fake = f"--xla_force_host_platform_device_count={devices}"
        environment |= {"XLA_FLAGS": fake, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    return harness.ask("scale", {"task": task, "pinned": False, **job}, environment)


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_do)


def _do(job: dict[str, Any]) -> Any:
    if job["task"] not in PARTS:
        return harness.about(job)
    given: list[Any] = [tuple(value) if isinstance(value, list) else value for value in job["sizes"]]
    sizes = Sizes(*given)
    return PARTS[job["task"]].measure(sizes, job["number"])


def problem_of(n: int, m: int, d: int) -> Any:
    """Logistic regression with random rows, made without a loop over clients; its constants are bounds."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n, m, d), np.float32)
    smooth = np.full(n, 0.25 * 4 * d + 0.1, np.float32)
    return LinearModel(
        Dense(jnp.asarray(A), d),
        jnp.asarray(np.sign(rng.standard_normal((n, m), np.float32))),
        jnp.full((n, m), 1 / m, jnp.float32),
        jnp.full(n, m, jnp.int32),
        smooth=jnp.asarray(smooth),
        smooth_mean=jnp.float32(smooth[0]),
        strong=jnp.float32(0.1),
        x0=jnp.zeros(d, jnp.float32),
        given_f_star=0.0,
        even=True,
    )


def of_run(problem: Any, hp: Any, method: str, steps: int) -> list[dict[str, Any]]:
    """Of a run: its time, the memory it announces, and what it takes."""

    def go() -> tuple[float, int]:
        config = run(method, problem, hp, steps=steps, every=steps // 2, progress=False).config
        return config["seconds"] / steps, config["memory_bytes"]

    return [_row(go, problem)]


def lanes(sizes: Sizes, number: int) -> list[dict[str, Any]]:
    """DIANA with natural compression: a sweep of so many lanes."""
    problem = problem_of(100, 2, sizes.state)
    return [
        _sweep(problem, "diana", number, sizes.steps, algorithms.get("diana").theory(problem, compressor="natural"))
    ]


def devices(sizes: Sizes, number: int) -> list[dict[str, Any]]:
    """A sweep of 512 lanes over so many devices; none where there are fewer."""
    return lanes(sizes, 512) if len(jax.local_devices()) >= number else []


def methods(sizes: Sizes, number: int) -> list[dict[str, Any]]:
    """Every method by its theory: a sweep of so many lanes."""
    problem = problem_of(100, 2, sizes.state)
    names = sizes.only or algorithms.names()
    return [_sweep(problem, name, number, METHOD_STEPS, again=0.0) | {"method": name} for name in names]


def _sweep(problem: Any, method: str, lanes: int, steps: int, hp: Any = None, again: float = AGAIN) -> dict[str, Any]:
    """Of a sweep on all devices: its time per lane, the memory that its plan says of all devices, and what it takes."""
    plans = list[Any]()

    def noted(*given: Any, plan: Callable[..., Any] = planner.plan, **options: Any) -> Any:
        plans.append(plan(*given, **options))
        return plans[-1]

    def go() -> tuple[float, int]:
        table = sweep(method, problem, hp, seeds=lanes, steps=steps, every=steps // 2, progress=False)
        plan = plans[-1]
        predicted = plan.devices * plan.fixed_bytes + plan.block * plan.lane_bytes
        return float(table.lanes["seconds"].sum()) / (lanes * steps), predicted

    before, planner.plan = planner.plan, noted
    try:
        return _row(go, problem, again) | {"block": plans[-1].block}
    finally:
        planner.plan = before


def _row(go: Callable[[], tuple[float, int]], held: PyTree, again: float = AGAIN) -> dict[str, Any]:
    """Seconds of a step and predicted bytes as `go` returns them, and the peak of memory; `held` exists before it."""
    go()  # compiles
    stats = jax.local_devices()[0].memory_stats()
    before = 0.0 if stats else _reset_peak()
    seconds, predicted = go()
    if stats:
        measured = max(device.memory_stats()["peak_bytes_in_use"] for device in jax.local_devices())
    else:
        measured = harness.peak_mib() * 2**20 - before + pytree.nbytes(held)
    ends = time.perf_counter() + again
    while time.perf_counter() < ends:
        seconds = min(seconds, go()[0])
    return {"step_ms": 1e3 * seconds, "predicted": predicted, "measured": measured}


def _reset_peak() -> float:
    """Bytes of this process now, after what is free was given back to Linux, which forgets its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return (harness.status_mib("VmRSS") or 0.0) * 2**20


def clients(sizes: Sizes, n: int) -> list[dict[str, Any]]:
    """SCAFFOLD: a cohort of n resident clients, each with a vector of its own."""
    problem = problem_of(n, 2, 32)
    theory = algorithms.get("scaffold").theory(problem)
    return of_run(
        problem, dataclasses.replace(theory, cohort_size=min(COHORT, n), local_steps=1), "scaffold", sizes.steps
    )


def dimension(sizes: Sizes, d: int) -> list[dict[str, Any]]:
    """DIANA with natural compression: vectors of d numbers of four clients."""
    problem = problem_of(4, 2, d)
    return of_run(problem, algorithms.get("diana").theory(problem, compressor="natural"), "diana", sizes.steps)


def ragged(sizes: Sizes, n: int) -> list[dict[str, Any]]:
    """GD on the same rows, dense or sparse, divided evenly and by a power law; both are timed in turns."""
    return [row | {"form": form} for form in ("dense", "sparse") for row in _divided(sizes, n, form)]


def _divided(sizes: Sizes, n: int, form: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((sizes.rows, 123)), np.sign(rng.standard_normal(sizes.rows))
    if form == "sparse":
        A *= rng.random(A.shape) < 14 / 123  # as many entries a row as a9a has
    table, rows, entries = data.from_arrays(A, b), list[dict[str, Any]](), dict[str, Contestant]()
    for partition in ("iid", "power_law:1.5"):
        parts = data.clients(table, data.partition(table, n, partition))
        problem = logistic_regression(parts, l2=0.1, f_star=0.0, dtype="float32", features=form)
        hp = algorithms.get("gd").theory(problem)
        steps = LONGER * sizes.steps
        options: Any = {"steps": steps, "every": steps, "progress": False}
        rows += [row | {"partition": partition, "data": pytree.nbytes(problem)} for row in of_run(problem, hp, "gd", 2)]
        copies = itertools.cycle([problem, *(jax.tree.map(jnp.copy, problem) for _ in range(COPIES - 1))])
        entries[partition] = Contestant(steps, partial(_next_run, copies, hp, options))
    times = harness.race(entries, TURNS, timed=Clock())
    return [row | {"step_ms": min(times[row["partition"]])} for row in rows]


def _next_run(problems: Iterator[Any], hp: Any, options: Mapping[str, Any]) -> Any:
    """GD on the next of these problems."""
    return run("gd", next(problems), hp, **options)


def rounds(sizes: Sizes, total: int) -> list[dict[str, Any]]:
    """DIANA for many rounds: memory after a tenth of them and after all."""
    problem, seen = problem_of(10, 2, sizes.state), list[tuple[int, float]]()

    def note(trace: Any) -> None:
        seen.append((int(trace.step[-1]), _now()))

    started = time.perf_counter()
    options: Any = {"steps": total, "every": 10, "on_chunk": note, "progress": False}
    config = run("diana", problem, algorithms.get("diana").theory(problem, compressor="natural"), **options).config
    early = next(held for step, held in seen if step >= total // 10)
    seconds = (time.perf_counter() - started) / total
    return [{"step_ms": 1e3 * seconds, "predicted": config["memory_bytes"], "early": early, "late": seen[-1][1]}]


def _now() -> float:
    """Bytes in use now, of the device, or of this process."""
    stats = jax.local_devices()[0].memory_stats()
    return float(stats["bytes_in_use"]) if stats else (harness.status_mib("VmRSS") or 0.0) * 2**20


PARTS: Mapping[str, Part] = {
    "clients": Part(f"clients resident, cohort of {COHORT}; SCAFFOLD, 2 rows each, d = 32", clients),
    "dimension": Part("coordinates; DIANA with natural compression, 4 clients, 2 rows each", dimension),
    "lanes": Part("lanes of a sweep; DIANA with natural compression, 100 clients, 2 rows each", lanes),
    "devices": Part("devices of a sweep of 512 such lanes", devices),
    "ragged": Part(
        f"clients of the same rows with 123 features, dense or sparse, evenly or by a power law; GD, {LONGER} x steps",
        ragged,
    ),
    "methods": Part(
        f"every method by its theory, {METHOD_STEPS} steps; lanes of a sweep, 100 clients, 2 rows each", methods
    ),
    "rounds": Part("rounds of one run; DIANA with natural compression, 10 clients", rounds),
}


# --- what is printed ---


def targets(results: Mapping[str, Any]) -> list[Target]:
    """What the rows are to meet; rows of little memory are not judged."""
    rows = results["rows"]
    words = lambda row: (row["part"], f"{row['number']:,}", *(row.get(k) for k in ("form", "partition", "method")))
    named = lambda row: " ".join(filter(None, words(row)))
    judged = [row for row in rows if "measured" in row and row["predicted"] >= LEAST]
    found = [
        Target(f"{named(row)}: measured / predicted memory", WITHIN, row["measured"] / row["predicted"], 1 / WITHIN)
        for row in judged
    ]
    even = {(row["number"], row["form"]): row for row in rows if row.get("partition") == "iid"}
    for row in rows:
        if row.get("partition", "iid") != "iid":
            for what in ("step_ms", "data"):
                share = row[what] / even[row["number"], row["form"]][what]
                found.append(Target(f"{named(row)}: {what.partition('_')[0]} / iid's", AS_EVEN, share))
    return found + [
        Target(f"{named(row)}: memory at the end / early", FLAT, row["late"] / row["early"])
        for row in rows
        if "late" in row
    ]


def text(results: Mapping[str, Any]) -> str:
    """What is printed."""
    lines = [
        f"fedjax-lc bench scale: {results['sizes']['steps']} steps each, after a first run; float32",
        *harness.made_on(results),
        f"device: {results['device']}",
    ]
    for part in dict.fromkeys(row["part"] for row in results["rows"]):
        lines += ["", PARTS[part].what, report.table(list(_told(results["rows"], part)))]
    if results["targets"]:
        lines += ["", harness.target_table(results["targets"])]
    return "\n".join([*lines, ""])


def _told(rows: Iterable[Mapping[str, Any]], part: str) -> Iterable[dict[str, str]]:
    for row in rows:
        if row["part"] == part:
            shown = {part: f"{row['number']:,}"} | ({"method": row["method"]} if "method" in row else {})
            shown |= {"form": row["form"]} if "form" in row else {}
            shown |= {"partition": row["partition"], "data": size(row["data"])} if "partition" in row else {}
            shown |= {"ms a step": f"{row['step_ms']:.4g}", "predicted": size(row["predicted"])}
            shown |= {name: size(row[name]) for name in ("measured", "early", "late") if name in row}
            shown |= {"measured / predicted": f"{row['measured'] / row['predicted']:.2f}"} if "measured" in row else {}
            yield shown | ({"side by side": f"{row['block']:,}"} if "block" in row else {})
