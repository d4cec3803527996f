"""`drifting`: a problem whose data shift with time, made of problems of one shape, one for each phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems.base import Problem


@pytree.dataclass
class Drifting:
    """F_t of step t is F of phase min(t // every, T - 1). Build it by `drifting`.

    What a run computes, minimises and records at step t is of the phase of that step (`at`). Whatever else a problem
    has is that of the first phase, but for `smooth` and `smooth_mean`, which are the largest of all phases, and the
    optimum: there is no single one, so that x_star and f_star are NaN.
    """

    first: Any  # the problem of phase 0
    moving: tuple[Any, ...]  # for each of its leaves the (T, ...) values in all phases, or None if they do not change
    every: int = pytree.static()
    phases: int = pytree.static()
    solvable: ClassVar[bool] = False
    given_f_star: ClassVar[None] = None
    mesh: ClassVar[None] = None
    recipe: ClassVar[None] = None
    f_star: ClassVar[float] = float("nan")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "first" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.first, name)

    def at(self, t: Scalar) -> Problem:
        """The problem of step t, which may be traced."""
        leaves, structure = jax.tree.flatten(self.first)
        phase = jnp.minimum(jnp.asarray(t, jnp.uint32) // self.every, self.phases - 1)
        now = [leaf if moves is None else moves[phase] for leaf, moves in zip(leaves, self.moving, strict=True)]
        return jax.tree.unflatten(structure, now)

    @property
    def x_star(self) -> np.ndarray:
        return np.full(self.first.dim, np.nan)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(name for name in self.first.metrics if name != "distance")

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.first.facts, "phases": self.phases, "steps_of_a_phase": self.every}

    def replace(self, **changes: Any) -> Drifting:
        """A copy with changed fields of its problems, such as x0."""
        return dataclasses.replace(self, first=self.first.replace(**changes))

    def solved(self) -> Drifting:
        return self

    def for_lanes(self) -> Drifting:
        return self

    def on(self, mesh: Any) -> Any:
        raise InputError("a problem that drifts is computed on one device: leave out devices=")


def drifting(problems: Sequence[Problem], every: int) -> Any:
    """A problem that changes every `every` steps: steps 0 to every - 1 are of the first of `problems`, and so on; the
    last one lasts.

    `fl.run` and `fl.sweep` take it as any other. Metrics are of the phase of the last step: `value` is F_t, `accuracy`
    that on the phase's test rows. No optimum is known, and step sizes of theory are working rules, as for a network.

    Args:
        problems: one for each phase, two or more, of the same shapes and with the same start; see `fl.data.drift`. All
            phases are in memory; what they have in common is there once.
        every: steps of a phase.

    Raises:
        InputError: fewer than two problems, problems of different shapes, or `every` below 1.

    Example:
        >>> rows = fl.data.drift(clients, "labels", phases=5)
        >>> problem = drifting([fl.problems.neural("mlp", of_phase, key=0) for of_phase in rows], every=100)
        >>> trace = fl.run("fedavg", problem, steps=500, every=10)
    """
    if len(problems) < 2:
        raise InputError(f"a problem that drifts needs two phases or more, got {len(problems)}")
    if every < 1 or every != int(every):
        raise InputError(f"every must be a whole number of steps, 1 or more, got {every}")
    if any(problem.mesh is not None for problem in problems):
        raise InputError("a problem that drifts is computed on one device: leave out devices=")
    plain = [problem.replace(given_f_star=None, attached=None) for problem in problems]
    for number, problem in enumerate(plain):
        if _shapes(problem) != _shapes(plain[0]):
            raise InputError(f"phases of a problem that drifts need the same shapes, and phase {number} has others: "
                             "give all the same clients, rows and options, as fl.data.drift does")  # fmt: skip
    smooth = jnp.max(jnp.stack([problem.smooth for problem in plain]), axis=0)
    smooth_mean = jnp.max(jnp.stack([problem.smooth_mean for problem in plain]))
    alike = [problem.replace(smooth=smooth, smooth_mean=smooth_mean) for problem in plain]
    moving = [_moving(leaves) for leaves in zip(*map(jax.tree.leaves, alike), strict=True)]
    return Drifting(alike[0], tuple(moving), int(every), len(problems))


def _shapes(problem: Problem) -> Any:
    """The structure of a problem, and shape and dtype of its leaves."""
    leaves, structure = jax.tree.flatten(problem)
    return structure, [(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _moving(leaves: Sequence[Any]) -> Any:
    """(T, ...) of a leaf that changes; None of one that does not."""
    first = np.asarray(leaves[0])
    if all(np.array_equal(first, np.asarray(leaf)) for leaf in leaves[1:]):
        return None
    return jnp.stack([jnp.asarray(leaf) for leaf in leaves])
