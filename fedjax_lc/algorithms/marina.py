"""MARINA: compressed differences of gradients add up to the estimate, which a coin replaces by the gradient itself.

Gorbunov, Burlachenko, Li, Richtarik, "MARINA: Faster Non-Convex Distributed Learning with Compression", arXiv
2102.07845 (recalled, re-derived and checked numerically). Clients remember nothing; they take two gradients on the same
batch. PP-MARINA lets a cohort send the differences (recalled only).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, constants, covered, register
from fedjax_lc.algorithms.frames.links import seen_by_all
from fedjax_lc.algorithms.frames.rules import strongly_convex
from fedjax_lc.algorithms.frames.server import Rounds, State, compose
from fedjax_lc.algorithms.frames.turns import Directed, Downlink, Sent, Turn, Uplink, dense
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    """Cohorts and participation say who sends differences; full gradients come from all."""

    compressor: Compressor = hyperparameter("compressor of differences of gradients, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    p: Scalar = hyperparameter(
        "probability of a round in which all clients send full gradients, uncompressed, as in the first", "(0, 1]"
    )

    @property
    def starts_dense(self) -> bool:
        return True


class Estimate(NamedTuple):
    g: Vec  # (d,) of the gradient
    x: Vec  # (d,) at this point


def _start(problem: Problem, hp: Hparams) -> Estimate:
    return Estimate(jnp.zeros_like(problem.x0), problem.x0)


def _send(hp: Hparams, last: Estimate, _: ClientVecs, turn: Turn) -> Sent:
    (coin_key, up_key), (oracle, cohort) = jax.random.split(turn.key), (turn.oracle, turn.cohort)
    coin = jax.random.bernoulli(coin_key, hp.p) | (turn.k == 1)

    def differences() -> tuple[Vec, Scalar, Scalar]:
        change = oracle.at(oracle.x, cohort) - oracle.at(last.x, cohort)
        message = hp.compressor.joint(up_key, change)
        return last.g + turn.mean(message.value), cohort.cost(message.bits), cohort.cost(2 * oracle.passes)

    def everything() -> tuple[Vec, Scalar, Scalar]:
        return turn.aggregate(oracle.full()), jnp.float32(dense(last.g)), jnp.float32(1)

    g, bits, passes = turn.aggregate.cond(coin, everything, differences)
    return Sent(g, Estimate(g, oracle.x), bits, passes=passes)


def _direct(hp: Hparams, memory: None, w: Vec, sent: Sent, turn: Turn) -> Directed:
    """Everyone must know where gradients are compared: the model goes to all clients, in every round."""
    return Directed(w, sent.ghat, None, dense(w))


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """p = 1/(1 + omega), gamma = min(1/(Lt (1 + sqrt(2 (1 - p) omega/(p n)))), p/(2 mu)), Lt = sqrt(mean_i L_i^2)
    (recalled only); without strong convexity, as for networks with L estimated, the root has no 2 (from the code of
    flpytorch)."""
    return _theory(problem, choose(compressor, problem), None)


def theory_of_cohorts(
    problem: Problem, compressor: Compressor | str | None = None, cohort_size: int | None = None
) -> Hparams:
    """As MARINA with (1 + omega)/r for omega/n, and p times r/n, for cohorts of r = cohort_size, ceil(n/2) if None
    (recalled only)."""
    return _theory(problem, choose(compressor, problem), cohort_size or -(-problem.n // 2))


def _theory(problem: Problem, compressor: Compressor, cohort_size: int | None) -> Hparams:
    omega, n = float(compressor.omega(problem.dim)), problem.n
    p = 1 / (1 + omega) * (1 if cohort_size is None else cohort_size / n)
    noise = omega / n if cohort_size is None else (1 + omega) / cohort_size
    return Hparams(compressor, _largest(problem, p, noise), p, cohort_size=cohort_size)


def _largest(problem: Problem, p: float, noise: float) -> float:
    """The largest gamma of the theorem."""
    mu, Lt = float(problem.strong), float(jnp.sqrt(jnp.mean(problem.smooth**2)))
    if strongly_convex(problem):
        return min(1 / (Lt * (1 + math.sqrt(2 * (1 - p) * noise / p))), p / (2 * mu))
    return 1 / (Lt * (1 + math.sqrt((1 - p) * noise / p)))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (gamma/p) |g - grad F(x)|^2 at x, the point before the last move (recalled only)."""
    (g, x), x_star = state.up, jnp.asarray(problem.x_star, problem.dtype)
    error = g - jnp.mean(problem.grads(x), axis=0)
    return problem.value(x) - problem.value(x_star) + hp.gamma / hp.p * jnp.sum(error**2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu, for gamma no larger than theory's with this p (recalled only)."""
    _, mu = constants(problem, "marina")
    noise = float(hp.compressor.omega(problem.dim)) / problem.n
    return covered(1 - hp.gamma * mu, (hp.gamma, _largest(problem, float(hp.p), noise)))


_METHOD = compose(Uplink(_start, _send, aggregates=2), Downlink(seen_by_all, _direct))

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
