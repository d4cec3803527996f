"""Scaled local methods on convex problems (SAVIC, arXiv 2406.00846): each method at its best gamma for each H."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.comparison import made_by, write_page
from fedjax_lc import algorithms, plot
from fedjax_lc.core.files import check_writable
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

LOCAL_STEPS = (1, 2, 5, 10, 20, 50)
BETA = 0.99  #: few refreshes, so a short memory
TUNING_SEEDS = 4
TAIL = 0.25  #: the share of the records, the last ones, whose mean gap is told
HESSIAN = ("oasis", "adahessian")


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A curve: a rule of SAVIC, global or local_sync. Step sizes that are tried: `largest` / 3^k, k = 0..8; in units of
    1/L for rule none."""

    label: str
    rule: str
    largest: float
    scaling: str = "global"
    b1: float = 0.0

    def hparams(self, problem: Problem, batch_size: int, local_steps: int) -> Any:
        L = float(np.max(np.asarray(problem.smooth)))
        least = L / 1000 if self.rule in HESSIAN else 1e-3
        hp = algorithms.get("savic").theory(problem, self.rule, local_steps, least, self.scaling)
        return dataclasses.replace(hp, beta=BETA, b1=self.b1, batch_size=batch_size)

    def gammas(self, problem: Problem) -> list[float]:
        unit = 1 / float(np.max(np.asarray(problem.smooth))) if self.rule == "none" else 1.0
        return [unit * self.largest / 3**k for k in range(9)]


SCALINGS = (
    Scaling("Local SGD", "none", 12.0),
    Scaling("Local SGD, momentum 0.9", "none", 12.0, b1=0.9),
    Scaling("Adam", "adam", 1.0),
    Scaling("RMSProp", "rmsprop", 1.0),
    Scaling("AdaGrad", "adagrad", 3.0),
    Scaling("OASIS", "oasis", 1.5),
    Scaling("AdaHessian", "adahessian", 1.5),
    Scaling("Adam, local", "adam", 1.0, "local_sync"),
    Scaling("OASIS, local", "oasis", 1.5, "local_sync"),
)
GRADIENT_RULES, HESSIAN_RULES = ("Adam", "RMSProp", "AdaGrad"), ("OASIS", "AdaHessian")
UNSCALED = ("Local SGD", "Local SGD, momentum 0.9")


@dataclasses.dataclass(frozen=True)
class Lower:
    """`text`: the mean of log10 of the gap of each of `lower` is below that of each of `higher`, beyond two standard
    errors, for each H on its own."""

    text: str
    lower: Sequence[str]
    higher: Sequence[str]

    def verdict(self, logs: Mapping[str, np.ndarray]) -> str:
        """logs: (seeds,) log10 of the gaps, inf where a seed diverged."""
        found = {self._one(logs[a], logs[b]) for a in self.lower for b in self.higher}
        return "no" if "no" in found else "undecided" if "undecided" in found else "holds"

    @staticmethod
    def _one(a: np.ndarray, b: np.ndarray) -> str:
        if not np.isfinite(a).all() or not np.isfinite(b).all():
            return "holds" if np.isfinite(a).all() else "undecided" if not np.isfinite(b).all() else "no"
        lead = b.mean() - a.mean()
        error = np.hypot(a.std(ddof=1), b.std(ddof=1)) / np.sqrt(len(a))
        return "undecided" if abs(lead) <= 2 * error else "holds" if lead > 0 else "no"


