"""Stochastic methods over passes through the data: seeds as lanes, excess loss at the last pass beside the paper's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, check_seeds, plain, shape
from fedjax_lc import plot
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace
from fedjax_lc.sweeping.sweep import sweep

LEAST = 1e-17  #: gaps below are beyond float64's resolution of F


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passes(Recipe):
    """Methods on one problem for a number of passes, `rounds` rounds each, measured once a pass.

    Recorded is the excess log10(F(w) - F*) at the central model, its mean and standard deviation over `seeds` runs; of
    a curve, `paper` is the published one, which is met if the mean is within `tolerance` of it. Claims are about the
    means. counted: the bits of a round as the paper counts them, of hyperparameters on the problem.

    Raises:
        InputError: fewer than two seeds, two curves of one label, or a claim about no curve.
    """

    passes: int
    rounds: int = 1
    seeds: int = 5
    tolerance: float = 0.15
    claims_are: str = "ordering of the paper"
    counted: Callable[[Any, Problem], float] | None = None

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check(self.curves, self.claims)

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, Table]:
        return {run.label: self.run(run, problem, progress) for run in self.curves}

    def run(self, run: Contender, problem: Problem, progress: bool = True) -> Table:
        """All seeds of one method."""
        return sweep(
            run.method,
            problem,
            run.hparams(problem),
            seeds=self.seeds,
            steps=self.passes * self.rounds,
            every=self.rounds,
            progress=progress,
        )

    def facts(self, problem: Problem, done: Mapping[str, Table]) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "smoothness": float(np.mean(np.asarray(problem.smooth, np.float64))),
            "f_star": problem.f_star,
            "passes": self.passes,
            "rounds": self.rounds,
            "seeds": self.seeds,
            "tolerance": self.tolerance,
            "runs": {run.label: self._ended(run, problem, done[run.label]) for run in self.curves},
        }

    def _ended(self, run: Contender, problem: Problem, table: Table) -> dict[str, Any]:
        last = table.records.groupby("lane").last()
        fine = (table.lanes["status"] == "finished").to_numpy()
        logs = np.log10(np.maximum(table.gap[_lasts(table)], LEAST)) if fine.all() else np.array([np.nan])
        mean = float(logs.mean()) if np.isfinite(logs).all() else None
        counted = (
            {} if self.counted is None else {"bits_repo": self.passes * self.counted(run.hparams(problem), problem)}
        )
        return {
            "method": run.method,
            "hyperparameters": {
                name: plain(table.lanes[name].iloc[0])
                for name in table.config["methods"][run.method]["hyperparameters"]
            },
            "mean": mean,
            "std": None if mean is None else float(logs.std(ddof=1)),
            "paper": run.paper,
            "within": None if run.paper is None else mean is not None and abs(mean - run.paper) <= self.tolerance,
            "diverged": int((table.lanes["status"] == "diverged").sum()),
            "bits_up": float(last["bits_up"].mean()) if len(last) else None,
            "bits_down": float(last["bits_down"].mean()) if len(last) else None,
            **counted,
            "seconds": float(table.lanes["seconds"].sum()),
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        means = {label: ended["mean"] for label, ended in facts["runs"].items()}
        return {"log10 of the gap": {k: Measured(math.inf if mean is None else mean) for k, mean in means.items()}}

    def pictures(self, facts: Mapping[str, Any], done: Mapping[str, Table]) -> dict[str, Any]:
        """The gap against rounds and against all bits; median, minimum and maximum of the seeds."""
        traces = self.traces(facts, done)
        note = f"{shape(facts)}\nmedian, minimum and maximum of {self.seeds} seeds"
        across = {"": "rounds", "-bits": "total_bits"}
        return {ending: plot.curves(traces, x=x, y="gap", title=self.title, note=note) for ending, x in across.items()}

    def traces(self, facts: Mapping[str, Any], done: Mapping[str, Table]) -> dict[str, list[Trace]]:
        return {run.label: done[run.label].traces(0, run.method) for run in self.curves}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        caption = (
            f"{shape(facts)}. log10(F(w) - F*) after {self.passes} passes of {self.rounds} rounds, mean and "
            f"standard deviation of {self.seeds} seeds; F* = {facts['f_star']:.9g}, L = {facts['smoothness']:.6g}. A "
            f"paper's value is met within {self.tolerance:g}. Bits are per client"
        )
        if self.counted is not None:
            caption += (
                "; those of the last column are of all clients in both directions, once a pass, as the paper's axis "
                "has them"
            )
        rows = [_row(label, ended) for label, ended in facts["runs"].items()]
        return [f"{caption}. {self.remarks()}".strip(), rows, self.held(facts)]


def _lasts(table: Table) -> np.ndarray:
    """Row of the last record of each lane."""
    lane = table.records["lane"].to_numpy()
    return np.flatnonzero(np.append(lane[1:] != lane[:-1], True))


def _row(label: str, ended: Mapping[str, Any]) -> dict[str, str]:
    mean, paper = ended["mean"], ended["paper"]
    row = {
        "method": label,
        "paper": "-" if paper is None else f"{paper:.2f}",
        "ours": "diverged" if mean is None else f"{mean:.2f} ± {ended['std']:.2f}",
        "difference": "-" if paper is None or mean is None else f"{mean - paper:+.2f}",
        "verdict": {None: "-", True: "met", False: "not met"}[ended["within"]],
        "bits up": "-" if ended["bits_up"] is None else f"{ended['bits_up']:.3g}",
        "bits down": "-" if ended["bits_down"] is None else f"{ended['bits_down']:.3g}",
    }
    return row | ({"bits as the paper counts": f"{ended['bits_repo']:.3g}"} if "bits_repo" in ended else {})
