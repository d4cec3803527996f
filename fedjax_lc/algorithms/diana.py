"""DIANA: compression of gradient differences.

Mishchenko, Gorbunov, Takac, Richtarik, "Distributed Learning with Compressed Gradient Differences", arXiv 1901.09269;
for general unbiased compressors Horvath et al., "Stochastic Distributed Learning with Gradient Quantization and
Variance Reduction", arXiv 1904.05115; constants as in arXiv 1905.11261.

Every client learns a shift h_i that tends to its gradient at the solution and sends only the compressed difference to
it, so the compression error vanishes with the distance to the solution.
"""

from __future__ import annotations

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, constants, covered, register
from fedjax_lc.algorithms.frames.links import memory, plain
from fedjax_lc.algorithms.frames.server import State, WithMemory, compose
from fedjax_lc.algorithms.frames.step_sizes import memory_rate, smoothness
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(WithMemory):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    alpha: Scalar = hyperparameter("learning rate of the shifts h_i, up to 1/(1 + omega) in theory", "(0, 1]")


def theory(problem: Problem, compressor: Compressor | str | None = None, convention: str = "paper") -> Hparams:
    """alpha = 1/(1 + omega), gamma = 1/(L (1 + 6 omega / n)), L = max_i L_i.

    convention="mcm_repo", the code of arXiv 2102.12528: alpha = 1/(2 (1 + omega)), gamma = 1/mean_i L_i, smart
    initialisation.
    """
    compressor, L = choose(compressor, problem), smoothness(problem, convention)
    omega = compressor.omega(problem.dim)
    if convention == "mcm_repo":
        return Hparams(compressor, gamma=1 / L, alpha=memory_rate(omega), smart=True)
    return Hparams(compressor, gamma=1 / (L * (1 + 6 * omega / problem.n)), alpha=1 / (1 + omega))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """|x - x*|^2 + M gamma^2 (1/n) sum_i |h_i - grad f_i(x*)|^2, M = 4 omega / (n alpha)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    M = 4 * hp.compressor.omega(problem.dim) / (problem.n * hp.alpha)
    shifts = jnp.sum((state.up.h_i - problem.grads(x_star)) ** 2) / problem.n
    return jnp.sum((state.w - x_star) ** 2) + M * hp.gamma**2 * shifts


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max(1 - gamma mu, 1 - alpha/2), for gamma and alpha no larger than theory's."""
    (_, mu), most = constants(problem, "diana"), theory(problem, hp.compressor)
    return covered(max(1 - hp.gamma * mu, 1 - hp.alpha / 2), (hp.gamma, most.gamma), (hp.alpha, most.alpha))


register(
    "diana",
    title="DIANA",
    up="C(g_i - h_i)",
    down="x",
    speed="((1 + ω/n) κ + ω) log 1/ε rounds (recalled)",
    paper="1901.09269 Distributed Learning with Compressed Gradient Differences",
    Hparams=Hparams,
    **compose(memory("alpha"), plain),
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
