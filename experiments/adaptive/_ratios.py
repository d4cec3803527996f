"""Fitted thresholds in training: the share of entries that was sent, beside the one that was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, shape
from fedjax_lc.core.progress import bar
from fedjax_lc.problems import Problem
from fedjax_lc.running.run import run

ENTRY = 64  #: bits of an entry with index=int32
WORST = "worst"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios(Recipe):
    """Curves whose choice `compressor` has {ratio} in it, for each ratio: `steps` steps, of which the second half
    counts.

    Claims are about WORST, the largest factor between what was sent and what was asked for.
    """

    ratios: Sequence[float]
    steps: int
    claims_are: str = "ordering"

    def __post_init__(self) -> None:
        check(self.curves, ())

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, list[float]]:
        """By label: what was sent over what was asked for, for each ratio."""
        found: dict[str, list[float]] = {}
        with bar(len(self.curves) * len(self.ratios), "runs", shown=progress) as shown:
            for curve in self.curves:
                found[curve.label] = []
                for ratio in self.ratios:
                    found[curve.label].append(self.sent(curve, problem, ratio) / ratio)
                    shown.update()
        return found

    def sent(self, curve: Contender, problem: Problem, ratio: float) -> float:
        """The share of entries that a client sent."""
        hp = curve.hparams(problem, compressor=curve.choices["compressor"].format(ratio=ratio))
        options: dict[str, Any] = {"steps": self.steps, "every": self.steps // 2, "progress": False}
        half, whole = run(curve.method, problem, hp, jax.random.key(0), **options).bits_up
        return float(whole - half) / (self.steps // 2) / ENTRY / problem.dim

    def facts(self, problem: Problem, done: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "steps": self.steps,
            "ratios": list(self.ratios),
            "sent over asked": {label: list(own) for label, own in done.items()},
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        worst = lambda shares: float(np.max(np.maximum(shares, 1 / np.maximum(shares, 1e-9))))
        return {WORST: {label: Measured(worst(np.array(own))) for label, own in facts["sent over asked"].items()}}

    def pictures(self, facts: Mapping[str, Any], done: Any = None) -> dict[str, Any]:
        from fedjax_lc.plot.style import look, new_figure, write, write_legend

        figure = new_figure(6.4, 4.2 + 0.12 * len(facts["sent over asked"]))
        axes = figure.add_subplot(xscale="log", yscale="log")
        axes.plot(self.ratios, self.ratios, "--", color="0.4", linewidth=1.1, label="as asked for")
        for place, (label, own) in enumerate(facts["sent over asked"].items()):
            shares = np.where(np.array(own) > 0, own, np.nan) * self.ratios  # nothing is sent where there is no point
            axes.plot(self.ratios, shares, label=label, **look(place))
        axes.grid(True, color="0.9", linewidth=0.7)
        note = f"{shape(facts)}; mean of clients over the second half of {self.steps} steps"
        write(axes, "share of entries asked for", "share of entries sent", facts["title"], note)
        write_legend(figure, *axes.get_legend_handles_labels())
        return {"": figure}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        rows = [
            {"fit": label} | {f"{ratio:g}": f"{share:.2f}" for ratio, share in zip(self.ratios, own, strict=True)}
            for label, own in facts["sent over asked"].items()
        ]
        caption = f"{shape(facts)}. Share of entries sent over the share asked for, by the latter. {self.remarks()}"
        return [caption.strip(), rows, self.held(facts)]
