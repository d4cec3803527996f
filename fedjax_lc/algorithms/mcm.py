"""MCM and Rand-MCM: bidirectional compression around a preserved central model.

Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression in distributed settings",
arXiv 2102.12528. The server keeps its uncompressed model w and sends down the compressed difference between w and a
memory H that tends to it, so that to first order in gamma only the noise of the uplink remains. Rand-MCM compresses for
each client apart, Rand-MCM-G for each of G groups (recalled from the paper only; client i is in group
floor(i G/n)). Uplink: DIANA's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fedjax_lc.algorithms import artemis
from fedjax_lc.algorithms.frames.base import choose, register, tile
from fedjax_lc.algorithms.frames.links import memory
from fedjax_lc.algorithms.frames.server import WithMemory, compose
from fedjax_lc.algorithms.frames.step_sizes import memory_rate, smoothness
from fedjax_lc.algorithms.frames.turns import Announced, Downlink, Turn
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem

PAPER = "2102.12528 Preserved central model for faster bidirectional compression in distributed settings"
RATES = ("authors", "paper")


@pytree.dataclass
class Hparams(WithMemory):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    alpha_up: Scalar = hyperparameter("learning rate of the uplink memories h_i", "[0, 1]")
    alpha_dwn: Scalar = hyperparameter("learning rate of the downlink memory H", "[0, 1]")


@pytree.dataclass
class GroupHparams(Hparams):
    groups: int = hyperparameter(
        "number of groups of clients that share a message and a memory", "whole [1, n]", default=2, static=True
    )


def preserved(groups: Callable[[Any, int], int]) -> Downlink:
    """w -= gamma ghat; Om = C(w - H), what = H + Om, H += alpha_dwn Om, for each of groups(hp, n) groups."""

    def start(problem: Problem, hp: Any) -> tuple[Vec, Vec | ClientVecs, ClientVecs]:
        G, x0 = groups(hp, problem.n), problem.x0
        return x0, x0 if G == 1 else tile(x0, problem.n), tile(x0, G)

    def announce(hp: Any, H: ClientVecs, w: Vec, seen: Any, turn: Turn) -> Announced:
        Omega = hp.downlink.joint(turn.key, w[None] - H)
        what, H_next = H + Omega.value, H + hp.alpha_dwn * Omega.value
        if len(H) == 1:
            return Announced(w, what[0], H_next, jnp.mean(Omega.bits))
        if len(H) == len(seen):  # each client is a group
            groups = clients = turn.cohort
            of_client = lambda rows: rows
        else:
            group_of = jnp.arange(len(seen)) * len(H) // len(seen)  # the group of each client
            groups = turn.cohort.groups(group_of, len(H))
            clients = groups.members(group_of)
            of_client = lambda rows: rows[group_of]
        return Announced(
            w, clients.moved(of_client(what), seen), groups.moved(H_next, H), clients.cost(of_client(Omega.bits))
        )

    return Downlink(start, announce=announce)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    rates: str = "authors",
) -> Hparams:
    """Step size and memory rates; what is the paper's is recalled only.

    convention="paper": gamma = min{1/(8 L omega_dwn), 1/(2 L (1 + omega_up/n)), 1/(16 L omega_dwn sqrt(1/alpha_dwn +
    omega_up/n))}, L = max_i L_i; the last constant is ours, from the recursion of Upsilon. convention="mcm_repo", the
    authors' code: gamma = 1/mean_i L_i and smart initialisation. alpha_up = 1/(2 (1 + omega_up)); alpha_dwn =
    1/(2 (1 + omega_dwn)) with rates="authors", 1/(8 omega_dwn) with rates="paper".
    """
    if rates not in RATES:
        raise unknown("rates", rates, RATES)
    d, n, L = problem.dim, problem.n, smoothness(problem, convention)
    up, down = choose(compressor, problem), choose(downlink, problem)
    omega_up, omega_dwn = up.omega(d), down.omega(d)
    alpha_dwn = memory_rate(omega_dwn) if rates == "authors" else 1 / max(8 * omega_dwn, 1)
    bounds = [2 * (1 + omega_up / n), 8 * omega_dwn, 16 * omega_dwn * math.sqrt(1 / alpha_dwn + omega_up / n)]
    gamma = 1 / (L * (max(bounds) if convention == "paper" else 1))
    return Hparams(up, down, gamma, memory_rate(omega_up), alpha_dwn, smart=convention == "mcm_repo")


def without_downlink_memory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
) -> artemis.Hparams:
    """gamma, alpha_up and smart as MCM."""
    hp = theory(problem, compressor, downlink, convention)
    return artemis.Hparams(hp.compressor, hp.downlink, hp.gamma, hp.alpha_up, smart=hp.smart)


def group_theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    rates: str = "authors",
    groups: int = 2,
) -> GroupHparams:
    """As MCM, for that many groups."""
    return GroupHparams(**vars(theory(problem, compressor, downlink, convention, rates)), groups=groups)


register(
    "mcm",
    title="MCM",
    up="C(g_i - h_i)",
    down="C(x - H)",
    speed="1-γμ per step to noise ∝ (1 + ω_up)/n (recalled)",
    paper=PAPER,
    Hparams=Hparams,
    **compose(memory(), preserved(lambda hp, n: 1)),
    theory=theory,
)

register(
    "rand_mcm",
    title="Rand-MCM",
    up="C(g_i - h_i)",
    down="C_i(x - H_i)",
    paper=PAPER,
    Hparams=Hparams,
    **compose(memory(), preserved(lambda hp, n: n)),
    theory=theory,
)

register(
    "rand_mcm_g",
    title="Rand-MCM-G",
    up="C(g_i - h_i)",
    down="C_j(x - H_j), j the group",
    paper=PAPER,
    Hparams=GroupHparams,
    **compose(memory(), preserved(lambda hp, n: hp.groups)),
    theory=group_theory,
)
