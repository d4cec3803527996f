"""EF21: error feedback as a compressed memory of the gradients.

Richtarik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
arXiv 2106.05203, Algorithm 2 (update and constants recalled only). EF21-BC, which compresses the server's message too:
Fatkhullin, Sokolov, Gorbunov, Li, Richtarik, "EF21 with Bells & Whistles: Practical Algorithmic Extensions of Modern
Error Feedback", arXiv 2110.03294 (recalled, re-derived and checked numerically).

Every client keeps g_i, what the server believes its gradient to be, and sends the compressed correction
C(grad f_i(x) - g_i). The compressor need only contract; the error vanishes as the gradients settle.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, constants, covered, register
from fedjax_lc.algorithms.frames.links import Shifts, no_shifts, plain, server_zeros, shifted, to_all
from fedjax_lc.algorithms.frames.rules import strongly_convex
from fedjax_lc.algorithms.frames.server import Rounds, State, compose
from fedjax_lc.algorithms.frames.step_sizes import following_step, leftover
from fedjax_lc.algorithms.frames.turns import Directed, Downlink, Sent, Turn, Uplink, dense
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Following(Rounds):
    _: dataclasses.KW_ONLY
    init: str = hyperparameter(
        "how g_i starts: as the gradient at x0, or as its compressed message", ("dense", "compressed"), default="dense"
    )

    @property
    def starts_dense(self) -> bool:
        return self.init == "dense"


@pytree.dataclass
class Hparams(Following):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


@pytree.dataclass
class BothWays(Following):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


def follow(hp: Any, shifts: Shifts, target: ClientVecs, turn: Turn) -> Sent:
    """c_i = C(target_i - g_i), g_i += c_i of those who take part; ghat = g = mean_i g_i."""
    (g_i, g), cohort = shifted(hp, shifts, target, turn), turn.cohort
    c = turn.compress(target - g_i)
    g = g + turn.part(c.value)
    return Sent(g, Shifts(cohort.moved(g_i + c.value, g_i), g), cohort.cost(c.bits))


def _direct(hp: BothWays, g: Vec, w: Vec, sent: Sent, turn: Turn) -> Directed:
    """b = C(ghat - g), g += b, w -= gamma g; a first estimate that came dense goes down dense."""
    b, bits = to_all(hp.downlink, turn.key, sent.ghat - g)
    if not hp.starts_dense:
        return Directed(w, g + b, g + b, bits)
    first = turn.k == 1
    g = jnp.where(first, sent.ghat, g + b)
    return Directed(w, g, g, jnp.where(first, dense(w), bits))


corrections = Uplink(no_shifts, follow, aggregates=2)
corrected = Downlink(server_zeros, _direct)


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """gamma = min(1/(L + Lt sqrt(2 beta/theta)), theta/(2 mu)) (recalled only), L of F and Lt = sqrt(mean_i L_i^2);
    without strong convexity 1/(L + Lt sqrt(beta/theta)).

    theta = 1 - sqrt(1 - delta), beta = (1 - delta)/theta, delta the compressor's. The default is top-k,
    k = ceil(d/n); an unbiased compressor Q enters as Q/(1 + omega), with delta = 1/(1 + omega).
    """
    compressor = choose(compressor, problem, contractive=True)
    behind, mu = leftover(compressor, problem.dim), float(problem.strong)
    if not strongly_convex(problem):
        return Hparams(compressor, following_step(problem, behind))
    theta, _ = contraction(compressor.delta(problem.dim))
    return Hparams(compressor, min(following_step(problem, math.sqrt(2) * behind), theta / (2 * mu)))


def theory_both_ways(
    problem: Problem, compressor: Compressor | str | None = None, downlink: Compressor | str | None = None
) -> BothWays:
    """gamma = 1/(L + Lt (s + 2 s_down (1 + s))), s = sqrt(beta/theta) of each compressor (derived by us)."""
    up, down = (choose(c, problem, contractive=True) for c in (compressor, downlink))
    s, s_down = leftover(up, problem.dim), leftover(down, problem.dim)
    return BothWays(up, down, following_step(problem, s, 2 * s_down * (1 + s)))


def contraction(delta: Scalar) -> tuple[Scalar, Scalar]:
    """theta and beta: the error g_i - grad f_i(x) shrinks by 1 - theta a step and grows by beta L_i^2 |x+ - x|^2."""
    theta = 1 - (1 - delta) ** 0.5
    return theta, (1 - delta) / theta


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (gamma/theta) (1/n) sum_i |g_i - grad f_i(x)|^2 at x, the point that the g_i follow: the one
    before the last move, w + gamma g (Theorem 2, recalled only)."""
    x, x_star = state.w + hp.gamma * state.up.h, jnp.asarray(problem.x_star, problem.dtype)
    theta, _ = contraction(hp.compressor.delta(problem.dim))
    errors = jnp.sum((state.up.h_i - problem.grads(x)) ** 2) / problem.n
    return problem.value(x) - problem.value(x_star) + hp.gamma / theta * errors


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu, for gamma no larger than theory's (Theorem 2, recalled only)."""
    _, mu = constants(problem, "ef21")
    return covered(1 - hp.gamma * mu, (hp.gamma, theory(problem, hp.compressor).gamma))


register(
    "ef21",
    title="EF21",
    up="C(g_i - h_i)",
    down="x",
    speed="1-γμ per step, (1 + ω) κ log 1/ε rounds (recalled)",
    paper="2106.05203 EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
    Hparams=Hparams,
    **compose(corrections, plain),
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)

register(
    "ef21_bc",
    title="EF21-BC",
    up="C(g_i - h_i)",
    down="C(mean - H)",
    paper="2110.03294 EF21 with Bells & Whistles: Practical Algorithmic Extensions of Modern Error Feedback",
    Hparams=BothWays,
    **compose(corrections, corrected),
    theory=theory_both_ways,
)
