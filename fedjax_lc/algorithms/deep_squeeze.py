"""DeepSqueeze: nodes gossip compressed models, and add what a message left out to the next one.

    Y = X - gamma G(X) ;   v = Y + e ;   c = C(v) ;   e = v - c ;   X = Y + cg (W - I) c

Tang, Lian, Qiu, Yuan, Zhang, Zhang, Liu, "DeepSqueeze: Decentralization Meets Error-Compensated Compression", arXiv
1907.07346 (from PowerGossip's code).

The message is the model, not a difference, and never vanishes: the floor is higher than that of `choco_sgd`.
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
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Gossip):
    compressor: Compressor = hyperparameter("compressor of the messages, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    cg: Scalar = hyperparameter("consensus step size: how far a node moves to what its neighbours sent", "(0, inf)")


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    e: ClientVecs  # (n, d) errors


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(start(problem), zeros(problem))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, message_key = jax.random.split(key)
    links, (x, e) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, batch_key)
    y = x - hp.gamma * G
    v = y + e
    c = hp.compressor.joint(message_key, v)
    return State(y + hp.cg * links.pull(c.value), v - c.value), links.cost(c.bits, passes)


def theory(problem: Problem, topology: Topology | str = "ring", compressor: Compressor | str | None = None) -> Hparams:
    """gamma = 1/L, L = max_i L_i, and the cg of CHOCO-SGD's theorem, far below the largest stable one (a choice of
    ours: no constants of the paper are known here)."""
    kept, graph = chosen(topology, problem)
    C = choose(compressor, problem, contractive=True)
    L, cg = float(jnp.max(problem.smooth)), consensus_step(graph, float(C.delta(problem.dim)))
    return Hparams(C, 1 / L, cg, topology=kept)


register(
    "deep_squeeze",
    title="DeepSqueeze",
    up="C(x_i + e_i) to neighbours",
    down="mixed by W",
    paper="1907.07346 DeepSqueeze: Decentralization Meets Error-Compensated Compression",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
