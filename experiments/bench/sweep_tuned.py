"""Parts (iv) and (v) of `fedjax-lc bench sweep`: a tuned comparison on all cores, and a thousand configurations.

Both take their problem from a recipe of the repository, whose data must be on this machine: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.bench import rivals
from experiments.bench.harness import Told, seconds
from experiments.kit import catalogue
from experiments.kit.tuned import Tuned
from fedjax_lc import algorithms
from fedjax_lc.core import pytree
from fedjax_lc.data.catalogue import CATALOGUE
from fedjax_lc.data.download import obtain
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.axes import times
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

TUNED, WIDE = "locodl/tuned/a5a-87", "locodl/tuned/a5a-288"
DATA = "a5a"
MAX_STEPS = 30_000  #: of a configuration in (iv)
LOOP_STEPS = 20  #: of the NumPy loop that are timed
XLA = "/jax/core/compile/backend_compile_duration"


def recipe(name: str) -> Tuned:
    """The recipe, once its data are known to be here.

    Raises:
        InputError: no recipes here, or no data.
    """
    found = catalogue.get(name)
    assert isinstance(found, Tuned)
    obtain(CATALOGUE[DATA], download=False)
    return found


@contextlib.contextmanager
def compiling() -> Iterator[list[float]]:
    """Seconds of everything that XLA compiles within the block, as a list that grows."""
    spent: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event == XLA:
            spent.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield spent
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


# --- (iv) a tuned comparison ---


def tuned(given: Tuned, progress: bool, max_steps: int = MAX_STEPS) -> dict[str, Any]:
    """Wall time of all configurations of the recipe, and what the NumPy loop would take for the same steps."""
    given = dataclasses.replace(given, max_steps=max_steps, extensions=0)
    problem = given.problem()
    assert np.isfinite(problem.f_star)  # computed here, outside the time
    with compiling() as compiled:
        started = time.perf_counter()
        table, *_, budget = given.tune(problem, progress)
        wall = time.perf_counter() - started
    return {
        "title": given.title,
        "rel_gap": given.rel_gap,
        "max_steps": max_steps,
        "budget": budget,
        "wall_s": wall,
        "xla_s": sum(compiled),
        "methods": _spent(table),
        "numpy": numpy_loop(problem),
    }


def _spent(table: Table) -> dict[str, dict[str, float]]:
    """Per method: lanes, how they ended, and the sums over lanes of steps, gradients, rounds and seconds."""
    last = table.records.groupby("lane")[["step", "grads", "rounds"]].last()
    rows = table.lanes.join(last.reindex(table.lanes.index).fillna(0.0))

    def one(own: pd.DataFrame) -> dict[str, float]:
        ended = {status: int((own["status"] == status).sum()) for status in ("target", "finished", "diverged")}
        sums = {name: float(own[name].sum()) for name in ("step", "grads", "rounds", "seconds")}
        return {"lanes": len(own), **ended, **sums}

    return {str(name): one(own) for name, own in rows.groupby("method", sort=False)}


def numpy_loop(problem: Any, steps: int = LOOP_STEPS) -> dict[str, float]:
    """Seconds that a NumPy loop over the clients of a linear model takes: for a gradient of each, as in a LoCoDL step
    in which nobody talks, and for a message of each, what a DIANA step takes beyond that."""
    A = np.asarray(problem.features.array)[..., : problem.dim]
    data = (A, np.asarray(problem.targets), float(problem.strong))
    gamma, k = float(1 / np.max(problem.smooth)), max(1, problem.dim // problem.n)
    rng = np.random.default_rng(0)
    silent = lambda: rivals.locodl_loop(*data, gamma, 1.0, 0.0, [None] * steps)
    talking = lambda: rivals.diana_loop(*data, gamma, 0.1, rivals.random_loop(rng, problem.n, problem.dim, k, steps))
    silent(), talking()
    return {"local_s": seconds(silent) / steps, "message_s": max(0.0, (seconds(talking) - seconds(silent)) / steps)}


def tell_tuned(found: Mapping[str, Any]) -> Told:
    loop = found["numpy"]
    numpy = {
        name: own["grads"] * loop["local_s"] + own["rounds"] * loop["message_s"]
        for name, own in found["methods"].items()
    }
    rows = [
        {
            "method": name,
            "lanes": str(own["lanes"]),
            "to target": str(own["target"]),
            "capped": str(own["finished"]),
            "diverged": str(own["diverged"]),
            "lane-steps": f"{own['step']:,.0f}",
            "s in the loop": f"{own['seconds']:.1f}",
            "NumPy loop, h": f"{numpy[name] / 3600:.2f}",
        }
        for name, own in found["methods"].items()
    ]
    total, inside = sum(numpy.values()), sum(own["seconds"] for own in found["methods"].values())
    notes = [
        f"{found['title']}, relative gap {found['rel_gap']:g}; a configuration ends at {found['max_steps']:,} steps or "
        f"{found['budget']:.3g} uplink bits per client",
        f"wall time {found['wall_s']:.1f} s: {inside:.1f} s in the loops, {found['xla_s']:.1f} s in XLA's compiler, "
        f"{found['wall_s'] - inside - found['xla_s']:.1f} s tracing, the run that sets the budget, and the host",
        f"the NumPy loop over clients, extrapolated: {total / 3600:.2f} h, {total / found['wall_s']:.0f} times as long "
        f"({1e3 * loop['local_s']:.2f} ms per gradient of all clients, {1e3 * loop['message_s']:.2f} ms per round of "
        "messages, natural compression left out)",
    ]
    return Told(rows, notes, [])


# --- (v) a thousand configurations ---


def thousand(
    given: Tuned, dtype: str, progress: bool, configurations: tuple[int, int] = (40, 25), steps: int = 10_000
) -> dict[str, Any]:
    """LoCoDL at so many step sizes times probabilities, for all those steps."""
    problem = pytree.cast(given.problem(), dtype)
    gammas, chances = configurations
    hp = algorithms.get("locodl").theory(problem)
    tried = grid(
        hp, gamma=times([float(c) for c in np.geomspace(0.1, 1, gammas)]),
        p=[float(p) for p in np.geomspace(0.01, 0.5, chances)],
    )  # fmt: skip
    with compiling() as compiled:
        started = time.perf_counter()
        table = sweep("locodl", problem, tried, steps=steps, every=min(100, steps), progress=progress)
        wall = time.perf_counter() - started
    own = _spent(table)["locodl"]
    return {"title": f"{given.title}, {dtype}", "steps": steps, "wall_s": wall, "xla_s": sum(compiled), **own}


def tell_thousand(found: Mapping[str, Any]) -> Told:
    row = {
        "problem": found["title"],
        "configurations": str(found["lanes"]),
        "steps of each": f"{found['steps']:,}",
        "diverged": str(found["diverged"]),
        "wall s": f"{found['wall_s']:.1f}",
        "s in the loop": f"{found['seconds']:.1f}",
        "s in XLA's compiler": f"{found['xla_s']:.1f}",
        "us per lane-step": f"{1e6 * found['seconds'] / max(1.0, found['step']):.2f}",
    }
    return Told([row], [], [])
