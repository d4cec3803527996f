"""PowerGossip: every two neighbours exchange a low-rank approximation of the difference of their models.

Per edge {i, j} and matrix, with sides p (a, r) and q (b, r) that both ends keep, D = X_j - X_i, in inner iteration c:

    c odd    q = orth(q) ;  p = D q          each end sends its own product X q: a r numbers
    c even   p = orth(p) ;  q = D^T p        b r numbers
    X_i += w_ij diffusion p q^T ;  X_j -= w_ij diffusion p q^T

Vogels, Karimireddy, Jaggi, "Practical Low-Rank Communication Compression in Decentralized Deep Learning", arXiv
2008.01425 (from the authors' code). All edges read the models of the start of an inner iteration; c = 0 is skipped,
with the rest of its step, as all models are equal. These are steps of the power method: warm sides make the next ones
better.

Matrices are a network's parameters, vectors among them as (d, 1); of other problems the model, as a matrix that is
nearly square, with zeros at its end, or as (d, 1).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, chosen, start
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

ORDERS, SHAPES = ("dgd", "atc"), ("layers", "square", "vector")


@pytree.dataclass
class Hparams(Gossip):
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    rank: int = hyperparameter("r, columns of each side", "whole [1, inf)", default=1, static=True)
    inner: int = hyperparameter("inner iterations of a step", "whole [1, inf)", default=1, static=True)
    diffusion: Scalar = hyperparameter("factor of what an edge brings", "(0, inf)", default=1.0)
    order: str = hyperparameter(
        "gradient step at the model before the gossip (dgd, the code's), or before it (atc)", ORDERS, default="dgd"
    )
    warm: bool = hyperparameter("whether sides are kept, instead of drawn anew before each orth", default=True)
    matrix: str = hyperparameter(
        "what are matrices: a network's parameters (layers), or the model as one, square or (d, 1)",
        SHAPES,
        default="layers",
    )

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        super().validate(problem)
        if self.count != "per_edge":
            raise InputError("power_gossip sends each neighbour another message: take count=per_edge")
        most = max(min(matrix.a, matrix.b) for matrix in matrices(problem, self))
        if self.rank > most:
            raise InputError(f"power_gossip's rank is at most that of the largest matrix, {most}, got {self.rank}")


class Matrix(NamedTuple):
    """Entries first..last of a model as a matrix a x b, row by row, with zeros at its end; sides of r columns."""

    first: int
    last: int
    a: int
    b: int
    r: int

    def of(self, rows: jax.Array) -> jax.Array:
        """(..., a, b) of vectors (..., d)."""
        flat = rows[..., self.first : self.last]
        filled = jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, self.a * self.b - flat.shape[-1])])
        return filled.reshape(*flat.shape[:-1], self.a, self.b)


def matrices(problem: Problem, hp: Any) -> list[Matrix]:
    """The matrices of a model, in order."""
    shapes, d = getattr(getattr(problem, "layout", None), "shapes", ((problem.dim,),)), problem.dim
    if hp.matrix != "layers":
        a = math.isqrt(d - 1) + 1 if hp.matrix == "square" else d
        return [Matrix(0, d, a, -(-d // a), min(hp.rank, a, -(-d // a)))]
    made, first = [], 0
    for shape in shapes:
        size, b = math.prod(shape), shape[-1] if len(shape) > 1 else 1
        made.append(Matrix(first, first + size, size // b, b, min(hp.rank, size // b, b)))
        first += size
    return made


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    p: tuple[jax.Array, ...]  # (E, a, r) of each matrix, sides that both ends of an edge have
    q: tuple[jax.Array, ...]  # (E, b, r)
    c: jax.Array  # () inner iterations so far


def drawn(problem: Problem, hp: Hparams, key: Key) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Normal sides of all edges, each drawn by the numbers of its ends."""
    edges = jnp.asarray(hp.graph(problem).edges, jnp.int32)
    keys = jax.vmap(lambda edge: jax.random.fold_in(jax.random.fold_in(key, edge[0]), edge[1]))(edges)

    def side(number: int, rows: int, r: int) -> jax.Array:
        one = lambda key: jax.random.normal(jax.random.fold_in(key, number), (rows, r), problem.dtype)
        return jax.vmap(one)(keys)

    shapes = list(enumerate(matrices(problem, hp)))
    return tuple(side(2 * i, m.a, m.r) for i, m in shapes), tuple(side(2 * i + 1, m.b, m.r) for i, m in shapes)


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(start(problem), *drawn(problem, hp, key), jnp.zeros((), jnp.int32))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, side_key = jax.random.split(key)
    links, talks = hp.links(problem), state.c > 0
    G, passes = gradients(problem, hp, state.x, batch_key)
    move, bits = -hp.gamma * G, jnp.zeros((), jnp.float32)
    begun = state._replace(x=state.x + move) if hp.order == "atc" else state
    after = begun
    for iteration in range(hp.inner):
        if not hp.warm:
            p, q = drawn(problem, hp, jax.random.fold_in(side_key, iteration))
            after = after._replace(p=p, q=q)
        after, more = exchange(problem, hp, after)
        bits = bits + more
    after = jax.tree.map(lambda new, old: jnp.where(talks, new, old), after, begun._replace(c=state.c + 1))
    x = after.x if hp.order == "atc" else after.x + move
    return after._replace(x=x), links.cost(bits, passes, hp.inner, talks)


