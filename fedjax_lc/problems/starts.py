"""The start of a run from what a user has: a vector, a tree of weights, or a file of either."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import models
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Vec

if TYPE_CHECKING:
    from fedjax_lc.problems.base import Problem


def start(problem: Problem, given: Any, names: Mapping[str, str] | None = None) -> tuple[Vec, str]:
    """x (d,) from a vector, a tree, or a file of one, and a remark on foreign names; as `Problem.start` says."""
    if isinstance(given, str | os.PathLike):
        given = models.files.read(given)
    if is_vector(given):
        return _vector(problem, given), ""
    if not hasattr(problem, "layout"):
        raise InputError(f"this problem has no network: its start is a vector of shape ({problem.dim},), got "
                         f"{type(given).__name__}")  # fmt: skip
    return _of_network(problem, given, names)


def is_vector(given: Any) -> bool:
    """Whether this is an array or a list of numbers, no tree."""
    return hasattr(given, "ndim") or (isinstance(given, list | tuple) and all(np.ndim(each) == 0 for each in given))


def _vector(problem: Problem, given: Any) -> Vec:
    shape = jnp.shape(given)
    if shape != (problem.dim,):
        cure = ": give a vector of this size, or a tree of the network's weights" if hasattr(problem, "layout") else ""
        raise InputError(f"x0 must have shape ({problem.dim},), got {shape}{cure}")
    if isinstance(given, jax.core.Tracer):
        return jnp.asarray(given, problem.dtype)
    host = np.asarray(given)
    if host.dtype.kind not in "iufb" and not jnp.issubdtype(host.dtype, jnp.floating):
        raise InputError(f"x0 must hold real numbers, got {host.dtype}")
    if not np.all(np.isfinite(host.astype(np.float64))):
        raise InputError("x0 holds NaN or infinity: give a start that is finite")
    return jnp.asarray(given, problem.dtype)


def _of_network(problem: Any, given: Any, names: Mapping[str, str] | None) -> tuple[Vec, str]:
    shape = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
    one = jax.eval_shape(lambda features: problem._prepared(features), problem.example)
    params = jax.eval_shape(problem.params, problem.x0)
    fitted = models.fit(problem.network, params, jax.tree.map(shape, problem.statistics), one, given, names)
    x = np.concatenate([np.ravel(leaf).astype(problem.dtype) for leaf in fitted.leaves.values()])
    return jnp.asarray(x, problem.dtype), f"start: {fitted.remark}" if fitted.remark else ""
