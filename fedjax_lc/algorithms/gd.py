"""Distributed gradient descent: x+ = x - gamma grad F(x), with uncompressed gradients; every method's reference."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, constants, register
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    gamma: Scalar = hyperparameter("step size, below 2/L", "(0, inf)")


class State(NamedTuple):
    x: Vec  # (d,) the model
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    aggregate = Aggregation(hp, state.aggregation, key)
    x = state.x - hp.gamma * aggregate(problem.grads(state.x))
    bits = FLOAT_BITS * problem.dim
    return State(x, aggregate.memories), Cost.of(bits, bits, grads=1, rounds=1)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem) -> Hparams:
    """gamma = 2/(L + mu), L = max_i L_i."""
    L, mu = constants(problem, "gd")
    return Hparams(gamma=2 / (L + mu))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """|x - x*|^2."""
    return jnp.sum((state.x - jnp.asarray(problem.x_star, problem.dtype)) ** 2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max((1 - gamma mu)^2, (1 - gamma L)^2), which is (1 - 2/(kappa + 1))^2 at theory's gamma."""
    L, mu = constants(problem, "gd")
    return max((1 - hp.gamma * mu) ** 2, (1 - hp.gamma * L) ** 2)


register(
    "gd",
    title="GD",
    up="g_i",
    down="x",
    speed="(1 - 2/(κ + 1))² per step",
    paper="Nesterov, Introductory Lectures on Convex Optimization, Theorem 2.1.15",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
