"""Rounds of local training, ours and the reference's, fed the same cohorts, batches, probes and messages."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import algorithms, problems
from fedjax_lc.algorithms.frames.local import Local, select
from fedjax_lc.core import pytree
from tests.algorithms.shared import KEY, purposes, replay, scan, step_keys
from tests.conftest import make_clients
from tests.quickly import QUICKLY
from tests.reference import local, savic
from tests.reference import problems as ref_problems

ROUNDS = 8  # all walks have this length, so that equal structures share a program
CLIENTS = make_clients()
SIZES = np.array([len(b) for _, b in CLIENTS])
N, D = len(CLIENTS), 5
PROBLEM = problems.logistic_regression(CLIENTS, kappa=30).replace(
    x0=jnp.asarray(np.random.default_rng(1).normal(size=D))
)
REF = ref_problems.LogisticRegression(CLIENTS, float(PROBLEM.strong))
L = float(PROBLEM.smooth.max())
X0 = np.asarray(PROBLEM.x0)
#: two clients or one; who is absent stands first or last
SCHEDULE = jnp.array([[0, 2], [1, -1], [3, 1], [-1, 0], [2, 3], [1, 0], [-1, 2]], jnp.int32)
WHO = ("cohort_size", "selection", "schedule")
COHORTS: dict[str, dict[str, Any]] = {
    "uniform": {"cohort_size": 2},
    "size": {"cohort_size": 2, "selection": "size"},
    "bernoulli": {"cohort_size": 2, "selection": "bernoulli"},
    "schedule": {"selection": "schedule", "schedule": SCHEDULE},
}


def hyperparameters(name, problem=PROBLEM, choices=(), **changes):
    """Theory's for three local steps, with fields changed."""
    hp = algorithms.get(name).theory(problem, local_steps=3, **dict(choices))
    return pytree.cast(dataclasses.replace(hp, **changes), problem.dtype)


def begin(name, hp, problem=PROBLEM):
    """The state before the first round."""
    return algorithms.get(name).init(problem, hp, KEY)


def walk(name, hp, problem=PROBLEM, state=None, key=KEY, first=0):
    """States, costs and points after each of ROUNDS rounds, stacked: NumPy arrays. The keys are those of rounds `first`
    and on, then those before it."""
    state = begin(name, hp, problem) if state is None else state
    keys = jnp.roll(step_keys(ROUNDS, key), -first)
    return jax.tree.map(np.asarray, scan(name, ROUNDS)(problem, hp, state, keys))


def far(name, hp, rounds, problem=PROBLEM, state=None):
    """The state after at least so many rounds."""
    for first in range(0, rounds, ROUNDS):
        states, _, _ = walk(name, hp, problem, state, jax.random.fold_in(KEY, first))
        state = jax.tree.map(lambda leaf: leaf[-1], states)
    return state


# What our keys draw.


@functools.partial(jax.jit, compiler_options=QUICKLY)
def _cohorts(problem, hp, keys):
    return jax.vmap(lambda t, key: select(problem, hp, t, key))(jnp.arange(len(keys)), keys)


def cohorts(problem, hp, keys):
    """Lists of the clients of each round, whose cohort keys are `keys`; who is absent is left out."""
    ids, present = _cohorts(problem, Local(**{name: getattr(hp, name) for name in WHO}), keys)
    if ids is None:
        return [list(range(problem.n))] * len(keys)
    present = np.ones(ids.shape, bool) if present is None else np.asarray(present)
    return [row[there].tolist() for row, there in zip(np.asarray(ids), present, strict=True)]


@functools.partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=QUICKLY)
def _draws(problem, batch, replacement, longest, keys):
    draw = lambda key, h: problem.draw(jax.random.fold_in(key, h), batch, replacement)
    return jax.vmap(lambda key: jax.vmap(lambda h: draw(key, h))(jnp.arange(longest)))(keys)


