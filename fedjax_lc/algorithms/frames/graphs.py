"""Graphs of n nodes by name: their edges, and the eigenvalues of their Laplacians where these have a closed form.

Edges (E, 2) have i < j and lexicographic order. Nothing here is of size n x n unless the graph has that many edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh

from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError

DENSE_SPECTRUM_UP_TO = 1500  #: nodes; eigenvalues of larger matrices are those at the ends only, by Lanczos' method
MOST_DRAWS = 200  #: draws of a random graph, until one is connected


class Graph(NamedTuple):
    """Edges (E, 2), and the eigenvalues (n,) of the Laplacian, smallest first; None where they have no closed form."""

    edges: np.ndarray
    laplacian: np.ndarray | None = None


def canonical(edges: np.ndarray) -> np.ndarray:
    """Each edge once, as i < j, in lexicographic order; without loops."""
    edges = np.sort(np.asarray(edges, np.int64).reshape(-1, 2), axis=1)
    return np.unique(edges[edges[:, 0] < edges[:, 1]], axis=0)


def is_connected(n: int, edges: np.ndarray) -> bool:
    """Whether there is a way between any two nodes."""
    ones = np.ones(len(edges), np.int8)
    return int(connected_components(coo_array((ones, edges.T), (n, n)), directed=False, return_labels=False)) == 1


def degrees(n: int, edges: np.ndarray) -> np.ndarray:
    """(n,) numbers of neighbours."""
    return np.bincount(edges.ravel(), minlength=n)


def matrix(n: int, edges: np.ndarray, weights: np.ndarray) -> csr_array:
    """(n, n), sparse: I minus the Laplacian with these weights (E,) of the edges."""
    i, j = edges.T
    total = np.bincount(edges.ravel(), np.repeat(weights, 2), n)
    rows, columns = np.concatenate([i, j, np.arange(n)]), np.concatenate([j, i, np.arange(n)])
    return coo_array((np.concatenate([weights, weights, 1 - total]), (rows, columns)), (n, n)).tocsr()


def ends(W: csr_array) -> tuple[float, float]:
    """The largest and the smallest eigenvalue of W (n, n) besides the 1 of the vector of ones."""
    n = W.shape[0]
    if n <= DENSE_SPECTRUM_UP_TO:
        values = np.linalg.eigvalsh(W.toarray())
        others = np.delete(values, np.argmin(np.abs(values - 1)))
        return float(others[-1]), float(others[0])
    without_mean = LinearOperator(W.shape, lambda x: W @ x - np.mean(x), dtype=np.float64)
    start = np.random.default_rng(0).normal(size=n)
    end = lambda which: float(eigsh(without_mean, 1, which=which, v0=start, return_eigenvectors=False)[0])
    return end("LA"), end("SA")


# --- families ---


def _cayley(shape: Sequence[int], moves: Sequence[Sequence[int]]) -> Graph:
    """Nodes on a grid of this shape that wraps around, with edges along the moves. The Laplacian's eigenvectors are the
    Fourier basis of the grid."""
    here = np.indices(shape).reshape(len(shape), -1)
    n = here.shape[1]
    there = [np.ravel_multi_index(tuple(here + np.array(move)[:, None]), tuple(shape), mode="wrap") for move in moves]
    edges = canonical(np.concatenate([np.stack([np.arange(n), goal], axis=1) for goal in there]))
    row = np.zeros(n)
    row[edges[edges[:, 0] == 0, 1]] = 1
    return Graph(edges, np.sort(row.sum() - np.fft.fftn(row.reshape(shape)).real.ravel()))


def _ring(n: int) -> Graph:
    return _cayley((n,), [(1,)])


def _torus(n: int) -> Graph:
    a = max(a for a in range(1, int(n**0.5) + 1) if n % a == 0)
    return _ring(n) if a == 1 else _cayley((a, n // a), [(1, 0), (0, 1)])


def _complete(n: int) -> Graph:
    return _cayley((n,), [(k,) for k in range(1, n // 2 + 1)])


def _exponential(n: int) -> Graph:
    return _cayley((n,), [(2**j,) for j in range((n - 1).bit_length())])


def _hypercube(n: int) -> Graph:
    m = power_of_two("hypercube", n)
    return _cayley((2,) * m, np.eye(m, dtype=int).tolist())


def power_of_two(name: str, n: int) -> int:
    """The exponent of n.

    Raises:
        InputError: n is no power of two.
    """
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise InputError(
            f"topology {name} needs a power of 2 as its number of nodes, got {n}: take {below} or {2 * below}"
        )
    return n.bit_length() - 1


def _path(n: int) -> Graph:
    return Graph(np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), 2 - 2 * np.cos(np.pi * np.arange(n) / n))


def _star(n: int) -> Graph:
    edges = np.stack([np.zeros(n - 1, np.int64), np.arange(1, n)], axis=1)
    return Graph(edges, np.array([0.0, *[1.0] * (n - 2), n]))


def _connected(name: str, n: int, draw: Callable[[np.random.Generator], np.ndarray], seed: int) -> Graph:
    """The first connected one of the graphs that are drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(MOST_DRAWS):
        edges = draw(rng)
        if is_connected(n, edges):
            return Graph(edges)
    raise InputError(f"topology {name} of {n} nodes was disconnected in {MOST_DRAWS} draws: ask for more edges")


