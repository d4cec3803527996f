"""What theory's formulas take where no theorem covers a problem, and one line that says so.

Theorems here are about convex F, and many need strong convexity. Of a network, of data that drift, or of a convex F
with `strong` = 0, the formulas still give step sizes: with L/KAPPA in place of mu, and of a network with L as estimated
at the start.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from fedjax_lc.problems import Problem

KAPPA = 25.0  #: L over the mu that stands in for strong convexity

_kappa: contextvars.ContextVar[float] = contextvars.ContextVar("fedjax_lc_kappa", default=KAPPA)


def strongly_convex(problem: Problem) -> bool:
    """Whether theorems for strongly convex F apply: it is convex, with mu = `strong` > 0."""
    return problem.solvable and float(problem.strong) > 0


def modulus(problem: Problem, L: float) -> float:
    """mu: `strong` where F is strongly convex; else L/KAPPA, or `strong` if that is more."""
    strong = float(problem.strong)
    return strong if strongly_convex(problem) else max(strong, L / _kappa.get())


def largest_step(problem: Problem, proven: float) -> float:
    """A theorem's step size, `proven`; of a network, of which no theorem holds, 1/L with L of F."""
    return proven if problem.solvable else 1 / float(problem.smooth_mean)


def stand_ins(
    theory: Callable[..., Any], problem: Problem, choices: Mapping[str, Any], given: Collection[str] = ()
) -> str | None:
    """Which of theory's numbers rest on what stands in for a theorem's constants, in one line; None if none does.

    Args:
        theory: a method's, (problem, **choices) -> Hparams.
        given: names of fields whose values do not come from theory.

    Example:
        >>> stand_ins(fl.algorithms.get("locodl").theory, network, {})
        'no theorem covers this problem: gamma from L = 35.1, estimated at the start; p from mu = L/25'
    """
    if strongly_convex(problem):
        return None
    hp = theory(problem, **choices)
    token = _kappa.set(4 * KAPPA)
    try:
        of_mu = _moved(hp, theory(problem, **choices), given)
    finally:
        _kappa.reset(token)
    if problem.solvable:
        return f"no theorem covers F without strong convexity: {_and(of_mu)} from mu = L/{KAPPA:g}" if of_mu else None
    steeper = problem.replace(smooth=2 * problem.smooth, smooth_mean=2 * problem.smooth_mean)
    of_L = [name for name in _moved(hp, theory(steeper, **choices), given) if name not in of_mu]
    L, strong = float(np.max(np.asarray(problem.smooth))), float(problem.strong)
    mu = f"L/{KAPPA:g}" if strong < L / KAPPA else f"l2 = {strong:g}"
    parts = [f"{_and(of_L)} from L = {L:.3g}, estimated at the start"] if of_L else []
    parts += [f"{_and(of_mu)} from mu = {mu}" + ("" if of_L else f" and L = {L:.3g}")] if of_mu else []
    return f"no theorem covers this problem: {'; '.join(parts)}" if parts else None


def _moved(before: Any, after: Any, given: Collection[str]) -> list[str]:
    """Names of fields with other numbers."""
    numbers = lambda value: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(value)]
    fields = [name for name in vars(before) if name not in given]
    return [name for name in fields if numbers(vars(before)[name]) != numbers(vars(after)[name])]


def _and(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
