"""NIDS: exact decentralised gradient descent, whose step size does not depend on the graph; D2 with batches.

    X_1 = X_0 - gamma G_0 ;   X_{k+2} = (I + W)/2 (2 X_{k+1} - X_k - gamma (G_{k+1} - G_k))

Li, Shi, Yan, "A Decentralized Proximal-Gradient Method with Network Independent Step-Sizes and Separated Convergence
Rates", arXiv 1704.07807 (from the authors' code, with c = 1/(2 gamma)); D2: Tang et al., arXiv 1803.07068.

The difference of gradients takes the bias out of decentralised gradient descent: the fixed point is the solution.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, chosen, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Gossip):
    gamma: Scalar = hyperparameter("step size, below 2/L for every graph", "(0, inf)")


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    x_old: ClientVecs  # (n, d) one step before
    g_old: ClientVecs  # (n, d) gradients there
    k: jax.Array  # () steps so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = start(problem)
    return State(x, x, zeros(problem), jnp.zeros((), jnp.int32))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    links, (x, x_old, g_old, k) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, key)
    message = 2 * x - x_old - hp.gamma * (G - g_old)
    mixed = message + links.pull(message) / 2
    x_new = jnp.where(k == 0, x - hp.gamma * G, mixed)
    return State(x_new, x, G, k + 1), links.cost(FLOAT_BITS * problem.dim, passes, talks=k > 0)


def theory(problem: Problem, topology: Topology | str = "ring") -> Hparams:
    """gamma = 1/L, half of the largest step size for which it is stable, L = max_i L_i."""
    kept, _ = chosen(topology, problem)
    return Hparams(gamma=1 / float(jnp.max(problem.smooth)), topology=kept)


register(
    "nids",
    title="NIDS",
    up="2x_i - x_i⁻ - γ(g_i - g_i⁻) to neighbours",
    down="mixed by W",
    speed="max(κ, κ_g) log 1/ε rounds",
    paper="1704.07807 A Decentralized Proximal-Gradient Method with Network Independent Step-Sizes and Separated "
    "Convergence Rates",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