def _erdos_renyi(n: int, p: float, seed: int = 0) -> Graph:
    pairs = n * (n - 1) // 2

    def draw(rng: np.random.Generator) -> np.ndarray:
        """The gaps between the pairs that are edges have a geometric law, so that only edges cost time and memory."""
        places = np.zeros(0, np.int64)
        last = -1
        while last < pairs:
            gaps = rng.geometric(p, int(pairs * p + 6 * np.sqrt(pairs * p) + 8))
            more = last + np.cumsum(np.minimum(gaps, pairs + 1))
            places, last = np.concatenate([places, more]), int(more[-1])
        places = places[places < pairs]
        rows = np.arange(n)
        first = rows * (2 * n - rows - 1) // 2  # the number of the pair (i, i + 1)
        i = np.searchsorted(first, places, side="right") - 1
        i = np.minimum(i, n - 2)
        return np.stack([i, places - first[i] + i + 1], axis=1)

    return _connected(f"erdos_renyi:{spec.spell(p)}", n, draw, seed)


def _regular(n: int, k: int, seed: int = 0) -> Graph:
    if k >= n or n * k % 2:
        fix = "an even one" if k < n else f"at most {n - 1}"
        raise InputError(f"topology regular:{k} of {n} nodes cannot be, as each has {k} of {n - 1} others and the "
                         f"edges are {n * k}/2: take a degree that is {fix}")  # fmt: skip
    moves = [(m,) for m in range(1, k // 2 + 1)] + ([(n // 2,)] if k % 2 else [])
    begun = _cayley((n,), moves).edges if moves else np.zeros((0, 2), np.int64)

    def draw(rng: np.random.Generator) -> np.ndarray:
        """Pairs of edges (a, b), (c, d) become (a, d), (c, b), ten times as often as there are edges."""
        edges = [tuple(edge) for edge in begun.tolist()]
        there = set(edges)
        order = lambda a, b: (a, b) if a < b else (b, a)
        for one, two, turned in rng.integers(0, [len(edges), len(edges), 2], (10 * len(edges), 3)).tolist():
            (a, b), (c, d) = edges[one], edges[two][:: -1 if turned else 1]
            new = order(a, d), order(c, b)
            if len({a, b, c, d}) == 4 and not there & {*new}:
                there.difference_update((edges[one], edges[two]))
                there.update(new)
                edges[one], edges[two] = new
        return canonical(np.array(edges))

    return _connected(f"regular:{k}", n, draw, seed)


_SEED = {"seed": spec.Field((int,), fits=lambda seed: seed >= 0, words="a whole number >= 0")}
_SHARE = spec.Field((float,), True, lambda p: 0 < p <= 1, "a probability in (0, 1]")
_DEGREE = spec.Field((int,), True, lambda k: k >= 1, "a whole number >= 1")
#: name -> the function of n and the arguments, and what these may be
FAMILIES: dict[str, tuple[Callable[..., Graph], dict[str, spec.Field]]] = {
    "ring": (_ring, {}),
    "torus": (_torus, {}),
    "star": (_star, {}),
    "complete": (_complete, {}),
    "exponential": (_exponential, {}),
    "path": (_path, {}),
    "hypercube": (_hypercube, {}),
    "erdos_renyi": (_erdos_renyi, {"p": _SHARE, **_SEED}),
    "regular": (_regular, {"degree": _DEGREE, **_SEED}),
}


@functools.lru_cache(maxsize=64)
def make(name: str, n: int, arguments: tuple[float, ...] = ()) -> Graph:
    """The graph of a family. One node has no neighbours, whatever the family."""
    return Graph(np.zeros((0, 2), np.int64), np.zeros(1)) if n == 1 else FAMILIES[name][0](n, *arguments)
