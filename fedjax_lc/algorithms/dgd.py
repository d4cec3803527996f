"""DGD: decentralised gradient descent, mixing and gradient steps in three orders; with batches D-PSGD.

    atc   X = W (X - gamma G(X))                 adapt, then combine
    dgd   X = W X - gamma G(X)                   both at once
    cta   Z = W X ;  X = Z - gamma G(Z)          combine, then adapt

Nedic and Ozdaglar, "Distributed Subgradient Methods for Multi-Agent Optimization", IEEE TAC 2009; D-PSGD: Lian et al.,
arXiv 1705.09056; the orders as in the code of PowerGossip, arXiv 2008.01425 (from the authors' code).

With a constant step size it stops at a distance from the solution, with full gradients too: nodes that disagree about
their gradients disagree about the model. The exponent 2 of that distance in gamma appears for gamma below 1/(64 L) only
(measured).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Changing, chosen, start
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

ORDERS = ("atc", "dgd", "cta")


@pytree.dataclass
class Hparams(Changing):
    gamma: Scalar = hyperparameter("step size, below 2/L for atc and cta, below (1 + lam_n)/L for dgd", "(0, inf)")
    order: str = hyperparameter(
        "gradient step before the mixing (atc), at the model before it (dgd), or after it (cta)", ORDERS, default="atc"
    )


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    t: jax.Array  # () rounds so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(start(problem), jnp.zeros((), jnp.int32))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, link_key = jax.random.split(key)
    links = hp.links(problem, state.t, link_key)
    at = links.mix(state.x) if hp.order == "cta" else state.x
    G, passes = gradients(problem, hp, at, batch_key)
    move = links.moved(-hp.gamma * G, jnp.zeros_like(G))
    x = {
        "atc": lambda: links.mix(state.x + move),
        "dgd": lambda: links.mix(state.x) + move,
        "cta": lambda: at + move,
    }[hp.order]()
    return State(x, state.t + 1), links.cost(FLOAT_BITS * problem.dim, passes)


def theory(problem: Problem, topology: Topology | str = "ring", order: str = "atc") -> Hparams:
    """Half of the largest step size for which it is stable: gamma = 1/L for atc and cta, (1 + lam_n)/(2 L) for dgd, L =
    max_i L_i, lam_n the smallest eigenvalue of W."""
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    L, (kept, graph) = float(jnp.max(problem.smooth)), chosen(topology, problem)
    most = 2 - graph.beta if order == "dgd" else 2.0
    return Hparams(gamma=most / (2 * L), order=order, topology=kept)


register(
    "dgd",
    title="DGD",
    up="x_i - γg_i to neighbours",
    down="mixed by W",
    speed="1-γμ per step to a floor that falls with γ",
    paper="1705.09056 Can Decentralized Algorithms Outperform Centralized Algorithms? (D-PSGD)",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
