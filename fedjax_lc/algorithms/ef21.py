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

from fedjax_lc.algorithms.frames.base import Batches, choose, constants, register
from fedjax_lc.algorithms.frames.bidirectional import to_all
from fedjax_lc.algorithms.frames.estimators import Follow, Move, State, compose, dense, first_message, starts, step_size
from fedjax_lc.algorithms.frames.step_sizes import leftover
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    _: dataclasses.KW_ONLY
    init: str = starts()


@pytree.dataclass
class BothWays(Batches):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    _: dataclasses.KW_ONLY
    init: str = starts()


def start(problem: Problem, hp: Any, move: Move) -> Follow:
    g_i, bits = first_message(hp, move)
    return Follow(g_i, jnp.mean(g_i, axis=0), bits, 0, move.passes)


def follow(problem: Problem, hp: Any, g_i: ClientVecs, g: Vec, move: Move) -> Follow:
    c = hp.compressor.joint(move.up_key, move.at(move.x_new) - g_i)
    return Follow(g_i + c.value, g + jnp.mean(c.value, axis=0), c.bits, dense(g), move.passes)


def _start_both_ways(problem: Problem, hp: BothWays, move: Move) -> Follow:
    """Clients must know the first estimate too: it is sent down as the gradients were sent up."""
    begun = start(problem, hp, move)
    if hp.init == "dense":
        return begun._replace(bits_down=dense(begun.g))
    g, bits = to_all(hp.downlink, move.other_key, begun.g)
    return begun._replace(g=g, bits_down=bits)


def _follow_both_ways(problem: Problem, hp: BothWays, g_i: ClientVecs, g: Vec, move: Move) -> Follow:
    up = follow(problem, hp, g_i, g, move)
    b, bits = to_all(hp.downlink, move.other_key, jnp.mean(up.own, axis=0) - g)
    return up._replace(g=g + b, bits_down=bits)


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """gamma = min(1/(L + Lt sqrt(2 beta/theta)), theta/(2 mu)) (recalled only), L of F and Lt = sqrt(mean_i L_i^2);
    without strong convexity 1/(L + Lt sqrt(beta/theta)).

    theta = 1 - sqrt(1 - delta), beta = (1 - delta)/theta, delta the compressor's. The default is top-k,
    k = ceil(d/n); an unbiased compressor Q enters as Q/(1 + omega), with delta = 1/(1 + omega).
    """
    compressor = choose(compressor, problem, contractive=True)
    behind, mu = leftover(compressor, problem.dim), float(problem.strong)
    if not (problem.solvable and mu > 0):
        return Hparams(compressor, step_size(problem, behind))
    theta, _ = contraction(compressor.delta(problem.dim))
    return Hparams(compressor, min(step_size(problem, math.sqrt(2) * behind), theta / (2 * mu)))


def theory_both_ways(
    problem: Problem, compressor: Compressor | str | None = None, downlink: Compressor | str | None = None
) -> BothWays:
    """gamma = 1/(L + Lt (s + 2 s_down (1 + s))), s = sqrt(beta/theta) of each compressor (derived by us)."""
    up, down = (choose(c, problem, contractive=True) for c in (compressor, downlink))
    s, s_down = leftover(up, problem.dim), leftover(down, problem.dim)
    return BothWays(up, down, step_size(problem, s, 2 * s_down * (1 + s)))


def contraction(delta: Scalar) -> tuple[Scalar, Scalar]:
    """theta and beta: the error g_i - grad f_i(x) shrinks by 1 - theta a step and grows by beta L_i^2 |x+ - x|^2."""
    theta = 1 - (1 - delta) ** 0.5
    return theta, (1 - delta) / theta


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """F(x) - F(x*) + (gamma/theta) (1/n) sum_i |g_i - grad f_i(x)|^2 (Theorem 2, recalled only)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    theta, _ = contraction(hp.compressor.delta(problem.dim))
    errors = jnp.sum((state.own - problem.grads(state.x)) ** 2) / problem.n
    return problem.value(state.x) - problem.value(x_star) + hp.gamma / theta * errors


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu, for gamma no larger than theory's (Theorem 2, recalled only)."""
    _, mu = constants(problem, "ef21")
    return 1 - hp.gamma * mu


register(
    "ef21",
    title="EF21",
    up="C(g_i - h_i)",
    down="x",
    speed="1-γμ per step, (1 + ω) κ log 1/ε rounds (recalled)",
    paper="2106.05203 EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
    Hparams=Hparams,
    **compose(start, follow),
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
    **compose(_start_both_ways, _follow_both_ways),
    theory=theory_both_ways,
)
