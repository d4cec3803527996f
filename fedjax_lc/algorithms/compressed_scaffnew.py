"""CompressedScaffnew: local steps, and every client sends only its share of the coordinates.

Condat, Agarsky, Richtarik, "Provably Doubly Accelerated Federated Learning: The First Theoretically Successful
Combination of Local Training and Communication Compression", arXiv 2210.13277, Algorithm 1.

Scaffnew's average is taken coordinate by coordinate over s clients only: a random mask, permuted anew in every round,
shares the coordinates out. It comes from a shared seed, so no indices are sent.
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
from fedjax_lc.core.devices import shared
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches, Aggregated):
    gamma: Scalar = hyperparameter("step size, below 2/L", "(0, inf)")
    s: Scalar = hyperparameter("number of clients that send each coordinate", "whole [2, n]")
    chi: Scalar = hyperparameter("relaxation of the control variates")
    p: Scalar = hyperparameter("probability that a step communicates", "(0, 1]")
    bits: str = hyperparameter(
        "uplink bits that count: their mean over clients or the largest message", ("mean", "max"), default="mean"
    )


class State(NamedTuple):
    x: ClientVecs  # (n, d) local models
    h: ClientVecs  # (n, d) their control variates, of sum zero
    xbar: Vec  # (d,) the last average: the server's model
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = tile(problem.x0, problem.n)
    return State(x, jnp.zeros_like(x), problem.x0, start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    coin_key, mask_key, batch_key = jax.random.split(key, 3)
    x, h, xbar, memories = state
    aggregate = Aggregation(hp, memories, key)
    g, passes = gradients(problem, hp, x, batch_key)
    xhat = x - hp.gamma * (g - h)
    theta = jax.random.bernoulli(coin_key, hp.p)

    def communicate(local: tuple[State, Cost]) -> tuple[State, Cost]:
        (xhat, h, *_), cost = local
        q = mask(shared(jax.random.permutation(mask_key, problem.n)), problem.dim, hp.s)
        xbar = aggregate(xhat, q.astype(xhat.dtype) / hp.s)
        h = h + hp.p * hp.chi / hp.gamma * q * (xbar[None] - xhat)
        up = uplink_bits(q, hp.bits)
        return State(tile(xbar, problem.n), h, xbar), Cost.of(up, FLOAT_BITS * problem.dim, cost.grads, 1)

    state, cost = aggregate.rarely(theta, communicate, (State(xhat, h, xbar), Cost.of(grads=passes)))
    return state._replace(aggregation=aggregate.memories), cost


def mask(permutation: jax.Array, d: int, s: Scalar) -> jax.Array:
    """(n, d) booleans q_i: which coordinates client i sends, exactly s clients for each; s may be traced.

    Client i takes column permutation[i] of a template. If s d >= n, row k of the template has ones in columns
    s k .. s (k + 1) - 1 modulo n; otherwise column i < s d has its only one in row i mod d.

    >>> mask(jnp.arange(4), d=2, s=2).astype(int)
    [[1 0], [1 0], [0 1], [0 1]]
    """
    n, k, column = permutation.shape[0], jnp.arange(d)[None], permutation[:, None]
    cyclic = (column - s * (k % n)) % n < s
    single = (column < s * d) & (column % d == k)
    return jnp.where(s >= -(-n // d), cyclic, single)


def uplink_bits(q: jax.Array, count: str) -> jax.Array:
    """Bits of the masked vectors: (n,) for count "mean", () for "max"."""
    if count not in ("mean", "max"):
        raise unknown("count of bits", count, ("mean", "max"))
    each = FLOAT_BITS * jnp.sum(q, axis=1)
    return jnp.max(each) if count == "max" else each


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.xbar


def theory(problem: Problem, s: int | None = None, bits: str = "mean") -> Hparams:
    """s = max(2, floor(n/d)), gamma = 2/(L + mu), chi = n(s-1)/(s(n-1)), p = min(1, sqrt(n/(s kappa))), L = max L_i."""
    L, mu = constants(problem, "compressed_scaffnew")
    n, d = problem.n, problem.dim
    s = max(2, n // d) if s is None else s
    chi, p = sharing(n, s, L / mu)
    return Hparams(gamma=2 / (L + mu), s=s, chi=chi, p=p, bits=bits)


def sharing(n: int, s: int, kappa: float) -> tuple[float, float]:
    """chi and p when s of n clients send each coordinate."""
    if n < 2:
        raise InputError(f"sharing out coordinates needs at least 2 clients, got n = {n}: use scaffnew")
    return n * (s - 1) / (s * (n - 1)), min(1.0, math.sqrt(n / (s * kappa)))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """(1/gamma) sum_i |x_i - x*|^2 + (gamma/(p^2 chi)) ((n-1)/(s-1)) sum_i |h_i - grad f_i(x*)|^2."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    dual = hp.gamma / (hp.p**2 * hp.chi) * (problem.n - 1) / (hp.s - 1)
    control = jnp.sum((state.h - problem.grads(x_star)) ** 2)
    return jnp.sum((state.x - x_star[None]) ** 2) / hp.gamma + dual * control


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max((1 - gamma mu)^2, (1 - gamma L)^2, 1 - p^2 chi (s-1)/(n-1))."""
    L, mu = constants(problem, "compressed_scaffnew")
    dual = 1 - hp.p**2 * hp.chi * (hp.s - 1) / (problem.n - 1)
    return max((1 - hp.gamma * mu) ** 2, (1 - hp.gamma * L) ** 2, dual)


register(
    "compressed_scaffnew",
    title="CompressedScaffnew",
    up="masked x_i: sd/n floats on average",
    down="x",
    speed="max((1-γμ)², (1-γL)², 1 - p²χ(s-1)/(n-1)) per step",
    paper="2210.13277 Provably Doubly Accelerated Federated Learning",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
