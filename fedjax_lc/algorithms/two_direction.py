"""2Direction: accelerated gradient descent with compressed messages in both directions.

Tyurin and Richtarik, "2Direction: Theoretically Faster Distributed Training with Bidirectional Communication
Compression", arXiv 2305.12379 (update, p, tau and beta from the author's code; the theory of Lbar recalled only).

The server keeps Nesterov's sequences u and x; clients follow w, which both sides can predict from k up to a compressed
difference, as in EF21-P, and an anchor z, where DIANA's memories h_i learn the gradients. A coin moves the anchor, and
then z and k go down as they are.

The code carries Gamma, which grows geometrically and overflows float32 after some thousand steps. Here i = 1/Gamma is
carried: the same sequence (derived by us), and i falls to 0 without harm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, register
from fedjax_lc.algorithms.frames.links import to_all
from fedjax_lc.algorithms.frames.turns import dense
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    Lbar: Scalar = hyperparameter("smoothness constant that the step sizes follow, as if F had it", "(0, inf)")
    p: Scalar = hyperparameter("probability that the anchor z moves and is sent, uncompressed", "(0, 1]")
    tau: Scalar = hyperparameter("weight of the new gradient estimate in the average v", "(0, 1]")
    beta: Scalar = hyperparameter("learning rate of the uplink memories h_i", "(0, 1]")
    mu: Scalar = hyperparameter("strong convexity that the step sizes count on, at most that of F", "[0, inf)")


class State(NamedTuple):
    x: Vec  # (d,) the model
    u: Vec  # (d,) the aggressive sequence, at the server
    w: Vec  # (d,) what the clients know of u
    z: Vec  # (d,) the anchor
    k: Vec  # (d,) the gradient by which both sides predict w
    v: Vec  # (d,) the average of gradient estimates that k is taken from
    h_i: ClientVecs  # (n, d) memories of the clients
    h: Vec  # (d,) their mean, at the server
    i: Scalar  # () 1/Gamma
    t: jax.Array  # () int32 steps so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    """The gradients at x0, with which h_i, h, k and v start, are sent dense in the first step."""
    x0, zero, one = problem.x0, jnp.zeros_like(problem.x0), jnp.ones((), problem.dtype)
    h_i = jnp.zeros((problem.n, problem.dim), problem.dtype)
    return State(x0, x0, x0, x0, zero, zero, h_i, zero, one, jnp.zeros((), jnp.int32), start(problem, hp, 2))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    coin_key, y_key, z_key, down_key = jax.random.split(key, 4)
    x, u, w, z, k, v, h_i, h, i, t, memories = state
    aggregate, first = Aggregation(hp, memories, key), t == 0
    theta, c = momentum(hp, i, problem.dim), hp.Lbar * i + hp.mu
    i = (1 - hp.p * theta) * i
    c_next = hp.Lbar * i + hp.mu
    y = theta * w + (1 - theta) * z
    prox = lambda g, s: ((1 - hp.p * theta) * c * s + hp.p * theta * (hp.mu * y - g)) / c_next
    g_i = problem.grads(y)
    at_y = hp.compressor.joint(y_key, g_i - h_i)
    g = h + aggregate(jnp.where(first, g_i, at_y.value))
    h_i, h, k, v = (jnp.where(first, new, old) for new, old in ((g_i, h_i), (g, h), (g, k), (g, v)))
    u, q = prox(g, u), prox(k, w)
    message, bits_down = to_all(hp.downlink, down_key, u - q)
    w = q + message
    x = theta * u + (1 - theta) * z
    coin = jax.random.bernoulli(coin_key, hp.p)
    z, k = jnp.where(coin, x, z), jnp.where(coin, v, k)
    at_z = hp.compressor.joint(z_key, problem.grads(z) - h_i)
    mean = aggregate(at_z.value)
    v = (1 - hp.tau) * v + hp.tau * (h + mean)
    h_i, h = h_i + hp.beta * at_z.value, h + hp.beta * mean
    starts = dense(x) * first
    bits_down = bits_down + 2 * dense(x) * coin + starts
    cost = Cost.of(at_y.bits + at_z.bits + starts, bits_down, grads=2, rounds=1 + first)
    return State(x, u, w, z, k, v, h_i, h, i, t + 1, aggregate.memories), cost


def momentum(hp: Hparams, i: Scalar, d: int) -> Scalar:
    """theta, the weight of w in y: the root of p Lbar theta^2 + p c theta = c for c = Lbar i + mu, at most a quarter of
    1, delta/p, tau/p and beta/p."""
    p, c, delta = hp.p, hp.Lbar * i + hp.mu, hp.downlink.delta(d)
    root = 2 * c / (p * c + jnp.sqrt((p * c) ** 2 + 4 * p * hp.Lbar * c))
    most = jnp.minimum(jnp.minimum(1, delta / p), jnp.minimum(hp.tau, hp.beta) / p) / 4
    return jnp.minimum(root, most)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    c0: float = 1.0,
) -> Hparams:
    """beta = 1/(omega + 1), p = min{1, max{1, 1/sqrt(delta omega)}/(omega + 1)}, tau = min{1, omega^(-1/3)
    (omega + 1)^(-2/3)}, and p = tau = 1 without a compressor of the uplink (from the author's code); mu = `strong`.

    Lbar = c0 max{L/delta, L p/(delta tau), sqrt(L Lmax) p sqrt(omega tau)/(delta beta sqrt(n)), sqrt(L Lmax p omega
    tau)/(delta sqrt(beta n)), Lmax omega p^2/(beta^2 n), Lmax omega/n}, L that of F and Lmax = max_i L_i (recalled
    only). There c0 = 660; 1 converged in all settings that we tried, and often 1/16 does (measured). Of a network Lbar
    is c0 L.
    """
    up, down = choose(compressor, problem), choose(downlink, problem, contractive=True)
    omega, delta, n = float(up.omega(problem.dim)), float(down.delta(problem.dim)), problem.n
    L, largest = float(problem.smooth_mean), float(jnp.max(problem.smooth))
    beta, p, tau = 1 / (omega + 1), 1.0, 1.0
    if omega > 0:
        p = min(1.0, max(1.0, 1 / math.sqrt(delta * omega)) / (omega + 1))
        tau = min(1.0, omega ** (-1 / 3) * (omega + 1) ** (-2 / 3))
    both = math.sqrt(L * largest)
    bounds = [
        L / delta,
        L * p / (delta * tau),
        both * p * math.sqrt(omega * tau) / (delta * beta * math.sqrt(n)),
        both * math.sqrt(p * omega * tau) / (delta * math.sqrt(beta * n)),
        largest * omega * p**2 / (beta**2 * n),
        largest * omega / n,
    ]
    bound = max(bounds) if problem.solvable else L
    return Hparams(up, down, c0 * bound, p, tau, beta, float(problem.strong))


register(
    "two_direction",
    title="2Direction",
    up="C(g_i(y) - h_i), C(g_i(z) - h_i)",
    down="C(u - q); with chance p z and k",
    speed="√((ω + 1)κ/δ) + √(ω²κ/n) + 1/δ + ω, times log 1/ε",
    paper="2305.12379 2Direction: Theoretically Faster Distributed Training with Bidirectional Communication "
    "Compression",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
