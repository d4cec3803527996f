"""What a run and every lane of a sweep are asked for, and the task that it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.problems import Problem
from fedjax_lc.running import loop
from fedjax_lc.running.loop import Metric, Metrics


class Options(TypedDict, total=False):
    """How far a run goes and what it records: see `fl.run`."""

    steps: int
    every: int
    rel_gap: float | None
    budget: Mapping[str, float] | None
    x0: Any
    measure: Sequence[str] | Mapping[str, Metric]


class Task(NamedTuple):
    """What a run is to do."""

    problem: Problem  # from its start on, with its optimum where a metric needs it
    records: int
    every: int  # steps of a record
    metrics: Metrics
    rel_gap: float | None
    budget: dict[str, float]
    notes: list[str]  # for people


def task(function: str, algorithm: Algorithm, problem: Problem, options: Options) -> Task:
    """The task of `options`, which were given to that function; by default 10,000 steps, recorded every 10.

    Raises:
        InputError: an option that there is not, or one that does not fit the problem or the method.
    """
    refuse_unknown(function, options, Options)
    problem = loop.start_at(options.get("x0"), problem)
    records, every, notes = loop.whole_records(options.get("steps", 10_000), options.get("every", 10))
    metrics = loop.choose_metrics(algorithm, problem, options.get("measure", ()))
    rel_gap, budget = loop.plain_limits(options.get("rel_gap"), options.get("budget"))
    problem = problem.solved() if loop.needs_solution(metrics) else problem
    return Task(problem, records, every, metrics, rel_gap, budget, notes)
