"""Methods with theory's parameters on one problem, run to a target or a cap, compared by uplink bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, finite, kappa_line, problem_facts
from fedjax_lc import plot
from fedjax_lc.core.progress import bar
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import describe
from fedjax_lc.results.trace import Trace
from fedjax_lc.running.run import run

LAST = "last relative gap"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Recipe):
    """The `leaders` (the first curves) run until `rel_gap` or `max_rounds`; all others also stop at `bits_ratio` times
    the fewest bits a leader needed. A curve that stops early is drawn and marked as capped. Claims are about bits,
    rounds, or the LAST relative gap.

    outcomes: what is drawn against bits, by the ending of the picture's name. note: more small print of the pictures.
    parameters, bits_are: whose they are and what bits_up are, in words.
    """

    leaders: int = 1
    rel_gap: float = 1e-12
    max_rounds: float = 200_000
    max_steps: int = 20_000_000
    bits_ratio: float | None = 10
    every: int = 10
    seed: int = 0
    outcomes: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"": "rel_gap"})
    note: str = ""
    parameters: str = "theory parameters"
    bits_are: str = "uplink bits per client"

    def __post_init__(self) -> None:
        check(self.curves, self.claims)

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> dict[str, Trace]:
        """All curves' traces by label."""
        traces: dict[str, Trace] = {}
        with bar(len(self.curves), unit=" curves", shown=progress) as shown:
            for place, curve in enumerate(self.curves):
                shown.set_postfix_str(curve.label)
                traces[curve.label] = run(
                    curve.method,
                    problem,
                    curve.hparams(problem),
                    self.seed,
                    steps=self.max_steps,
                    every=self.every,
                    rel_gap=self.rel_gap,
                    budget={"rounds": self.max_rounds} | self._bits_budget(traces, place),
                    progress=progress,
                )
                shown.update()
        return traces

    def _bits_budget(self, traces: Mapping[str, Trace], place: int) -> dict[str, float]:
        if place < self.leaders or self.bits_ratio is None:
            return {}
        needed = min(bits_to(trace, self.rel_gap) for trace in list(traces.values())[: self.leaders])
        return {"bits_up": self.bits_ratio * needed} if needed < float("inf") else {}

    def facts(self, problem: Problem, done: Mapping[str, Trace]) -> dict[str, Any]:
        return {
            **problem_facts(problem),
            "rel_gap": self.rel_gap,
            "caps": {"rounds": self.max_rounds, "bits_ratio": self.bits_ratio},
            "index_bits": "log2",
            "curves": {curve.label: self._curve(curve, problem, done[curve.label]) for curve in self.curves},
        }

    def _curve(self, curve: Contender, problem: Problem, trace: Trace) -> dict[str, Any]:
        return {
            "hyperparameters": describe(curve.hparams(problem)),
            "ended": report.ending(trace),
            "bits_up": finite(bits_to(trace, self.rel_gap)),
            "spent": float(trace.bits_up[-1]) if len(trace) else 0.0,
            "rounds": float(trace.rounds[-1]) if len(trace) else 0.0,
            LAST: finite(trace.rel_gap[-1]) if len(trace) else None,
            "seconds": trace.config["seconds"],
            "compile_seconds": trace.config["compile_seconds"],
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        curves = facts["curves"].items()
        last = lambda c: Measured(float("inf") if c[LAST] is None else c[LAST])
        rounds = lambda c: None if c["bits_up"] is None else c["rounds"]
        return {
            "bits": {label: needed(c["bits_up"], c["spent"]) for label, c in curves},
            "rounds": {label: needed(rounds(c), c["rounds"]) for label, c in curves},
            LAST: {label: last(c) for label, c in curves},
        }

    def pictures(self, facts: Mapping[str, Any], done: Mapping[str, Trace]) -> dict[str, Any]:
        note = "\n".join(filter(None, [kappa_line(facts), self.note]))
        found = {}
        for ending, y in self.outcomes.items():
            found[ending] = plot.curves(done, x="bits_up", y=y, title=self.title, note=note, log_y=True)
            found[ending].axes[0].set_xlabel(self.bits_are)
        return found

    def traces(self, facts: Mapping[str, Any], done: Mapping[str, Trace]) -> Mapping[str, Trace]:
        return done

    def body(self, facts: Mapping[str, Any], done: Mapping[str, Trace]) -> list[Any]:
        cap = f"{self.max_rounds:,.0f} rounds"
        if self.bits_ratio is not None:
            cap += f" or {self.bits_ratio:g} times the fewest bits of a leading curve"
        targets = [target for target in report.TARGETS if target >= self.rel_gap]
        caption = (
            f"{kappa_line(facts)}; {self.parameters}; seed {self.seed}; index bits: {facts['index_bits']}. "
            f"Bits are {self.bits_are} until F(x) - F* <= gap * (F(x_0) - F*). Capped at {cap}. {self.remarks()}"
        )
        return [
            caption.strip(),
            [report.summary(label, trace, targets) for label, trace in done.items()],
            self.held(facts),
        ]


def bits_to(trace: Trace, rel_gap: float) -> float:
    """Uplink bits per client to the first record at or below `rel_gap`; inf if there is none."""
    hit = trace.reach(rel_gap)
    return hit["bits_up"] if hit else float("inf")


def needed(cost: float | None, spent: float) -> Measured:
    """Of a curve that reached its target at this cost, or was capped (None) when it had spent so much."""
    return Measured(float("inf") if cost is None else cost, least=spent)
