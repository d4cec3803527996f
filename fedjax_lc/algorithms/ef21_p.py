"""EF21-P: the server sends down the compressed difference between its model and the one that the clients hold.

Gruntkowska, Tyurin, Richtarik, "EF21-P and Friends: Improved Theoretical Communication Complexity for Distributed
Optimization with Bidirectional Compression", arXiv 2209.15218 (update and constants from the paper). Gradients are
taken at the clients' model w, while the server's x moves: x -= gamma ghat, w += C(x - w), C contractive. It is MCM's
downlink with a contractive message and alpha_dwn = 1, and classical error feedback on the mean gradient, e = w - x.

`ef21_p` sends gradients up as they are; with an unbiased compressor of the uplink it is EF21-P + DCGD, which stalls
where clients differ. `ef21_p_diana` has DIANA's memories there and does not.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, constants, covered, register
from fedjax_lc.algorithms.frames.links import compressed, memory, seen_apart, to_all
from fedjax_lc.algorithms.frames.rules import largest_step, strongly_convex
from fedjax_lc.algorithms.frames.server import Rounds, State, WithMemory, compose
from fedjax_lc.algorithms.frames.turns import Announced, Downlink, Turn
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar, Vec
from fedjax_lc.problems import Problem

PAPER = (
    "2209.15218 EF21-P and Friends: Improved Theoretical Communication Complexity for Distributed Optimization with "
    "Bidirectional Compression"
)


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


@pytree.dataclass
class DianaHparams(WithMemory):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    beta: Scalar = hyperparameter("learning rate of the uplink memories h_i", "[0, 1]")


def _announce(hp: Hparams | DianaHparams, memory: None, x: Vec, w: Vec, turn: Turn) -> Announced:
    message, bits = to_all(hp.downlink, turn.key, x - w)
    return Announced(x, w + message, None, bits)


following = Downlink(seen_apart, announce=_announce)  #: x -= gamma ghat, w += C(x - w)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    scale: float = 1.0,
) -> Hparams:
    """gamma = delta/(16 L), and min{n/(160 omega Lmax), delta/(100 L)} with a compressor of the uplink, which is the
    identity by default; delta/(8 L) without either strong convexity or that compressor (all from the paper).

    L is that of F, Lmax = max_i L_i. scale multiplies gamma: 16 to 64 still work in practice (measured). Of a network
    gamma is 1/L.
    """
    up, down = choose("identity" if compressor is None else compressor, problem), _contractive(problem, downlink)
    compressed_up = float(up.omega(problem.dim)) > 0
    proven = min(_both_ways(problem, up, down)) if compressed_up else _one_way(problem, down)
    return Hparams(up, down, scale * largest_step(problem, proven))


def theory_diana(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    scale: float = 1.0,
) -> DianaHparams:
    """beta = 1/(omega + 1) and gamma = min{n/(160 omega Lmax), delta/(100 L), 1/((omega + 1) mu)}, without the last
    where mu = 0 (all from the paper); without a compressor of the uplink the first is left out.

    L is that of F, Lmax = max_i L_i. scale multiplies gamma: 16 to 64 still work in practice (measured). Of a network
    gamma is 1/L.
    """
    up, down = choose(compressor, problem), _contractive(problem, downlink)
    omega, mu = float(up.omega(problem.dim)), float(problem.strong)
    slow = 1 / ((omega + 1) * mu) if mu > 0 else math.inf
    gamma = largest_step(problem, min(*_both_ways(problem, up, down), slow))
    return DianaHparams(up, down, scale * gamma, 1 / (omega + 1))


def _contractive(problem: Problem, downlink: Compressor | str | None) -> Compressor:
    return choose(downlink, problem, contractive=True)


def _one_way(problem: Problem, down: Compressor) -> float:
    """delta/(16 L), or delta/(8 L) without strong convexity."""
    return float(down.delta(problem.dim)) / ((16 if strongly_convex(problem) else 8) * float(problem.smooth_mean))


def _both_ways(problem: Problem, up: Compressor, down: Compressor) -> tuple[float, float]:
    """n/(160 omega Lmax) and delta/(100 L)."""
    omega, delta = float(up.omega(problem.dim)), float(down.delta(problem.dim))
    noise = problem.n / (160 * omega * float(jnp.max(problem.smooth))) if omega > 0 else math.inf
    return noise, delta / (100 * float(problem.smooth_mean))


def lyapunov(problem: Problem, hp: Hparams | DianaHparams, state: State) -> Scalar:
    """|x - x*|^2/(2 gamma) + F(x) - F(x*). From w = x on it stays below tau^t times its start (from the paper), but it
    need not fall in every step."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    return jnp.sum((state.w - x_star) ** 2) / (2 * hp.gamma) + problem.value(state.w) - problem.value(x_star)


def lyapunov_diana(problem: Problem, hp: DianaHparams, state: State) -> Scalar:
    """The same plus (8 gamma omega (omega + 1)/n^2) sum_i |h_i - grad f_i(x*)|^2. The paper bounds what `lyapunov` of
    EF21-P has by tau^t times the start of this; that the bound holds with the new term on both sides is recalled only.
    """
    omega, x_star = hp.compressor.omega(problem.dim), jnp.asarray(problem.x_star, problem.dtype)
    weight = 8 * hp.gamma * omega * (omega + 1) / problem.n**2
    return lyapunov(problem, hp, state) + weight * jnp.sum((state.up.h_i - problem.grads(x_star)) ** 2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """1 - gamma mu/2, for gamma no larger than theory's and gradients sent as they are, as EF21-P + DCGD leaves a floor
    (from the paper)."""
    _, mu = constants(problem, "ef21_p")
    omega, most = hp.compressor.omega(problem.dim), _one_way(problem, hp.downlink)
    return covered(1 - hp.gamma * mu / 2, (hp.gamma, most), (omega, 0))


def rate_diana(problem: Problem, hp: DianaHparams) -> Scalar:
    """1 - gamma mu/2, for gamma no larger than theory's and beta = 1/(omega + 1) (from the paper)."""
    (_, mu), omega = constants(problem, "ef21_p_diana"), hp.compressor.omega(problem.dim)
    beta, most = 1 / (omega + 1), min(*_both_ways(problem, hp.compressor, hp.downlink), 1 / ((omega + 1) * mu))
    return covered(1 - hp.gamma * mu / 2, (hp.gamma, most), (hp.beta, beta), (beta, hp.beta))


register(
    "ef21_p",
    title="EF21-P",
    up="g_i(w), or C(g_i(w))",
    down="C(x - w)",
    speed="1-γμ/2 per step, κ/δ log 1/ε rounds",
    paper=PAPER,
    Hparams=Hparams,
    **compose(compressed, following),
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)

register(
    "ef21_p_diana",
    title="EF21-P + DIANA",
    up="C(g_i(w) - h_i)",
    down="C(x - w)",
    speed="1-γμ/2 per step, ((1/δ + ω/n) κ + ω) log 1/ε rounds",
    paper=PAPER,
    Hparams=DianaHparams,
    **compose(memory("beta"), following),
    theory=theory_diana,
    lyapunov=lyapunov_diana,
    rate=rate_diana,
)
