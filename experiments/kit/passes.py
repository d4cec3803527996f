"""Stochastic methods over passes through the data: seeds as lanes, excess loss at the last pass beside the paper's."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.comparison import made_by, write_page
from fedjax_lc import algorithms, plot
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.sweep import sweep

LEAST = 1e-17  #: gaps below are beyond float64's resolution of F


@dataclasses.dataclass(frozen=True)
class Run:
    """A method of a figure.

    choices go to its theory, changes replace fields afterwards, and gamma is multiplied by `steps`; note tells it from
    others of its method. paper is log10(F - F*) at the end as published. levels are s of both directions, for the
    paper's count of bits (`repo_bits`).
    """

    method: str
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    paper: float | None = None
    steps: float = 1.0
    levels: int = 1

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (algorithms.get(self.method).title, self.note)))

    def hparams(self, problem: Problem) -> Any:
        hp = algorithms.get(self.method).theory(problem, **self.choices)
        return dataclasses.replace(hp, **({"gamma": self.steps * hp.gamma} | dict(self.changes)))


def repo_bits(s: float, d: int, n: int) -> float:
    """Bits of one direction of a round, all n clients together, as the authors of arXiv 2102.12528 count them.

    QSGD's expected length of s levels with a natural for a binary logarithm, and the 32 bits of the norm once; s = 0:
    uncompressed.

    >>> round(repo_bits(1, 20, 20), 1), repo_bits(0, 20, 20)
    (1035.7, 12800)
    """
    if s == 0:
        return 32 * n * d
    nonzeros = s * (s + math.sqrt(d))
    return n * 4.5 * math.log(2 * (s**2 + d) / nonzeros) * nonzeros + 32


@dataclasses.dataclass(frozen=True)
class Ordering:
    """`text`, held to the means of log10(F - F*): those of `lower` below those of `higher`, by labels.

    It holds if every difference of means is at least `margin`; with margin < 0, "no more than -margin above".
    """

    text: str
    lower: Sequence[str]
    higher: Sequence[str]
    margin: float = 0.0

    def verdict(self, ends: Mapping[str, float]) -> str:
        gaps = [ends[high] - ends[low] for low in self.lower for high in self.higher]
        return "holds" if all(gap >= self.margin for gap in gaps) else "does not hold"


@dataclasses.dataclass(frozen=True)
class Passes:
    """Methods on one problem for a number of passes, `rounds` rounds each, measured once a pass.

    Recorded is the excess log10(F(w) - F*) at the central model, its mean and standard deviation over `seeds` runs. A
    run with a published value passes if the mean is within `tolerance` of it.

    Raises:
        InputError: fewer than two seeds.
    """

    title: str
    problem: Callable[[], Problem]
    runs: Sequence[Run]
    passes: int
    rounds: int = 1
    seeds: int = 5
    tolerance: float = 0.15
    orderings: Sequence[Ordering] = ()
    said: str = ""  #: what else the caption should say

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, .json, .png, .svg and NAME-bits.png into `folder`; the text for the terminal."""
        check_writable(folder / f"{name}.md")
        problem, started = self.problem(), time.perf_counter()
        tables = {run.label: self.run(run, problem, progress) for run in self.runs}
        facts = self.facts(problem, tables) | {"seconds": round(time.perf_counter() - started, 1)} | environment()
        self.draw(folder, name, facts, tables)
        write_page(folder, name, facts, self.tell(facts, "github"))
        return self.tell(facts, "simple")

    def run(self, run: Run, problem: Problem, progress: bool = True) -> Table:
        """All seeds of one method."""
        steps = self.passes * self.rounds
        return sweep(
            run.method,
            problem,
            run.hparams(problem),
            seeds=self.seeds,
            steps=steps,
            every=self.rounds,
            progress=progress,
        )

    def facts(self, problem: Problem, tables: Mapping[str, Table]) -> dict[str, Any]:
        """What the result file says."""
        runs = {run.label: self._ended(run, problem, tables[run.label]) for run in self.runs}
        ends = {label: math.inf if found["mean"] is None else found["mean"] for label, found in runs.items()}
        return {
            "title": self.title,
            "clients": problem.n,
            "dim": problem.dim,
            "smoothness": float(np.mean(np.asarray(problem.smooth, np.float64))),
            "f_star": problem.f_star,
            "passes": self.passes,
            "rounds": self.rounds,
            "seeds": self.seeds,
            "tolerance": self.tolerance,
            "runs": runs,
            "orderings": {ordering.text: ordering.verdict(ends) for ordering in self.orderings},
        }

    def _ended(self, run: Run, problem: Problem, table: Table) -> dict[str, Any]:
        last = table.records.groupby("lane").last()
        fine = (table.lanes["status"] == "finished").to_numpy()
        logs = np.log10(np.maximum(table.gap[_lasts(table)], LEAST)) if fine.all() else np.array([np.nan])
        own = table.config["methods"][run.method]["hyperparameters"]
        mean = float(logs.mean()) if np.isfinite(logs).all() else None
        d, n = problem.dim, problem.n
        up, down = (repo_bits(run.levels if field in own else 0, d, n) for field in ("compressor", "downlink"))
        share = run.changes.get("participation") or 1
        return {
            "method": run.method,
            "hyperparameters": {column: _plain(table.lanes[column].iloc[0]) for column in own},
            "mean": mean,
            "std": None if mean is None else float(logs.std(ddof=1)),
            "paper": run.paper,
            "within": None if run.paper is None else mean is not None and abs(mean - run.paper) <= self.tolerance,
            "diverged": int((table.lanes["status"] == "diverged").sum()),
            "bits_up": float(last["bits_up"].mean()) if len(last) else None,
            "bits_down": float(last["bits_down"].mean()) if len(last) else None,
            "bits_repo": self.passes * (share * up + (share if "alpha_dwn" in own else 1) * down),
            "seconds": float(table.lanes["seconds"].sum()),
        }

    def draw(self, folder: Path, name: str, facts: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
        """The gap against rounds and against all bits; median, minimum and maximum of the seeds."""
        traces = {run.label: tables[run.label].traces(0, run.method) for run in self.runs}
        note = f"{_facts_line(facts)}\nmedian, minimum and maximum of {self.seeds} seeds"
        for suffix in ("png", "svg"):
            picture = plot.curves(traces, x="rounds", y="gap", title=self.title, note=note)
            plot.save(picture, folder / f"{name}.{suffix}")
        picture = plot.curves(traces, x="total_bits", y="gap", title=self.title, note=note)
        plot.save(picture, folder / f"{name}-bits.png")

    def tell(self, facts: Mapping[str, Any], style: str) -> str:
        """The page: caption, table, orderings, and how it was made; `style` as in `report.table`."""
        rows = [_row(label, found) for label, found in facts["runs"].items()]
        held = [{"ordering of the paper": text, "here": verdict} for text, verdict in facts["orderings"].items()]
        parts = [
            f"# {self.title}",
            f"{_facts_line(facts)}. log10(F(w) - F*) after {self.passes} passes of {self.rounds} rounds, mean and "
            f"standard deviation of {self.seeds} seeds; F* = {facts['f_star']:.9g}, L = {facts['smoothness']:.6g}. A "
            f"paper's value is met within {self.tolerance:g}. Bits are per client; those of the last column are of all "
            f"clients in both directions, once a pass, as the paper's axis has them. {self.said}".strip(),
            report.table(rows, style=style),
            report.table(held, style=style) if held else "",
            f"Made in {facts['seconds']:.0f} s {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


def check_seeds(seeds: int) -> None:
    """Raise InputError where a spread over seeds cannot be told."""
    if seeds < 2:
        raise InputError(f"a spread over seeds needs two of them at least, got seeds={seeds}")


def _lasts(table: Table) -> np.ndarray:
    """Row of the last record of each lane."""
    lane = table.records["lane"].to_numpy()
    return np.flatnonzero(np.append(lane[1:] != lane[:-1], True))


def _row(label: str, found: Mapping[str, Any]) -> dict[str, str]:
    ours = "diverged" if found["mean"] is None else f"{found['mean']:.2f} ± {found['std']:.2f}"
    paper, missing = found["paper"], found["paper"] is None or found["mean"] is None
    return {
        "method": label,
        "paper": "-" if paper is None else f"{paper:.2f}",
        "ours": ours,
        "difference": "-" if missing else f"{found['mean'] - paper:+.2f}",
        "verdict": {None: "-", True: "met", False: "not met"}[found["within"]],
        "bits up": "-" if found["bits_up"] is None else f"{found['bits_up']:.3g}",
        "bits down": "-" if found["bits_down"] is None else f"{found['bits_down']:.3g}",
        "bits as the paper counts": f"{found['bits_repo']:.3g}",
    }


def _facts_line(facts: Mapping[str, Any]) -> str:
    return f"n = {facts['clients']}, d = {facts['dim']}"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
