"""Figures of papers: methods on one problem, run to a target or a cap; told as a table, a picture and orderings."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fedjax_lc import algorithms, data, problems
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable, replacing
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import describe, environment
from fedjax_lc.results.trace import Trace
from fedjax_lc.running.run import run


def make_problem(dataset: data.Dataset, *arguments: Any, **options: Any) -> Problem:
    """As `fl.problem`, in float64: JAX's 64-bit mode is switched on, before other arrays are made."""
    jax.config.update("jax_enable_x64", True)
    return problems.problem(dataset, *arguments, dtype="float64", **options)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One method of a comparison. `choices` go to its theory; `label` names it in the legend."""

    method: str
    compressor: str | None = None
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def label(self) -> str:
        title = algorithms.get(self.method).title
        return ", ".join(filter(None, (title, self.compressor, self.note)))

    def hparams(self, problem: Problem) -> Any:
        given = {"compressor": self.compressor} if self.compressor else {}
        return algorithms.get(self.method).theory(problem, **given, **self.choices)


@dataclasses.dataclass(frozen=True)
class Claim:
    """`text`, held to the numbers: the best curve of `fewer` needs fewer uplink bits than the best of `than`.

    Both are label patterns as in file names ("LoCoDL*"); a curve that matches both counts for `fewer` alone.
    """

    text: str
    fewer: str
    than: str

    def verdict(self, bits: Mapping[str, float], spent: Mapping[str, float]) -> str:
        """holds, does not hold, or undecided: `bits` to the target (inf if capped) and `spent` in all, by label."""
        left = [label for label in bits if fnmatch.fnmatch(label, self.fewer)]
        right = [label for label in bits if fnmatch.fnmatch(label, self.than) and label not in left]
        if not left or not right:
            raise InputError(f"claim {self.text!r} names no curve: have {', '.join(bits)}")
        at_least = {label: min(bits[label], spent[label]) for label in bits}  # a capped curve spent this in vain
        if min(bits[label] for label in left) < min(at_least[label] for label in right):
            return "holds"
        if min(bits[label] for label in right) < min(at_least[label] for label in left):
            return "does not hold"
        return "undecided (capped)"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several methods on one problem with theory parameters.

    The `leader` curves (the first ones) run until `rel_gap` or `max_rounds`; all others also stop at `bits_ratio` times
    the fewest bits a leader needed. A curve that stops early is drawn and marked as capped.
    """

    title: str
    problem: Callable[[], Problem]
    curves: Sequence[Curve]
    leaders: int = 1
    rel_gap: float = 1e-12
    max_rounds: float = 200_000
    max_steps: int = 20_000_000
    bits_ratio: float | None = 10
    every: int = 10
    seed: int = 0
    claims: Sequence[Claim] = ()
    claims_are: str = "claim of the paper"

    def run(self, progress: bool = True) -> dict[str, Trace]:
        """All curves' traces by label."""
        from tqdm import tqdm

        problem = self.problem()
        traces: dict[str, Trace] = {}
        with tqdm(self.curves, unit=" curves", disable=None if progress else True, leave=False) as bar:
            for place, curve in enumerate(bar):
                bar.set_postfix_str(curve.label)
                budget = {"rounds": self.max_rounds} | self._bits_budget(traces, place)
                traces[curve.label] = run(
                    curve.method,
                    problem,
                    curve.hparams(problem),
                    self.seed,
                    steps=self.max_steps,
                    every=self.every,
                    rel_gap=self.rel_gap,
                    budget=budget,
                    progress=progress,
                )
        return traces

    def _bits_budget(self, traces: Mapping[str, Trace], place: int) -> dict[str, float]:
        if place < self.leaders or self.bits_ratio is None:
            return {}
        needed = [bits_to(trace, self.rel_gap) for trace in list(traces.values())[: self.leaders]]
        return {"bits_up": self.bits_ratio * min(needed)} if min(needed) < float("inf") else {}

    def make(self, folder: Path, name: str, progress: bool = True) -> str:
        """Run, write NAME.md, NAME.json, NAME.png and NAME.svg into `folder`, and return the text for the terminal."""
        from fedjax_lc import plot

        check_writable(folder / f"{name}.md")
        started = time.perf_counter()
        problem, traces = self.problem(), self.run(progress)
        facts = self.facts(problem, traces) | {"seconds": round(time.perf_counter() - started, 1)} | environment()
        for suffix in ("png", "svg"):
            figure = plot.curves(traces, x="bits_up", y="rel_gap", title=self.title, note=kappa_line(facts))
            plot.save(figure, folder / f"{name}.{suffix}")
        write_page(folder, name, facts, self.tell(facts, traces, "github"))
        return self.tell(facts, traces, "simple")

    def facts(self, problem: Problem, traces: Mapping[str, Trace]) -> dict[str, Any]:
        """What the result file says: the problem, each curve's parameters and bits, and each claim's verdict."""
        bits = {label: bits_to(trace, self.rel_gap) for label, trace in traces.items()}
        spent = {label: float(trace.bits_up[-1]) if len(trace) else 0.0 for label, trace in traces.items()}
        return {
            "title": self.title,
            **problem_facts(problem),
            "rel_gap": self.rel_gap,
            "caps": {"rounds": self.max_rounds, "bits_ratio": self.bits_ratio},
            "index_bits": "log2",
            "curves": {
                curve.label: {
                    "hyperparameters": describe(curve.hparams(problem)),
                    "ended": report.ending(traces[curve.label]),
                    "bits_up": bits[curve.label] if bits[curve.label] < float("inf") else None,
                    "spent": spent[curve.label],
                    "rounds": float(traces[curve.label].rounds[-1]) if len(traces[curve.label]) else 0.0,
                    "seconds": traces[curve.label].config["seconds"],
                    "compile_seconds": traces[curve.label].config["compile_seconds"],
                }
                for curve in self.curves
            },
            "claims": {claim.text: claim.verdict(bits, spent) for claim in self.claims},
        }

    def tell(self, facts: Mapping[str, Any], traces: Mapping[str, Trace], style: str) -> str:
        """The figure's page: caption, table, orderings, and how it was made; `style` as in `report.table`."""
        rows = [report.summary(label, trace, self._targets()) for label, trace in traces.items()]
        claims = [{self.claims_are: text, "here": verdict} for text, verdict in facts["claims"].items()]
        cap = f"{self.max_rounds:,.0f} rounds"
        if self.bits_ratio is not None:
            cap += f" or {self.bits_ratio:g} times the fewest bits of a leading curve"
        parts = [
            f"# {self.title}",
            f"{kappa_line(facts)}; theory parameters; seed {self.seed}; index bits: {facts['index_bits']}. "
            f"Bits are uplink bits per client until F(x) - F* <= gap * (F(x_0) - F*). Capped at {cap}.",
            report.table(rows, style=style),
            report.table(claims, style=style) if claims else "",
            f"Made in {facts['seconds']:.0f} s {made_by(facts)}.",
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _targets(self) -> list[float]:
        return [target for target in report.TARGETS if target >= self.rel_gap]


def write_page(folder: Path, name: str, facts: Mapping[str, Any], page: str) -> None:
    """NAME.json and NAME.md."""
    for suffix, content in {"json": json.dumps(facts, indent=1) + "\n", "md": page}.items():
        with replacing(folder / f"{name}.{suffix}") as path:
            path.write_text(content)


def made_by(facts: Mapping[str, Any]) -> str:
    """by `COMMAND` on DEVICE; versions."""
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    return f"by `{facts['command']}` on {facts['device']}; {versions}"


def bits_to(trace: Trace, rel_gap: float) -> float:
    """Uplink bits per client to the first record at or below `rel_gap`; inf if there is none."""
    hit = trace.reach(rel_gap)
    return hit["bits_up"] if hit else float("inf")


def problem_facts(problem: Problem) -> dict[str, Any]:
    """A problem's shape, condition numbers and optimum, as result files have them."""
    return {
        "clients": problem.n,
        "dim": problem.dim,
        "kappa": problem.kappa,
        "kappa_eff": problem.kappa_eff,
        "f_star": problem.f_star,
    }


def kappa_line(facts: Mapping[str, Any]) -> str:
    """A problem's shape and condition numbers in words."""
    return (f"n = {facts['clients']}, d = {facts['dim']}, nominal kappa {facts['kappa']:.3g}, "
            f"effective kappa {facts['kappa_eff']:.3g}")  # fmt: skip
