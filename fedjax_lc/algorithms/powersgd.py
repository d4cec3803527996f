"""PowerSGD: low-rank messages by one step of a power iteration, whose factors can be averaged on their way.

Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", arXiv
1905.13727 (both variants and the momentum from the authors' codes). With M_i = g_i + e_i, a matrix (a, b) for each
parameter that is one:

    paper        P = orth(mean_i M_i Q), Q = mean_i M_i^T P, out = P Q^T, e_i = M_i - out
    alternating  P = orth(P), Q_i = M_i^T P, M_i -= P Q_i^T, Q = mean_i Q_i, out += P Q^T; then with P and Q exchanged;
                 e_i = M_i, what is left of each

The model moves along out, or out + m with momentum, m = lam m + out. All that is sent is linear in M_i, so that the run
depends on the mean of the errors alone: one error is carried, unless errors="each" asks for those that real clients
hold. In the paper's variant these drift by g_i - mean g in every step: where clients differ they grow without end,
which exact arithmetic does not see and float32 does.

Rows of a matrix are the outputs: of a parameter in flax's layout (..., out), such as a kernel, the last axis; a vector
that is all of x (a convex problem) is cut into `rows` rows. A parameter that is a vector, or that a message would not
make smaller, is averaged as it is.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Batches, Cost, gradients, register
from fedjax_lc.algorithms.frames.turns import dense
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.platforms import repeat
from fedjax_lc.core.products import matmul
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem

VARIANTS, ERRORS = ("paper", "alternating"), ("mean", "each")


@pytree.dataclass
class Hparams(Batches, Aggregated):
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    rank: int | tuple[int, ...] = hyperparameter(
        "rank of messages, at most that of the matrix; or one for each parameter, as in 2x1x4",
        "whole [1, inf)",
        default=1,
        static=True,
    )
    variant: str = hyperparameter("update of the paper or of the authors' library", VARIANTS, default="paper")
    errors: str = hyperparameter(
        "whether the mean of the clients' errors is carried, which decides the run, or each of them",
        ERRORS,
        default="mean",
    )
    iters: int = hyperparameter(
        "inner iterations of a step of the alternating variant", "whole [1, 100]", default=1, static=True
    )
    min_rate: float = hyperparameter(
        "a parameter is compressed where this divides its bits by more (the authors' library: 2)",
        "[0, inf)",
        default=1.0,
        static=True,
    )
    start_dense: int | None = hyperparameter(
        "first steps that average gradients as they are (the authors' library: 100); none if None",
        "whole [1, 1e9]",
        default=None,
        static=True,
    )
    momentum: Scalar | None = hyperparameter(
        "lam of m = lam m + out: the model moves along out + m; off if None", "[0, 1)", default=None
    )
    weight_decay: Scalar | None = hyperparameter(
        "weight of the model that is added to out, before momentum; off if None", "[0, inf)", default=None
    )
    rows: int | None = hyperparameter(
        "rows of the matrix that the vector x of a convex problem is cut into; None: the largest divisor of d up to "
        "its root",
        "whole [1, inf)",
        default=None,
        static=True,
    )

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        parameters = len(problem.shapes)
        if isinstance(self.rank, tuple) and len(self.rank) != parameters:
            raise InputError(
                f"powersgd needs one rank, or {parameters} of them, one for each parameter, got {self.rank}"
            )
        if self.variant == "paper" and self.iters != 1:
            raise InputError(
                f"iters belongs to the alternating variant, got {self.iters}: give variant=alternating too"
            )
        if self.rows is not None and (problem.dim % self.rows or not _flat(problem)):
            what = f"a divisor of d = {problem.dim}" if _flat(problem) else "left out, as the problem has matrices"
            raise InputError(f"powersgd needs rows as {what}, got {self.rows}")
        most = max(min(piece.a, piece.b) for piece in pieces(problem, self))
        largest = max(self.rank) if isinstance(self.rank, tuple) else self.rank
        if largest > most:
            raise InputError(f"powersgd's rank is at most that of the largest matrix, {most}, got {largest}")


class Sides(NamedTuple):
    P: Any  # (a, r), kept by the alternating variant; None in the paper's
    Q: jax.Array  # (b, r)


class State(NamedTuple):
    x: Vec  # (d,) the model
    e: Vec | ClientVecs  # (d,) the mean of the clients' errors, or (n, d) each
    sides: tuple[Sides, ...]  # of each matrix that is compressed
    m: Vec | None  # (d,) momentum
    t: jax.Array  # () int32 steps so far
    aggregation: Memories = None


class Piece(NamedTuple):
    """Entries first, ..., first + size - 1 of x: a matrix (a, b), sent with rank r; r = 0: averaged as it is. turned:
    x has the transposed matrix."""

    first: int
    size: int
    a: int
    b: int
    r: int
    turned: bool

    def matrix(self, x: jax.Array) -> jax.Array:
        """(..., a, b) from x (..., d)."""
        part = x[..., self.first : self.first + self.size]
        if self.turned:
            return jnp.swapaxes(part.reshape(*x.shape[:-1], self.b, self.a), -1, -2)
        return part.reshape(*x.shape[:-1], self.a, self.b)

    def vector(self, M: jax.Array) -> jax.Array:
        """(..., size) from M (..., a, b)."""
        return (jnp.swapaxes(M, -1, -2) if self.turned else M).reshape(*M.shape[:-2], self.size)


def pieces(problem: Problem, hp: Hparams) -> list[Piece]:
    """How x is cut into parameters, in order, and how each is sent."""
    pieces, first = [], 0
    ranks = hp.rank if isinstance(hp.rank, tuple) else (hp.rank,) * len(problem.shapes)
    for shape, rank in zip(problem.shapes, ranks, strict=True):
        size = math.prod(shape)
        a = _rows(problem, hp) if _flat(problem) else shape[-1] if len(shape) > 1 else 1
        b = size // max(a, 1)
        r = min(rank, a, b)
        sent = r * (a + b) * (hp.iters / 2 if hp.variant == "alternating" else 1)
        r = r if min(a, b) > 1 and size > hp.min_rate * sent else 0
        pieces.append(Piece(first, size, a, b, r, turned=len(shape) > 1))
        first += size
    return pieces


def _flat(problem: Problem) -> bool:
    return len(problem.shapes) == 1 and len(problem.shapes[0]) == 1


def _rows(problem: Problem, hp: Hparams) -> int:
    if hp.rows is not None:
        return hp.rows
    return max(a for a in range(1, math.isqrt(problem.dim) + 1) if problem.dim % a == 0)


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    """The sides are random normal: a fixed one may be blind, as what is orthogonal to M stays so."""
    hp.validate(problem)

    def sides(key: Key, piece: Piece) -> Sides:
        P_key, Q_key = jax.random.split(key)
        normal = lambda key, rows: jax.random.normal(key, (rows, piece.r), problem.dtype)
        return Sides(normal(P_key, piece.a) if hp.variant == "alternating" else None, normal(Q_key, piece.b))

    sent = [piece for piece in pieces(problem, hp) if piece.r]
    return State(
        x=problem.x0,
        e=jnp.zeros((problem.n, problem.dim) if hp.errors == "each" else (problem.dim,), problem.dtype),
        sides=tuple(sides(jax.random.fold_in(key, j), piece) for j, piece in enumerate(sent)),
        m=None if hp.momentum is None else jnp.zeros_like(problem.x0),
        t=jnp.zeros((), jnp.int32),
        aggregation=start(problem, hp),
    )


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    x, e, sides, m, t, memories = state
    aggregate = Aggregation(hp, memories, key)
    (batch_key,) = jax.random.split(key, 1)
    g, passes = gradients(problem, hp, x, batch_key)
    if hp.errors == "each":
        M_i = g + e
        M = aggregate(M_i)
    else:
        M_i = M = aggregate(g) + e
    sent = averaged(problem, hp, M, M_i, sides, t)
    if hp.start_dense is not None:
        plain = Averaged(M, jnp.zeros_like(e), sides, dense(x), 1)
        begun = t >= hp.start_dense
        sent = jax.tree.map(lambda new, old: jnp.where(begun, new, old), sent, plain)
    u = sent.out if hp.weight_decay is None else sent.out + hp.weight_decay * x
    if m is not None and hp.momentum is not None:
        m = hp.momentum * m + u
        u = u + m
    after = State(x - hp.gamma * u, sent.left, sent.sides, m, t + 1, aggregate.memories)
    return after, Cost.of(sent.bits, sent.bits, passes, rounds=sent.trips)


class Averaged(NamedTuple):
    """What comes of a step's messages: the direction out (d,), the errors, the sides, and the bits of each way and the
    round trips that it takes."""

    out: Vec
    left: Vec | ClientVecs
    sides: tuple[Sides, ...]
    bits: Scalar
    trips: Scalar


def averaged(
    problem: Problem, hp: Hparams, M: Vec, M_i: Vec | ClientVecs, sides: tuple[Sides, ...], t: jax.Array
) -> Averaged:
    """From M (d,), the mean over clients, and M_i, what errors are left of: M itself, or (n, d) that of each client."""
    compress = _paper if hp.variant == "paper" else _alternating
    outs, lefts, bits = [], [], []
    after: list[Sides] = []
    for piece in pieces(problem, hp):
        out, left, price = piece.matrix(M), jnp.zeros_like(piece.matrix(M_i)), FLOAT_BITS * piece.size
        if piece.r:
            out, left, moved, price = compress(hp, piece, out, piece.matrix(M_i), sides[len(after)], t)
            after.append(moved)
        outs.append(piece.vector(out))
        lefts.append(piece.vector(left))
        bits.append(price)
    trips = (2 if hp.variant == "paper" else hp.iters) if after else 1
    return Averaged(jnp.concatenate(outs), jnp.concatenate(lefts, axis=-1), tuple(after), sum(bits), trips)


def _paper(hp: Hparams, piece: Piece, M: jax.Array, M_i: jax.Array, sides: Sides, t: jax.Array) -> Any:
    P = orth(matmul(M, sides.Q))
    Q = matmul(M.T, P)
    out = matmul(P, Q.T)
    return (
        out,
        M_i - jnp.broadcast_to(out, M_i.shape),
        Sides(None, _kept(Q, sides.Q)),
        FLOAT_BITS * piece.r * (piece.a + piece.b),
    )


def _alternating(hp: Hparams, piece: Piece, M: jax.Array, M_i: jax.Array, sides: Sides, t: jax.Array) -> Any:
    """Both parities are computed and one is selected: over lanes a branch would do the same."""
    (P, Q), out, bits = sides, jnp.zeros_like(M), jnp.zeros((), jnp.int32)
    c = jnp.maximum(t - (hp.start_dense or 0), 0) * hp.iters
    for inner in range(hp.iters):
        even = (c + inner) % 2 == 0
        pick = lambda one, other, even=even: jnp.where(even, one, other)
        left, right = orth(P), orth(Q)
        to_Q, to_P = matmul(M.T, left), matmul(M, right)
        sent = pick(matmul(left, to_Q.T), matmul(to_P, right.T))
        mine = pick(matmul(left, matmul(left.T, M_i)), matmul(matmul(M_i, right), right.T))
        P, Q = pick(left, _kept(to_P, P)), pick(_kept(to_Q, Q), right)
        out, M, M_i = out + sent, M - sent, M_i - mine
        bits = bits + FLOAT_BITS * piece.r * pick(piece.b, piece.a)
    return out, M_i, Sides(P, Q), bits


def orth(P: jax.Array) -> jax.Array:
    """The columns of P (a, r) made orthonormal, each against those before it (Gram and Schmidt, twice over, in float32
    too). A column that depends on those before it, up to rounding, becomes zero, as one that is zero remains.

    Example:
        >>> orth(jnp.array([[3.0, 3.0], [0.0, 4.0]]))  # [[1, 0], [0, 1]]
    """
    smallest = 64 * jnp.finfo(P.dtype).eps

    def one(j: jax.Array, done: jax.Array) -> jax.Array:
        column = jnp.take(P, j, axis=1)
        largest = jnp.max(jnp.abs(column))
        column = column / jnp.where(largest > 0, largest, 1)
        size = jnp.linalg.norm(column)
        for _ in range(2):
            column = column - matmul(done, matmul(done.T, column))
        left = jnp.linalg.norm(column)
        gone = left <= smallest * size  # false for NaN, which is not hidden
        column = jnp.where(gone, 0, column / jnp.where(gone, 1, left))
        return done + jnp.where(jnp.arange(P.shape[1])[None, :] == j, column[:, None], 0)

    return repeat(P.shape[1], one, jnp.zeros_like(P))


def _kept(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` but for its zero columns, in whose place those of `old` remain: what was blind to a matrix of zeros, or of
    lower rank, would be so for ever."""
    return jnp.where(jnp.all(new == 0, axis=0)[None, :], old, new)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(
    problem: Problem,
    rank: int | tuple[int, ...] = 1,
    variant: str = "paper",
    errors: str = "mean",
    momentum: float | None = None,
) -> Hparams:
    """gamma = 1/(2 L), L of F: linear convergence with full gradients in all that we tried (measured); divided by the
    length of out + m, 1 + 1/(1 - lam), with momentum (derived by us). No compression constant holds for every M."""
    longer = 1 if momentum is None else 1 + 1 / (1 - momentum)
    gamma = 1 / (2 * float(problem.smooth_mean) * longer)
    return Hparams(gamma, rank=rank, variant=variant, errors=errors, momentum=momentum)


def owed(problem: Problem, hp: Hparams, state: State) -> Vec:
    """mean_i e_i."""
    return state.e if hp.errors == "mean" else state.e.mean(axis=0)


register(
    "powersgd",
    title="PowerSGD",
    up="M_i Q, then M_iᵀP, M_i = g_i + e_i",
    down="their means",
    speed="linear with full gradients, γ ≤ 1/(2L) (measured)",
    paper="1905.13727 PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
    error=owed,
)
