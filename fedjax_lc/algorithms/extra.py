"""EXTRA: exact first-order decentralised optimisation, by the difference of two steps of DGD.

    X_1 = W X_0 - gamma G_0 ;   X_{k+2} = (I + W) X_{k+1} - (I + W)/2 X_k - gamma (G_{k+1} - G_k)

Shi, Ling, Wu, Yin, "EXTRA: An Exact First-Order Algorithm for Decentralized Consensus Optimization", arXiv 1404.6264
(from the authors' code of NIDS, arXiv 1704.07807).

The step is the same sequence, summed: X_{k+1} = W X_k - gamma G_k - U_k, U_{k+1} = U_k + (I - W)/2 X_k, U_0 = 0, whose
duals U tend to -gamma times the gradients at the solution and sum to zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, centred, chosen, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Gossip):
    gamma: Scalar = hyperparameter("step size, below (1 + lam_n)/L", "(0, inf)")


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    u: ClientVecs  # (n, d) duals, of sum zero over nodes


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(start(problem), zeros(problem))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    links, (x, u) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, key)
    mixed = links.mix(x)
    new = State(mixed - hp.gamma * G - u, centred(u + (x - mixed) / 2))
    return new, links.cost(FLOAT_BITS * problem.dim, passes)


def theory(problem: Problem, topology: Topology | str = "ring") -> Hparams:
    """gamma = (1 + lam_n)/(2 L), half of its bound, L = max_i L_i, lam_n the smallest eigenvalue of W."""
    kept, graph = chosen(topology, problem)
    return Hparams(gamma=(2 - graph.beta) / (2 * float(jnp.max(problem.smooth))), topology=kept)


register(
    "extra",
    title="EXTRA",
    up="x_i to neighbours",
    down="mixed by W",
    speed="linear for γ < (1 + λ_n)/L",
    paper="1404.6264 EXTRA: An Exact First-Order Algorithm for Decentralized Consensus Optimization",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
