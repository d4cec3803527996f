"""A graph of n nodes and the matrix W by which they mix their vectors; `topology` makes one from its text."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms.frames import graphs
from fedjax_lc.core import platforms, products
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs

#: nodes up to which W is a matrix, where nodes have few neighbours (UNROLLED_UP_TO) and where one has many; of more it
#: is one with a sixteenth of all edges. On a CPU, 100 nodes of 123 numbers mix over a ring in 3 us, by a matrix in 27
DENSE_UP_TO, DENSE_OF_MANY_UP_TO = 24, 256
MOST_OF_W = 5000  #: nodes up to which W is shown as a matrix
UNROLLED_UP_TO = 16  #: neighbours that are added up without a loop
MATCHING, SUBGRAPH, ONE_PEER = "matching", "subgraph", "one_peer"


@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """A graph of n nodes and its W. Two are equal where n, W and the change from round to round are.

    Attributes:
        text: its text, as on the command line.
        n: number of nodes.
        edges: (E, 2), i < j, in lexicographic order.
        weights: (E,) w_ij of the edges; w_ii is 1 minus those of node i.
        change: how the graph changes from round to round: matching, subgraph, one_peer, or empty where it does not.
        share: the probability of an edge of a subgraph.
        directed: whether of two neighbours one hears the other in a round, and need not be heard by it.
        known: the second largest and the smallest eigenvalue of W, where they have a closed form.

    Example:
        >>> ring = topology("ring", 16)
        >>> round(ring.gap, 5), round(ring.kappa_g, 3), int(ring.degrees[0])
        (0.05075, 26.274, 2)
    """

    text: str
    n: int
    edges: np.ndarray
    weights: np.ndarray
    change: str = ""
    share: float = 1.0
    directed: bool = False
    known: tuple[float, float] | None = None

    def __str__(self) -> str:
        return self.text

    @functools.cached_property
    def _print(self) -> bytes:
        words = f"{self.n} {self.change} {self.share} {self.directed}".encode()
        return hashlib.sha256(words + self.edges.tobytes() + self.weights.tobytes()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self._print == other._print

    def __hash__(self) -> int:
        return hash(self._print)

    # --- the graph ---

    @functools.cached_property
    def degrees(self) -> np.ndarray:
        """(n,) numbers of neighbours."""
        return graphs.degrees(self.n, self.edges)

    def stays(self, what: str) -> None:
        """Raise InputError where the graph changes from round to round, so that there is no one W."""
        if self.change:
            raise InputError(f"topology {self} changes from round to round and has no one {what}: take a graph that "
                             "stays, such as ring")  # fmt: skip

    @functools.cached_property
    def links(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(links,) each: who hears, whom, and the number of their edge; ordered by who hears. Two for each edge, unless
        the graph is directed."""
        (i, j), number = self.edges.T, np.arange(len(self.edges))
        up, down = (_is_power(j - i), _is_power(self.n - j + i)) if self.directed else (number >= 0, number >= 0)
        hears, heard = np.concatenate([i[up], j[down]]), np.concatenate([j[up], i[down]])
        order = np.lexsort((heard, hears))
        edge = np.concatenate([number[up], number[down]])
        return hears[order].astype(np.int32), heard[order].astype(np.int32), edge[order].astype(np.int32)

    @functools.cached_property
    def turns(self) -> np.ndarray:
        """(links,) j, of a graph by one_peer: the round, modulo log2 n, in which each link is there."""
        hears, heard, _ = self.links
        apart = (heard - hears) % self.n if self.directed else heard ^ hears
        return np.log2(apart).round().astype(np.int32)

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) each node's neighbours, filled up with itself, and their weights, filled up with 0."""
        hears, heard, edge = dataclasses.replace(self, directed=False).links
        most = int(self.degrees.max(initial=0))
        place = np.arange(len(hears)) - np.repeat(np.cumsum(self.degrees) - self.degrees, self.degrees)
        neighbours = np.repeat(np.arange(self.n, dtype=np.int32)[:, None], most, axis=1)
        weights = np.zeros((self.n, most))
        neighbours[hears, place], weights[hears, place] = heard, self.weights[edge]
        return neighbours, weights

    @property
    def neighbours(self) -> np.ndarray:
        """(n, largest degree) the neighbours of each node in order; where it has fewer, itself."""
        return self._table[0]

    @functools.cached_property
    def self_weights(self) -> np.ndarray:
        """(n,) w_ii."""
        return 1 - np.bincount(self.edges.ravel(), np.repeat(self.weights, 2), self.n)

    @property
    def W(self) -> np.ndarray:
        """(n, n)."""
        self.stays("W")
        if self.n > MOST_OF_W:
            raise InputError(f"W of {self.n} nodes is not shown as a matrix: use its mix(X), neighbours and weights")
        return np.asarray(graphs.matrix(self.n, self.edges, self.weights).toarray())

    # --- the spectrum ---

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        """The second largest and the smallest eigenvalue of W."""
        self.stays("spectrum")
        if self.known is not None:
            return self.known
        return graphs.ends(graphs.matrix(self.n, self.edges, self.weights))

    @property
    def gap(self) -> float:
        """rho = 1 - max(|lam_2|, |lam_n|), the spectral gap."""
        second, last = self._ends
        return 1 - max(abs(second), abs(last))

    @property
    def beta(self) -> float:
        """1 - lam_n = ||I - W||; of a graph that changes, the largest in any round, or more."""
        if self.change in (MATCHING, ONE_PEER):
            return 1.0
        return 1 - (dataclasses.replace(self, change="") if self.change else self)._ends[1]

    @property
    def lmin(self) -> float:
        """1 - lam_2, the smallest eigenvalue of I - W but 0; 1 for one node, which has no other."""
        return 1 - self._ends[0]

    @property
    def kappa_g(self) -> float:
        """beta/lmin, the condition number of I - W."""
        return self.beta / self.lmin

    # --- mixing ---

    @property
    def dense(self) -> bool:
        """Whether W is a matrix in a program."""
        if self.degrees.max(initial=0) <= UNROLLED_UP_TO:
            return self.n <= DENSE_UP_TO
        return self.n <= DENSE_OF_MANY_UP_TO or 32 * len(self.edges) > self.n**2

    def mix(self, X: ClientVecs) -> ClientVecs:
        """W X, (n, d), in the precision of X: one product, or a sum over neighbours without a matrix.

        Example:
            >>> topology("complete", 4).mix(jnp.eye(4))[0]
            Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
        """
        self.stays("W")
        if self.dense:
            return products.matmul(jnp.asarray(self.W, X.dtype), X)
        kept = jnp.asarray(self.self_weights, X.dtype)[:, None] * X
        if self.n * int(self.degrees.max(initial=0)) > 8 * len(self.edges):
            hears, heard, edge = self.links
            heard_rows = jnp.asarray(self.weights[edge], X.dtype)[:, None] * X[heard]
            return kept.at[hears].add(heard_rows, indices_are_sorted=True)
        neighbours, weights = self._table
        columns, shares = jnp.asarray(neighbours.T), jnp.asarray(weights.T, X.dtype)
        add = lambda k, total: total + shares[k][:, None] * X[columns[k]]
        if len(neighbours.T) > UNROLLED_UP_TO:
            return platforms.repeat(len(neighbours.T), add, kept)
        return functools.reduce(lambda total, k: add(k, total), range(len(neighbours.T)), kept)

    def pull(self, X: ClientVecs) -> ClientVecs:
        """(W - I) X: the sum over neighbours j of w_ij (x_j - x_i)."""
        return self.mix(X) - X


def _is_power(numbers: np.ndarray) -> np.ndarray:
    """Whether each, >= 1, is a power of two."""
    return (numbers & (numbers - 1)) == 0
