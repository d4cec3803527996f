"""Step sizes and memory rates that methods with a server between an uplink and a downlink share."""

from __future__ import annotations

import math

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.rules import largest_step
from fedjax_lc.compressors import Compressor
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem

CONVENTIONS = ("paper", "mcm_repo")  #: whose parameters `theory` gives


def smoothness(problem: Problem, convention: str) -> float:
    """L: max_i L_i for "paper"; mean_i L_i for "mcm_repo", the authors' code.

    Raises:
        InputError: another convention.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)
    return float(jnp.max(problem.smooth) if convention == "paper" else jnp.mean(problem.smooth))


def both_ways(problem: Problem, up: Compressor, down: Compressor, convention: str) -> float:
    """gamma of methods that compress ghat too: 1/(2 L (1 + omega_down)(1 + omega_up/n)), the order of Artemis' bound
    (recalled only); 1/L with convention="mcm_repo"."""
    L, d = smoothness(problem, convention), problem.dim
    if convention == "mcm_repo":
        return 1 / L
    return 1 / (2 * L * (1 + down.omega(d)) * (1 + up.omega(d) / problem.n))


def known_form(form: str) -> str:
    """The form of a method that is asked for: its paper's, or that of the code of arXiv 2102.12528.

    Raises:
        InputError: another one.
    """
    if form not in CONVENTIONS:
        raise unknown("form", form, CONVENTIONS)
    return form


def leftover(compressor: Compressor, d: int) -> float:
    """rho = sqrt(1 - delta)/(1 - sqrt(1 - delta)): how many messages an error fed back is worth at most."""
    left = math.sqrt(max(0.0, 1 - float(compressor.delta(d))))
    return left / (1 - left)


def leftover_of_both(up: float, down: float) -> float:
    """rho where the server compresses again what already carries the clients' errors."""
    return up + down * (1 + 2 * up)


def feedback_step(problem: Problem, rho: float) -> float:
    """gamma = 1/(L (1 + 2 rho)), L = max_i L_i, with which the model stays near the one without errors (derived by us);
    1/L for a network, of which no theory holds."""
    return largest_step(problem, 1 / (float(jnp.max(problem.smooth)) * (1 + 2 * rho)))


def following_step(problem: Problem, *lags: float) -> float:
    """gamma = 1/(L + Lt lag) of methods whose estimate follows the gradients: for the sum of the lags, L of F and Lt =
    sqrt(mean_i L_i^2), an estimate stays behind by at most lag Lt |x_new - x|. With EF21's lag, sqrt(beta/theta) =
    `leftover`, it is EF21's bound (2106.05203, Theorem 1, from the code of flpytorch). 1/L for a network, of which no
    theory holds."""
    L, spread = float(problem.smooth_mean), float(jnp.sqrt(jnp.mean(problem.smooth**2)))
    return largest_step(problem, 1 / (L + spread * sum(lags)))


def memory_rate(omega: Scalar) -> Scalar:
    """alpha = 1/(2 (omega + 1)), of both memories in the authors' code; the paper's bound for alpha_up (recalled)."""
    return 1 / (2 * (omega + 1))
