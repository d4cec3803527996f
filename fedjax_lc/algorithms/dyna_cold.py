"""Dyna-COLD: COLD with a quantiser of few bits, down to one an entry, whose scale shrinks by a known schedule.

    Y = X - eta G - eta D ;   q = s C((Y - Xh)/s) ;   Xh += q ;   Xhw += W q ;   s = sigma s
    D += gamma/(2 eta) (Xh - Xhw) ;   X = X - eta G - eta D         the same G, the new D

Zhang, You, Xie, arXiv 2105.06697. Only the abstract was read: a dynamic scaling admits a binary quantiser. The form is
derived by us, as that of `cold`; the one-bit quantiser is sgn(v)/2, with sgn(0) = +1 (from a repository that cites the
paper).

C quantises [-1, 1] by 2^bits cells of equal width, to their middles. It works while no entry overloads, |Y - Xh|_inf <=
s, and does not recover from it; `overload` in the state is the largest ratio so far. Scales are known to all, so that
they cost nothing; s stops at the rounding errors of s0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, constants, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, LocalStart, centred, chosen, local_at_first, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

FINEST = 8  #: s stops at so many units in the last place of s0


@pytree.dataclass
class Hparams(LocalStart):
    eta: Scalar = hyperparameter("step size", "(0, inf)")
    gamma: Scalar = hyperparameter("step size of the duals, times 2 eta; up to 1/4", "(0, inf)")
    sigma: Scalar = hyperparameter("factor of the scale from step to step, above the rate of the models", "(0, 1]")
    s0: Scalar = hyperparameter("scale at the start, at least the largest entry of the first Y", "(0, inf)")
    bits: Scalar = hyperparameter("bits of an entry", "whole [1, 16]", default=1)


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    D: ClientVecs  # (n, d) duals, of sum zero over nodes
    xh: ClientVecs  # (n, d) estimates of Y, which the neighbours have too
    xhw: ClientVecs  # (n, d) W xh
    s: jax.Array  # () the scale
    overload: jax.Array  # () the largest |Y - Xh|_inf / s so far, while s falls
    k: jax.Array  # () steps so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    nothing = zeros(problem)
    s, overload = jnp.asarray(hp.s0, problem.dtype), jnp.zeros((), problem.dtype)
    return State(start(problem), nothing, nothing, nothing, s, overload, hp.first)


def quantised(v: ClientVecs, bits: Scalar) -> ClientVecs:
    """The middle of each entry's cell, of 2^bits cells of [-1, 1]; beyond it, of the nearest cell."""
    cells = jnp.asarray(2.0, v.dtype) ** jnp.asarray(bits, v.dtype)
    cell = jnp.clip(jnp.floor((v + 1) / 2 * cells), 0, cells - 1)
    return (cell + 0.5) * (2 / cells) - 1


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    links, (X, D, xh, xhw, s, overload, k) = hp.links(problem), state
    G, passes = gradients(problem, hp, X, key)
    Y = X - hp.eta * G - hp.eta * D
    innovation = (Y - xh) / s
    q = s * quantised(innovation, hp.bits)
    xh, xhw = xh + q, xhw + links.mix(q)
    D = centred(D + hp.gamma / (2 * hp.eta) * (xh - xhw))
    X = X - hp.eta * G - hp.eta * D
    least = FINEST * jnp.finfo(problem.dtype).eps * hp.s0
    most = jnp.where(s > least, jnp.max(jnp.abs(innovation)), 0)
    usual = State(X, D, xh, xhw, jnp.maximum(hp.sigma * s, least), jnp.maximum(overload, most), k + 1)
    after = local_at_first(k, state._replace(x=Y, k=k + 1), usual)
    return after, links.cost(hp.bits * problem.dim, passes, talks=k > 0)


def theory(problem: Problem, topology: Topology | str = "ring") -> Hparams:
    """eta = 1/L, gamma = 1/4, sigma = max{0.95, rate + 0.01}, rate = max{1 - mu/L, sqrt(1 - gamma lmin/2)} a bound for
    the models without compression (halfway to 1 where that is above 0.98), s0 four times the largest entry of x0 - eta
    G(x0); L = max_i L_i (measured by us: never overloads). The models of a network have no known rate: there sigma = 1,
    and an entry takes 8 bits."""
    (L, mu), (kept, graph) = constants(problem, "dyna_cold"), chosen(topology, problem)
    gamma = 0.25
    rate = max(1 - mu / L, (1 - gamma * graph.lmin / 2) ** 0.5)
    first = problem.x0[None] - problem.grads(problem.x0) / L
    s0 = 4 * float(jnp.max(jnp.abs(first))) or 1.0
    sigma = max(0.95, min(rate + 0.01, (1 + rate) / 2))
    if not problem.solvable:
        return Hparams(1 / L, gamma, 1.0, s0, bits=8, topology=kept)
    return Hparams(1 / L, gamma, sigma, s0, topology=kept)


register(
    "dyna_cold",
    title="Dyna-COLD",
    up="one bit an entry of y_i - x̂_i to neighbours",
    down="mixed by W",
    speed="σ per step (ours)",
    paper="2105.06697 Innovation Compression for Communication-Efficient Distributed Optimization with Linear "
    "Convergence",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
