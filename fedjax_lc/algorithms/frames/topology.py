"""Who talks to whom without a server: a graph of n nodes, and the matrix W by which they mix their vectors.

`topology("ring", n)` makes one from its text; the same text is a hyperparameter of every method that gossips. W (n, n)
is symmetric, its rows sum to 1, and it is never built where a graph is large and sparse. All its numbers are known on
the host: W is a constant of the compiled program.

    weights=metropolis   w_ij = 1/(1 + max(deg_i, deg_j)), the default         lazy=true   (I + W)/2 in place of W
    weights=uniform      w_ij = 1/(1 + deg), of regular graphs
    weights=max_degree   w_ij = 1/(1 + max deg)
    weights=laplacian    w_ij = 2/(lmax + l2) of the graph's Laplacian, the best constant; w_ii may be negative

`described` says what every name stands for. Graphs that change from round to round are for methods without memories of
their neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from fedjax_lc.algorithms.frames import graphs
from fedjax_lc.algorithms.frames.mixing import MATCHING, ONE_PEER, SUBGRAPH, Topology
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError, unknown

WEIGHTS = ("metropolis", "uniform", "max_degree", "laplacian")
NEAR = 1e-12  #: to which W is symmetric and its rows sum to 1


def described() -> dict[str, str]:
    """What each topology is, by its name with its arguments; those that change from round to round at the end."""
    return dict(_WORDS)


def topology(
    graph: Any, n: int | None = None, *, weights: str | None = None, lazy: bool | None = None, key: Any = None
) -> Topology:
    """The topology that a text, an edge list or a matrix stands for; a Topology passes through.

    Args:
        graph: a text such as "ring" or "erdos_renyi:0.3,seed=1,weights=laplacian"; edges (E, 2), whole numbers from 0;
            or W (n, n), real numbers.
        n: number of nodes; it may be left out where edges or W have it.
        weights: of the edges: metropolis (if None), uniform, max_degree, laplacian. As in the text.
        lazy: whether (I + W)/2 takes the place of W, so that no eigenvalue is negative. As in the text.
        key: of a random graph: a whole number, the seed of the text, or a JAX key.

    Raises:
        InputError: an unknown name or option, weights that do not fit the graph, a graph that is not connected, W that
            is not symmetric or whose rows do not sum to 1, or with an eigenvalue other than the first at 1, or at -1.

    Example:
        >>> topology("torus", 12).n, topology([(0, 1), (1, 2)]).W.shape, topology(np.full((2, 2), 0.5)).gap
        (12, (3, 3), 1.0)
    """
    if n is not None and (not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1):
        raise InputError(f"a topology needs a whole number of nodes >= 1, got {n!r}")
    if isinstance(graph, Topology):
        if n not in (None, graph.n) or weights is not None or lazy is not None or key is not None:
            raise InputError(f"topology {graph} of {graph.n} nodes is made already: it cannot have {n} nodes or other "
                             "weights")  # fmt: skip
        return graph
    if weights not in (None, *WEIGHTS):
        raise unknown("weights", weights, WEIGHTS)
    if isinstance(graph, str):
        if n is None:
            raise InputError(f"topology {graph!r} needs its number of nodes, as in topology({graph!r}, 16)")
        return _spelled(graph, int(n), weights, lazy, None if key is None else _seed(key))
    if key is not None:
        raise InputError("edges and matrices draw nothing: leave out key")
    array = np.asarray(graph) if isinstance(graph, list | tuple | np.ndarray | jax.Array) else np.zeros(0, object)
    if np.issubdtype(array.dtype, np.integer) and array.ndim == 2 and array.shape[1] == 2:
        return _of_edges(array, n, weights or "metropolis", bool(lazy))
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not np.issubdtype(array.dtype, np.number):
        form = "a name such as ring or erdos_renyi:0.3, edges (E, 2) of whole numbers, or W (n, n)"
        raise InputError(f"a topology is {form}; got {array.shape if array.dtype != object else graph!r}")
    if weights is not None:
        raise InputError("a matrix W has its weights: leave out weights")
    return _of_matrix(array.astype(np.float64), n, bool(lazy))


def _seed(key: Any) -> int:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    if not (isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError(f"the key of a topology is a whole number or a JAX key, got {key!r}")
    return int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes(), "little") % 2**63


_COMMON = {
    "weights": spec.Field(
        (str,), fits=lambda word: word in WEIGHTS, words=f"{', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}"
    ),
    "lazy": spec.Field((bool,)),
}
_SHARE = {"p": spec.Field((float,), True, lambda p: 0 < p <= 1, "a probability in (0, 1]")}
_CHANGING: dict[str, tuple[tuple[str, ...], dict[str, spec.Field]]] = {
    "matching": (("graph",), {}),
    "subgraph": (("graph",), _SHARE),
    "one_peer_hypercube": ((), {}),
    "one_peer_exponential": ((), {}),
}


_WORDS = {
    "ring": "i and i + 1, modulo n",
    "path": "i and i + 1",
    "star": "0 and all others",
    "torus": "a x b, four neighbours; a is the largest divisor of n up to its root",
    "complete": "all pairs: W takes the mean",
    "exponential": "i and i +- 2^j, modulo n, for 2^j < n",
    "hypercube": "numbers that differ in one bit; n is a power of 2",
    "erdos_renyi:P,seed=S": "each pair with probability P, drawn until connected",
    "regular:K,seed=S": "each node has K neighbours, drawn until connected",
    "matching(ring)": "changes: edges that draw a smaller number than all beside them; two nodes average",
    "subgraph(ring):P": "changes: each edge of the graph with probability P",
    "one_peer_hypercube": "changes: in round t, i averages with i xor 2^j, j = t mod log2 n",
    "one_peer_exponential": "changes: in round t, i averages with i + 2^j, which need not hear it",
}


@functools.lru_cache(maxsize=256)
def _spelled(text: str, n: int, weights: str | None, lazy: bool | None, seed: int | None) -> Topology:
    call = spec.parse("topology", text)
    if call.name in _CHANGING:
        if not (weights is None and lazy is None and seed is None):
            raise InputError(f"topology {text!r} takes its options in its text, as in subgraph(ring:lazy=true):0.5")
        return _changing(call, n)
    fields = call.look_up({name: fields for name, (_, fields) in (graphs.FAMILIES | _CHANGING).items()})
    given = call.read(fields | _COMMON)
    for name, value in (("weights", weights), ("lazy", lazy), ("seed", seed)):
        if value is None:
            continue
        if name in given and given[name] != value:
            raise InputError(f"topology {text!r} gives {name}, and so does {name}={value}: keep one of them")
        if name == "seed" and "seed" not in fields:
            raise InputError(f"topology {call.name} draws nothing: leave out key")
        if name == "seed" and not fields["seed"].fits(value):
            raise fields["seed"].refused(f"topology {text!r}: key", value)
        given[name] = value
    arguments = tuple((given | {"seed": given.get("seed", 0)})[name] for name in fields)
    weights, lazy = given.get("weights", WEIGHTS[0]), given.get("lazy", False)
    shown = {name: given[name] for name in (*fields, *_COMMON) if given.get(name) not in (None, False, WEIGHTS[0])}
    first = next((name for name in fields if name != "seed"), "")
    words = tuple(("" if name == first else name, spec.spell(value)) for name, value in shown.items())
    return _weighted(str(spec.Call(call.name, (), words)), n, graphs.make(call.name, n, arguments), weights, lazy)


def _changing(call: spec.Call, n: int) -> Topology:
    inner, fields = _CHANGING[call.name]
    given = call.read(fields, inner)
    if inner:
        base = topology(given["graph"], n)
        if base.change:
            raise InputError(f"topology {call.text!r}: {base} changes already: take a graph that stays")
        spelled = spec.Call(call.name, (str(base),), tuple(("", spec.spell(given[name])) for name in fields))
        if call.name == SUBGRAPH:
            return dataclasses.replace(base, text=str(spelled), change=SUBGRAPH, share=given["p"], known=None)
        halves = np.full(len(base.edges), 0.5)
        return dataclasses.replace(base, text=str(spelled), weights=halves, change=MATCHING, known=None)
    kind = call.name.removeprefix("one_peer_")
    graphs.power_of_two(call.name, n)
    edges = graphs.make(kind, n).edges
    return Topology(call.name, n, edges, np.full(len(edges), 0.5), ONE_PEER, directed=kind == "exponential")


def _weighted(text: str, n: int, graph: graphs.Graph, weights: str, lazy: bool) -> Topology:
    """The topology of a connected graph with weights by name."""
    edges, lap = graph
    degrees = graphs.degrees(n, edges)
    if weights == "uniform" and np.ptp(degrees):
        raise InputError(f"topology {text}: uniform weights are for regular graphs, and here degrees are "
                         f"{degrees.min()} to {degrees.max()}: take metropolis or max_degree")  # fmt: skip
    if weights == "laplacian" and n > 1:
        ends = graphs.ends(graphs.matrix(n, edges, np.ones(len(edges)))) if lap is None else (1 - lap[1], 1 - lap[-1])
        each = np.full(len(edges), 2 / (2 - sum(ends)))
    elif weights == "max_degree":
        each = np.full(len(edges), 1 / (1 + degrees.max(initial=0)))
    else:
        each = 1 / (1 + np.max(degrees[edges], axis=1)) if len(edges) else np.zeros(0)
    each = each / 2 if lazy else each
    known = None
    if n == 1:
        known = (0.0, 0.0)
    elif lap is not None and not np.ptp(each):
        known = (float(1 - each[0] * lap[1]), float(1 - each[0] * lap[-1]))
    return Topology(text, n, edges, each, known=known)


def _of_edges(array: np.ndarray, n: int | None, weights: str, lazy: bool) -> Topology:
    n = int(array.max(initial=0)) + 1 if n is None else int(n)
    if array.min(initial=0) < 0 or array.max(initial=0) >= n:
        raise InputError(f"edges are pairs of nodes 0..{n - 1}, got {array.min()}..{array.max()}")
    if len(loops := array[array[:, 0] == array[:, 1]]):
        raise InputError(f"edges have a loop at node {loops[0, 0]}: leave it out, w_ii follows from the others")
    edges = graphs.canonical(array)
    if not graphs.is_connected(n, edges):
        raise InputError(f"the edges leave the graph of {n} nodes disconnected: every node must be reached")
    return _named(_weighted("edges", n, graphs.Graph(edges), weights, lazy))


def _of_matrix(W: np.ndarray, n: int | None, lazy: bool) -> Topology:
    if n not in (None, len(W)):
        raise InputError(f"W is of {len(W)} nodes, and {n} are asked for")
    if not np.all(np.isfinite(W)):
        raise InputError("W has entries that are not finite")
    if (worst := np.abs(W - W.T).max()) > NEAR:
        raise InputError(f"W is not symmetric, by up to {worst:.1e}: pass (W + W.T) / 2 if that is meant")
    if (worst := np.abs(W.sum(axis=1) - 1).max()) > NEAR:
        raise InputError(f"the rows of W do not sum to 1, by up to {worst:.1e}")
    W = (np.eye(len(W)) + W) / 2 if lazy else W
    edges = np.argwhere(np.triu(W, 1) != 0)
    if not graphs.is_connected(len(W), edges):
        raise InputError(
            f"W leaves the graph of {len(W)} nodes disconnected: its entries off the diagonal must link all"
        )
    made = Topology("W", len(W), edges, W[tuple(edges.T)], known=(0.0, 0.0) if len(W) == 1 else None)
    second, last = made._ends
    if max(second, -last) >= 1 - NEAR:
        far = last if -last >= second else second
        raise InputError(f"W has the eigenvalue {far:.3g} besides 1, and |eigenvalue| < 1 is needed to reach the mean: "
                         "take lazy=True, or smaller weights")  # fmt: skip
    return _named(made)


def _named(made: Topology) -> Topology:
    """A text of its own for a topology of the user's, which says what it is and tells it from others."""
    return dataclasses.replace(made, text=f"{made.text} of {made.n} nodes {made._print.hex()[:8]}")
