"""Methods that compress both ways: total bits by the price of the downlink, and steps by condition number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, finite, shape
from fedjax_lc.core.progress import bar
from fedjax_lc.problems import Problem
from fedjax_lc.sweeping.sweep import sweep

EXPONENT = "exponent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices(Recipe):
    """Every setting that a curve tries runs to `rel_gap`, or `steps`, on the problem of each condition number. Bits are
    up + price * down of the setting that is best at that price, steps of the one that is fastest.

    Claims are about the statistics at_price(price) on `problem`, that of the condition number `shown`, and EXPONENT,
    of steps against kappa.
    """

    problem_of: Callable[[float], Problem]
    kappas: Sequence[float]
    shown: float
    prices: Sequence[float]
    rel_gap: float = 1e-6
    steps: int = 3_000_000
    every: int = 10
    claims_are: str = "claim of the papers"

    def __post_init__(self) -> None:
        check(self.curves, ())

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, Any]:
        """By label and condition number: steps and bits both ways of each setting that got there."""
        found: dict[str, Any] = {curve.label: {} for curve in self.curves}
        with bar(len(self.curves) * len(self.kappas), "sweeps", shown=progress) as shown:
            for kappa in self.kappas:
                on = problem if kappa == self.shown else self.problem_of(kappa)
                for curve in self.curves:
                    found[curve.label][f"{kappa:g}"] = self.reached(curve, on)
                    shown.update()
        return found

    def reached(self, curve: Contender, problem: Problem) -> list[dict[str, float]]:
        """Of each setting that reaches the gap: steps and bits."""
        table = sweep(
            curve.method,
            problem,
            curve.grid(problem),
            steps=self.steps,
            every=self.every,
            rel_gap=self.rel_gap,
            progress=False,
        )
        last = table.records.groupby("lane").last()
        there = table.lanes.index[table.lanes["status"] == "target"]
        rows = last.loc[there, ["step", "bits_up", "bits_down"]]
        return [{name: float(value) for name, value in row.items()} for row in rows.to_dict("records")]

    def facts(self, problem: Problem, done: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "rel_gap": self.rel_gap,
            "steps": {
                label: {kappa: min((one["step"] for one in own), default=None) for kappa, own in by_kappa.items()}
                for label, by_kappa in done.items()
            },
            "bits": {
                label: {f"{price:g}": finite(_bits(by_kappa[f"{self.shown:g}"], price)) for price in self.prices}
                for label, by_kappa in done.items()
            },
            "exponents": {label: finite(self.exponent(by_kappa)) for label, by_kappa in done.items()},
        }

    def exponent(self, by_kappa: Mapping[str, Sequence[Mapping[str, float]]]) -> float:
        """Of kappa in the steps, by least squares of logarithms."""
        steps = [min((one["step"] for one in own), default=math.nan) for own in by_kappa.values()]
        return float(np.polyfit(np.log([float(kappa) for kappa in by_kappa]), np.log(steps), 1)[0])

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        number = lambda value: Measured(math.inf if value is None else value)
        found = {
            at_price(price): {label: number(own[f"{price:g}"]) for label, own in facts["bits"].items()}
            for price in self.prices
        }
        return found | {EXPONENT: {label: number(value) for label, value in facts["exponents"].items()}}

    def pictures(self, facts: Mapping[str, Any], done: Any = None) -> dict[str, Any]:
        """Total bits over prices, and steps over condition numbers."""
        from fedjax_lc.plot.style import look, new_figure, write, write_legend

        figure = new_figure(10, 4.6)
        left, right = figure.subplots(1, 2)
        for axes, what in ((left, "bits"), (right, "steps")):
            axes.set(xscale="log", yscale="log")
            axes.grid(True, color="0.9", linewidth=0.7)
            for place, (label, own) in enumerate(facts[what].items()):
                axes.plot([float(x) for x in own], [y or np.nan for y in own.values()], label=label, **look(place))
        for axes, ticks in ((left, self.prices), (right, self.kappas)):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.minorticks_off()
        note = f"{shape(facts)}; to a relative gap of {self.rel_gap:g}, each at its best step size of those tried"
        write(left, "price of a bit down over one up", r"bits per client, up + price $\times$ down", facts["title"],
              f"{note}\nkappa = {self.shown:g}")  # fmt: skip
        write(right, r"condition number $\kappa$", "steps", "", "")
        write_legend(figure, *left.get_legend_handles_labels())
        return {"": figure}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        cell = lambda value: "-" if value is None else f"{value:,.0f}"
        bits = [
            {"method": label} | {f"price {price}": "-" if v is None else f"{v:.3g}" for price, v in own.items()}
            for label, own in facts["bits"].items()
        ]
        steps = [
            {"method": label}
            | {f"kappa = {kappa}": cell(value) for kappa, value in own.items()}
            | {"exponent": "-" if facts["exponents"][label] is None else f"{facts['exponents'][label]:.2f}"}
            for label, own in facts["steps"].items()
        ]
        caption = (
            f"{shape(facts)}. Bits per client, up + price * down, to a relative gap of {self.rel_gap:g} at kappa = "
            f"{self.shown:g}, each method at the best of the step sizes tried for that price. {self.remarks()}"
        )
        return [caption.strip(), bits, "Steps, at the fastest step size:", steps, self.held(facts)]


def at_price(price: float) -> str:
    """Bits at this price, by name."""
    return f"price {price:g}"


def _bits(settings: Sequence[Mapping[str, float]], price: float) -> float:
    return min((one["bits_up"] + price * one["bits_down"] for one in settings), default=math.inf)
