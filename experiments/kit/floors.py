"""Noise floors: where stochastic methods with a constant step size settle, over step sizes and seeds as lanes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.comparison import made_by, write_page
from experiments.kit.passes import Run, check_seeds
from fedjax_lc import plot
from fedjax_lc.core.files import check_writable
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.sweeping import axes
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep


@dataclasses.dataclass(frozen=True)
class Alike:
    """`text`, held to the floors: at each of the step sizes up to `upto` times theory's, those of `a` over those of `b`
    lie in [least, most], standard errors aside (three of them)."""

    text: str
    a: str
    b: str
    least: float
    most: float
    upto: float

    def verdict(self, floors: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
        for own, other in zip(floors[self.a], floors[self.b], strict=True):
            if own["factor"] > self.upto:
                continue
            ratio = own["floor"] / other["floor"]
            error = 3 * ratio * np.hypot(own["error"] / own["floor"], other["error"] / other["floor"])
            if not self.least - error <= ratio <= self.most + error:
                return "does not hold"
        return "holds"


@dataclasses.dataclass(frozen=True)
class Floors:
    """Each run with gamma = factor times theory's, for every factor: `steps` rounds, measured every `every`.

    A floor is the mean over seeds of F(w) - F* over the second half of the records; its standard error is that of the
    seeds. Small step sizes need as many more rounds: a run with factor c takes steps / c of them. The fit is floor = A
    c^a over factors up to `fit_upto`, by least squares of logarithms.

    Raises:
        InputError: fewer than two seeds.
    """

    title: str
    problem: Callable[[], Problem]
    runs: Sequence[Run]
    factors: Sequence[float]
    steps: int
    every: int
    seeds: int = 5
    fit_upto: float = 1.0
    claims: Sequence[Alike] = ()

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, .json, .png and .svg into `folder`; the text for the terminal."""
        check_writable(folder / f"{name}.md")
        problem, started = self.problem(), time.perf_counter()
        floors = {run.label: self.measure(run, problem, progress) for run in self.runs}
        facts = {
            "title": self.title,
            "clients": problem.n,
            "dim": problem.dim,
            "steps": self.steps,
            "seeds": self.seeds,
            "floors": floors,
            "fits": {label: self.fit(found) for label, found in floors.items()},
            "claims": {claim.text: claim.verdict(floors) for claim in self.claims},
            "seconds": round(time.perf_counter() - started, 1),
        } | environment()
        for suffix in ("png", "svg"):
            plot.save(self.draw(facts), folder / f"{name}.{suffix}")
        plain = facts | {"floors": {label: list(map(_finite, found)) for label, found in floors.items()}}
        write_page(folder, name, plain, self.tell(facts, "github"))
        return self.tell(facts, "simple")

    def measure(self, run: Run, problem: Problem, progress: bool = True) -> list[dict[str, float]]:
        """factor, floor and standard error (NaN where a seed diverged) for each factor."""
        found = []
        for factor in self.factors:
            configurations = grid(run.hparams(problem), gamma=axes.times([factor]))
            rounds = int(np.ceil(self.steps / min(factor, 1.0) / self.every)) * self.every
            table = sweep(
                run.method, problem, configurations, seeds=self.seeds, steps=rounds, every=self.every, progress=progress
            )
            if (table.lanes["status"] == "finished").all():
                settled = table.gap.reshape(self.seeds, -1)[:, rounds // self.every // 2 :].mean(axis=1)
                floor, error = settled.mean(), settled.std(ddof=1) / np.sqrt(self.seeds)
            else:
                floor = error = np.nan
            found.append({"factor": factor, "floor": float(floor), "error": float(error)})
        return found

    def fit(self, found: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
        """A and a of floor = A c^a."""
        kept = [own for own in found if own["factor"] <= self.fit_upto and np.isfinite(own["floor"])]
        if len(kept) < 2:
            return None
        factor, floor = (np.log([own[name] for own in kept]) for name in ("factor", "floor"))
        a, log_a = np.polyfit(factor, floor, 1)
        return {"A": float(np.exp(log_a)), "a": float(a)}

    def draw(self, facts: Mapping[str, Any]) -> Any:
        """Floors over step sizes, three standard errors as bars, fits dashed."""
        from fedjax_lc.plot.style import COLOURS, look, new_figure, write, write_legend

        figure = new_figure(6.4, 4.2 + 0.12 * len(facts["floors"]))
        axes = figure.add_subplot(xscale="log", yscale="log")
        for place, (label, found) in enumerate(facts["floors"].items()):
            c, floor, error = np.array([[own[name] for name in ("factor", "floor", "error")] for own in found]).T
            axes.plot(c, floor, label=label, **look(place))
            axes.errorbar(c, floor, 3 * error, fmt="none", ecolor=COLOURS[place % len(COLOURS)], capsize=2)
            fit = facts["fits"][label]
            if fit is not None:
                axes.plot(c, fit["A"] * c ** fit["a"], "--", color=COLOURS[place % len(COLOURS)], linewidth=0.9)
        axes.grid(True, color="0.9", linewidth=0.7)
        note = f"n = {facts['clients']}, d = {facts['dim']}; {facts['seeds']} seeds, bars of three standard errors"
        write(axes, r"step size over theory's, $\gamma L$", r"floor of  $F(w) - F^\star$", facts["title"], note)
        write_legend(figure, *axes.get_legend_handles_labels())
        return figure

    def tell(self, facts: Mapping[str, Any], style: str) -> str:
        """The page: caption, table, claims, and how it was made; `style` as in `report.table`."""
        rows = []
        for label, found in facts["floors"].items():
            row = {"method": label}
            row |= {f"{own['factor']:g}/L": _plus_minus(own) for own in found}
            fit = facts["fits"][label]
            rows.append(row | {"fit": "-" if fit is None else f"{fit['A']:.3g} (gamma L)^{fit['a']:.2f}"})
        claims = [{"claim of the paper": text, "here": verdict} for text, verdict in facts["claims"].items()]
        parts = [
            f"# {self.title}",
            f"n = {facts['clients']}, d = {facts['dim']}. F(w) - F* with constant gamma, mean over the second half of "
            f"{self.steps:,} rounds (as many times more as gamma L is below one) and {self.seeds} seeds, with its "
            f"standard error; the fit is over gamma L <= {self.fit_upto:g}.",
            report.table(rows, style=style),
            report.table(claims, style=style) if claims else "",
            f"Made in {facts['seconds']:.0f} s {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


def _finite(own: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON has it: null where a seed diverged."""
    return {name: value if np.isfinite(value) else None for name, value in own.items()}


def _plus_minus(own: Mapping[str, float]) -> str:
    return "diverged" if not np.isfinite(own["floor"]) else f"{own['floor']:.3g} ± {own['error']:.1g}"
