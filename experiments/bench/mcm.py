"""The figure of MCM's paper "synthetic least squares, b = 1": six methods, five seeds, 99 passes of 200 rounds.

Steady state, on one thread, against a NumPy loop over rounds in which all seeds and clients are stacked: one array
operation for each line of the method. Then the whole figure on all cores, with compilation apart. The authors' code,
a loop over clients, takes 6 to 17 ms a round and about 6,900 s for the figure (measured elsewhere).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench import harness
from experiments.bench.harness import Clock, Contestant, Ratio, Target, race, ratio
from fedjax_lc import algorithms, problems
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.sweep import sweep

METHODS = ("sgd", "diana", "artemis", "dore", "mcm", "rand_mcm")
OURS, NUMPY = "fl.sweep", "NumPy, seeds and clients stacked"
WANTED = 2.0  #: NumPy's time over ours
WHOLE_S = 20.0  #: seconds of the whole figure, compilation aside


class Sizes(NamedTuple):
    """Of the problem, and rounds of a turn."""

    clients: int = 20
    rows: int = 200
    dim: int = 20  #: with the bias
    seeds: int = 5
    rounds: int = 4000
    numpy_rounds: int = 400
    passes: int = 99  #: of the whole figure
    methods: tuple[str, ...] = METHODS


def data(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """X (clients, rows, dim), a bias and correlated normal features, and y (clients, rows), drawn as the authors do."""
    rng, free = np.random.default_rng(0), sizes.dim - 1
    places = np.arange(free)
    root = np.linalg.cholesky(0.6 ** np.abs(places[:, None] - places))
    features = rng.normal(size=(sizes.clients, sizes.rows, free)) @ root.T
    weights = (-1.0) ** places * np.exp(-(places + 1) / 10)
    shift = 0.4 * rng.normal(size=(sizes.clients, 1))
    return np.concatenate([np.ones((*features.shape[:2], 1)), features], axis=2), features @ weights + 2 + shift


def problem_of(X: np.ndarray, y: np.ndarray) -> Problem:
    """f_i = mean of squared residuals; L_i by Frobenius norms."""
    root = math.sqrt(2)  # our least squares has a half in front
    clients = [(root * A, root * b) for A, b in zip(X, y, strict=True)]
    return problems.least_squares(clients, l2=0.0, norm="frobenius", dtype="float64")


def hparams(method: str, problem: Problem) -> Any:
    """As the authors run it: one level, gamma_k = 1/(L sqrt k), one row a round."""
    names = {field.name for field in dataclasses.fields(algorithms.get(method).Hparams)}
    choices = {name: "qsgd:1" for name in ("compressor", "downlink") if name in names}
    hp = algorithms.get(method).theory(problem, convention="mcm_repo", **choices)
    return dataclasses.replace(hp, batch_size=1, decay=0.5)


# --- the rival ---


def stacked(
    method: str, X: np.ndarray, y: np.ndarray, seeds: int, rounds: int, gamma: float, alpha: float
) -> np.ndarray:
    """w (seeds, d) after that many rounds of the method, all seeds and clients in one array."""
    rng, (n, m, d) = np.random.default_rng(0), X.shape
    everyone = np.arange(n)
    w, what, h_i = np.zeros((seeds, d)), np.zeros((seeds, 1, d)), np.zeros((seeds, n, d))
    H, e, c_ef = np.zeros((seeds, n if method == "rand_mcm" else 1, d)), np.zeros((seeds, d)), gamma

    def quantised(v: np.ndarray) -> np.ndarray:
        norm = np.sqrt(np.sum(v * v, axis=-1, keepdims=True))
        return np.where(rng.random(v.shape) * norm < np.abs(v), np.sign(v) * norm, 0.0)

    for k in range(1, rounds + 1):
        rows, step = rng.integers(m, size=(seeds, n)), gamma / math.sqrt(k)
        A, b = X[everyone, rows], y[everyone, rows]
        g = 2 * (np.sum(A * what, axis=-1) - b)[..., None] * A
        if method == "sgd":
            ghat = g.mean(axis=1)
        else:
            if k == 1:
                h_i = g.copy()
            q = quantised(g - h_i)
            ghat = (h_i + q).mean(axis=1)
            h_i += alpha * q
        if method == "artemis":
            ghat = quantised(ghat)
        elif method == "dore":
            v = ghat + c_ef * e
            ghat = quantised(v)
            e = v - ghat
        w = w - step * ghat
        if method in ("mcm", "rand_mcm"):
            Omega = quantised(w[:, None] - H)
            what = H + Omega
            H = H + alpha * Omega
        else:
            what = w[:, None]
    return w


def rate_of(problem: Problem) -> tuple[float, float]:
    """gamma and alpha of all six methods."""
    gamma = 1 / float(np.mean(np.asarray(problem.smooth)))
    return gamma, 1 / (2 * (1 + math.sqrt(problem.dim)))


# --- the parent ---


def run_mcm(
    *, sizes: Sizes | None = None, repeats: int = 5, out: str | Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Measure and print the table.

    Args:
        sizes: of the problem and the turns.
        repeats: how often every contestant takes its turn.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`; times in milliseconds per seed and round, and seconds, as their names say.

    Raises:
        InputError: repeats below 1, or `out` cannot be written; before any work starts.
    """
    harness.checked(repeats)
    chosen = sizes or Sizes()
    return harness.written(lambda: _measured(chosen, repeats, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench mcm`."""
    harness.options(parser, __doc__, 5)
    parser.set_defaults(command=lambda options: run_mcm(repeats=options.repeats, out=options.out) and 0)


def _measured(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    found = {task: _ask(task, sizes, repeats, progress) for task in ("steady", "whole")}
    results = {"sizes": sizes._asdict(), "repeats": repeats, **found, **harness.machine(), **environment()}
    results["targets"] = [target.facts() for target in targets(results)]
    return results


def _ask(task: str, sizes: Sizes, repeats: int, progress: bool) -> Any:
    job = {"task": task, "sizes": sizes._asdict(), "repeats": repeats, "progress": progress, "pinned": task == "steady"}
    own = harness.PINNED if task == "steady" else {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    return harness.ask("mcm", job, own | {"JAX_ENABLE_X64": "1"})


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_do)


def _do(job: dict[str, Any]) -> Any:
    sizes = Sizes(**job["sizes"])
    if job["task"] == "whole":
        return whole(sizes, job["progress"])
    return steady(sizes, job["repeats"], job["progress"])


def contests(sizes: Sizes) -> dict[str, dict[str, Contestant]]:
    """Per method ours and NumPy's; a round is one seed's."""
    X, y = data(sizes)
    problem = problem_of(X, y)
    gamma, alpha = rate_of(problem)
    found = {}
    for method in sizes.methods:
        hp = hparams(method, problem)
        found[method] = {
            OURS: Contestant(sizes.seeds * sizes.rounds, _swept(method, problem, hp, sizes.seeds, sizes.rounds)),
            NUMPY: Contestant(
                sizes.seeds * sizes.numpy_rounds,
                partial(stacked, method, X, y, sizes.seeds, sizes.numpy_rounds, gamma, alpha),
            ),
        }
    return found


def _swept(
    method: str, problem: Problem, hp: Any, seeds: int, rounds: int, every: int | None = None
) -> Callable[[], Table]:
    return lambda: sweep(method, problem, hp, seeds=seeds, steps=rounds, every=every or rounds, progress=False)


def steady(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    """Per method and contestant, ms per seed and round of each turn; of ours, the loop alone, as the sweep says it."""
    found, clock = {}, Clock()
    with harness.bar(repeats * 2 * len(sizes.methods), "steady state", progress) as bar:
        for method, entries in contests(sizes).items():
            found[method] = {name: {"turns_ms": ms} for name, ms in race(entries, repeats, bar.update, clock).items()}
    return found


def whole(sizes: Sizes, progress: bool) -> dict[str, float]:
    """Seconds of the figure's runs, one record a pass, and of those the seconds that tracing and compiling took."""
    problem, started, inside = problem_of(*data(sizes)), time.perf_counter(), 0.0
    with harness.bar(len(sizes.methods), "the figure", progress) as bar:
        for method in sizes.methods:
            hp, rounds = hparams(method, problem), sizes.rows
            table = sweep(
                method, problem, hp, seeds=sizes.seeds, steps=sizes.passes * rounds, every=rounds, progress=False
            )
            inside += float(table.lanes["seconds"].sum())
            bar.update()
    return {"wall_s": time.perf_counter() - started, "inside_s": inside}


# --- what is printed ---


def overall(results: dict[str, Any]) -> Ratio:
    """NumPy's time over ours, all methods together, turn by turn."""

    def total(name: str) -> dict[str, list[float]]:
        turns = zip(*(rows[name]["turns_ms"] for rows in results["steady"].values()), strict=True)
        return {"turns_ms": [sum(turn) for turn in turns]}

    sums = {name: total(name) for name in (OURS, NUMPY)}
    return ratio(sums, NUMPY, OURS)


def targets(results: dict[str, Any]) -> list[Target]:
    """The ratio of the steady states, and the whole figure's seconds."""
    beaten, _ = overall(results).target("NumPy / ours, six methods", None, WANTED)
    return [beaten, Target("the whole figure without compilation, s", WHOLE_S, results["whole"]["inside_s"])]


def text(results: dict[str, Any]) -> str:
    """What is printed."""
    sizes, spent = Sizes(**results["sizes"]), results["whole"]
    rows = [
        {
            "method": algorithms.get(method).title,
            "ours, us": f"{1e3 * float(np.median(found[OURS]['turns_ms'])):.1f}",
            "NumPy, us": f"{1e3 * float(np.median(found[NUMPY]['turns_ms'])):.1f}",
            "NumPy / ours [turns]": str(ratio(found, NUMPY, OURS)),
        }
        for method, found in results["steady"].items()
    ]
    lines = [
        f"fedjax-lc bench mcm: one thread, float64; {results['repeats']} turns each, medians",
        f"least squares, {sizes.clients} clients x {sizes.rows} rows x {sizes.dim} features, one row a round; "
        f"{sizes.seeds} seeds",
        *harness.made_on(results),
        f"device: {results['device']}",
        "",
        "time per seed and round",
        report.table(rows),
        f"all six: NumPy / ours {overall(results)}",
        "",
        f"the whole figure, {sizes.passes} passes, all cores: {spent['inside_s']:.1f} s in the loops, "
        f"{spent['wall_s'] - spent['inside_s']:.1f} s tracing, compiling and on the host",
        "",
        harness.target_table(results["targets"]),
    ]
    return "\n".join([*lines, ""])
