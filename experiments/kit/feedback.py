"""Error feedback on convex problems: where methods settle by step size and by period, their errors, and equal bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.kit.claim import Claim, Measured, Statistics, check, in_order
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, shape
from fedjax_lc import algorithms
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

FACTORS = (0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625)  #: step sizes, in units of 1/max_i L_i
SHOWN = 0.05  #: the step size, in these units, of what is shown over periods and over iterations
PERIODS = (1, 2, 4, 8, 16, 32, 64)
TRIED_STEPS = tuple(1.6 / 3**k for k in range(7))  #: at equal bits, in units of 1/max_i L_i
TRIED_PERIODS = (8, 32, 100)
RECORDS = 200
BIN = 20  #: records whose mean error is one point of a curve, since LIEC's falls to 0 at every synchronisation
DEEPEST = 1e-6  #: of what is shown over periods, where period 1 may go down to rounding
SQUARE, WITHIN = "gamma^2", 0.15  #: what exponents of floors are compared with, and how far off they may be


class Done(NamedTuple):
    """By curve: floors and errors over step sizes, floors over periods, and what was tuned."""

    over_steps: dict[str, dict[str, Any]]
    over_periods: dict[str, list[Settled]]
    tuned: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settled:
    """Where lanes settle: the mean over seeds, and over the last quarter of the records, of what is measured, and its
    standard error; inf where a seed diverged."""

    mean: float
    error: float

    def facts(self) -> dict[str, float | None]:
        return {"mean": self.mean, "error": self.error} if math.isfinite(self.mean) else {"mean": None, "error": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feedback(Recipe):
    """All methods on one problem with one compressor.

    Floors at FACTORS/L_max, those of `with_period` at PERIODS, errors over the iterations; then every method at the
    best step size (and period) of those tried for `bits` bits per client, up and down together, with `seeds` other
    seeds.
    Claims are about the statistics floors (at SHOWN), errors, tuned, periods (see `rises`) and exponents (see
    `squared`).

    floor_of: gap or grad2. advice: the page's last word.
    """

    with_period: Sequence[Contender]
    compressor: str
    steps: int
    batch_size: int | None
    seeds: int
    bits: float
    floor_of: str
    claims_are: str = "ordering"
    advice: str = ""

    def __post_init__(self) -> None:
        check((*self.curves, *self.with_period), ())

    # --- running ---

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> Done:
        unit = 1 / float(np.max(np.asarray(problem.smooth)))
        tuned = [*(curve for curve in self.curves if "period" not in curve.changes), *self.with_period]
        return Done(
            {curve.label: self.over_steps(curve, problem, unit, progress) for curve in self.curves},
            {curve.label: self.over_periods(curve, problem, unit, progress) for curve in self.with_period},
            {curve.label: self.tuned(curve, problem, unit, progress) for curve in tuned},
        )

    def _sweep(
        self, curve: Contender, problem: Problem, axes: Mapping[str, Any], steps: int, seeds: Any, progress: bool
    ) -> Table:
        every = max(1, steps // RECORDS) | 1  # odd, so that records do not all fall on synchronisations
        measure = ["grad_norm"] + (["error_norm"] if algorithms.get(curve.method).error else [])
        return sweep(
            curve.method,
            problem,
            grid(curve.hparams(problem), **axes),
            seeds=seeds,
            steps=steps // every * every,
            every=every,
            measure=measure,
            progress=progress,
        )

    def over_steps(self, curve: Contender, problem: Problem, unit: float, progress: bool) -> dict[str, Any]:
        """Floors at FACTORS, and the error at SHOWN: where it settles, and its mean over seeds for each record."""
        gammas = [unit * factor for factor in FACTORS]
        table = self._sweep(curve, problem, {"gamma": gammas}, self.steps, self.seeds, progress)
        shown = slice(FACTORS.index(SHOWN) * self.seeds, (FACTORS.index(SHOWN) + 1) * self.seeds)
        own = series(table, "error_norm")
        return {
            "floors": settled(series(table, self.floor_of), self.seeds),
            "error": None if own is None else settled(own[shown], self.seeds)[0],
            "errors": None if own is None else own[shown].mean(axis=0),
        }

    def over_periods(self, curve: Contender, problem: Problem, unit: float, progress: bool) -> list[Settled]:
        """Floors at PERIODS."""
        axes = {"gamma": [unit * SHOWN], "period": PERIODS}
        table = self._sweep(curve, problem, axes, self.steps, self.seeds, progress)
        return settled(series(table, self.floor_of), self.seeds)

    def tuned(self, curve: Contender, problem: Problem, unit: float, progress: bool) -> dict[str, Any]:
        """The best of TRIED_STEPS (and TRIED_PERIODS) by the last record within the bits, then other seeds of it."""
        axes: dict[str, Any] = {"gamma": [unit * factor for factor in TRIED_STEPS]}
        axes |= {"period": TRIED_PERIODS} if curve in self.with_period else {}
        steps, tuning_seeds = self.affordable(curve, problem), [self.seeds, self.seeds + 1]
        tried = self._sweep(curve, problem, axes, steps, tuning_seeds, progress)
        scores = at_budget(tried, self.bits).reshape(-1, len(tuning_seeds)).mean(axis=1)
        settings = grid(curve.hparams(problem), **axes).settings[int(scores.argmin())]
        chosen = {name: [value] for name, value in settings.items()}
        table = self._sweep(curve, problem, chosen, steps, self.seeds, progress)
        ends = at_budget(table, self.bits)
        spread = float(ends.std(ddof=1) / math.sqrt(len(ends))) if len(ends) > 1 else 0.0
        factor = round(settings["gamma"] / unit, 4)
        facts = {"gamma L": factor, "at an end": factor in (round(TRIED_STEPS[0], 4), round(TRIED_STEPS[-1], 4))}
        facts |= {"period": settings.get("period"), **Settled(float(ends.mean()), spread).facts()}
        return {"facts": facts, "table": table}

    def affordable(self, curve: Contender, problem: Problem) -> int:
        """Iterations that the bits pay for, with the longest period that is tried."""
        axes = {"gamma": [1e-9]} | ({"period": [TRIED_PERIODS[-1]]} if curve in self.with_period else {})
        table = self._sweep(curve, problem, axes, 2 * TRIED_PERIODS[-1], 1, False)
        last = table.records.iloc[-1]
        return int(self.bits / ((last["bits_up"] + last["bits_down"]) / last["step"]))

    # --- telling ---

    def facts(self, problem: Problem, done: Done) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "compressor": self.compressor,
            "steps": self.steps,
            "seeds": self.seeds,
            "bits": self.bits,
            "f_star": problem.f_star,
            "floors": {label: [one.facts() for one in own["floors"]] for label, own in done.over_steps.items()},
            "errors": {label: own["error"].facts() for label, own in done.over_steps.items() if own["error"]},
            "periods": {label: [one.facts() for one in floors] for label, floors in done.over_periods.items()},
            "tuned": {label: own["facts"] for label, own in done.tuned.items()},
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        shown = FACTORS.index(SHOWN)
        return {
            "floors": {label: Measured.of(floors[shown]) for label, floors in facts["floors"].items()},
            "errors": {label: Measured.of(error) for label, error in facts["errors"].items()},
            "tuned": {label: Measured.of(one) for label, one in facts["tuned"].items()},
            "periods": {
                _at_period(label, period): Measured.of(floor)
                for label, floors in facts["periods"].items()
                for period, floor in zip(PERIODS, floors, strict=True)
            },
            "exponents": {SQUARE: Measured(WITHIN)}
            | {label: Measured(abs(slope(floors) - 2)) for label, floors in facts["floors"].items()},
        }

    def pictures(self, facts: Mapping[str, Any], done: Done) -> dict[str, Any]:
        """Floors over step sizes and over periods, errors over iterations, gaps over bits."""
        from fedjax_lc.plot.style import look, new_figure, write, write_legend

        errors = {label: own["errors"] for label, own in done.over_steps.items()}
        figure = new_figure(10.5, 8.6)
        (over_steps, over_periods), (over_time, over_bits) = figure.subplots(2, 2)
        places = {label: place for place, label in enumerate(facts["floors"])}
        for label, found in facts["floors"].items():
            over_steps.plot(FACTORS, _means(found), label=label, **look(places[label]))
        for curve in self.with_period:
            place = next(places[label] for label in places if label.startswith(curve.label))
            over_periods.plot(PERIODS, _means(facts["periods"][curve.label]), **look(place))
        for label in places.keys() & {"MEM-SGD", "DoubleSqueeze", "NEOLITHIC(2)"}:
            without = _means(facts["floors"][label])[FACTORS.index(SHOWN)]
            over_periods.axhline(without, color=look(places[label])["color"], linestyle="--", linewidth=1)
        for label, found in errors.items():
            if found is not None:
                means = found[: len(found) // BIN * BIN].reshape(-1, BIN).mean(axis=1)
                over_time.plot((np.arange(len(means)) + 0.5) * self.steps / len(means), means, **look(places[label]))
        for label, own in done.tuned.items():
            table = own["table"]
            place = places.get(label, next((places[other] for other in places if other.startswith(label)), 0))
            gaps, bits = table.gap.reshape(self.seeds, -1), table.records["bits_up"] + table.records["bits_down"]
            (line,) = over_bits.plot(bits.to_numpy().reshape(self.seeds, -1)[0], gaps.mean(axis=0), **look(place))
            line.set_markevery(max(1, gaps.shape[1] // 8))
        over_periods.set(xticks=PERIODS, xticklabels=[])
        for axes in (over_steps, over_periods, over_bits):
            axes.set(xscale="log", yscale="log")
        over_bits.set_xlim(self.bits / 300, self.bits)
        over_time.set(yscale="log")
        over_periods.set_xticks(PERIODS, list(map(str, PERIODS)))
        over_periods.minorticks_off()
        over_periods.set_ylim(bottom=max(over_periods.get_ylim()[0], DEEPEST * over_periods.get_ylim()[1]))
        for axes in (over_steps, over_periods, over_time, over_bits):
            axes.grid(True, color="0.9", linewidth=0.7)
        floor = r"$F(x) - F^\star$" if self.floor_of == "gap" else r"$|\nabla F(x)|^2$"
        seeds = f"mean of {self.seeds} seeds" if self.seeds > 1 else "one run"
        note = f"{shape(facts)}, {self.compressor}; {seeds}"
        at = rf"$\gamma = {SHOWN:g}/L$"
        write(over_steps, r"step size, $\gamma L$", f"floor of {floor}", self.title, note)
        write(over_periods, "period", f"floor of {floor}", "", f"{at}; dashed: methods without a period")
        write(over_time, "iterations", "norm of the error", "", at)
        write(over_bits, "bits per client, up + down", r"$F(x) - F^\star$", "", "each at its best step size and period")
        write_legend(figure, *over_steps.get_legend_handles_labels())
        return {"": figure}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        rows = [
            {"method": label}
            | {f"{c:g}/L": _cell(one) for c, one in zip(FACTORS, found, strict=True)}
            | {"slope": f"{slope(found):.2f}", "error norm": _cell(facts["errors"].get(label, {"mean": None}), "-")}
            for label, found in facts["floors"].items()
        ]
        periods = [
            {"method": label} | {f"p = {p}": _cell(one) for p, one in zip(PERIODS, found, strict=True)}
            for label, found in facts["periods"].items()
        ]
        tuned = [
            {
                "method": label,
                "gamma L": f"{one['gamma L']:g}{'*' * one['at an end']}",
                "period": one["period"] or "-",
                "F(x) - F*": _cell(one),
            }
            for label, one in facts["tuned"].items()
        ]
        what = "F(x) - F*" if self.floor_of == "gap" else "|grad F(x)|^2"
        batch = "full gradients" if self.batch_size is None else f"batches of {self.batch_size}"
        caption = (
            f"{shape(facts)}, F* = {facts['f_star']:.9g}, float64, {batch}, "
            f"{self.compressor} wherever a method compresses; seeds: {self.seeds}. {self.remarks()}"
        )
        of_floors = (
            f"Floors of {what}, the mean over the last quarter of {self.steps:,} iterations, by step size (L = max_i "
            "L_i); slope is that of their logarithms at the two smallest (2: a factor of four for each halving); the "
            f"error's norm (gradient units) is at {SHOWN:g}/L, the mean over iterations:"
        )
        of_bits = (
            f"After {self.bits:.3g} bits per client, up and down together, with the best of {len(TRIED_STEPS)} step "
            f"sizes (and {len(TRIED_PERIODS)} periods, where there is one), found with two other seeds; * marks the "
            "first or last step size:"
        )
        return [
            *(caption, of_floors, rows),
            *(f"Floors at {SHOWN:g}/L, by the period:", periods),
            *(of_bits, tuned),
            *("Orderings, beyond two standard errors:", self.held(facts)),
            self.advice,
        ]


# --- what tables hold ---


def series(table: Table, name: str) -> Any:
    """(lanes, records) of gap, grad2 or error_norm; NaN after a lane diverged; None where it is not measured."""
    if name == "error_norm" and name not in table.records:
        return None
    values = {"gap": lambda: table.gap, "grad2": lambda: table.records["grad_norm"] ** 2}
    own = np.asarray(values[name]() if name in values else table.records[name], np.float64)
    lanes, most = table.records["lane"].to_numpy(), int(table.records.groupby("lane").size().max())
    found = np.full((len(table), most), np.nan)
    for lane in range(len(table)):
        rows = own[lanes == lane]
        found[lane, : len(rows)] = rows
        if table.lanes["status"].iloc[lane] == "diverged":
            found[lane, -1] = np.nan
    return found


def settled(rows: np.ndarray, seeds: int) -> list[Settled]:
    """Of (configurations * seeds, records), for each configuration."""
    ends = rows[:, -(rows.shape[1] // 4) :].mean(axis=1).reshape(-1, seeds)
    found = []
    for own in ends:
        error = own.std(ddof=1) / math.sqrt(seeds) if seeds > 1 else 0.0
        found.append(
            Settled(float(own.mean()), float(error)) if np.isfinite(own).all() else Settled(math.inf, math.inf)
        )
    return found


def at_budget(table: Table, bits: float) -> np.ndarray:
    """(lanes,) gap at the last record within the bits; inf where the lane diverged."""
    gaps, spent = series(table, "gap"), (table.records["bits_up"] + table.records["bits_down"]).to_numpy()
    lanes = table.records["lane"].to_numpy()
    found = np.full(len(table), np.inf)
    for lane in range(len(table)):
        within = int((spent[lanes == lane] <= bits).sum())
        if table.lanes["status"].iloc[lane] == "finished" and within:
            found[lane] = gaps[lane, within - 1]
    return found


# --- claims ---


def rises(text: str, label: str) -> Claim:
    """The floors of a method rise with the period."""
    return in_order(text, *(_at_period(label, period) for period in PERIODS), statistic="periods")


def squared(text: str, *labels: str) -> Claim:
    """Floors fall with the square of the step size at the two smallest, within 0.15 of the exponent."""
    return Claim(text, labels, (SQUARE,), statistic="exponents")


def _at_period(label: str, period: int) -> str:
    return f"{label}, period {period}"


def slope(found: Sequence[Mapping[str, Any]]) -> float:
    """That of log floor over log step size between the two smallest; NaN where one diverged."""
    high, low = _means(found)[-2:]
    return math.log(high / low) / math.log(FACTORS[-2] / FACTORS[-1]) if high > 0 and low > 0 else math.nan


def _means(found: Sequence[Mapping[str, Any]]) -> list[float]:
    return [math.nan if one["mean"] is None else one["mean"] for one in found]


def _cell(one: Mapping[str, Any], missing: str = "diverged") -> str:
    if one["mean"] is None:
        return missing
    return f"{one['mean']:.3g}" + (f" ± {one['error']:.1g}" if one["error"] else "")
