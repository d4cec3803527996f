"""Methods without a server: every node keeps its model and exchanges vectors with its neighbours on a graph.

A method's step takes the links of its round, mixes over them and says what was sent:

    links = hp.links(problem, key)
    x = links.mix(state.x - hp.gamma * g)
    return State(x), links.cost(FLOAT_BITS * problem.dim, passes)

bits_up are the bits that a node sends, bits_down those that it receives, both as means over nodes. A message goes to
all neighbours alike: it costs its bits once for each of them (count="per_edge"), or once where all hear it
("per_node"). One exchange is one round.

The model of a run is the average xbar, which nobody in the network holds: so runs record `consensus`, mean_i |x_i -
xbar|^2, too, and on demand `worst`, the largest gap of a node.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms.frames.base import Batches, Cost, tile
from fedjax_lc.algorithms.frames.mixing import MATCHING, ONE_PEER, Topology
from fedjax_lc.algorithms.frames.topology import topology
from fedjax_lc.core import products, pytree
from fedjax_lc.core.devices import shared
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem
from fedjax_lc.problems.draws import some_of


class Links(NamedTuple):
    """The links of one round.

    graph: whose links they are. pays: per_edge or per_node. on: (links,) which of `graph.links` are there, None for
    all. active: (n,) the nodes that take part, None for all.
    """

    graph: Topology
    pays: str
    on: jax.Array | None = None
    active: jax.Array | None = None

    def mix(self, X: ClientVecs) -> ClientVecs:
        """W X, (n, d), with the W of this round."""
        if self.on is None:
            return self.graph.mix(X)
        hears, heard, edge = self.graph.links
        weights = jnp.where(self.on, jnp.asarray(self.graph.weights[edge], X.dtype), 0)
        if not self.graph.dense:
            return X.at[hears].add(weights[:, None] * (X[heard] - X[hears]), indices_are_sorted=True)
        W = jnp.eye(self.graph.n, dtype=X.dtype).at[hears, heard].add(weights).at[hears, hears].add(-weights)
        return products.matmul(W, X)

    def pull(self, X: ClientVecs) -> ClientVecs:
        """(W - I) X: the sum over neighbours j of w_ij (x_j - x_i)."""
        return self.mix(X) - X

    def moved(self, new: ClientVecs, old: ClientVecs) -> ClientVecs:
        """`new` of the nodes that take part, `old` of the others."""
        return new if self.active is None else jnp.where(self.active[:, None], new, old)

    @property
    def hearers(self) -> jax.Array:
        """(n,) float32: how many hear each node in this round."""
        if self.on is None:
            return jnp.asarray(self.graph.degrees, jnp.float32)
        return jnp.zeros(self.graph.n, jnp.float32).at[self.graph.links[1]].add(self.on.astype(jnp.float32))

    def cost(self, bits: Scalar, grads: Scalar, rounds: Scalar = 1, talks: Scalar = True) -> Cost:
        """The cost of a step in which every node sends messages of `bits`, () or (n,), to all that hear it.

        Args:
            grads: gradients of a node that takes part, () or (n,).
            rounds: exchanges.
            talks: () whether there are any in this step.
        """
        each = jnp.broadcast_to(jnp.asarray(bits, jnp.float32), (self.graph.n,))
        received = each * self.hearers
        sent = received if self.pays == "per_edge" else jnp.where(self.hearers > 0, each, 0)
        grads = grads if self.active is None else jnp.where(self.active, grads, 0)
        once = lambda number: jnp.where(talks, number, 0)
        return Cost.of(once(sent), once(received), grads, once(rounds))


@pytree.dataclass
class Gossip(Batches):
    """Hyperparameters of all these methods."""

    _: dataclasses.KW_ONLY
    topology: Topology | str = hyperparameter(
        "who talks to whom, as in star or erdos_renyi:0.3,weights=laplacian (fedjax-lc list topologies)",
        default="ring",
        static=True,
    )
    count: str = hyperparameter(
        "what a node pays for: a message to each of its neighbours, or one that all of them hear",
        ("per_edge", "per_node"),
        default="per_edge",
    )
    participation: Scalar | None = hyperparameter(
        "probability that a node takes part in a round, given that somebody does; others keep their vectors and drop "
        "their links; all if None; only of methods without memories of neighbours",
        "(0, 1]",
        default=None,
    )

    in_theory: ClassVar[tuple[str, ...]] = ("topology", "count")  #: fields of this frame that a theorem may be of
    needs: ClassVar[str] = "keeps vectors that stand for one W"  #: why the graph must stay; empty where it may change

    def graph(self, problem: Problem) -> Topology:
        """The topology over the problem's clients."""
        if not isinstance(self.topology, str | Topology):
            raise InputError(f"topology must be a text such as ring, or made by fl.topology, got {self.topology!r:.60}")
        return topology(self.topology, problem.n)

    def validate(self, problem: Problem) -> None:
        """Raise InputError for a topology that cannot be, or that changes where the method cannot follow."""
        graph = self.graph(problem)
        if self.needs and graph.change:
            raise InputError(f"topology {graph} changes from round to round, and this method {self.needs}: take a "
                             "graph that stays, or dgd or diging")  # fmt: skip
        if self.needs and self.participation is not None:
            raise InputError(f"participation changes the graph from round to round, and this method {self.needs}: "
                             "leave it out, or take dgd or diging")  # fmt: skip
        if graph.directed and self.participation is not None:
            raise InputError(f"participation leaves no mean in place on {graph}, where who is heard need not hear: "
                             "take one_peer_hypercube")  # fmt: skip

    def links(self, problem: Problem, t: Scalar = 0, key: Key | None = None) -> Links:
        """The links of round t = 0, 1, ...; drawn by `key` where the graph changes or nodes stay away."""
        graph, active = self.graph(problem), None
        if not graph.change and self.participation is None:
            return Links(graph, self.count)
        self.validate(problem)
        graph_key, node_key = jax.random.split(jax.random.key(0) if key is None else key)
        on = drawn(graph, t, graph_key)
        if self.participation is not None:
            active = some_of(node_key, self.participation, graph.n)
            hears, heard, _ = graph.links
            on = on & active[hears] & active[heard]
        return Links(graph, self.count, on, active)