def exchange(problem: Problem, hp: Hparams, state: State) -> tuple[State, Scalar]:
    """One inner iteration, and the bits that a node sends over an edge."""
    graph, odd, shapes = hp.graph(problem), state.c % 2 == 1, matrices(problem, hp)
    i, j = graph.edges.T
    weights = jnp.asarray(graph.weights, problem.dtype)[:, None] * hp.diffusion
    apart, sides, brought = state.x[j] - state.x[i], [], []
    for matrix, p, q in zip(shapes, state.p, state.q, strict=True):
        D = matrix.of(apart)
        p_unit, q_unit = orth(p), orth(q)
        p = jnp.where(odd, products.matmul(D, q_unit), p_unit)
        q = jnp.where(odd, q_unit, products.matmul(jnp.swapaxes(D, 1, 2), p_unit))
        near = products.matmul(p, jnp.swapaxes(q, 1, 2)).reshape(len(i), matrix.a * matrix.b)
        brought.append(near[:, : matrix.last - matrix.first])
        sides.append((p, q))
    u = weights * jnp.concatenate(brought, axis=1)
    x = state.x.at[i].add(u).at[j].add(-u)
    floats = [sum((m.a if which else m.b) * m.r for m in shapes) for which in (True, False)]
    bits = FLOAT_BITS * jnp.where(odd, *(jnp.float32(count) for count in floats))
    ps, qs = zip(*sides, strict=True)
    return State(x, ps, qs, state.c + 1), bits


def orth(sides: jax.Array) -> jax.Array:
    """(E, rows, r), r <= rows: orthonormal columns by Gram and Schmidt, whose span holds that of the given ones. In the
    place of a column that depends on those before it, up to rounding, or is zero, comes another."""
    smallest = 64 * jnp.finfo(sides.dtype).eps
    columns: list[jax.Array] = []
    length = lambda v: jnp.linalg.norm(v, axis=-1, keepdims=True)

    def across(v: jax.Array) -> jax.Array:
        for unit in columns * 2:  # twice is enough
            v = v - jnp.sum(v * unit, axis=-1, keepdims=True) * unit
        return v

    for k in range(sides.shape[-1]):
        covered = sum((unit**2 for unit in columns), jnp.zeros_like(sides[..., 0]))
        other = jax.nn.one_hot(jnp.argmin(covered, axis=-1), sides.shape[-2], dtype=sides.dtype)
        v = across(sides[..., k])
        v = jnp.where(length(v) > smallest * length(sides[..., k]), v, across(other))
        columns.append(v / length(v))
    return jnp.stack(columns, axis=-1)


def theory(
    problem: Problem, topology: Topology | str = "ring", order: str = "dgd", matrix: str | None = None
) -> Hparams:
    """gamma as for DGD (a choice of ours): (1 + lam_n)/(2 L), and 1/L for order="atc"; rank 1, one inner iteration.

    matrix: layers for a network, otherwise square, where it is None.
    """
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    (kept, graph), L = chosen(topology, problem), float(jnp.max(problem.smooth))
    most = 2.0 if order == "atc" else 2 - graph.beta
    shape = matrix or ("layers" if hasattr(problem, "layout") else "square")
    return Hparams(most / (2 * L), order=order, matrix=shape, topology=kept)


register(
    "power_gossip",
    title="PowerGossip",
    up="X_i q or X_iᵀp for each edge",
    down="those of the neighbours",
    paper="2008.01425 Practical Low-Rank Communication Compression in Decentralized Deep Learning",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
