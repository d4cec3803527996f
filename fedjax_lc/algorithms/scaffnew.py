"""Scaffnew (ProxSkip for federated learning): local steps that communicate only when a coin says so.

Mishchenko, Malinovsky, Stich, Richtarik, "ProxSkip: Yes! Local Gradient Steps Provably Lead to Communication
Acceleration! Finally!", arXiv 2202.09357, Algorithm 2.

Control variates h_i cancel the drift of the local steps, so the average is needed only about every sqrt(kappa)-th step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Batches, Cost, constants, gradients, register, tile
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches, Aggregated):
    gamma: Scalar = hyperparameter("step size, below 2/L", "(0, inf)")
    p: Scalar = hyperparameter("probability that a step communicates", "(0, 1]")


class State(NamedTuple):
    x: ClientVecs  # (n, d) local models
    h: ClientVecs  # (n, d) their control variates, of mean zero
    xbar: Vec  # (d,) the last average: the server's model
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = tile(problem.x0, problem.n)
    return State(x, jnp.zeros_like(x), problem.x0, start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    coin_key, batch_key = jax.random.split(key)
    x, h, xbar, memories = state
    aggregate = Aggregation(hp, memories, key)
    g, passes = gradients(problem, hp, x, batch_key)
    xhat = x - hp.gamma * (g - h)
    theta = jax.random.bernoulli(coin_key, hp.p)

    def communicate(local: tuple[State, Cost]) -> tuple[State, Cost]:
        (xhat, h, *_), cost = local
        xbar = aggregate(xhat)
        h = h + hp.p / hp.gamma * (xbar[None] - xhat)
        bits = FLOAT_BITS * problem.dim
        return State(tile(xbar, problem.n), h, xbar), Cost.of(bits, bits, cost.grads, 1)

    state, cost = aggregate.rarely(theta, communicate, (State(xhat, h, xbar), Cost.of(grads=passes)))
    return state._replace(aggregation=aggregate.memories), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.xbar


def theory(problem: Problem) -> Hparams:
    """gamma = 2/(L + mu), which like the paper's 1/L allows p = 1/sqrt(kappa); L = max_i L_i."""
    L, mu = constants(problem, "scaffnew")
    return Hparams(gamma=2 / (L + mu), p=math.sqrt(mu / L))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """sum_i |x_i - x*|^2 + (gamma/p)^2 sum_i |h_i - grad f_i(x*)|^2."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    control = jnp.sum((state.h - problem.grads(x_star)) ** 2)
    return jnp.sum((state.x - x_star[None]) ** 2) + (hp.gamma / hp.p) ** 2 * control


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max((1 - gamma mu)^2, (1 - gamma L)^2, 1 - p^2)."""
    L, mu = constants(problem, "scaffnew")
    return max((1 - hp.gamma * mu) ** 2, (1 - hp.gamma * L) ** 2, 1 - hp.p**2)


register(
    "scaffnew",
    title="Scaffnew",
    up="x_i",
    down="x",
    speed="max((1-γμ)², (1-γL)², 1-p²) per step",
    paper="2202.09357 ProxSkip: Yes! Local Gradient Steps Provably Lead to Communication Acceleration! Finally!",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
