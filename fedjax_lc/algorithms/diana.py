"""DIANA: compression of gradient differences.

Mishchenko, Gorbunov, Takac, Richtarik, "Distributed Learning with Compressed Gradient Differences", arXiv 1901.09269;
for general unbiased compressors Horvath et al., "Stochastic Distributed Learning with Gradient Quantization and
Variance Reduction", arXiv 1904.05115; constants as in arXiv 1905.11261.

Every client learns a shift h_i that tends to its gradient at the solution and sends only the compressed difference to
it, so the compression error vanishes with the distance to the solution.
"""

from __future__ import annotations

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
    """compressor: of the uplink, unbiased. gamma: step size. alpha: learning rate of the shifts, to 1/(1 + omega)."""

    compressor: Compressor
    gamma: Scalar
    alpha: Scalar


class State(NamedTuple):
    x: Vec  # (d,) the model
    h_i: ClientVecs  # (n, d) shifts of the clients
    h: Vec  # (d,) their mean, at the server


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    zero = jnp.zeros_like(problem.x0)
    return State(problem.x0, jnp.zeros((problem.n, problem.dim), problem.dtype), zero)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    (uplink_key,) = jax.random.split(key, 1)
    x, h_i, h = state
    message = hp.compressor.joint(uplink_key, problem.grads(x) - h_i)
    D_i, D = message.value, jnp.mean(message.value, axis=0)
    x = x - hp.gamma * (h + D)
    h_i = h_i + hp.alpha * D_i
    h = h + hp.alpha * D
    return State(x, h_i, h), Cost.of(message.bits, FLOAT_BITS * problem.dim, grads=1, rounds=1)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """alpha = 1/(1 + omega), gamma = 1/(L (1 + 6 omega / n)), L = max_i L_i."""
    compressor = choose(compressor, problem)
    L, _ = constants(problem, "diana")
    omega = compressor.omega(problem.dim)
    return Hparams(compressor, gamma=1 / (L * (1 + 6 * omega / problem.n)), alpha=1 / (1 + omega))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """|x - x*|^2 + M gamma^2 (1/n) sum_i |h_i - grad f_i(x*)|^2, M = 4 omega / (n alpha)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    M = 4 * hp.compressor.omega(problem.dim) / (problem.n * hp.alpha)
    shifts = jnp.sum((state.h_i - problem.grads(x_star)) ** 2) / problem.n
    return jnp.sum((state.x - x_star) ** 2) + M * hp.gamma**2 * shifts


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max(1 - gamma mu, 1 - alpha/2), for gamma and alpha no larger than theory's."""
    _, mu = constants(problem, "diana")
    return max(1 - hp.gamma * mu, 1 - hp.alpha / 2)


register(
    "diana",
    title="DIANA",
    paper="1901.09269 Distributed Learning with Compressed Gradient Differences",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
