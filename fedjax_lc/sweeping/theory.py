"""A base of grids: a method's theory with one choice more, the step size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.problems import Problem


def theory_with_steps(algorithm: Algorithm, problem: Problem) -> Callable[..., Any]:
    """The method's theory with one choice more, `step_size` = c: all of it computed with L/c in place of L.

    So the step size grows c-fold or so, and what depends on it follows, where a factor on one field would tear apart
    parameters that belong together (5GCS-CC, ADIANA).

    Example:
        >>> theory_with_steps(fl.algorithms.get("gd"), problem)(step_size=2.0).gamma
    """

    def theory(step_size: float = 1.0, **choices: Any) -> Any:
        believed = {"smooth": problem.smooth / step_size, "smooth_mean": problem.smooth_mean / step_size}
        return algorithm.theory(problem.replace(**believed), **choices)

    own = list(inspect.signature(algorithm.theory, eval_str=True).parameters.values())[1:]
    step = inspect.Parameter("step_size", inspect.Parameter.KEYWORD_ONLY, default=1.0)
    theory.__signature__ = inspect.Signature([*own, step])  # type: ignore[attr-defined]
    return theory
