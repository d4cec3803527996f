"""MARINA: compressed differences of gradients add up to the estimate, which a coin replaces by the gradient itself.

Gorbunov, Burlachenko, Li, Richtarik, "MARINA: Faster Non-Convex Distributed Learning with Compression", arXiv
2102.07845 (recalled, re-derived and checked numerically). Clients remember nothing; they take two gradients on the same
batch. PP-MARINA lets a cohort send the differences (recalled only).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Batches, choose, constants, register, sample
from fedjax_lc.algorithms.frames.estimators import Follow, Move, State, compose, dense
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches):
    compressor: Compressor = hyperparameter("compressor of differences of gradients, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    p: Scalar = hyperparameter(
        "probability of a round in which all clients send full gradients, uncompressed, as at the start", "(0, 1]"
    )
    cohort_size: int | None = hyperparameter(
        "clients that send differences in the other rounds, drawn uniformly; all if None",
        "whole [1, n]",
        default=None,
        static=True,
    )


def _start(problem: Problem, hp: Hparams, move: Move) -> Follow:
    return Follow(None, jnp.mean(problem.grads(move.x), axis=0), dense(move.x), 0, 1)


def _follow(problem: Problem, hp: Hparams, own: None, g: Vec, move: Move) -> Follow:
    coin_key, cohort_key = jax.random.split(move.other_key)
    coin, size = jax.random.bernoulli(coin_key, hp.p), hp.cohort_size or problem.n
    _, clients = sample(problem, cohort_key, size)

    def differences() -> tuple[Vec, Scalar]:
        change = move.at(move.x_new, clients) - move.at(move.x, clients)
        if size == problem.n or hp.compressor.shares:
            message = hp.compressor.joint(move.up_key, change)
        else:
            message = jax.vmap(hp.compressor)(clients.client_keys(move.up_key), change)
        bits = jnp.mean(jnp.asarray(message.bits, jnp.float32)) * size / problem.n
        return g + jnp.mean(message.value, axis=0), bits

    def everything() -> tuple[Vec, Scalar]:
        return jnp.mean(problem.grads(move.x_new), axis=0), jnp.asarray(dense(g), jnp.float32)

    g, bits = jax.lax.cond(coin, everything, differences)
    twice = 2 * jnp.mean(jnp.asarray(move.passes, jnp.float32)) * size / problem.n
    return Follow(None, g, bits, dense(g), jnp.where(coin, 1, twice))


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """p = 1/(1 + omega), gamma = min(1/(Lt (1 + sqrt(2 (1 - p) omega/(p n)))), p/(2 mu)), Lt = sqrt(mean_i L_i^2)
    (recalled only); without strong convexity the root has no 2 (from the code of flpytorch)."""
    return _theory(problem, choose(compressor, problem), None)


def theory_of_cohorts(
    problem: Problem, compressor: Compressor | str | None = None, cohort_size: int | None = None
) -> Hparams:
    """As MARINA with (1 + omega)/r for omega/n, and p times r/n, for cohorts of r = cohort_size, ceil(n/2) if None
    (recalled only)."""
    return _theory(problem, choose(compressor, problem), cohort_size or -(-problem.n // 2))


def _theory(problem: Problem, compressor: Compressor, cohort_size: int | None) -> Hparams:
    omega, n, mu = float(compressor.omega(problem.dim)), problem.n, float(problem.strong)
    p = 1 / (1 + omega) * (1 if cohort_size is None else cohort_size / n)
    noise = omega / n if cohort_size is None else (1 + omega) / cohort_size
    Lt = float(jnp.sqrt(jnp.mean(problem.smooth**2)))
    if not problem.solvable:
        gamma = 1 / Lt
    elif mu > 0:
        gamma = min(1 / (Lt * (1 + math.sqrt(2 * (1 - p) * noise / p))), p / (2 * mu))
    else:
        gamma = 1 / (Lt * (1 + math.sqrt((1 - p) * noise / p)))
    return Hparams(compressor, gamma, p, cohort_size)


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (gamma/p) |g - grad F(x)|^2 (recalled only)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    error = state.g - jnp.mean(problem.grads(state.x), axis=0)
    return problem.value(state.x) - problem.value(x_star) + hp.gamma / hp.p * jnp.sum(error**2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu, for gamma no larger than theory's (recalled only)."""
    _, mu = constants(problem, "marina")
    return 1 - hp.gamma * mu


_METHOD = compose(_start, _follow)

register(
    "marina",
    title="MARINA",
    up="C(g_i⁺ - g_i); with chance p g_i⁺",
    down="x",
    speed="1-γμ per step (recalled)",
    paper="2102.07845 MARINA: Faster Non-Convex Distributed Learning with Compression",
    Hparams=Hparams,
    **_METHOD,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)

register(
    "pp_marina",
    title="PP-MARINA",
    up="C(g_i⁺ - g_i) of r; or all g_i⁺",
    down="x",
    paper="2102.07845 MARINA: Faster Non-Convex Distributed Learning with Compression",
    Hparams=Hparams,
    **_METHOD,
    theory=theory_of_cohorts,
)
