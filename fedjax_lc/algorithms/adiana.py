"""ADIANA: accelerated DIANA.

Li, Kovalev, Qian, Richtarik, "Acceleration for Compressed Gradient Descent in Distributed and Federated Optimization",
arXiv 2002.11364, Algorithm 2 (update and constants recalled only).

DIANA's compressed gradient at an extrapolated point x drives Nesterov's three sequences, while the shifts h_i learn the
gradients at a slowly moving anchor w. Every round sends two compressed messages, one at x and one at w.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, constants, register
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    eta: Scalar = hyperparameter("step size of y", "(0, inf)")
    gamma: Scalar = hyperparameter("step size of z", "(0, inf)")
    theta1: Scalar = hyperparameter("weight of z in x")
    theta2: Scalar = hyperparameter("weight of w in x")
    beta: Scalar = hyperparameter("weight of the old z", "[0, 1)")
    alpha: Scalar = hyperparameter("learning rate of the shifts h_i", "(0, 1]")
    p: Scalar = hyperparameter("probability that the anchor w moves", "(0, 1]")


class State(NamedTuple):
    y: Vec  # (d,) the model
    z: Vec  # (d,) the aggressive sequence
    w: Vec  # (d,) the anchor
    h_i: ClientVecs  # (n, d) shifts of the clients
    h: Vec  # (d,) their mean, at the server
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x0, h_i = problem.x0, jnp.zeros((problem.n, problem.dim), problem.dtype)
    return State(x0, x0, x0, h_i, jnp.zeros_like(x0), start(problem, hp, 2))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    coin_key, x_key, w_key = jax.random.split(key, 3)
    y, z, w, h_i, h, memories = state
    aggregate = Aggregation(hp, memories, key)
    x = hp.theta1 * z + hp.theta2 * w + (1 - hp.theta1 - hp.theta2) * y
    at_x = hp.compressor.joint(x_key, problem.grads(x) - h_i)
    at_w = hp.compressor.joint(w_key, problem.grads(w) - h_i)
    g = h + aggregate(at_x.value)
    h_i = h_i + hp.alpha * at_w.value
    h = h + hp.alpha * aggregate(at_w.value)
    y_new = x - hp.eta * g
    z = hp.beta * z + (1 - hp.beta) * x + hp.gamma / hp.eta * (y_new - x)
    w = jnp.where(jax.random.bernoulli(coin_key, hp.p), y, w)
    cost = Cost.of(at_x.bits + at_w.bits, FLOAT_BITS * problem.dim, grads=2, rounds=1)
    return State(y_new, z, w, h_i, h, aggregate.memories), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.y


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """Theorem 4's parameters (recalled only), with L = max_i L_i.

    alpha = 1/(1 + omega), p = min(1, max(1, sqrt(n/(32 omega)) - 1) / (2 (1 + omega))),
    eta = min(1/(2L), n / (64 omega L (2 p (1 + omega) + 1)^2)), theta1 = min(1/4, sqrt(eta mu / p)), theta2 = 1/2,
    gamma = eta / (2 (theta1 + eta mu)), beta = 1 - gamma mu; p = 1 and eta = 1/(2L) without compression.
    """
    compressor = choose(compressor, problem)
    L, mu = constants(problem, "adiana")
    omega, n = float(compressor.omega(problem.dim)), problem.n
    p, eta = 1.0, 1 / (2 * L)
    if omega > 0:
        p = min(1.0, max(1.0, math.sqrt(n / (32 * omega)) - 1) / (2 * (1 + omega)))
        eta = min(eta, n / (64 * omega * L * (2 * p * (1 + omega) + 1) ** 2))
    theta1 = min(0.25, math.sqrt(eta * mu / p))
    gamma = eta / (2 * (theta1 + eta * mu))
    return Hparams(compressor, eta, gamma, theta1, theta2=0.5, beta=1 - gamma * mu, alpha=1 / (1 + omega), p=p)


register(
    "adiana",
    title="ADIANA",
    up="C(g_i(x) - h_i), C(g_i(w) - h_i)",
    down="x",
    speed="((1 + ω^¾/n^¼ + ω/√n) √κ + ω) log 1/ε rounds (recalled)",
    paper="2002.11364 Acceleration for Compressed Gradient Descent in Distributed and Federated Optimization",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
