"""LoCoDL: local training and compression of what the local models differ by.

Condat, Maranjyan, Richtarik, "LoCoDL: Communication-Efficient Distributed Learning with Local Training and
Compression", arXiv 2403.04348, Algorithm 1.

Every client keeps two estimates of the solution, its x_i and a copy of the shared y. Only compressed differences
x_i - y travel up; they vanish at the solution, so they need no memory; u_i and v absorb client drift.

The paper minimises (1/n) sum_i f_i + g with all functions strongly convex. A problem here holds only the sums f~_i, so
g(x) = (strong/4) |x|^2 is taken out of each: f_i = f~_i - g, L = max_i L~_i - strong/2, mu = strong/2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Batches, Cost, choose, constants, gradients, register, tile
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches, Aggregated):
    """In theory 2 rho - rho^2 (1 + omega_av) >= chi, and gradients are full."""

    gamma: Scalar = hyperparameter("step size, below 2/L", "(0, inf)")
    rho: Scalar = hyperparameter("relaxation of the models")
    chi: Scalar = hyperparameter("relaxation of the control variates")
    p: Scalar = hyperparameter("probability that a step communicates", "(0, 1]")
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")


class State(NamedTuple):
    x: ClientVecs  # (n, d) local models
    u: ClientVecs  # (n, d) their control variates; mean(u) + v = 0
    y: Vec  # (d,) the shared model, a copy at every client
    v: Vec  # (d,) its control variate
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = tile(problem.x0, problem.n)
    return State(x, jnp.zeros_like(x), problem.x0, jnp.zeros_like(problem.x0), start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    coin_key, uplink_key, batch_key = jax.random.split(key, 3)
    x, u, y, v, memories = state
    aggregate = Aggregation(hp, memories, key)
    mu = problem.strong / 2  # grad g(y) = mu y
    g, passes = gradients(problem, hp, x, batch_key)
    xhat = x - hp.gamma * (g - mu * x) + hp.gamma * u  # line 1
    yhat = y - hp.gamma * mu * y + hp.gamma * v  # line 2
    theta = jax.random.bernoulli(coin_key, hp.p)  # line 3

    def communicate(local: tuple[State, Cost]) -> tuple[State, Cost]:
        (xhat, u, yhat, v, _), cost = local
        c = hp.p * hp.chi / (hp.gamma * (1 + 2 * hp.compressor.omega(problem.dim)))
        message = hp.compressor.joint(uplink_key, xhat - yhat[None])  # line 4
        d = message.value
        dbar = aggregate(d) / 2  # line 5
        x = (1 - hp.rho) * xhat + hp.rho * (yhat + dbar)[None]  # line 6
        u = u + c * (dbar[None] - d)  # line 7
        y = yhat + hp.rho * dbar  # line 8
        v = v + c * dbar  # line 9
        return State(x, u, y, v), Cost.of(message.bits, FLOAT_BITS * problem.dim, cost.grads, 1)

    state, cost = aggregate.rarely(theta, communicate, (State(xhat, u, yhat, v), Cost.of(grads=passes)))  # line 10
    return state._replace(aggregation=aggregate.memories), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    """The consensus point (mean_i x_i + y) / 2."""
    return (jnp.mean(state.x, axis=0) + state.y) / 2


def theory(problem: Problem, compressor: Compressor | str | None = None, p: str | float = "theory") -> Hparams:
    """gamma = 2/(L + mu), rho = chi = 1/(1 + omega_av), p by choice.

    p: "theory", min(1, sqrt((1 + omega_av)(1 + omega) / kappa)) (the paper's, recalled only); "balanced",
    min(1, 2 sqrt((1 + omega_av)(1 + 2 omega) / kappa)) (derived: both terms of the rate are then of one size); or a
    number.
    """
    compressor = choose(compressor, problem)
    L, mu = split_constants(problem)
    omega, omega_av = compressor.omega(problem.dim), compressor.omega_av(problem.dim, problem.n)
    kappa = L / mu
    if p == "theory":
        p = min(1.0, math.sqrt((1 + omega_av) * (1 + omega) / kappa))
    elif p == "balanced":
        p = min(1.0, 2 * math.sqrt((1 + omega_av) * (1 + 2 * omega) / kappa))
    elif isinstance(p, str):
        raise unknown("p", p, ("theory", "balanced", "or a number"))
    rho = 1 / (1 + omega_av)
    return Hparams(gamma=2 / (L + mu), rho=rho, chi=rho, p=float(p), compressor=compressor)


def split_constants(problem: Problem) -> tuple[float, float]:
    """L and mu of the split problem, whose f_i and g share the modulus strong/2."""
    L, strong = constants(problem, "locodl")
    return L - strong / 2, strong / 2


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """Psi of Theorem 1."""
    x_star, mu = jnp.asarray(problem.x_star, problem.dtype), problem.strong / 2
    u_star, v_star = problem.grads(x_star) - mu * x_star[None], mu * x_star
    dual = hp.gamma * (1 + 2 * hp.compressor.omega(problem.dim)) / (hp.p**2 * hp.chi)
    primal = jnp.sum((state.x - x_star[None]) ** 2) + problem.n * jnp.sum((state.y - x_star) ** 2)
    control = jnp.sum((state.u - u_star) ** 2) + problem.n * jnp.sum((state.v - v_star) ** 2)
    return primal / hp.gamma + dual * control


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """tau of Theorem 1: E Psi shrinks by this factor or more at every iteration."""
    L, mu = split_constants(problem)
    dual = 1 - hp.p**2 * hp.chi / (1 + 2 * hp.compressor.omega(problem.dim))
    return max((1 - hp.gamma * mu) ** 2, (1 - hp.gamma * L) ** 2, dual)


register(
    "locodl",
    title="LoCoDL",
    up="C(x_i - y)",
    down="mean/2",
    speed="((1 + √ω + ω/√n) √κ + ω (1 + ω/n)) log 1/ε (recalled)",
    paper="2403.04348 LoCoDL: Communication-Efficient Distributed Learning with Local Training and Compression",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
