"""BEER: gradient tracking of which both vectors, models and tracked gradients, are gossiped as compressed differences.

    X += cg (W - I) H - eta V ;    H += C(X - H)
    V += cg (W - I) Gh + G(X) - G_old ;   Gh += C(V - Gh)          V_0 = G_0,  H_0 = Gh_0 = 0

Zhao, Li, Li, Richtarik, Chi, "BEER: Fast O(1/T) Rate for Decentralized Nonconvex Optimization with Communication
Compression", arXiv 2201.13320 (from the authors' code).

V has the mean of the gradients at every step, so that clients may differ: the fixed point is the solution. Both
messages go out in one exchange.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, choose, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, chosen, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.algorithms.frames.rules import largest_step
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Gossip):
    compressor: Compressor = hyperparameter("compressor of both messages, contractive")
    eta: Scalar = hyperparameter("step size", "(0, inf)")
    cg: Scalar = hyperparameter("consensus step size: how far a node moves to its neighbours' copies", "(0, inf)")
    start: str = hyperparameter(
        "copies of the models at the start: zero, or x0, which is free where all nodes start there",
        ("zero", "x0"),
        default="zero",
    )


class State(NamedTuple):
    """A step begins with V: v, gh and g are of the model before x, all zero at the start, where V has no message."""

    x: ClientVecs  # (n, d) the nodes' models
    h: ClientVecs  # (n, d) their copies, which the neighbours have too
    v: ClientVecs  # (n, d) what they know of the mean gradient; its mean is that of g
    gh: ClientVecs  # (n, d) copies of v
    g: ClientVecs  # (n, d) gradients at x
    k: jax.Array  # () steps so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x, nothing = start(problem), zeros(problem)
    return State(x, x if hp.start == "x0" else nothing, nothing, nothing, nothing, jnp.zeros((), jnp.int32))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, tracked_key, model_key = jax.random.split(key, 3)
    links, (x, h, v, gh, g, k) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, batch_key)
    v = v + hp.cg * links.pull(gh) + G - g
    tracked = hp.compressor.joint(tracked_key, v - gh)
    gh = jnp.where(k == 0, gh, gh + tracked.value)
    x = x + hp.cg * links.pull(h) - hp.eta * v
    q = hp.compressor.joint(model_key, x - h)
    bits = q.bits + jnp.where(k == 0, 0, tracked.bits)
    return State(x, h + q.value, v, gh, G, k + 1), links.cost(bits, passes)


def theory(problem: Problem, topology: Topology | str = "ring", compressor: Compressor | str | None = None) -> Hparams:
    """cg = delta/2, eta = min{1/10, 10 cg lmin}/L, L = max_i L_i, lmin the smallest eigenvalue of I - W but 0 (measured
    by us: 5 to 100 times below the limit on graphs of 4 to 16 nodes; the paper's constants are far smaller). Of a
    network eta is 1/L."""
    kept, graph = chosen(topology, problem)
    C = choose(compressor, problem, contractive=True)
    cg = float(C.delta(problem.dim)) / 2
    eta = largest_step(problem, min(0.1, 10 * cg * graph.lmin) / float(jnp.max(problem.smooth)))
    return Hparams(C, eta, cg, topology=kept)


register(
    "beer",
    title="BEER",
    up="C(x_i - h_i), C(v_i - ĝ_i) to neighbours",
    down="mixed by W",
    speed="1/T to |∇F|², linear under PL (recalled)",
    paper="2201.13320 BEER: Fast O(1/T) Rate for Decentralized Nonconvex Optimization with Communication Compression",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
