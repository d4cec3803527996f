"""Parts (i) to (iii) of `fedjax-lc bench sweep`: W1 on one thread (or one GPU), per lane and step.

A part is measured in a child process and told by the parent. Sweeps are timed inside their loop of compiled chunks,
after a first untimed call; what a call spends outside it (plan, start, table) is told apart. A processor's speed drifts
from turn to turn, so ratios are taken within each turn: their median is judged, their range is shown.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import harness, rivals
from experiments.bench.harness import Contestant, Ratio, Told, late_notes, raced, ratio
from experiments.bench.workloads import FEDAVG, GRADIENT_ONLY, Size, Work, w1, with_plain_branches
from fedjax_lc import algorithms
from fedjax_lc.problems.features import Dense
from fedjax_lc.results.trace import Trace
from fedjax_lc.running.run import run
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

SWEEP, RUNS = "fl.sweep", "fl.run, one by one"
PLAIN, VMAP = "plain JAX, one by one", "plain JAX, nested vmap"
COLUMNS, BLOCKED = "NumPy, batched products", "NumPy, products client by client"
PRODUCTS = ("the products alone, NumPy", "the products alone, JAX")
GRADIENT, PLAIN_GRADIENT = "gradient only", "gradient only, plain vmap"
LOCODL = "LoCoDL, p = {:g}".format
PLAIN_COND = f"{LOCODL(0.1)}, lax.cond under plain vmap"
COPY = "copy of an array"
COPY_FLOATS = 2**25
CHANCES = {0.01: 1.4, 0.03: 1.4, 0.1: 1.4, 0.3: 2.0}  #: p, and the most that LoCoDL may take of the gradient alone
FLAT = 1.1  #: more lanes may take this many times the least time of fewer


class Sizes(NamedTuple):
    """W1's shape, and how much of it one timed block does."""

    w1: Size = Size()
    configurations: int = 64
    rounds: int = 30  #: (i), of a sweep and of the products alone
    few: int = 4  #: (i), configurations that are run one by one in a block
    few_rounds: int = 200
    numpy_rounds: int = 20
    lanes: tuple[int, ...] = (32, 256)  #: (ii)
    scaling: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)  #: (iii)
    lane_steps: int = 4000  #: (ii) and (iii), of a block
    least_steps: int = 20
    memory_lanes: int = 256

    def steps(self, lanes: int) -> int:
        return max(self.least_steps, self.lane_steps // lanes)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Sizes:
        """From JSON."""
        return cls(**{**given, "w1": Size(*given["w1"])})


FULL = Sizes(rounds=500, few=64, few_rounds=500, numpy_rounds=500)  #: (i) as it stands, without shortcuts


def _swept(method: Any, work: Work, hp: Any, lanes: int, steps: int, **options: Any) -> Contestant:
    """A call of `fl.sweep`, measuring F once at its end; a round is a lane's step."""
    options = {"steps": steps, "every": steps, "progress": False, **options}
    return Contestant(lanes * steps, lambda: sweep(method, work.problem, hp, **options))


# --- (i) step sizes of W1(b) ---


def averaging(sizes: Sizes, dtype: str, repeats: int, progress: bool) -> dict[str, Any]:
    found = raced(averaging_contests(sizes, w1(sizes.w1, dtype)), repeats, "(i)", progress)
    return found | {"flops": 4 * sizes.w1.clients * sizes.w1.rows * sizes.w1.dim * sizes.w1.local_steps}


def step_sizes(sizes: Sizes, work: Work) -> np.ndarray:
    """(configurations,) of theory's step size and below, as everyone takes them."""
    theory = float(FEDAVG.theory(work.problem).client_lr)
    return (theory * np.geomspace(0.1, 1, sizes.configurations)).astype(work.A.dtype)


def averaging_contests(sizes: Sizes, work: Work) -> dict[str, Contestant]:
    """A round is one configuration's."""
    hp = FEDAVG.theory(work.problem, local_steps=sizes.w1.local_steps)
    rates, all_ = step_sizes(sizes, work), sizes.configurations
    few, rounds, numpy_rounds = rates[: sizes.few], sizes.rounds, sizes.numpy_rounds
    A, b, some = jax.device_put(work.A), jax.device_put(work.b), (sizes.w1.local_steps, sizes.few_rounds)
    options: Any = {"steps": sizes.few_rounds, "every": sizes.few_rounds, "progress": False}

    def runs() -> Trace:
        each = [run(FEDAVG, work.problem, dataclasses.replace(hp, client_lr=float(lr)), **options) for lr in few]
        each[-1].config["seconds"] = sum(trace.config["seconds"] for trace in each)
        return each[-1]

    def plain() -> list[Any]:
        return [rivals.fedavg_jax(A, b, work.l2, lr, *some).block_until_ready() for lr in few]

    def vmapped() -> Any:
        return rivals.fedavg_jax_sweep(A, b, work.l2, rates, sizes.w1.local_steps, rounds).block_until_ready()

    def in_numpy(rival: Callable[..., Any]) -> Contestant:
        numbers = (work.l2, rates, sizes.w1.local_steps, numpy_rounds)
        return Contestant(all_ * numpy_rounds, lambda: rival(work.A, work.b, *numbers))

    entries = {
        SWEEP: _swept(FEDAVG, work, grid(hp, client_lr=[float(lr) for lr in rates]), all_, rounds),
        RUNS: Contestant(len(few) * sizes.few_rounds, runs),
        PLAIN: Contestant(len(few) * sizes.few_rounds, plain),
        VMAP: Contestant(all_ * rounds, vmapped),
        PRODUCTS[1]: Contestant(all_ * rounds, _products_jax(work, all_, rounds * sizes.w1.local_steps)),
    }
    if jax.default_backend() == "cpu":
        entries |= {COLUMNS: in_numpy(rivals.fedavg_columns), BLOCKED: in_numpy(rivals.fedavg_blocked)}
        entries[PRODUCTS[0]] = Contestant(all_ * rounds, _products_numpy(work, all_, rounds * sizes.w1.local_steps))
    return entries


def _products_numpy(work: Work, columns: int, steps: int) -> Callable[[], Any]:
    """The two matrix products of `steps` local steps, client by client, and nothing else."""
    _, m, d = work.A.shape
    X = np.random.default_rng(0).standard_normal((d, columns)).astype(work.A.dtype)
    z, moves = np.empty((m, columns), X.dtype), np.empty_like(X)

    def products() -> None:
        for rows in work.A:
            for _ in range(steps):
                np.matmul(rows, X, out=z)
                np.matmul(rows.T, z, out=moves)

    return products


def _products_jax(work: Work, rows: int, steps: int) -> Callable[[], Any]:
    """The same as batched products of our own shapes, rows padded to whole vectors."""
    assert isinstance(work.problem.features, Dense)
    A = work.problem.features.array / 2  # powers of A^T A stay finite
    n, _, width = A.shape
    X = jnp.asarray(np.random.default_rng(0).standard_normal((n, rows, width)), A.dtype)

    @jax.jit
    def products(A: jax.Array, X: jax.Array) -> jax.Array:
        both = lambda _, X: jnp.einsum("nlm,nmd->nld", jnp.einsum("nld,nmd->nlm", X, A), A)
        return jax.lax.fori_loop(0, steps, both, X)

    return lambda: products(A, X).block_until_ready()


def tell_averaging(found: Mapping[str, Any]) -> Told:
    rows = found["rows"]
    over = {name: ratio(rows, name, SWEEP) for name in rows}
    rate = lambda name: found["flops"] / rows[name]["ms"] / 1e6
    told = [
        {
            "contestant": name,
            "median ms": f"{row['ms']:.3f}",
            "it / ours [turns]": str(over[name]),
            "GFLOP/s": f"{rate(name):.1f}",
        }
        for name, row in rows.items()
    ]
    fastest = lambda *names: min((over[name] for name in names if name in over), key=lambda each: each.median)
    share = fastest(*PRODUCTS)
    notes = [f"of the rate of the products alone (the faster) ours reaches {share} times"]
    if share.median > 1:
        notes.append("the products alone are no ceiling here: that share says nothing")
    judged = [fastest(RUNS, PLAIN).target("(i) one-by-one JAX (the faster) / ours", None, 2.0)]
    if COLUMNS in rows:
        numpy = fastest(COLUMNS, BLOCKED)
        judged.append(numpy.target("(i) NumPy's matrix-product sweep (the faster) / ours", None, 1.2))
    return Told.of(told, [*notes, *_host_notes(found)], judged)


def _host_notes(found: Mapping[str, Any]) -> list[str]:
    outside = [row["outside_s"] for row in found["rows"].values() if row["outside_s"] > 0]
    return [f"outside its loop a call of ours spends {min(outside):.3f} to {max(outside):.3f} s", *late_notes(found)]


# --- (ii) LoCoDL's branch ---


def branches(sizes: Sizes, dtype: str, repeats: int, progress: bool) -> dict[str, Any]:
    work = w1(sizes.w1, dtype)
    n, m, d = work.A.shape
    item = work.A.dtype.itemsize
    return {
        str(lanes): raced(branch_contests(sizes, work, lanes), repeats, f"(ii), {lanes} lanes", progress)
        | {
            # What must move at least: A twice; per lane x read twice and written, z and the slopes written and read.
            "step_bytes": item * (2 * n * m * d + lanes * n * (3 * d + 4 * m)) / lanes,
            "copy_bytes": 2 * item * COPY_FLOATS,
        }
        for lanes in sizes.lanes
    }


def branch_contests(sizes: Sizes, work: Work, lanes: int) -> dict[str, Contestant]:
    locodl, steps = algorithms.get("locodl"), sizes.steps(lanes)
    alone = GRADIENT_ONLY.theory(work.problem)
    hp = lambda p: locodl.theory(work.problem, compressor=f"rand_k:{sizes.w1.k}", p=p)
    fewer = max(1, steps // 4)  # a plain vmap is slow
    double, floats = jax.jit(lambda x: 2 * x), jnp.ones(COPY_FLOATS, work.A.dtype)
    return {
        GRADIENT: _swept(GRADIENT_ONLY, work, alone, lanes, steps, seeds=lanes),
        **{LOCODL(p): _swept(locodl, work, hp(p), lanes, steps, seeds=lanes) for p in CHANCES},
        PLAIN_GRADIENT: _swept(with_plain_branches(GRADIENT_ONLY), work, alone, lanes, fewer, seeds=lanes),
        PLAIN_COND: _swept(with_plain_branches(locodl), work, hp(0.1), lanes, fewer, seeds=lanes),
        COPY: Contestant(1, lambda: double(floats).block_until_ready()),
    }


def tell_branches(found: Mapping[str, Any]) -> Told:
    told, notes, judged = [], [], []
    for lanes, each in found.items():
        rows = each["rows"]
        told += [
            {
                "lanes": lanes,
                "per lane-step": name,
                "us": f"{1e3 * row['ms']:.1f}",
                "over gradient only [turns]": str(ratio(rows, name, GRADIENT)),
            }
            for name, row in rows.items()
            if name != COPY
        ]
        bytes_ = each["step_bytes"] / each["copy_bytes"]
        share = Ratio(tuple(bytes_ * turn for turn in ratio(rows, COPY, GRADIENT).turns))
        own = ratio(rows, PLAIN_COND, PLAIN_GRADIENT)
        notes += [
            f"{lanes} lanes: a plain vmap's LoCoDL takes {own} of its own gradient",
            f"{lanes} lanes: gradient only moves its arrays at {share} times a large copy's bytes per second"
            + (": they stay in cache" if share.median > 1 else ""),
            *(f"{lanes} lanes: {note}" for note in _host_notes(each)),
        ]
        judged += [
            ratio(rows, LOCODL(p), GRADIENT).target(f"(ii) {lanes} lanes, {LOCODL(p)} / gradient only", most)
            for p, most in CHANCES.items()
        ]
    return Told.of(told, notes, judged)


# --- (iii) more and more lanes ---


def scaling(sizes: Sizes, dtype: str, repeats: int, progress: bool) -> dict[str, Any]:
    """One race of all numbers of lanes, and what each one's plan said."""
    work, plans = w1(sizes.w1, dtype), dict[str, str]()
    entries = {str(lanes): _scaled(sizes, work, lanes, plans) for lanes in sizes.scaling}
    return raced(entries, repeats, "(iii)", progress) | {"plans": plans}


def _scaled(sizes: Sizes, work: Work, lanes: int, plans: dict[str, str]) -> Contestant:
    method = algorithms.get("locodl")
    hp = method.theory(work.problem, compressor=f"rand_k:{sizes.w1.k}", p=0.1)
    swept = _swept(method, work, hp, lanes, sizes.steps(lanes), seeds=lanes, progress=True)

    def run() -> Any:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            table = swept.run()
        plan = next(line for line in said.getvalue().splitlines() if "a lane" in line)
        plans[str(lanes)] = plan.partition("; compiled")[0].strip()
        return table

    return Contestant(swept.rounds, run)


def memory(sizes: Sizes, dtype: str) -> dict[str, Any]:
    """What lanes of LoCoDL take in memory, predicted and measured: the growth of this process while they run."""
    plans, lanes = dict[str, str](), sizes.memory_lanes
    swept = _scaled(sizes, w1(sizes.w1, dtype), lanes, plans)
    swept.run()
    grown = _growth_mib(swept.run)
    return {"lanes": lanes, "predicted_mib": lanes * lane_bytes(plans[str(lanes)]) / 2**20, "measured_mib": grown}


def lane_bytes(plan: str) -> float:
    """What a plan, as it is printed, says that a lane takes.

    >>> lane_bytes("256 lanes in one block; 1.5 kB a lane, 0.4 MB of 1 GB")
    1500.0
    """
    number, unit = plan.partition(" a lane")[0].split()[-2:]
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def _growth_mib(work: Callable[[], Any]) -> float | None:
    """By how much memory in use grows during `work()` at its peak; None where it cannot be told."""
    gc.collect()
    device = jax.devices()[0]
    stats = device.memory_stats()
    if stats:
        before = stats["bytes_in_use"]
        work()
        return (device.memory_stats()["peak_bytes_in_use"] - before) / 2**20
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is free but still held would hide the growth
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        started = harness.status_mib("VmRSS")
        work()
        peak = harness.status_mib("VmHWM")
        return None if started is None or peak is None else peak - started
    return None


def tell_scaling(found: Mapping[str, Any]) -> Told:
    rows = found["rows"]
    counts = sorted(map(int, rows))
    told = [
        {
            "lanes": str(lanes),
            "us per lane-step": f"{1e3 * rows[str(lanes)]['ms']:.1f}",
            "seconds outside": f"{rows[str(lanes)]['outside_s']:.2f}",
            "plan": found["plans"][str(lanes)],
        }
        for lanes in counts
    ]

    def rise(lanes: int) -> Ratio:
        least = min((fewer for fewer in counts if fewer < lanes), key=lambda fewer: rows[str(fewer)]["ms"])
        return ratio(rows, str(lanes), str(least))

    worst = max(counts[1:], key=lambda lanes: rise(lanes).median)
    notes = [_memory_note(found["memory"])] if found.get("memory") else []
    judged = rise(worst).target(f"(iii) lane-step of {worst} lanes / the least of fewer", FLAT)
    return Told.of(told, [*notes, *late_notes(found)], [judged])


def _memory_note(found: Mapping[str, Any]) -> str:
    grown = found["measured_mib"]
    measured = "not measured here" if grown is None else f"{grown:.0f} MiB measured"
    return f"memory of {found['lanes']} lanes side by side: {found['predicted_mib']:.0f} MiB predicted, {measured}"
