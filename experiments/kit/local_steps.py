"""Local methods over the number of local steps: each curve at its best gamma for each H."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, check_seeds, finite, shape
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep

LOCAL_STEPS = (1, 2, 5, 10, 20, 50)
TUNING_SEEDS = 4
TAIL = 0.25  #: the share of the records, the last ones, whose mean gap is told

Done = Mapping[str, Mapping[int, Mapping[str, Any]]]  #: label -> H -> what `LocalSteps.best` gives


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalSteps(Recipe):
    """Every curve and every H: the gamma of those tried with the least median gap over TUNING_SEEDS seeds after
    `rounds` rounds, and with it `seeds` other seeds. Claims are about means of log10 of the gap, for each H.

    checks: rows of closed forms for the page.
    """

    rounds: int
    batch_size: int
    local_steps: Sequence[int] = LOCAL_STEPS
    shown: int = 10  #: the H of the curves over rounds
    seeds: int = 20
    claims_are: str = "ordering"
    checks: Callable[[], list[dict[str, str]]] | None = None

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check(self.curves, self.claims)

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> Done:
        return {c.label: {H: self.best(c, problem, H, progress) for H in self.local_steps} for c in self.curves}

    def best(self, curve: Contender, problem: Problem, H: int, progress: bool = True) -> dict[str, Any]:
        """gamma, whether it is the least or largest of those tried, the final gaps (seeds,) and their table."""
        hp, gammas = curve.hparams(problem, local_steps=H), curve.tried(problem)["gamma"]
        others = range(self.seeds, self.seeds + TUNING_SEEDS)
        tried = ends(self._sweep(curve, problem, grid(hp, gamma=gammas), others, progress))
        place = int(np.argmin(np.median(tried.reshape(len(gammas), -1), axis=1)))
        chosen = dataclasses.replace(hp, gamma=gammas[place])
        table = self._sweep(curve, problem, chosen, range(self.seeds), progress)
        return {"gamma": gammas[place], "end": place in (0, len(gammas) - 1), "gaps": ends(table), "table": table}

    def _sweep(self, curve: Contender, problem: Problem, hparams: Any, seeds: Sequence[int], progress: bool) -> Table:
        every = max(1, self.rounds // 40)
        return sweep(curve.method, problem, hparams, seeds=seeds, steps=self.rounds, every=every, progress=progress)

    def facts(self, problem: Problem, done: Done) -> dict[str, Any]:
        return {
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
                        "median": finite(np.median(one["gaps"])),
                        "low": finite(np.quantile(one["gaps"], 0.25)),
                        "high": finite(np.quantile(one["gaps"], 0.75)),
                        "worst": finite(np.max(one["gaps"])),
                    }
                    for H, one in of_H.items()
                }
                for label, of_H in done.items()
            },
            "checks": self.checks() if self.checks else [],
        }

    def statistics(self, facts: Mapping[str, Any], done: Done) -> Statistics:
        """Of each H."""
        return {
            f"H = {H}": {label: _log_gap(of_H[H]["gaps"]) for label, of_H in done.items()} for H in self.local_steps
        }

    def verdicts(self, facts: Mapping[str, Any], done: Done) -> dict[str, Any]:
        statistics = self.statistics(facts, done)
        return {
            claim.text: {H: dataclasses.replace(claim, statistic=H).verdict(statistics) for H in statistics}
            for claim in self.claims
        }

    def pictures(self, facts: Mapping[str, Any], done: Done) -> dict[str, Any]:
        """Left the final gap over H, right the gap over rounds at one H; medians, and quartiles of the seeds."""
        from fedjax_lc.plot.style import COLOURS, look, new_figure, write, write_legend

        tables = {label: of_H[self.shown]["table"] for label, of_H in done.items()}
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
        note = f"{shape(facts)}; {self.rounds} rounds, {self.seeds} seeds: median and quartiles"
        write(left, "local steps a round, H", r"$F(x) - F^\star$ at the end", self.title, note)
        write(right, f"communication rounds, H = {self.shown}", r"$F(x) - F^\star$", "", "each curve at its best gamma")
        write_legend(figure, *left.get_legend_handles_labels())
        return {"": figure}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        rows = [
            {"method": label} | {f"H = {H}": _cell(one) for H, one in curve.items()}
            for label, curve in facts["curves"].items()
        ]
        return [
            f"{shape(facts)}, F* = {facts['f_star']:.9g}, float64. Median over "
            f"{self.seeds} seeds of the mean gap F(x) - F* over the last quarter of {self.rounds} rounds of H local "
            f"steps, batch size {self.batch_size}, and the gamma with which it was reached: of nine, each a third of "
            f"the one before, the best on {TUNING_SEEDS} other seeds; * marks the first or last. " + self.remarks(),
            rows,
            "Orderings, for each H, beyond two standard errors:" if self.claims else "",
            self.held(facts),
            "Closed forms:" if facts["checks"] else "",
            facts["checks"],
        ]


def _log_gap(gaps: np.ndarray) -> Measured:
    """Of (seeds,); infinite where one diverged."""
    logs = np.log10(gaps)
    if not np.isfinite(logs).all():
        return Measured(np.inf)
    return Measured(float(logs.mean()), float(logs.std(ddof=1) / np.sqrt(len(logs))))


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