@dataclasses.dataclass(frozen=True)
class LocalSteps:
    """Every curve and every H: the gamma with the least median gap over TUNING_SEEDS seeds after `rounds` rounds, and
    with it `seeds` other seeds. checks: problem -> rows of closed forms for the page."""

    title: str
    problem: Callable[[], Problem]
    rounds: int
    batch_size: int
    local_steps: Sequence[int] = LOCAL_STEPS
    shown: int = 10  #: the H of the curves over rounds
    scalings: Sequence[Scaling] = SCALINGS
    seeds: int = 20
    claims: Sequence[Lower] = ()
    checks: Callable[[], list[dict[str, str]]] | None = None
    said: str = ""

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, .json, .png and .svg into `folder`; the text for the terminal."""
        check_writable(folder / f"{name}.md")
        problem, started = self.problem(), time.perf_counter()
        found = {s.label: {H: self.best(s, problem, H, progress) for H in self.local_steps} for s in self.scalings}
        facts = self.facts(problem, found) | {"checks": self.checks() if self.checks else []}
        facts |= {"seconds": round(time.perf_counter() - started, 1)} | environment()
        picture = self.draw(facts, {label: of_H[self.shown]["table"] for label, of_H in found.items()})
        for suffix in ("png", "svg"):
            plot.save(picture, folder / f"{name}.{suffix}")
        write_page(folder, name, facts, self.tell(facts, "github"))
        return self.tell(facts, "simple")

    def best(self, scaling: Scaling, problem: Problem, H: int, progress: bool = True) -> dict[str, Any]:
        """gamma, whether it is the least or largest of those tried, the final gaps (seeds,) and their table."""
        hp, gammas = scaling.hparams(problem, self.batch_size, H), scaling.gammas(problem)
        own = range(self.seeds, self.seeds + TUNING_SEEDS)
        tried = ends(self._sweep(problem, grid(hp, gamma=gammas), own, progress))
        place = int(np.argmin(np.median(tried.reshape(len(gammas), -1), axis=1)))
        chosen = dataclasses.replace(hp, gamma=gammas[place])
        table = self._sweep(problem, chosen, range(self.seeds), progress)
        return {"gamma": gammas[place], "end": place in (0, len(gammas) - 1), "gaps": ends(table), "table": table}

    def _sweep(self, problem: Problem, hparams: Any, seeds: Sequence[int], progress: bool) -> Table:
        every = max(1, self.rounds // 40)
        return sweep("savic", problem, hparams, seeds=seeds, steps=self.rounds, every=every, progress=progress)

    def facts(self, problem: Problem, found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
        """What the result file says."""
        logs = {H: {label: np.log10(of_H[H]["gaps"]) for label, of_H in found.items()} for H in self.local_steps}
        return {
            "title": self.title,
            "clients": problem.n,
            "dim": problem.dim,
            "rounds": self.rounds,
            "batch_size": self.batch_size,
            "seeds": self.seeds,
            "f_star": problem.f_star,
            "curves": {
                label: {
                    str(H): {
                        "gamma": one["gamma"],
                        "at an end": one["end"],
                        "diverged": int(np.sum(np.isinf(one["gaps"]))),
                        "median": _finite(np.median(one["gaps"])),
                        "low": _finite(np.quantile(one["gaps"], 0.25)),
                        "high": _finite(np.quantile(one["gaps"], 0.75)),
                        "worst": _finite(np.max(one["gaps"])),
                    }
                    for H, one in of_H.items()
                }
                for label, of_H in found.items()
            },
            "claims": {c.text: {str(H): c.verdict(logs[H]) for H in self.local_steps} for c in self.claims},
        }

    def draw(self, facts: Mapping[str, Any], tables: Mapping[str, Table]) -> Any:
        """Left the final gap over H, right the gap over rounds at one H; medians, and quartiles of the seeds."""
        from fedjax_lc.plot.style import COLOURS, look, new_figure, write, write_legend

        figure = new_figure(10.5, 4.9)
        left, right = figure.subplots(1, 2)
        for place, (label, curve) in enumerate(facts["curves"].items()):
            values = np.array([[one[k] or np.nan for k in ("median", "low", "high")] for one in curve.values()]).T
            left.plot(self.local_steps, values[0], label=label, **look(place))
            left.fill_between(
                self.local_steps, *values[1:], color=COLOURS[place % len(COLOURS)], alpha=0.12, linewidth=0
            )
            if (tables[label].lanes["status"] == "finished").all():
                gaps = tables[label].gap.reshape(self.seeds, -1)
                rounds = tables[label].records["rounds"].to_numpy().reshape(self.seeds, -1)[0]
                (line,) = right.plot(rounds, np.median(gaps, axis=0), **look(place))
                line.set_markevery(max(1, len(rounds) // 8))
        left.set(xscale="log", yscale="log", xticks=self.local_steps, xticklabels=list(map(str, self.local_steps)))
        left.minorticks_off()
        right.set(yscale="log")
        for axes in (left, right):
            axes.grid(True, color="0.9", linewidth=0.7)
        shape = f"n = {facts['clients']}, d = {facts['dim']}; {self.rounds} rounds"
        note = f"{shape}, {self.seeds} seeds: median and quartiles"
        write(left, "local steps a round, H", r"$F(x) - F^\star$ at the end", self.title, note)
        write(right, f"communication rounds, H = {self.shown}", r"$F(x) - F^\star$", "", "each curve at its best gamma")
        write_legend(figure, *left.get_legend_handles_labels())
        return figure

    def tell(self, facts: Mapping[str, Any], style: str) -> str:
        """The page: caption, tables and how it was made; `style` as in `report.table`."""
        rows = [
            {"method": label} | {f"H = {H}": _cell(one) for H, one in curve.items()}
            for label, curve in facts["curves"].items()
        ]
        held = [{"ordering": text} | {f"H = {H}": v for H, v in of_H.items()} for text, of_H in facts["claims"].items()]
        parts = [
            f"# {self.title}",
            f"n = {facts['clients']}, d = {facts['dim']}, F* = {facts['f_star']:.9g}, float64. Median over "
            f"{self.seeds} seeds of the mean gap F(x) - F* over the last quarter of {self.rounds} rounds of H local "
            f"steps, batch size {self.batch_size}, and the gamma with which it was reached: of nine, each a third of "
            f"the one before, the best on {TUNING_SEEDS} other seeds; * marks the first or last. beta = {BETA:g}; "
            "alpha = 0.001, of Hessian rules L/1000. Scaling is global unless a curve says local (local_sync). "
            f"{self.said}".strip(),
            report.table(rows, style=style),
            "Orderings, for each H, beyond two standard errors:" if held else "",
            report.table(held, style=style) if held else "",
            "Closed forms:" if facts["checks"] else "",
            report.table(facts["checks"], style=style) if facts["checks"] else "",
            f"Made in {facts['seconds']:.0f} s {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


def ends(table: Table) -> np.ndarray:
    """(lanes,) mean gap over the last records of each lane; inf if it diverged."""
    found = np.full(len(table), np.inf)
    gaps = table.records.assign(gap=table.gap).groupby("lane")["gap"]
    for lane, own in gaps:
        if table.lanes["status"].iloc[lane] == "finished":
            found[lane] = own.to_numpy()[-max(1, int(TAIL * len(own))) :].mean()
    return found


def _cell(one: Mapping[str, Any]) -> str:
    gap = "diverged" if one["median"] is None else f"{one['median']:.2g}"
    return f"{gap} ({one['gamma']:.2g}{'*' if one['at an end'] else ''})"


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
