"""Error feedback on convex problems (LIEC-SGD, arXiv 2402.11857): floors, errors, and a comparison at equal bits."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.kit.comparison import made_by, write_page
from experiments.liec._advice import ADVICE
from fedjax_lc import algorithms, compressors, plot, problems
from fedjax_lc.core.files import check_writable
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

NUM_CLIENTS, ROWS, DIM = 8, 200, 100
FACTORS = (0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625)  #: step sizes, in units of 1/max_i L_i
SHOWN = 0.05  #: the step size, in these units, of what is shown over periods and over iterations
PERIODS = (1, 2, 4, 8, 16, 32, 64)
TRIED_STEPS = tuple(1.6 / 3**k for k in range(7))  #: at equal bits, in units of 1/max_i L_i
TRIED_PERIODS = (8, 32, 100)
RECORDS = 200
BIN = 20  #: records whose mean error is one point of a curve, since LIEC's falls to 0 at every synchronisation
DEEPEST = 1e-6  #: of what is shown over periods, where period 1 may go down to rounding
WAYS = ("compressor", "downlink", "reset")


@dataclasses.dataclass(frozen=True)
class Method:
    """A curve. `rounds`: messages of each compressor; `period` where the method has one."""

    label: str
    name: str
    period: int | None = None
    rounds: int = 1

    def hparams(self, problem: Problem, compressor: str, batch_size: int | None) -> Any:
        """Theory's, with this compressor wherever one is asked for."""
        spelled = compressor if self.rounds == 1 else f"fcc({compressor}):{self.rounds}"
        hp = algorithms.get(self.name).theory(problem)
        own: dict[str, Any] = {way: compressors.parse(spelled) for way in WAYS if hasattr(hp, way)}
        own |= {} if self.period is None else {"period": self.period}
        return dataclasses.replace(hp, batch_size=batch_size, **own)


METHODS = (
    Method("P-SGD", "sgd"),
    Method("MEM-SGD", "mem_sgd"),
    Method("DoubleSqueeze", "double_squeeze"),
    Method("NEOLITHIC(2)", "neolithic", rounds=2),
    Method("CSER(8)", "cser", period=8),
    Method("LIEC(8)", "liec_sgd", period=8),
    Method("LIEC(32)", "liec_sgd", period=32),
)
WITH_PERIOD = (Method("LIEC", "liec_sgd", period=8), Method("CSER", "cser", period=8))
ESTIMATES = (Method("EF21", "ef21"),)


@dataclasses.dataclass(frozen=True)
class Settled:
    """Where lanes settle: the mean over seeds, and over the last quarter of the records, of what is measured, and its
    standard error; inf where a seed diverged."""

    mean: float
    error: float

    def facts(self) -> dict[str, float | None]:
        return {"mean": self.mean, "error": self.error} if math.isfinite(self.mean) else {"mean": None, "error": None}


