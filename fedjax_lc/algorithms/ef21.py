"""EF21: error feedback as a compressed memory of the gradients.

Richtarik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
arXiv 2106.05203, Algorithm 2 (update and constants recalled only).

Every client keeps g_i, what the server believes its gradient to be, and sends the compressed correction
C(grad f_i(x) - g_i). The compressor need only contract; the error vanishes as the gradients settle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc import pytree
from fedjax_lc.algorithms.base import Cost, choose, constants, register
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.problems import Problem
from fedjax_lc.typing import ClientVecs, Key, Scalar, Vec


@pytree.dataclass
class Hparams:
    """compressor: of the uplink, contractive. gamma: step size."""

    compressor: Compressor
    gamma: Scalar


class State(NamedTuple):
    x: Vec  # (d,) the model
    g_i: ClientVecs  # (n, d) the server's picture of the gradients
    g: Vec  # (d,) their mean, at the server
    owed: Cost  # what init cost, until the first step charges it


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    """g_i = grad f_i(x0), sent uncompressed: its bits and its gradient are charged with the first round."""
    g_i = problem.grads(problem.x0)
    return State(problem.x0, g_i, jnp.mean(g_i, axis=0), owed=Cost.of(FLOAT_BITS * problem.dim, grads=1))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    (uplink_key,) = jax.random.split(key, 1)
    x, g_i, g, owed = state
    x = x - hp.gamma * g
    message = hp.compressor.joint(uplink_key, problem.grads(x) - g_i)
    c_i = message.value
    g_i = g_i + c_i
    g = g + jnp.mean(c_i, axis=0)
    cost = Cost.of(message.bits, FLOAT_BITS * problem.dim, grads=1, rounds=1)
    return State(x, g_i, g, owed=Cost.of()), cost.plus(owed)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """gamma = min(1/(L + Lt sqrt(2 beta/theta)), theta/(2 mu)) (recalled only), L of F and Lt = sqrt(mean_i L_i^2).

    theta = 1 - sqrt(1 - delta), beta = (1 - delta)/theta, delta the compressor's. The default is top-k,
    k = ceil(d/n); an unbiased compressor Q enters as Q/(1 + omega), with delta = 1/(1 + omega).
    """
    compressor = choose(compressor, problem, contractive=True)
    _, mu = constants(problem, "ef21")
    L, L_i = float(problem.smooth_mean), problem.smooth
    theta, beta = contraction(compressor.delta(problem.dim))
    spread = float(jnp.sqrt(jnp.mean(L_i**2))) * math.sqrt(2 * beta / theta)
    return Hparams(compressor, gamma=min(1 / (L + spread), theta / (2 * mu)))


def contraction(delta: Scalar) -> tuple[Scalar, Scalar]:
    """theta and beta: the error g_i - grad f_i(x) shrinks by 1 - theta a step and grows by beta L_i^2 |x+ - x|^2."""
    theta = 1 - (1 - delta) ** 0.5
    return theta, (1 - delta) / theta


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (gamma/theta) (1/n) sum_i |g_i - grad f_i(x)|^2 (Theorem 2, recalled only)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    theta, _ = contraction(hp.compressor.delta(problem.dim))
    errors = jnp.sum((state.g_i - problem.grads(state.x)) ** 2) / problem.n
    return problem.value(state.x) - problem.value(x_star) + hp.gamma / theta * errors


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu, for gamma no larger than theory's (Theorem 2, recalled only)."""
    _, mu = constants(problem, "ef21")
    return 1 - hp.gamma * mu


register(
    "ef21",
    title="EF21",
    paper="2106.05203 EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
