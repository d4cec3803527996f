"""Tuned comparisons: every method at its best step size and compressor, found by a sweep at equal budget."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.kit.comparison import Claim, kappa_line, made_by, problem_facts, write_page
from fedjax_lc import algorithms, plot
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import Grid, grid
from fedjax_lc.sweeping.sweep import sweep
from fedjax_lc.sweeping.theory import theory_with_steps

STEP_SIZES = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method and what is tried of it besides its step size: choices of its theory, each a tuple of values."""

    method: str
    choices: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    @property
    def algorithm(self) -> Algorithm:
        return algorithms.get(self.method)

    def grid(self, problem: Problem, step_sizes: Sequence[float]) -> Grid:
        return grid(theory_with_steps(self.algorithm, problem), **self.choices, step_size=step_sizes)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Methods on one problem, each at its best setting.

    Every configuration runs with `seeds` seeds to `rel_gap`, or until it has sent `bits_ratio` times the bits that the
    first entry with its theory's own parameters needs (or `max_steps` steps or `max_grads` local gradients). Where a
    method's best step size is the first or last one tried, two more are tried beyond it, at most `extensions` times.
    Each method's best, by the median of uplink bits, runs again with `final_seeds` other seeds to `final_gap`, or
    `bits_ratio` times the first entry's bits.
    """

    title: str
    problem: Callable[[], Problem]
    entries: Sequence[Entry]
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
    claims: Sequence[Claim] = ()
    claims_are: str = "claim of the paper, methods tuned"

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, .json, .png, .svg and NAME-steps.png into `folder`; the text for the terminal."""
        check_writable(folder / f"{name}.md")
        problem = self.problem()
        parts = folder / f"{name}.parts"  # what is done, should something end this before its time
        tuning, tried, tuning_budget = self.tune(problem, progress, parts)
        final, final_budget = self.rerun(problem, tuning, tried, progress, parts)
        facts = self.facts(problem, tuning, final)
        facts["budget"] = {"tuning": tuning_budget, "final": _finite(final_budget)}
        tables = {"tuning": tuning, "final": final}
        facts["seconds"] = {part: round(float(table.lanes["seconds"].sum()), 1) for part, table in tables.items()}
        facts |= environment()
        self._draw(folder, name, facts, tuning, final)
        write_page(folder, name, facts, self.tell(facts, "github"))
        shutil.rmtree(parts)
        return self.tell(facts, "simple")

    def tune(
        self, problem: Problem, progress: bool = True, parts: Path | None = None
    ) -> tuple[Table, list[list[Any]], float]:
        """All configurations, each method's hyperparameters by configuration, and the bits that each could send.

        parts: a folder that keeps what is done, so that the same call goes on from there.
        """
        first, *_ = self.entries
        plain = self._sweep(first, problem, None, range(1), math.inf, progress=False)
        needed = float(plain.best("bits_up", self.rel_gap)["median"].iloc[0])
        if not math.isfinite(needed):
            raise InputError(f"{first.method} with its theory's parameters does not reach {self.rel_gap:g} in "
                             f"{self.max_steps} steps: raise max_steps")  # fmt: skip
        budget = self.bits_ratio * needed
        tables = [self._tune_one(entry, problem, budget, progress, parts) for entry in self.entries]
        return Table.merge([table for table, _ in tables]), [tried for _, tried in tables], budget

    def _tune_one(
        self, entry: Entry, problem: Problem, budget: float, progress: bool, parts: Path | None
    ) -> tuple[Table, list[Any]]:
        """One method's table and its hyperparameters by configuration; step sizes are added, at most `extensions`
        times, while the best is the first or last."""
        new, tried = list(self.step_sizes), list[float]()
        tables, hparams = list[Table](), list[Any]()
        for more in range(1 + self.extensions):
            grid, tried = entry.grid(problem, new), sorted([*tried, *new])
            hparams += grid.hparams
            out = parts and parts / f"{entry.method}-{more}"
            tables.append(self._sweep(entry, problem, grid, range(self.seeds), budget, progress=progress, out=out))
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
        for entry, hparams in zip(self.entries, tried, strict=True):
            out = parts and parts / f"{entry.method}-final"
            hp = hparams[best[entry.method]]
            tables.append(self._sweep(entry, problem, hp, seeds, budget, progress=progress, out=out, final=True))
            if budget == math.inf:
                budget = self.bits_ratio * float(tables[0].best("bits_up", self.final_gap)["median"].iloc[0])
        return Table.merge(tables), budget

    def _sweep(
        self, entry: Entry, problem: Problem, hparams: Any, seeds: Sequence[int], bits: float, *,
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

    def facts(self, problem: Problem, tuning: Table, final: Table) -> dict[str, Any]:
        """What the result file says."""
        chosen = tuning.best("bits_up", self.rel_gap).set_index("method")
        ends = {gap: final.best("bits_up", gap).set_index("method") for gap in (self.rel_gap, self.final_gap)}
        rounds = final.best("rounds", self.final_gap).set_index("method")["median"]
        own_names = {name: facts["hyperparameters"] for name, facts in final.config["methods"].items()}
        curves: dict[str, Any] = {}
        for entry in self.entries:
            row, own = chosen.loc[entry.method], tuning.lanes[tuning.lanes["method"] == entry.method]
            curves[self.label(entry, row)] = {
                "method": entry.method,
                "settings": {name: _plain(row[name]) for name in (*entry.choices, "step_size")},
                "hyperparameters": {name: _plain(row[name]) for name in own_names[entry.method]},
                "lanes": len(own),
                "diverged": int((own["status"] == "diverged").sum()),
                "tuning_bits": _finite(row["median"]),
                "rounds": _finite(rounds[entry.method]),
                "bits": {
                    f"{gap:.0e}": {k: _finite(at.loc[entry.method, k]) for k in ("median", "low", "high")}
                    | {k: int(at.loc[entry.method, k]) for k in ("seeds", "reached", "diverged")}
                    for gap, at in ends.items()
                },
                "spent": float(final.records[final.records["lane"].isin(
                    final.lanes.index[final.lanes["method"] == entry.method])]["bits_up"].max()),
            }  # fmt: skip
        bits = {label: c["bits"][f"{self.final_gap:.0e}"]["median"] or math.inf for label, c in curves.items()}
        spent = {label: c["spent"] for label, c in curves.items()}
        return {
            "title": self.title,
            **problem_facts(problem),
            "rel_gap": self.rel_gap,
            "final_gap": self.final_gap,
            "step_sizes": list(self.step_sizes),
            "index_bits": "log2",
            "curves": curves,
            "claims": {claim.text: claim.verdict(bits, spent) for claim in self.claims},
        }

    def label(self, entry: Entry, row: pd.Series) -> str:
        """LoCoDL, rand_k:2|natural, step x2."""
        tried = [name for name, values in entry.choices.items() if len(values) > 1]
        settings = [f"{row[n]}" if n == "compressor" else f"{n} = {row[n]:g}" for n in tried]
        return ", ".join([entry.algorithm.title, *settings, f"step x{row['step_size']:g}"])

    def _draw(self, folder: Path, name: str, facts: Mapping[str, Any], tuning: Table, final: Table) -> None:
        curves = {label: final.traces(0, curve["method"]) for label, curve in facts["curves"].items()}
        seeds = f"median, minimum and maximum of {self.final_seeds} seeds"
        note = f"{kappa_line(facts)}\neach method at its best setting; {seeds}"
        picture = plot.curves(curves, x="bits_up", y="rel_gap", title=f"{self.title}, tuned", note=note)
        for suffix in ("png", "svg"):
            plot.save(picture, folder / f"{name}.{suffix}")
        steps = plot.sensitivity(tuning, "step_size", "bits_up", self.rel_gap, title=f"{self.title}: step sizes")
        plot.save(steps, folder / f"{name}-steps.png")

    def tell(self, facts: Mapping[str, Any], style: str) -> str:
        """The page: caption, tables, orderings, and how it was made; `style` as in `report.table`."""
        rows = [self._row(label, curve) for label, curve in facts["curves"].items()]
        claims = [{self.claims_are: text, "here": verdict} for text, verdict in facts["claims"].items()]
        tried = sum(curve["lanes"] for curve in facts["curves"].values())
        parts = [
            f"# {self.title}, tuned",
            f"{kappa_line(facts)}. Each method at the step size and compressor with the least median of uplink bits to "
            f"{self.rel_gap:.0e} over {self.seeds} seeds. Step size xc: its theory with L/c for L, c in "
            f"{', '.join(f'{c:g}' for c in self.step_sizes)}, and beyond while the best is at an end; {tried} lanes in "
            f"all, each with a budget of {facts['budget']['tuning']:.3g} bits, {self.max_grads:,.0f} local gradients "
            f"and {self.max_steps:,} steps. The winners run again with {self.final_seeds} other seeds to "
            f"{self.final_gap:.0e} within {facts['budget']['final'] or math.inf:.3g} bits and {self.final_factor:g} "
            "times the gradients and steps. Bits are uplink bits per client, median [minimum, maximum]; index bits: "
            f"{facts['index_bits']}.",
            report.table(rows, style=style),
            report.table(claims, style=style) if claims else "",
            f"Made in {facts['seconds']['tuning']:.0f} s (tuning) and {facts['seconds']['final']:.0f} s (winners) of "
            f"wall time, compilation aside, {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

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


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
