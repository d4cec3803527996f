"""Nesterov's accelerated gradient descent with constant momentum, uncompressed.

Nesterov, "Introductory Lectures on Convex Optimization", constant step scheme III (2.2.11). The Lyapunov function and
its rate are the textbook's (recalled, checked numerically).

The gradient is taken ahead of the model, at y, where the last move would carry it on by beta; this brings the number of
rounds from kappa to sqrt(kappa).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, constants, covered, register
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    gamma: Scalar = hyperparameter("step size, 1/L in theory", "(0, inf)")
    beta: Scalar = hyperparameter("momentum", "[0, 1)")


class State(NamedTuple):
    x: Vec  # (d,) the model
    y: Vec  # (d,) where the next gradient is taken
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, problem.x0, start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    aggregate = Aggregation(hp, state.aggregation, key)
    x = state.y - hp.gamma * aggregate(problem.grads(state.y))
    y = x + hp.beta * (x - state.x)
    bits = FLOAT_BITS * problem.dim
    return State(x, y, aggregate.memories), Cost.of(bits, bits, grads=1, rounds=1)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, smooth: str = "max") -> Hparams:
    """gamma = 1/L, beta = (sqrt(kappa) - 1)/(sqrt(kappa) + 1), kappa = L/mu.

    smooth: which L: "max", max_i L_i, as every other method here uses; or "mean", the constant of F itself, which is
    smaller and all that the theorem needs.
    """
    L, mu = constants(problem, "agd")
    if smooth not in ("max", "mean"):
        raise unknown("choice of smooth", smooth, ("max", "mean"))
    L = float(problem.smooth_mean) if smooth == "mean" else L
    root = math.sqrt(L / mu)
    return Hparams(gamma=1 / L, beta=(root - 1) / (root + 1))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (mu/2) |v - x*|^2, v = x + (1 + r) (y - x), where beta = (r - 1)/(r + 1)."""
    x_star, r = jnp.asarray(problem.x_star, problem.dtype), (1 + hp.beta) / (1 - hp.beta)
    ahead = state.x + (1 + r) * (state.y - state.x)
    return problem.value(state.x) - problem.value(x_star) + problem.strong / 2 * jnp.sum((ahead - x_star) ** 2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - sqrt(gamma mu), for gamma no larger than 1/L, L of F, and beta = (r - 1)/(r + 1), r = 1/sqrt(gamma mu)."""
    (_, mu), most = constants(problem, "agd"), theory(problem, smooth="mean")
    root = 1 / (hp.gamma * mu) ** 0.5
    beta = (root - 1) / (root + 1)
    return covered(1 - 1 / root, (hp.gamma, most.gamma), (hp.beta, beta), (beta, hp.beta))


register(
    "agd",
    title="AGD",
    up="g_i(y)",
    down="y, x extrapolated",
    speed="√κ log 1/ε rounds",
    paper="Nesterov, Introductory Lectures on Convex Optimization, scheme (2.2.11)",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
