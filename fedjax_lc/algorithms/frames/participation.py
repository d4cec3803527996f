"""Who takes part in a round: one set of hyperparameters and one draw, for every family of methods."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.devices import by_client, shared
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import ARRAY, hyperparameter
from fedjax_lc.core.typing import Key
from fedjax_lc.problems import Problem
from fedjax_lc.problems.base import Sampled
from fedjax_lc.problems.draws import distinct, some_of


@pytree.dataclass
class Cohorts:
    """Which clients come to a round."""

    _: dataclasses.KW_ONLY
    schedule: Any = hyperparameter(
        "clients of each round with selection=schedule: (rounds, c) numbers, -1 for none, taken in turn",
        default=None,
        kind=ARRAY,
    )
    cohort_size: int | None = hyperparameter(
        "clients in a round; all if None", "whole [1, n]", default=None, static=True
    )
    selection: str = hyperparameter(
        "how clients come: uniform, with chances like their rows (size), each with probability cohort_size/n, given "
        "that somebody comes (bernoulli), or by schedule",
        ("uniform", "size", "bernoulli", "schedule"),
        default="uniform",
    )

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        if self.selection in ("bernoulli", "size") and self.cohort_size is None:
            raise InputError(f"selection={self.selection!r} draws cohorts of a size: give cohort_size too")
        if (self.selection == "schedule") != (self.schedule is not None):
            raise InputError("selection='schedule' and schedule=(rounds, c) client numbers go together: give both")
        if self.schedule is not None and self.cohort_size is not None:
            raise InputError("a schedule says how many clients come: leave out cohort_size")
        if self.schedule is not None and not pytree.is_traced(self.schedule):
            _check_schedule(self.schedule, problem.n)
        if self.selection == "size" and not isinstance(problem, Sampled):
            raise InputError("selection by size needs a problem whose clients have rows")


def _check_schedule(schedule: Any, n: int) -> None:
    rows = np.asarray(schedule)
    whole = hasattr(schedule, "dtype") and np.issubdtype(rows.dtype, np.integer)
    if not whole or rows.ndim != 2 or not rows.size or rows.max() >= n:
        raise InputError(f"schedule must be an array (rounds, c) of client numbers below n = {n}, got shape "
                         f"{rows.shape} with largest {rows.max(initial=-1)}")  # fmt: skip
    for t, row in enumerate(rows):
        members = row[row >= 0]
        if not len(members) or len(np.unique(members)) < len(members):
            what = "names a client twice" if len(members) else "names nobody"
            raise InputError(f"schedule {what} in round {t}: give every round one client or more, each once")


def select(problem: Any, hp: Any, t: jax.Array, key: Key) -> tuple[jax.Array | None, jax.Array | None]:
    """(ids (c,), present (c,)) of round t; ids None: all in order; present None: all of the cohort. Drawn on every
    device alike.

    Bernoulli's cohort has places for the mean and six deviations; more than these come once in 10^9 rounds at most, and
    the last ones are left out.
    """
    return shared(_select(problem, hp, t, key))


def _select(problem: Any, hp: Any, t: jax.Array, key: Key) -> tuple[jax.Array | None, jax.Array | None]:
    n, size = problem.n, hp.cohort_size
    if hp.selection == "schedule":
        ids = hp.schedule[t % hp.schedule.shape[0]]
        return jnp.maximum(ids, 0), ids >= 0
    if size is None or (size == n):
        return None, None
    if hp.selection == "size":
        chances = jnp.log(problem.sizes.astype(jnp.float32)) + jax.random.gumbel(key, (n,), jnp.float32)
        return jax.lax.top_k(chances, size)[1].astype(jnp.int32), None
    if hp.selection == "uniform":
        return distinct(key, jnp.int32(n), size)[0], None
    places = min(n, math.ceil(size + 6 * math.sqrt(size) + 8))
    comes = some_of(key, jnp.asarray(size / n, jnp.float32), n)
    ids = jnp.argsort(~comes, stable=True)[:places].astype(jnp.int32)
    return ids, jnp.arange(places) < jnp.sum(comes)


def sample(problem: Problem, key: Key, size: int) -> tuple[Members, Problem]:
    """A cohort of `size` distinct clients, uniform, and the problem of their f_i alone.

    With size = n, all clients in their order and the problem itself, so full participation gathers nothing.
    """
    if size == problem.n:
        return Members(None, size), problem
    clients = shared(distinct(key, jnp.int32(problem.n), size)[0])
    return Members(clients, problem.n), problem.cohort(clients)


class Members(NamedTuple):
    """The clients of a cohort: their numbers ids (c,), None for all n in order; present (c,), None for all of them."""

    ids: jax.Array | None
    n: int
    present: jax.Array | None = None

    def rows(self, rows: Any) -> Any:
        """(c, ...) their rows of (n, ...)."""
        return rows if self.ids is None else by_client(rows[self.ids])

    def put(self, rows: Any, new: Any) -> Any:
        """(n, ...) with their rows replaced by `new` (c, ...); who is absent keeps theirs."""
        if self.ids is None:
            return new if self.present is None else where_rows(self.present, new, rows)
        places = self.ids if self.present is None else jnp.where(self.present, self.ids, self.n)
        return rows.at[places].set(new, mode="drop", unique_indices=True)


def where_rows(chosen: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Rows (c, ...) of `new` where chosen (c,), of `old` elsewhere."""
    return jnp.where(chosen.reshape(chosen.shape + (1,) * (new.ndim - 1)), new, old)
