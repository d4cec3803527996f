"""CHOCO-SGD: nodes gossip compressed differences to public copies of their models.

    new   Y = X - gamma G(X) ;  q = C(Y - Xh) ;  Xh += q ;  X = Y + cg (W - I) Xh
    old   Y = X - gamma G(X) ;  X = Y + cg (W - I) Xh ;  q = C(X - Xh) ;  Xh += q

Koloskova, Stich, Jaggi, "Decentralized Stochastic Optimization and Gossip Algorithms with Compressed Communication",
arXiv 1902.00340. The order "new" is that of PowerGossip's code and of the paper's box as recalled, "old" that of the
authors' code of convex experiments, where Xh starts at x0 (both from the authors' code).

The copies Xh tend to the models, so the message vanishes and the mean moves as if nothing were compressed: the floor
with full gradients is that of `dgd` with order atc and W replaced by (1 - cg) I + cg W, whatever C.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, choose, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, chosen, consensus_step, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

ORDERS = ("new", "old")


@pytree.dataclass
class Hparams(Gossip):
    compressor: Compressor = hyperparameter("compressor of the messages, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    cg: Scalar = hyperparameter("consensus step size: how far a node moves to its neighbours' copies", "(0, inf)")
    order: str = hyperparameter("whether the copies move before the models (new) or after them", ORDERS, default="new")
    start: str = hyperparameter(
        "copies at the start: zero, or x0, which is free where all nodes start there", ("zero", "x0"), default="zero"
    )


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    xh: ClientVecs  # (n, d) their copies, which the neighbours have too


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = start(problem)
    return State(x, x if hp.start == "x0" else zeros(problem))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, message_key = jax.random.split(key)
    links, (x, xh) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, batch_key)
    x = x - hp.gamma * G
    if hp.order == "old":
        x = x + hp.cg * links.pull(xh)
    q = hp.compressor.joint(message_key, x - xh)
    xh = xh + q.value
    if hp.order == "new":
        x = x + hp.cg * links.pull(xh)
    return State(x, xh), links.cost(q.bits, passes)


def theory(
    problem: Problem,
    topology: Topology | str = "ring",
    compressor: Compressor | str | None = None,
    order: str = "new",
) -> Hparams:
    """gamma = 1/L, L = max_i L_i, and cg of the paper's theorem on gossip alone (recalled, checked), which is 40 to
    4000 times below the largest stable one: try cg from delta to 1."""
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    kept, graph = chosen(topology, problem)
    C = choose(compressor, problem, contractive=True)
    L, cg = float(jnp.max(problem.smooth)), consensus_step(graph, float(C.delta(problem.dim)))
    return Hparams(C, 1 / L, cg, order=order, start="x0" if order == "old" else "zero", topology=kept)


register(
    "choco_sgd",
    title="CHOCO-SGD",
    up="C(x_i - x̂_i) to neighbours",
    down="mixed x̂",
    speed="1/(nT) + 1/(T²δ²ρ⁴) on average iterates (recalled)",
    paper="1902.00340 Decentralized Stochastic Optimization and Gossip Algorithms with Compressed Communication",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
