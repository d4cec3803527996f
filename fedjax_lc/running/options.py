"""The options that `run` and `sweep` share, and the checked task they amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.problems import Problem
from fedjax_lc.running import loop
from fedjax_lc.running.loop import Metric, Metrics


class Options(TypedDict, total=False):
    """When a run ends and what it records; explained in `fl.run`."""

    steps: int
    every: int
    rel_gap: float | None
    budget: Mapping[str, float] | None
    x0: Any
    measure: Sequence[str] | Mapping[str, Metric]


class Task(NamedTuple):
    """The checked task of a run, or of every lane of a sweep.

    Attributes:
        problem: with the chosen start, and with its optimum attached where a metric needs it.
        records: how many records to make at most.
        every: steps of one record.
        metrics: what is measured at every record.
        rel_gap: relative gap at which to stop, or None.
        budget: limits of costs, by name.
        notes: remarks for people.
    """

    problem: Problem
    records: int
    every: int
    metrics: Metrics
    rel_gap: float | None
    budget: dict[str, float]
    notes: list[str]


def task(function: str, algorithm: Algorithm, problem: Problem, options: Options) -> Task:
    """Check `options`, given to the function called `function`; defaults are 10,000 steps, a record every 10.

    Raises:
        InputError: an option is unknown, or does not fit the problem or the method.
    """
    refuse_unknown(function, options, Options)
    problem, remarks = loop.start_at(options.get("x0"), problem)
    records, every, notes = loop.whole_records(options.get("steps", 10_000), options.get("every", 10))
    metrics = loop.choose_metrics(algorithm, problem, options.get("measure", ()))
    rel_gap, budget = loop.plain_limits(options.get("rel_gap"), options.get("budget"))
    problem = problem.solved() if loop.needs_solution(metrics) else problem
    return Task(problem, records, every, metrics, rel_gap, budget, [*remarks, *notes])
