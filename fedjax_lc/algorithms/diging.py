"""DIGing: gradient tracking; every node learns the mean gradient by mixing, and moves along what it knows of it.

    X+ = W X - gamma Y ;      Y+ = W Y + G(X+) - G(X)            Y_0 = G(X_0)
    X+ = W (X - gamma Y) ;    Y+ = W (Y + G(X+) - G(X))          form="atc"

Nedic, Olshevsky, Shi, "Achieving Geometric Convergence for Distributed Optimization over Time-Varying Graphs", arXiv
1607.03218 (both forms from the authors' code of NIDS, arXiv 1704.07807).

Y has the mean of the gradients at every step, so that the fixed point is the solution. Two vectors are sent: in one
exchange, and with "atc" in two, as Y waits for the new X. Over a graph that changes, both vectors of an exchange mix by
the W of its round, Y_t by W_t, where the paper has the W of the round before.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Changing, chosen, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

FORMS = ("paper", "atc")


@pytree.dataclass
class Hparams(Changing):
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    form: str = hyperparameter("whether the mixing comes after the steps (atc)", FORMS, default="paper")


class State(NamedTuple):
    """The step begins with Y: y and g are of the model before x, both zero at the start."""

    x: ClientVecs  # (n, d) the nodes' models
    y: ClientVecs  # (n, d) what they know of the mean gradient; its mean is that of g
    g: ClientVecs  # (n, d) their gradients
    t: jax.Array  # () rounds so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    nothing = zeros(problem)
    return State(start(problem), nothing, nothing, jnp.zeros((), jnp.int32))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, link_key = jax.random.split(key)
    links, (x, y, g, t) = hp.links(problem, state.t, link_key), state
    G, passes = gradients(problem, hp, x, batch_key)
    G = links.moved(G, g)
    if hp.form == "atc":
        y = jnp.where(t == 0, G, links.mix(y + G - g))
        x = links.mix(x - links.moved(hp.gamma * y, jnp.zeros_like(y)))
    else:
        y = links.mix(y) + G - g
        x = links.mix(x) - links.moved(hp.gamma * y, jnp.zeros_like(y))
    exchanges = 2 if hp.form == "atc" else 1
    return State(x, y, G, t + 1), links.cost(2 * FLOAT_BITS * problem.dim, passes, exchanges)


def theory(problem: Problem, topology: Topology | str = "ring", form: str = "paper") -> Hparams:
    """Half of the largest step size for which it is stable where all f_i are one quadratic (derived by us; measured to
    be near it where they differ): gamma = (1 + lam_n)^2/(4 L), and for atc 1/L, or (1 + lam_n)^2/(4 lam_n^2 L) if that
    is less and lam_n < 0; L = max_i L_i, lam_n the smallest eigenvalue of W. The papers' constants are far smaller."""
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    kept, graph = chosen(topology, problem)
    L, last = float(jnp.max(problem.smooth)), 1 - graph.beta
    most = (1 + last) ** 2 / 4
    if form == "atc":
        most = min(1.0, most / last**2) if last < 0 else 1.0
    return Hparams(gamma=most / L, form=form, topology=kept)


register(
    "diging",
    title="DIGing",
    up="x_i and y_i to neighbours",
    down="mixed by W",
    speed="linear for γ ≤ (1 + λ_n)²/(4L) (ours)",
    paper="1607.03218 Achieving Geometric Convergence for Distributed Optimization over Time-Varying Graphs",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
