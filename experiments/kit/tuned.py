"""Tuned comparisons: every method at its best step size and compressor, which a sweep at equal budget decides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from experiments.kit.claim import Statistics
from experiments.kit.comparison import needed
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, finite, kappa_line, plain, problem_facts
from fedjax_lc import algorithms, plot
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.sweep import sweep
from fedjax_lc.sweeping.theory import theory_with_steps

STEP_SIZES = (0.5, 1.0, 2.0, 4.0, 8.0)


class Done(NamedTuple):
    """Tables of all configurations and of the winners, and the bits that each lane could send."""

    tuning: Table
    final: Table
    budget: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned(Recipe):
    """Methods on one problem, each at its best setting of what it tunes and of its step size.

    Every configuration runs with `seeds` seeds to `rel_gap`, or until it has sent `bits_ratio` times the bits that the
    first entry with its theory's own parameters needs (or `max_steps` steps or `max_grads` local gradients). Where a
    method's best step size is the first or last one tried, two more are tried beyond it, at most `extensions` times.
    Each method's best, by the median of uplink bits, runs again with `final_seeds` other seeds to `final_gap`, or
    `bits_ratio` times the first entry's bits.
    """

    step_sizes: Sequence[float] = STEP_SIZES
    seeds: int = 2
    rel_gap: float = 1e-4
    final_seeds: int = 5
    final_gap: float = 1e-8
    bits_ratio: float = 10
    max_steps: int = 50_000
    max_grads: float = 200_000
    final_factor: float = 5  #: the final runs' share of steps and gradients
    every: int = 10
    extensions: int = 8
    claims_are: str = "claim of the paper, methods tuned"

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> Done:
        tuning, tried, tuning_budget = self.tune(problem, progress, parts)
        final, final_budget = self.rerun(problem, tuning, tried, progress, parts)
        return Done(tuning, final, {"tuning": tuning_budget, "final": final_budget})

    def tune(
        self, problem: Problem, progress: bool = True, parts: Path | None = None
    ) -> tuple[Table, list[list[Any]], float]:
        """All configurations, each method's hyperparameters by configuration, and the bits that each could send.

        parts: a folder that keeps what is done, so that the same call goes on from there.
        """
        first, *_ = self.curves
        plain = self._sweep(first, problem, None, range(1), math.inf, progress=False)
        needed = float(plain.best("bits_up", self.rel_gap)["median"].iloc[0])
        if not math.isfinite(needed):
            raise InputError(f"{first.method} with its theory's parameters does not reach {self.rel_gap:g} in "
                             f"{self.max_steps} steps: raise max_steps")  # fmt: skip
        budget = self.bits_ratio * needed
        tables = [self._tune_one(entry, problem, budget, progress, parts) for entry in self.curves]
        return Table.merge([table for table, _ in tables]), [tried for _, tried in tables], budget

    def _tune_one(
        self, entry: Contender, problem: Problem, budget: float, progress: bool, parts: Path | None
    ) -> tuple[Table, list[Any]]:
        """One method's table and its hyperparameters by configuration; step sizes are added, at most `extensions`
        times, while the best is the first or last."""
        new, tried = list(self.step_sizes), list[float]()
        tables, hparams = list[Table](), list[Any]()
        for more in range(1 + self.extensions):
            theory, tried = theory_with_steps(algorithms.get(entry.method), problem), sorted([*tried, *new])
            configurations = grid(theory, **entry.tune, step_size=new)
            hparams += configurations.hparams
            out = parts and parts / f"{entry.method}-{more}"
            tables.append(
                self._sweep(entry, problem, configurations, range(self.seeds), budget, progress=progress, out=out)
            )
            best = float(Table.merge(tables).best("bits_up", self.rel_gap)["step_size"].iloc[0])
            if tried[0] < best < tried[-1]:
                break
            new = [tried[0] / 4, tried[0] / 2] if best == tried[0] else [2 * tried[-1], 4 * tried[-1]]
        return Table.merge(tables), hparams

    def rerun(
        self,
        problem: Problem,
        tuning: Table,
        tried: Sequence[list[Any]],
        progress: bool = True,
        parts: Path | None = None,
    ) -> tuple[Table, float]:
        """Each method's best configuration with new seeds to the final gap, and the bits that each could send."""
        seeds = range(self.seeds, self.seeds + self.final_seeds)
        best = tuning.best("bits_up", self.rel_gap).set_index("method")["config"]
        tables: list[Table] = []
        budget = math.inf
        for entry, hparams in zip(self.curves, tried, strict=True):
            out = parts and parts / f"{entry.method}-final"
            hp = hparams[best[entry.method]]
            tables.append(self._sweep(entry, problem, hp, seeds, budget, progress=progress, out=out, final=True))
            if budget == math.inf:
                budget = self.bits_ratio * float(tables[0].best("bits_up", self.final_gap)["median"].iloc[0])
        return Table.merge(tables), budget

    def _sweep(
        self, entry: Contender, problem: Problem, hparams: Any, seeds: Sequence[int], bits: float, *,
        progress: bool, out: Path | None = None, final: bool = False,
    ) -> Table:  # fmt: skip
        factor = self.final_factor if final else 1
        return sweep(
            entry.method,
            problem,
            hparams,
            seeds=seeds,
            steps=int(factor * self.max_steps),
            every=self.every,
            rel_gap=self.final_gap if final else self.rel_gap,
            budget={"bits_up": bits, "grads": factor * self.max_grads},
            masked=("local_steps",),
            out=out,
            progress=progress,
        )

    def facts(self, problem: Problem, done: Done) -> dict[str, Any]:
        tuning, final, budget = done
        chosen = tuning.best("bits_up", self.rel_gap).set_index("method")
        ends = {gap: final.best("bits_up", gap).set_index("method") for gap in (self.rel_gap, self.final_gap)}
        rounds = final.best("rounds", self.final_gap).set_index("method")["median"]
        own_names = {name: facts["hyperparameters"] for name, facts in final.config["methods"].items()}
        curves: dict[str, Any] = {}
        for entry in self.curves:
            row, own = chosen.loc[entry.method], tuning.lanes[tuning.lanes["method"] == entry.method]
            curves[self.label(entry, row)] = {
                "method": entry.method,
                "settings": {name: plain(row[name]) for name in (*entry.tune, "step_size")},
                "hyperparameters": {name: plain(row[name]) for name in own_names[entry.method]},
                "lanes": len(own),
                "diverged": int((own["status"] == "diverged").sum()),
                "tuning_bits": finite(row["median"]),
                "rounds": finite(rounds[entry.method]),
                "bits": {
                    f"{gap:.0e}": {k: finite(at.loc[entry.method, k]) for k in ("median", "low", "high")}
                    | {k: int(at.loc[entry.method, k]) for k in ("seeds", "reached", "diverged")}
                    for gap, at in ends.items()
                },
                "spent": float(final.records[final.records["lane"].isin(
                    final.lanes.index[final.lanes["method"] == entry.method])]["bits_up"].max()),
            }  # fmt: skip
        return {
            **problem_facts(problem),
            "rel_gap": self.rel_gap,
            "final_gap": self.final_gap,
            "step_sizes": list(self.step_sizes),
            "index_bits": "log2",
            "curves": curves,
            "budget": {part: finite(bits) for part, bits in budget.items()},
            "seconds": {
                part: round(float(table.lanes["seconds"].sum()), 1)
                for part, table in (("tuning", tuning), ("final", final))
            },
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        gap, curves = f"{self.final_gap:.0e}", facts["curves"]
        return {"bits": {label: needed(c["bits"][gap]["median"], c["spent"]) for label, c in curves.items()}}

    def label(self, entry: Contender, row: pd.Series) -> str:
        """LoCoDL, rand_k:2|natural, step x2."""
        tried = [name for name, values in entry.tune.items() if len(values) > 1]
        settings = [f"{row[n]}" if n == "compressor" else f"{n} = {row[n]:g}" for n in tried]
        return ", ".join([algorithms.get(entry.method).title, *settings, f"step x{row['step_size']:g}"])

    def pictures(self, facts: Mapping[str, Any], done: Done) -> dict[str, Any]:
        """Bits to the gap of the winners, and of all configurations over step sizes."""
        curves = self.traces(facts, done)
        seeds = f"median, minimum and maximum of {self.final_seeds} seeds"
        note = f"{kappa_line(facts)}\neach method at its best setting; {seeds}"
        return {
            "": plot.curves(curves, x="bits_up", y="rel_gap", title=self.title, note=note),
            "-steps": plot.sensitivity(
                done.tuning, "step_size", "bits_up", self.rel_gap, title=f"{self.title}: step sizes"
            ),
        }

    def traces(self, facts: Mapping[str, Any], done: Done) -> dict[str, list[Trace]]:
        return {label: done.final.traces(0, curve["method"]) for label, curve in facts["curves"].items()}

    def took(self, facts: Mapping[str, Any]) -> str:
        seconds = facts["seconds"]
        parts = f"{seconds['tuning']:.0f} s (tuning) and {seconds['final']:.0f} s (winners)"
        return f"{parts} of wall time, compilation aside,"

    def body(self, facts: Mapping[str, Any], done: Any) -> list[Any]:
        tried = sum(curve["lanes"] for curve in facts["curves"].values())
        return [
            f"{kappa_line(facts)}. Each method at the step size and compressor with the least median of uplink bits to "
            f"{self.rel_gap:.0e} over {self.seeds} seeds. Step size xc: its theory with L/c for L, c in "
            f"{', '.join(f'{c:g}' for c in self.step_sizes)}, and beyond while the best is at an end; {tried} lanes in "
            f"all, each with a budget of {facts['budget']['tuning']:.3g} bits, {self.max_grads:,.0f} local gradients "
            f"and {self.max_steps:,} steps. The winners run again with {self.final_seeds} other seeds to "
            f"{self.final_gap:.0e} within {facts['budget']['final'] or math.inf:.3g} bits and {self.final_factor:g} "
            "times the gradients and steps. Bits are uplink bits per client, median [minimum, maximum]; index bits: "
            f"{facts['index_bits']}.",
            [self._row(label, curve) for label, curve in facts["curves"].items()],
            self.held(facts),
        ]

    def _row(self, label: str, curve: Mapping[str, Any]) -> dict[str, str]:
        row = {"method at its best": label, "diverged of tried": f"{curve['diverged']} of {curve['lanes']}"}
        for gap, found in curve["bits"].items():
            row[f"bits to {gap}"] = _spread(found)
        last = list(curve["bits"].values())[-1]
        row["rounds"] = "-" if curve["rounds"] is None else f"{curve['rounds']:,.0f}"
        return row | {"seeds there": f"{last['reached']} of {last['seeds']}"}


def _spread(found: Mapping[str, Any]) -> str:
    if found["median"] is None:
        return "-"
    high = "-" if found["high"] is None else f"{found['high']:.3g}"
    return f"{found['median']:.3g} [{found['low']:.3g}, {high}]"
