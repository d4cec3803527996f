"""A base for grids: a method's theory with more choices, factors of the step size and of p."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.problems import Problem


def theory_with_steps(algorithm: Algorithm, problem: Problem) -> Callable[..., Any]:
    """The method's theory with more choices: `step_size` = c, for which theory uses L/c in place of L; and, where the
    method has a p, `p_factor` = c, for c times theory's p, 1 at most.

    The step size grows by about the factor c, and all hyperparameters that depend on it change with it. A factor on a
    single field would not keep hyperparameters consistent that theory chooses together (5GCS-CC, ADIANA).

    Example:
        >>> theory_with_steps(fl.algorithms.get("gd"), problem)(step_size=2.0).gamma
    """

    def theory(step_size: float = 1.0, p_factor: float = 1.0, **choices: Any) -> Any:
        scaled = {"smooth": problem.smooth / step_size, "smooth_mean": problem.smooth_mean / step_size}
        hp = algorithm.theory(problem.replace(**scaled), **choices)
        return hp if p_factor == 1 else dataclasses.replace(hp, p=min(1.0, p_factor * hp.p))

    factors = [
        "step_size",
        *(["p_factor"] if "p" in {field.name for field in dataclasses.fields(algorithm.Hparams)} else []),
    ]
    parameters = list(inspect.signature(algorithm.theory, eval_str=True).parameters.values())[1:]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=1.0) for name in factors]
    theory.__signature__ = inspect.Signature([*parameters, *more])  # type: ignore[attr-defined]
    return theory
