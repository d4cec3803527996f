"""A base for grids: a method's theory with one more choice, a factor of the step size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.problems import Problem


def theory_with_steps(algorithm: Algorithm, problem: Problem) -> Callable[..., Any]:
    """The method's theory with one more choice, `step_size` = c, for which theory uses L/c in place of L.

    The step size grows by about the factor c, and all hyperparameters that depend on it change with it. A factor on a
    single field would not keep hyperparameters consistent that theory chooses together (5GCS-CC, ADIANA).

    Example:
        >>> theory_with_steps(fl.algorithms.get("gd"), problem)(step_size=2.0).gamma
    """

    def theory(step_size: float = 1.0, **choices: Any) -> Any:
        scaled = {"smooth": problem.smooth / step_size, "smooth_mean": problem.smooth_mean / step_size}
        return algorithm.theory(problem.replace(**scaled), **choices)

    parameters = list(inspect.signature(algorithm.theory, eval_str=True).parameters.values())[1:]
    step = inspect.Parameter("step_size", inspect.Parameter.KEYWORD_ONLY, default=1.0)
    theory.__signature__ = inspect.Signature([*parameters, step])  # type: ignore[attr-defined]
    return theory
