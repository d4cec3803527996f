"""Floors: where methods with a constant step size settle, over step sizes and seeds as lanes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.kit.claim import HOLDS, Claim, Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, check_seeds, finite, shape
from fedjax_lc.core.errors import unknown
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping import axes
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

FALLS = "falls with the step size"


class Series(NamedTuple):
    """What floors are of: its words on the page and in the picture, metrics that it needs, and (lanes * records,) of it
    from a table whose lanes are all finished."""

    words: str
    drawn: str
    needs: Sequence[str]
    of: Callable[[Problem, Table], np.ndarray]


def apart(problem: Problem, table: Table) -> np.ndarray:
    """mean_i |x_i - x*|^2 over |x_0 - x*|^2, of methods whose nodes each have a model x_i."""
    start = float(np.sum((np.asarray(problem.x0) - np.asarray(problem.x_star)) ** 2))
    return (table.records["distance"] ** 2 + table.records["consensus"]).to_numpy() / start


SERIES = {
    "gap": Series("F(w) - F*", r"$F(w) - F^\star$", (), lambda problem, table: table.gap),
    "apart": Series(
        "mean_i |x_i - x*|^2 / |x_0 - x*|^2",
        r"$\mathrm{mean}_i\, \|x_i - x^\star\|^2 / \|x_0 - x^\star\|^2$",
        ("distance",),
        apart,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Floors(Recipe):
    """Each run with its `scaled` fields times a factor, for every factor: `steps` rounds, measured every `every`.

    A floor is the mean over seeds of `floor_of` over the second half of the records; its standard error is that of the
    seeds. Small step sizes need as many more rounds: a run with factor c takes steps / c of them. The fit is floor = A
    c^a over factors up to `fit_upto`, by least squares of logarithms; none if it is 0. Claims are about floors at one
    factor each, see `alike`.

    floor_of: a name of SERIES. left_out: an interval that the axis of floors leaves out. note: small print of the
    picture.

    Raises:
        InputError: fewer than two seeds, or two curves of one label.
    """

    factors: Sequence[float]
    steps: int
    every: int
    seeds: int = 5
    fit_upto: float = 1.0
    floor_of: str = "gap"
    left_out: tuple[float, float] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check(self.curves, ())
        if self.floor_of not in SERIES:
            raise unknown("series", self.floor_of, SERIES)

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, list[Any]]:
        return {run.label: self.floors(run, problem, progress) for run in self.curves}

    def floors(self, run: Contender, problem: Problem, progress: bool = True) -> list[dict[str, Any]]:
        """factor, floor and standard error (None where a seed diverged) for each factor."""
        found = []
        for factor in self.factors:
            configurations = grid(run.hparams(problem), **dict.fromkeys(run.scaled, axes.times([factor])))
            rounds = int(np.ceil(self.steps / min(factor, 1.0) / self.every)) * self.every
            table = sweep(
                run.method,
                problem,
                configurations,
                seeds=self.seeds,
                steps=rounds,
                every=self.every,
                measure=SERIES[self.floor_of].needs,
                progress=progress,
            )
            if (table.lanes["status"] == "finished").all():
                measured = SERIES[self.floor_of].of(problem, table)
                settled = measured.reshape(self.seeds, -1)[:, rounds // self.every // 2 :].mean(axis=1)
                floor, error = float(settled.mean()), float(settled.std(ddof=1) / np.sqrt(self.seeds))
            else:
                floor = error = np.nan
            found.append({"factor": factor, "floor": finite(floor), "error": finite(error)})
        return found

    def facts(self, problem: Problem, done: Mapping[str, list[Any]]) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "steps": self.steps,
            "seeds": self.seeds,
            "floors": done,
            "fits": {label: self.fit(found) for label, found in done.items()},
        }

    def fit(self, found: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
        """A and a of floor = A c^a."""
        kept = [own for own in found if own["factor"] <= self.fit_upto and own["floor"]]
        if len(kept) < 2:
            return None
        factor, floor = (np.log([own[name] for own in kept]) for name in ("factor", "floor"))
        a, log_a = np.polyfit(factor, floor, 1)
        return {"A": float(np.exp(log_a)), "a": float(a)}

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        """Of each factor, by `at`; and FALLS, the largest floor over that of the next larger factor."""
        found = {
            at(factor): {
                label: Measured.of({"mean": floors[place]["floor"], "error": floors[place]["error"]})
                for label, floors in facts["floors"].items()
            }
            for place, factor in enumerate(self.factors)
        }
        return found | {FALLS: {label: Measured(_falls(floors)) for label, floors in facts["floors"].items()}}

    def pictures(self, facts: Mapping[str, Any], done: Any = None) -> dict[str, Any]:
        """Floors over step sizes, three standard errors as bars, fits dashed."""
        from fedjax_lc.plot.style import new_figure, write, write_legend

        figure = new_figure(6.4, 4.2 + 0.12 * len(facts["floors"]) + bool(self.left_out))
        panels = figure.subplots(1 + bool(self.left_out), sharex=True, squeeze=False)[:, 0]
        for panel in panels:
            panel.set(xscale="log", yscale="log")
            self._draw(panel, facts)
            panel.grid(True, color="0.9", linewidth=0.7)
        panels[0].set_xticks(self.factors, [str(Fraction(c).limit_denominator(1000)) for c in self.factors])
        panels[0].minorticks_off()
        note = f"{shape(facts)}; {facts['seeds']} seeds, bars of three standard errors"
        note = "\n".join(filter(None, [note, self.note]))
        words = f"floor of  {SERIES[self.floor_of].drawn}"
        if self.left_out:
            panels[0].set_ylim(bottom=self.left_out[1])
            panels[1].set_ylim(top=self.left_out[0])
            write(panels[0], "", "", facts["title"], note)
            write(panels[1], r"step size over theory's, $\gamma L$", "", "", "")
            panels[0].spines["bottom"].set_visible(False)
            panels[0].tick_params(axis="x", length=0)
            figure.supylabel(words, fontsize=11)
        else:
            write(panels[0], r"step size over theory's, $\gamma L$", words, facts["title"], note)
        write_legend(figure, *panels[0].get_legend_handles_labels())
        return {"": figure}

    def _draw(self, panel: Any, facts: Mapping[str, Any]) -> None:
        from fedjax_lc.plot.style import COLOURS, look

        for place, (label, found) in enumerate(facts["floors"].items()):
            values = [[own[name] for name in ("factor", "floor", "error")] for own in found]
            c, floor, error = np.array(values, np.float64).T
            panel.plot(c, floor, label=label, **look(place))
            bars = [np.minimum(3 * error, 0.9 * floor), 3 * error]  # a log axis has no place for what is below 0
            panel.errorbar(c, floor, bars, fmt="none", ecolor=COLOURS[place % len(COLOURS)], capsize=2)
            fit = facts["fits"][label]
            if fit is not None:
                panel.plot(c, fit["A"] * c ** fit["a"], "--", color=COLOURS[place % len(COLOURS)], linewidth=0.9)

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        rows = []
        for label, found in facts["floors"].items():
            fit = facts["fits"][label]
            floors = {at(own["factor"]): _plus_minus(own) for own in found}
            told = "-" if fit is None else f"{fit['A']:.3g} (gamma L)^{fit['a']:.2f}"
            rows.append({"method": label, **floors} | ({"fit": told} if self.fit_upto else {}))
        fitted = f"; the fit is over gamma L <= {self.fit_upto:g}" if self.fit_upto else ""
        caption = (
            f"{shape(facts)}. {SERIES[self.floor_of].words} with constant gamma, mean over the second half of "
            f"{self.steps:,} rounds (as many times more as gamma L is below one) and {self.seeds} seeds, with its "
            f"standard error{fitted}. {self.remarks()}"
        )
        return [
            caption.strip(),
            rows,
            self.held(facts),
        ]


def at(factor: float) -> str:
    """The floors at a step size of so many times theory's, by name."""
    return f"{factor:g}/L"


def alike(text: str, a: str, b: str, factors: Sequence[float], least: float = 0.0, most: float | None = None) -> Claim:
    """At each factor, the floor of `a` over that of `b` lies in [least, most], three standard errors aside."""
    pairs = list[Claim]()
    for factor in factors:
        options: dict[str, Any] = {"statistic": at(factor), "errors": 3.0, "doubt": HOLDS}
        pairs += [Claim("", (a,), (b,), times=most, **options)] if most is not None else []
        pairs += [Claim("", (b,), (a,), times=1 / least, **options)] if least else []
    return Claim(text, also=pairs)


def _falls(found: Sequence[Mapping[str, Any]]) -> float:
    floors = [own["floor"] for own in sorted(found, key=lambda own: own["factor"]) if own["floor"]]
    return max((low / high for low, high in itertools.pairwise(floors)), default=math.inf)


def _plus_minus(own: Mapping[str, Any]) -> str:
    return "diverged" if own["floor"] is None else f"{own['floor']:.3g} ± {own['error']:.1g}"