def drawn(graph: Topology, t: Scalar, key: Key) -> jax.Array:
    """(links,) which links of a graph are there in round t."""
    _, _, edge = graph.links
    if graph.change == ONE_PEER:
        turns = max(1, graph.n.bit_length() - 1)
        return jnp.asarray(graph.turns) == jnp.asarray(t, jnp.int32) % turns
    if not graph.change:
        return jnp.ones(len(edge), bool)
    u = shared(jax.random.uniform(key, (len(graph.edges),), jnp.float32))
    if graph.change != MATCHING:
        return (u < graph.share)[edge]
    order = jnp.argsort(jnp.argsort(u))  # without ties
    i, j = graph.edges.T
    first = jnp.full(graph.n, len(graph.edges), order.dtype).at[i].min(order).at[j].min(order)
    return ((order == first[i]) & (order == first[j]))[edge]


@pytree.dataclass
class Changing(Gossip):
    """The same of methods without memories of their neighbours, whose graph may change."""

    _: dataclasses.KW_ONLY
    needs: ClassVar[str] = ""


@pytree.dataclass
class LocalStart(Gossip):
    """The same of methods that may start by a gradient step without a message."""

    _: dataclasses.KW_ONLY
    in_theory: ClassVar[tuple[str, ...]] = (*Gossip.in_theory, "init")
    init: str = hyperparameter(
        "how it starts: by a gradient step without a message (local), or at x0 (none)",
        ("local", "none"),
        default="local",
    )

    @property
    def first(self) -> jax.Array:
        """() int32 the number k of the first step; k = 0 is the one without a message."""
        return jnp.asarray(self.init == "none", jnp.int32)


def local_at_first(k: jax.Array, local: PyTree, usual: PyTree) -> PyTree:
    """The state after step k: `local` after the one without a message, k = 0, and `usual` after all others."""
    return jax.tree.map(lambda alone, new: jnp.where(k == 0, alone, new), local, usual)


def chosen(graph: Any, problem: Problem) -> tuple[Topology | str, Topology]:
    """A topology as hyperparameters keep it, a text as it is, and what it stands for."""
    made = topology(graph, problem.n)
    return (graph if isinstance(graph, str) else made), made


def start(problem: Problem) -> ClientVecs:
    """(n, d): all nodes at x0."""
    return tile(problem.x0, problem.n)


def zeros(problem: Problem) -> ClientVecs:
    return jnp.zeros((problem.n, problem.dim), problem.dtype)


def centred(D: ClientVecs) -> ClientVecs:
    """Duals (n, d) without their mean, which is zero but for rounding errors: these would add up from step to step, and
    move the fixed point by 1e-11 in 10^4 steps of float64."""
    return D - jnp.mean(D, axis=0, keepdims=True)


def models(problem: Problem, hp: Any, state: PyTree) -> ClientVecs:
    """(n, d) the nodes' models."""
    return state.x


def average(problem: Problem, hp: Any, state: PyTree) -> Vec:
    """xbar = mean_i x_i."""
    return jnp.mean(state.x, axis=0)


#: what `register` gets of every method whose state has the nodes' models as x (n, d)
MODELS: dict[str, Any] = {"point": average, "models": models}


def dual_norm(graph: Topology, V: ClientVecs) -> Scalar:
    """<V, (I - W)^+ V> of V (n, d), by a matrix."""
    inverse = np.linalg.pinv(np.eye(graph.n) - graph.W, hermitian=True)
    return jnp.sum(V * products.matmul(jnp.asarray(inverse, V.dtype), V))


def consensus_step(graph: Topology, delta: float) -> float:
    """CHOCO's cg* = rho^2 delta / (16 rho + rho^2 + 4 beta^2 + 2 rho beta^2 - 8 rho delta), by which gossip alone
    shrinks sum_i |x_i - xbar|^2 + |x_i - xh_i|^2 by 1 - rho^2 delta/82 a round (recalled, checked)."""
    rho, beta = graph.gap, graph.beta
    return rho**2 * delta / (16 * rho + rho**2 + 4 * beta**2 + 2 * rho * beta**2 - 8 * rho * delta)
