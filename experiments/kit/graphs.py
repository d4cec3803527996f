"""Methods without a server over graphs: steps to a gap, and floors, against what the graph's spectrum says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, finite
from fedjax_lc.algorithms.frames.topology import topology
from fedjax_lc.core.progress import bar
from fedjax_lc.problems import Problem
from fedjax_lc.running.run import run

STEPS, FLOORS, EXPONENT = "steps", "floors", "exponent"


class Graph(NamedTuple):
    """A topology of so many nodes."""

    text: str
    n: int

    def __str__(self) -> str:
        return f"{self.text} {self.n}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graphs(Recipe):
    """Rings of several sizes, and other graphs of one size: `curves` run to `rel_gap`, or `steps`; `settling` run
    `settle` steps, and their floor is the last mean_i |x_i - x*|^2 / |x_0 - x*|^2.

    Claims are about the statistics STEPS and FLOORS of a curve on a graph, by `on`, and EXPONENT of a curve: how steps
    grow with kappa_g, the condition number of I - W, over the larger half of the rings.

    problem_of: the problem of so many nodes; `problem` is that of the graphs of one size.
    """

    problem_of: Callable[[int], Problem]
    settling: Sequence[Contender]
    rings: Sequence[int]
    others: Sequence[str]
    beside: int  #: the number of nodes of the other graphs
    rel_gap: float = 1e-8
    steps: int = 1_000_000
    settle: int = 4000
    every: int = 10
    deepest: float = 0.0  #: of the floors that are drawn
    note: str = ""
    claims_are: str = "ordering"

    def __post_init__(self) -> None:
        check((*self.curves, *self.settling), ())

    @property
    def graphs(self) -> list[Graph]:
        """All, without repetition."""
        every = [*(Graph("ring", n) for n in self.rings), *(Graph(text, self.beside) for text in self.others)]
        return list(dict.fromkeys(every))

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, dict[str, Any]]:
        """Of each graph: steps and floors by label, None where a curve does not get there."""
        found = {}
        with bar(len(self.graphs), "graphs", shown=progress) as shown:
            for graph in self.graphs:
                on = problem if graph.n == problem.n else self.problem_of(graph.n)
                steps = {curve.label: self.steps_of(curve, on, graph) for curve in self.curves}
                floors = {curve.label: self.floor_of(curve, on, graph) for curve in self.settling}
                found[str(graph)] = {STEPS: steps, FLOORS: floors}
                shown.update()
        return found

    def steps_of(self, curve: Contender, problem: Problem, graph: Graph) -> float | None:
        """Steps to the gap."""
        hp = curve.hparams(problem, topology=graph.text)
        found = run(
            curve.method, problem, hp, 0, steps=self.steps, every=self.every, rel_gap=self.rel_gap, progress=False
        )
        hit = found.reach(self.rel_gap)
        return None if hit is None else float(hit["step"])

    def floor_of(self, curve: Contender, problem: Problem, graph: Graph) -> float | None:
        """Where it settles."""
        hp = curve.hparams(problem, topology=graph.text)
        options: dict[str, Any] = {"steps": self.settle, "every": self.settle, "measure": "distance"}
        metrics = run(curve.method, problem, hp, 0, **options, progress=False).metrics
        start = float(np.sum((np.asarray(problem.x0) - np.asarray(problem.x_star)) ** 2))
        return finite(float(metrics["distance"][-1] ** 2 + metrics["consensus"][-1]) / start)

    def facts(self, problem: Problem, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        spectra = {str(graph): topology(graph.text, graph.n) for graph in self.graphs}
        return {
            "dim": problem.dim,
            "rel_gap": self.rel_gap,
            "settle": self.settle,
            "graphs": {
                name: {"gap": W.gap, "kappa_g": W.kappa_g, "degree": float(W.degrees.mean()), **done[name]}
                for name, W in spectra.items()
            },
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        graphs = facts["graphs"]
        number = lambda value: Measured(math.inf if value is None else value)
        found = {
            what: {on(label, name): number(value) for name, own in graphs.items() for label, value in own[what].items()}
            for what in (STEPS, FLOORS)
        }
        return found | {EXPONENT: {curve.label: Measured(self.exponent(facts, curve.label)) for curve in self.curves}}

    def exponent(self, facts: Mapping[str, Any], label: str) -> float:
        """Of kappa_g, over the larger half of the rings, by least squares of logarithms."""
        own = [facts["graphs"][f"ring {n}"] for n in sorted(self.rings)[len(self.rings) // 2 :]]
        points = [(one["kappa_g"], one[STEPS][label]) for one in own]
        if any(steps is None for _, steps in points):
            return math.inf
        kappas, steps = np.log(points).T
        return float(np.polyfit(kappas, steps, 1)[0])

    def pictures(self, facts: Mapping[str, Any], done: Any = None) -> dict[str, Any]:
        """Steps over kappa_g, and floors over the gap: rings as a line, other graphs as hollow markers."""
        from fedjax_lc.plot.style import look, new_figure, write, write_legend

        figure = new_figure(10.5, 4.6)
        left, right = figure.subplots(1, 2)
        labels = [curve.label for curve in (*self.curves, *self.settling)]
        for axes, what, x, curves in ((left, STEPS, "kappa_g", self.curves), (right, FLOORS, "gap", self.settling)):
            axes.set(xscale="log", yscale="log")
            axes.grid(True, color="0.9", linewidth=0.7)
            for larger, curve in zip(range(len(curves) - 1, -1, -1), curves, strict=True):  # seen below the next ones
                style = look(labels.index(curve.label))
                style["markersize"] += 3 * larger
                rings, others = self._points(facts, x, what, curve.label)
                axes.plot(*rings, label=curve.label, **style)
                hollow = style | {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": style["color"]}
                axes.plot(*others, **hollow)
            if what == FLOORS and self.deepest:
                axes.set_ylim(bottom=self.deepest)
            self._name_graphs(axes, facts, x, at_top=what == STEPS)
        note = f"d = {facts['dim']}; lines: rings of {min(self.rings)} to {max(self.rings)} nodes; hollow: other graphs"
        note = f"{note} of {self.beside}"
        write(left, r"condition number of $I - W$, $\kappa_g$", f"steps to a relative gap of {self.rel_gap:g}",
              facts["title"], "\n".join(filter(None, [note, self.note])))  # fmt: skip
        floor = r"$\mathrm{mean}_i\, \|x_i - x^\star\|^2 / \|x_0 - x^\star\|^2$"
        write(right, r"spectral gap of $W$, $\rho$", f"floor of  {floor}", "", "")
        lines = [axes.get_legend_handles_labels() for axes in (left, right)]
        write_legend(figure, lines[0][0] + lines[1][0], lines[0][1] + lines[1][1])
        return {"": figure}

    def _points(self, facts: Mapping[str, Any], x: str, what: str, label: str) -> list[np.ndarray]:
        """(2, graphs) of the rings and of the other graphs."""
        rings, others = ([f"ring {n}" for n in self.rings], [f"{text} {self.beside}" for text in self.others])
        graphs, missing = facts["graphs"], np.nan
        return [
            np.array([(graphs[name][x], graphs[name][what][label] or missing) for name in names]).T
            for names in (rings, others)
        ]

    def _name_graphs(self, axes: Any, facts: Mapping[str, Any], x: str, at_top: bool) -> None:
        """The names of the other graphs, upright, where the axes are empty."""
        for text in self.others:
            place = (facts["graphs"][f"{text} {self.beside}"][x], 0.98 if at_top else 0.02)
            axes.axvline(place[0], color="0.85", linewidth=0.7, zorder=0)
            axes.text(*place, text, transform=axes.get_xaxis_transform(), rotation=90, fontsize=8, color="0.35",
                      ha="right", va="top" if at_top else "bottom")  # fmt: skip

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        rows = [
            {"graph": name}
            | {what: f"{own[what]:.4g}" for what in ("gap", "kappa_g", "degree")}
            | {f"{label}, steps": "-" if steps is None else f"{steps:,.0f}" for label, steps in own[STEPS].items()}
            | {f"{label}, floor": _number(floor) for label, floor in own[FLOORS].items()}
            for name, own in facts["graphs"].items()
        ]
        exponents = ", ".join(f"{curve.label} {self.exponent(facts, curve.label):.2f}" for curve in self.curves)
        caption = (
            f"d = {facts['dim']}. Steps to a relative gap of {self.rel_gap:g} of the "
            f"average model, and floors: mean_i |x_i - x*|^2 / |x_0 - x*|^2 after {self.settle:,} steps. Exponents of "
            f"kappa_g in the steps, over the larger half of the rings: {exponents}. {self.remarks()}"
        )
        return [caption.strip(), rows, self.held(facts)]


def on(label: str, graph: str) -> str:
    """A curve on a graph, by name."""
    return f"{label}, {graph}"


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3g}"