@functools.partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=QUICKLY)
def _turns(problem, batch, epochs, longest, keys):
    orders = jax.vmap(lambda key: problem.orders(key, epochs))(keys)
    return jax.vmap(lambda rows: jax.vmap(lambda h: problem.turn(rows, h, batch))(jnp.arange(longest)))(orders)


def local_steps(hp):
    """K, one number or a list."""
    if hp.local_epochs is not None:
        return [hp.local_epochs * -(-m // hp.batch_size) for m in SIZES.tolist()]
    return np.asarray(hp.local_steps).tolist()


@functools.cache
def round_keys():
    """(ROUNDS, 4) keys of a round's cohort, batches, orders and messages."""
    return purposes(ROUNDS, 4)


class Replayed:
    """The reference's problem: client i's functions on the rows that our local step h of round t uses, row by row.

    h = None: all of its rows.
    """

    n = N

    def __init__(self, hp):
        keys = round_keys()
        self.members = cohorts(PROBLEM, hp, keys[:, 0])
        self.drawn, longest = None, int(np.max(local_steps(hp)))
        if hp.local_epochs is not None:
            self.drawn = _turns(PROBLEM, hp.batch_size, hp.local_epochs, longest, keys[:, 2])
        elif hp.batch_size is not None:
            self.drawn = _draws(PROBLEM, hp.batch_size, hp.replacement, longest, keys[:, 1])
        self.drawn = jax.tree.map(np.asarray, self.drawn)

    def cohort(self, t):
        return self.members[t]

    def rows(self, t, i, h):
        """(weight, features, label) of every row."""
        A, b = CLIENTS[i]
        picks, weights = range(len(b)), np.full(len(b), 1 / len(b))
        if h is not None and self.drawn is not None:
            picks, weights = (part[t, h, i] for part in self.drawn)
        return [(w, A[s], b[s]) for s, w in zip(picks, weights, strict=True) if w]

    def grad(self, t, i, h, x):
        g = REF.l2 * x
        for w, a, b in self.rows(t, i, h):
            g = g - w * b * a / (1 + np.exp(b * (a @ x)))
        return g

    def hvp(self, t, i, h, x, v):
        product = REF.l2 * v
        for w, a, b in self.rows(t, i, h):
            q = 1 / (1 + np.exp(-b * (a @ x)))
            product = product + w * q * (1 - q) * (a @ v) * a
        return product


def messages(compressor):
    """The reference's `compress(t, i, v)`."""
    compress = replay(compressor, round_keys()[:, 3:], N)
    return lambda t, i, v: compress(t, i, 0, v)


# Both.


def theirs_of(hp):
    """The reference's hyperparameters."""
    told = {field.name: getattr(hp, field.name) for field in dataclasses.fields(hp)}
    renamed = {"eta_l": "client_lr", "eta_g": "server_lr"}
    numbers = ("b1", "b2", "tau", "eps", "v0", "mu", "rho", "gamma", "alpha", "beta")
    choices = ("option", "opt", "frozen", "moments", "form", *savic.CHOICES, "n_warm", "lag")
    found = {new: float(told[old]) for new, old in renamed.items() if old in told}
    found |= {field: float(told[field]) for field in numbers if field in told}
    found |= {field: told[field] for field in choices if field in told}
    if "opt" in told:
        found["rho"] = found["b1"]
    return found | {"K": local_steps(hp), "weights": SIZES if hp.client_weights == "size" else None}


def reference(name, hp, compress=None):
    """States of the reference, one a round."""
    replayed = Replayed(hp)
    return local.run(name, replayed, theirs_of(hp), X0, ROUNDS, replayed.cohort, compress)


def close(got, want, tol=1e-12, message=""):
    """To `tol` of the largest entry."""
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol * np.abs(want).max(), err_msg=message)


def differ(got, want, least=1e-4):
    assert np.abs(np.asarray(got) - np.asarray(want)).max() > least