@dataclasses.dataclass(frozen=True)
class Feedback:
    """All methods on one problem with one compressor.

    Floors at FACTORS/L_max, LIEC's and CSER's at PERIODS, errors over the iterations; then every method at the best
    step size (and period) of those tried for `bits` bits per client, up and down together, with `seeds` other seeds.

    orderings: (words, the figures' facts -> whether it holds; None: the standard errors leave it open).
    """

    title: str
    problem: Callable[[], Problem]
    compressor: str
    steps: int
    batch_size: int | None
    seeds: int
    bits: float
    measure: str  #: gap or grad2
    orderings: Sequence[tuple[str, Callable[[Mapping[str, Any]], bool | None]]] = ()
    said: str = ""

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, .json, .png and .svg into `folder`; the text for the terminal."""
        check_writable(folder / f"{name}.md")
        problem, started = self.problem(), time.perf_counter()
        unit = 1 / float(np.max(np.asarray(problem.smooth)))
        over_steps = {m.label: self.over_steps(m, problem, unit, progress) for m in (*METHODS, *ESTIMATES)}
        without_period = [m for m in METHODS if m.period is None]
        over_periods = {m.label: self.over_periods(m, problem, unit, progress) for m in WITH_PERIOD}
        tuned = {m.label: self.tuned(m, problem, unit, progress) for m in (*without_period, *WITH_PERIOD, *ESTIMATES)}
        facts: dict[str, Any] = {
            "title": self.title,
            "clients": problem.n,
            "dim": problem.dim,
            "compressor": self.compressor,
            "steps": self.steps,
            "seeds": self.seeds,
            "bits": self.bits,
            "f_star": problem.f_star,
            "floors": {label: [one.facts() for one in found["floors"]] for label, found in over_steps.items()},
            "errors": {label: found["error"].facts() for label, found in over_steps.items() if found["error"]},
            "periods": {label: [one.facts() for one in found] for label, found in over_periods.items()},
            "tuned": {label: found["facts"] for label, found in tuned.items()},
        }
        facts["orderings"] = {words: _said(holds(facts)) for words, holds in self.orderings}
        facts |= {"seconds": round(time.perf_counter() - started, 1)} | environment()
        tables = {label: found["table"] for label, found in tuned.items()}
        picture = self.draw(facts, {label: found["errors"] for label, found in over_steps.items()}, tables)
        for suffix in ("png", "svg"):
            plot.save(picture, folder / f"{name}.{suffix}")
        write_page(folder, name, facts, self.tell(facts, "github"))
        return self.tell(facts, "simple")

    # --- running ---

    def _sweep(
        self, method: Method, problem: Problem, axes: Mapping[str, Any], steps: int, seeds: Any, progress: bool
    ) -> Table:
        hp = method.hparams(problem, self.compressor, self.batch_size)
        every = max(1, steps // RECORDS) | 1  # odd, so that records do not all fall on synchronisations
        measure = ["grad_norm"] + (["error_norm"] if algorithms.get(method.name).error else [])
        return sweep(
            method.name,
            problem,
            grid(hp, **axes),
            seeds=seeds,
            steps=steps // every * every,
            every=every,
            measure=measure,
            progress=progress,
        )

    def over_steps(self, method: Method, problem: Problem, unit: float, progress: bool) -> dict[str, Any]:
        """Floors at FACTORS, and the error at SHOWN: where it settles, and its mean over seeds for each record."""
        gammas = [unit * factor for factor in FACTORS]
        table = self._sweep(method, problem, {"gamma": gammas}, self.steps, self.seeds, progress)
        shown = slice(FACTORS.index(SHOWN) * self.seeds, (FACTORS.index(SHOWN) + 1) * self.seeds)
        own = series(table, "error_norm")
        return {
            "floors": settled(series(table, self.measure), self.seeds),
            "error": None if own is None else settled(own[shown], self.seeds)[0],
            "errors": None if own is None else own[shown].mean(axis=0),
        }

    def over_periods(self, method: Method, problem: Problem, unit: float, progress: bool) -> list[Settled]:
        """Floors at PERIODS."""
        axes = {"gamma": [unit * SHOWN], "period": PERIODS}
        table = self._sweep(method, problem, axes, self.steps, self.seeds, progress)
        return settled(series(table, self.measure), self.seeds)

    def tuned(self, method: Method, problem: Problem, unit: float, progress: bool) -> dict[str, Any]:
        """The best of TRIED_STEPS (and TRIED_PERIODS) by the last record within the bits, then other seeds of it."""
        axes: dict[str, Any] = {"gamma": [unit * factor for factor in TRIED_STEPS]}
        axes |= {"period": TRIED_PERIODS} if method.period else {}
        steps, tuning_seeds = self.affordable(method, problem), [self.seeds, self.seeds + 1]
        tried = self._sweep(method, problem, axes, steps, tuning_seeds, progress)
        scores = at_budget(tried, self.bits).reshape(-1, len(tuning_seeds)).mean(axis=1)
        settings = grid(method.hparams(problem, self.compressor, self.batch_size), **axes).settings[
            int(scores.argmin())
        ]
        chosen = {name: [value] for name, value in settings.items()}
        table = self._sweep(method, problem, chosen, steps, self.seeds, progress)
        ends = at_budget(table, self.bits)
        spread = float(ends.std(ddof=1) / math.sqrt(len(ends))) if len(ends) > 1 else 0.0
        factor = round(settings["gamma"] / unit, 4)
        facts = {"gamma L": factor, "at an end": factor in (round(TRIED_STEPS[0], 4), round(TRIED_STEPS[-1], 4))}
        facts |= {"period": settings.get("period"), **Settled(float(ends.mean()), spread).facts()}
        return {"facts": facts, "table": table}

    def affordable(self, method: Method, problem: Problem) -> int:
        """Iterations that the bits pay for, with the longest period that is tried."""
        axes = {"gamma": [1e-9]} | ({"period": [TRIED_PERIODS[-1]]} if method.period else {})
        table = self._sweep(method, problem, axes, 2 * TRIED_PERIODS[-1], 1, False)
        last = table.records.iloc[-1]
        return int(self.bits / ((last["bits_up"] + last["bits_down"]) / last["step"]))

    # --- telling ---

    def draw(self, facts: Mapping[str, Any], errors: Mapping[str, Any], tuned: Mapping[str, Table]) -> Any:
        """Floors over step sizes and over periods, errors over iterations, gaps over bits."""
        from fedjax_lc.plot.style import look, new_figure, write, write_legend

        figure = new_figure(10.5, 8.6)
        (over_steps, over_periods), (over_time, over_bits) = figure.subplots(2, 2)
        places = {label: place for place, label in enumerate(facts["floors"])}
        for label, found in facts["floors"].items():
            over_steps.plot(FACTORS, _means(found), label=label, **look(places[label]))
        for method in WITH_PERIOD:
            place = next(places[label] for label in places if label.startswith(method.label))
            over_periods.plot(PERIODS, _means(facts["periods"][method.label]), **look(place))
        for label in places.keys() & {"MEM-SGD", "DoubleSqueeze", "NEOLITHIC(2)"}:
            without = _means(facts["floors"][label])[FACTORS.index(SHOWN)]
            over_periods.axhline(without, color=look(places[label])["color"], linestyle="--", linewidth=1)
        for label, found in errors.items():
            if found is not None:
                means = found[: len(found) // BIN * BIN].reshape(-1, BIN).mean(axis=1)
                over_time.plot((np.arange(len(means)) + 0.5) * self.steps / len(means), means, **look(places[label]))
        for label, table in tuned.items():
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
        floor = r"$F(x) - F^\star$" if self.measure == "gap" else r"$|\nabla F(x)|^2$"
        seeds = f"mean of {self.seeds} seeds" if self.seeds > 1 else "one run"
        note = f"n = {facts['clients']}, d = {facts['dim']}, {self.compressor}; {seeds}"
        at = rf"$\gamma = {SHOWN:g}/L$"
        write(over_steps, r"step size, $\gamma L$", f"floor of {floor}", self.title, note)
        write(over_periods, "period", f"floor of {floor}", "", f"{at}; dashed: methods without a period")
        write(over_time, "iterations", "norm of the error", "", at)
        write(over_bits, "bits per client, up + down", r"$F(x) - F^\star$", "", "each at its best step size and period")
        write_legend(figure, *over_steps.get_legend_handles_labels())
        return figure

    def tell(self, facts: Mapping[str, Any], style: str) -> str:
        """The page: caption, tables, orderings, and how it was made; `style` as in `report.table`."""
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
        what = "F(x) - F*" if self.measure == "gap" else "|grad F(x)|^2"
        batch = "full gradients" if self.batch_size is None else f"batches of {self.batch_size}"
        caption = (
            f"n = {facts['clients']}, d = {facts['dim']}, F* = {facts['f_star']:.9g}, float64, {batch}, "
            f"{self.compressor} wherever a method compresses; seeds: {self.seeds}. {self.said}"
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
        held = [{"ordering": words, "here": verdict} for words, verdict in facts["orderings"].items()]
        parts = [
            *(f"# {self.title}", caption, of_floors, report.table(rows, style=style)),
            *(f"Floors at {SHOWN:g}/L, by the period:", report.table(periods, style=style)),
            *(of_bits, report.table(tuned, style=style)),
            *("Orderings, beyond two standard errors:", report.table(held, style=style)),
            ADVICE,
            f"Made in {facts['seconds']:.0f} s {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


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


# --- orderings ---


def below(a: str, b: str, kind: str = "floors", place: int | None = None) -> Callable[[Mapping[str, Any]], bool | None]:
    """Whether a's figure is below b's: floors at the step size of that place (SHOWN's if None), errors, or tuned."""
    place = FACTORS.index(SHOWN) if place is None else place

    def holds(facts: Mapping[str, Any]) -> bool | None:
        one, other = (facts[kind][label][place] if kind == "floors" else facts[kind][label] for label in (a, b))
        return lower(one, other)

    return holds


def every(*found: Callable[[Mapping[str, Any]], bool | None]) -> Callable[[Mapping[str, Any]], bool | None]:
    """Whether all hold."""

    def holds(facts: Mapping[str, Any]) -> bool | None:
        verdicts = [one(facts) for one in found]
        return False if False in verdicts else None if None in verdicts else True

    return holds


def lower(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    """Whether a mean is below another by more than two standard errors; what diverged is above everything."""
    if one["mean"] is None or other["mean"] is None:
        return one["mean"] is not None if (one["mean"] is None) != (other["mean"] is None) else None
    lead, error = other["mean"] - one["mean"], math.hypot(one["error"], other["error"])
    return None if abs(lead) <= 2 * error else lead > 0


def rises(label: str) -> Callable[[Mapping[str, Any]], bool | None]:
    """Whether the floors of a method rise with the period."""

    def holds(facts: Mapping[str, Any]) -> bool | None:
        found = facts["periods"][label]
        verdicts = [lower(a, b) for a, b in itertools.pairwise(found)]
        return False if False in verdicts else None if None in verdicts else True

    return holds


def squared(*labels: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether floors fall with the square of the step size at the two smallest, within 0.15 of the exponent."""
    return lambda facts: all(abs(slope(facts["floors"][label]) - 2) < 0.15 for label in labels)


def slope(found: Sequence[Mapping[str, Any]]) -> float:
    """That of log floor over log step size between the two smallest; NaN where one diverged."""
    high, low = _means(found)[-2:]
    return math.log(high / low) / math.log(FACTORS[-2] / FACTORS[-1]) if high > 0 and low > 0 else math.nan


def _said(verdict: bool | None) -> str:
    return {True: "holds", False: "does not hold", None: "undecided"}[verdict]


def _means(found: Sequence[Mapping[str, Any]]) -> list[float]:
    return [math.nan if one["mean"] is None else one["mean"] for one in found]


def _cell(one: Mapping[str, Any], missing: str = "diverged") -> str:
    if one["mean"] is None:
        return missing
    return f"{one['mean']:.3g}" + (f" ± {one['error']:.1g}" if one["error"] else "")


# --- problems ---


def data(alike: bool, logistic: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of eight clients: features of scales 1 to 1/3, targets by one plane (alike) or each client's own, and, where
    clients differ, features about a mean of their own."""
    rng = np.random.default_rng(0)
    scales, plane = np.geomspace(1, 1 / 3, DIM), rng.normal(size=DIM)
    clients = []
    for _ in range(NUM_CLIENTS):
        shift, own = (0.0, plane) if alike else (0.3 * rng.normal(size=DIM), plane + rng.normal(size=DIM))
        A = (rng.normal(size=(ROWS, DIM)) + shift) * scales
        z = A @ own + rng.normal(size=ROWS)
        clients.append((A, np.where(z > 0, 1.0, -1.0) if logistic else z))
    return clients


def convex(alike: bool, logistic: bool) -> Problem:
    """Least squares or logistic regression over these rows, kappa = 10."""
    jax.config.update("jax_enable_x64", True)
    make = problems.logistic_regression if logistic else problems.least_squares
    return make(data(alike, logistic), kappa=10, dtype="float64")
