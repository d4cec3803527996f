"""The same methods as people write them without this package: NumPy client by client, NumPy batched, plain JAX.

All return x (d,) after the last round; sweeps over step sizes (c,) return (c, d). DIANA and LoCoDL take randomness
from outside, one entry per round, so that every version can be fed the same coordinates. b, l2: labels (n, m), the l2
part; the other numbers are the methods' own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray


def gradient(A: Array, b: Array, l2: float, x: Array) -> Array:
    """(d,) gradient of one client's logistic loss: A (m, d), b (m,)."""
    return (-b / (1 + np.exp(b * (A @ x)))) @ A / len(b) + l2 * x


def diana_loop(A: Array, b: Array, l2: float, gamma: float, alpha: float, picks: Iterable[Iterable[Array]]) -> Array:
    """NumPy, a Python loop over clients. picks: per round and client, the (k,) coordinates kept."""
    n, _, d = A.shape
    x, H, h = np.zeros(d, A.dtype), np.zeros((n, d), A.dtype), np.zeros(d, A.dtype)
    for indices in picks:
        mean = np.zeros_like(x)
        for i, kept in enumerate(indices):
            values = (gradient(A[i], b[i], l2, x) - H[i])[kept] * (d / len(kept))
            mean[kept] += values / n
            H[i, kept] += alpha * values
        x, h = x - gamma * (h + mean), h + alpha * mean
    return x


def diana_batched(A: Array, b: Array, l2: float, gamma: float, alpha: float, picks: Iterable[Array]) -> Array:
    """NumPy, all clients at once and mostly in place. picks: per round, the (n, k) coordinates kept."""
    n, m, d = A.shape
    x, H, h = np.zeros(d, A.dtype), np.zeros((n, d), A.dtype), np.zeros(d, A.dtype)
    stacked, minus_b, first = A.reshape(n * m, d), -b / m, d * np.arange(n)[:, None]
    for indices in picks:
        slopes = (stacked @ x).reshape(n, m)
        _logistic_slopes(slopes, b, minus_b)
        D = np.matmul(slopes[:, None, :], A)[:, 0]
        D += l2 * x
        D -= H
        flat = (first + indices).ravel()
        kept = np.zeros_like(D)
        kept.ravel()[flat] = D.ravel()[flat] * (d / indices.shape[1])
        mean = kept.mean(axis=0)
        kept *= alpha
        H += kept
        x, h = x - gamma * (h + mean), h + alpha * mean
    return x


def _logistic_slopes(z: Array, b: Array, minus_b: Array) -> None:
    """z becomes -b / (m (1 + exp(b z))), in place."""
    z *= b
    np.exp(z, out=z)
    z += 1
    np.divide(minus_b, z, out=z)


def random_loop(rng: np.random.Generator, n: int, d: int, k: int, rounds: int) -> Iterator[Iterator[Array]]:
    """Picks of `diana_loop`."""
    for _ in range(rounds):
        yield (rng.choice(d, k, replace=False, shuffle=False) for _ in range(n))


def random_batched(rng: np.random.Generator, n: int, d: int, k: int, rounds: int) -> Iterator[Array]:
    """Picks of `diana_batched`: the places of each row's k smallest uniforms."""
    for _ in range(rounds):
        yield np.argpartition(rng.random((n, d), dtype=np.float32), k - 1, axis=1)[:, :k]


def fedavg_loop(A: Array, b: Array, l2: float, client_lr: float, local_steps: int, rounds: int) -> Array:
    """NumPy, a Python loop over clients."""
    n, _, d = A.shape
    x = np.zeros(d, A.dtype)
    for _ in range(rounds):
        total = np.zeros_like(x)
        for i in range(n):
            local = x
            for _ in range(local_steps):
                local = local - client_lr * gradient(A[i], b[i], l2, local)
            total += local
        x = total / n
    return x


def fedavg_batched(A: Array, b: Array, l2: float, client_lr: float, local_steps: int, rounds: int) -> Array:
    """NumPy, all clients at once and in place."""
    n, m, d = A.shape
    x, minus_b = np.zeros(d, A.dtype), -client_lr * b / m
    z, moves = np.empty((n, m, 1), A.dtype), np.empty((n, 1, d), A.dtype)
    for _ in range(rounds):
        X = np.tile(x, (n, 1))
        for _ in range(local_steps):
            np.matmul(A, X[:, :, None], out=z)
            _logistic_slopes(z[:, :, 0], b, minus_b)
            np.matmul(z.transpose(0, 2, 1), A, out=moves)
            X *= 1 - client_lr * l2
            X -= moves[:, 0]
        x = X.mean(axis=0)
    return x


def node_gradients(A: Array, b: Array, l2: float) -> Callable[[Array], Array]:
    """NumPy, all nodes at once: from X (n, d), a point of each, (n, d) their gradients."""
    n, m, d = A.shape
    minus_b, z, G = -b / m, np.empty((n, m, 1), A.dtype), np.empty((n, 1, d), A.dtype)

    def gradients(X: Array) -> Array:
        np.matmul(A, X[:, :, None], out=z)
        _logistic_slopes(z[:, :, 0], b, minus_b)
        np.matmul(z.transpose(0, 2, 1), A, out=G)
        return G[:, 0] + l2 * X

    return gradients


def fedavg_columns(A: Array, b: Array, l2: float, client_lr: Array, local_steps: int, rounds: int) -> Array:
    """NumPy sweep over step sizes (c,): the configurations are columns of batched matrix products, mostly in place."""
    n, m, d = A.shape
    signed, scale, shrink = b[..., None] * A, -client_lr / m, 1 - client_lr * l2
    back = signed.transpose(0, 2, 1)
    X = np.zeros((d, len(client_lr)), A.dtype)
    z, moves = np.empty((n, m, len(client_lr)), A.dtype), np.empty((n, *X.shape), A.dtype)
    for _ in range(rounds):
        local = np.tile(X, (n, 1, 1))
        for _ in range(local_steps):
            _column_step(signed, back, local, z, moves, scale, shrink)
        X = local.mean(axis=0)
    return X.T


def fedavg_blocked(A: Array, b: Array, l2: float, client_lr: Array, local_steps: int, rounds: int) -> Array:
    """The same client by client, so that all of a client's local steps stay in the processor's cache."""
    n, m, d = A.shape
    signed, scale, shrink = b[..., None] * A, -client_lr / m, 1 - client_lr * l2
    X = np.zeros((d, len(client_lr)), A.dtype)
    z, local, moves = np.empty((m, len(client_lr)), A.dtype), np.empty_like(X), np.empty_like(X)
    for _ in range(rounds):
        total = np.zeros_like(X)
        for rows in signed:
            local[:] = X
            for _ in range(local_steps):
                _column_step(rows, rows.T, local, z, moves, scale, shrink)
            total += local
        X = total / n
    return X.T


def _column_step(signed: Array, back: Array, X: Array, z: Array, moves: Array, scale: Array, shrink: Array) -> None:
    """One gradient step of every column of X (..., d, c), in place; z and moves are scratch, `back` is signed^T."""
    np.matmul(signed, X, out=z)
    np.exp(z, out=z)
    z += 1
    np.divide(scale, z, out=z)
    np.matmul(back, z, out=moves)
    X *= shrink
    X -= moves


def locodl_loop(
    A: Array, b: Array, l2: float, gamma: float, rho: float, c: float, picks: Iterable[Iterable[Array] | None]
) -> Array:
    """NumPy, a Python loop over clients; c = p chi / (gamma (1 + 2 omega)). picks: per step None where nobody talks,
    else per client the (k,) coordinates kept."""
    n, _, d = A.shape
    X, U, y, v, mu = (
        np.zeros((n, d), A.dtype),
        np.zeros((n, d), A.dtype),
        np.zeros(d, A.dtype),
        np.zeros(d, A.dtype),
        l2 / 2,
    )
    for indices in picks:
        for i in range(n):
            X[i] -= gamma * (gradient(A[i], b[i], l2, X[i]) - mu * X[i] - U[i])
        y = y - gamma * (mu * y - v)
        if indices is None:
            continue
        D = np.zeros_like(X)
        for i, kept in enumerate(indices):
            D[i, kept] = (X[i] - y)[kept] * (d / len(kept))
        dbar = D.sum(axis=0) / (2 * n)
        X = (1 - rho) * X + rho * (y + dbar)
        U += c * (dbar - D)
        y, v = y + rho * dbar, v + c * dbar
    return (X.mean(axis=0) + y) / 2


def loss(x: jax.Array, A: jax.Array, b: jax.Array, l2: Any) -> jax.Array:
    """One client's loss, for autodiff."""
    return jnp.mean(jnp.logaddexp(0, -b * (A @ x))) + l2 / 2 * x @ x


def random_top_k(n: int, d: int, k: int) -> Callable[[jax.Array], jax.Array]:
    """`pick` of `diana_jax`: from a round's key, the (n, k) places of each client's k largest uniforms."""

    def one(key: jax.Array) -> jax.Array:
        return jax.lax.top_k(jax.random.uniform(key, (d,)), k)[1]

    return lambda key: jax.vmap(one)(jax.random.split(key, n))


@functools.partial(jax.jit, static_argnames="pick")
def diana_jax(
    A: jax.Array,
    b: jax.Array,
    l2: Any,
    gamma: Any,
    alpha: Any,
    sources: jax.Array,
    pick: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Plain JAX: autodiff, vmap and scan. sources: per round, what `pick` turns into the (n, k) coordinates kept."""
    n, _, d = A.shape

    def keep(D_i: jax.Array, kept: jax.Array) -> jax.Array:
        return jnp.zeros_like(D_i).at[kept].set(D_i[kept] * (d / kept.shape[0]))

    def one_round(state: Any, source: jax.Array) -> tuple[Any, None]:
        x, H, h = state
        grads = jax.vmap(jax.grad(loss), (None, 0, 0, None))(x, A, b, l2)
        D = jax.vmap(keep)(grads - H, pick(source))
        mean = jnp.mean(D, axis=0)
        return (x - gamma * (h + mean), H + alpha * D, h + alpha * mean), None

    zero = jnp.zeros(d, A.dtype)
    return jax.lax.scan(one_round, (zero, jnp.zeros((n, d), A.dtype), zero), sources)[0][0]


@functools.partial(jax.jit, static_argnames=("local_steps", "rounds"))
def fedavg_jax(A: jax.Array, b: jax.Array, l2: Any, client_lr: Any, local_steps: int, rounds: int) -> jax.Array:
    """Plain JAX: autodiff, vmap and scan."""

    def client(x: jax.Array, A_i: jax.Array, b_i: jax.Array) -> jax.Array:
        local = lambda x, _: (x - client_lr * jax.grad(loss)(x, A_i, b_i, l2), None)
        return jax.lax.scan(local, x, None, length=local_steps)[0]

    def one_round(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.mean(jax.vmap(client, (None, 0, 0))(x, A, b), axis=0), None

    return jax.lax.scan(one_round, jnp.zeros(A.shape[-1], A.dtype), None, length=rounds)[0]


@functools.partial(jax.jit, static_argnames=("local_steps", "rounds"))
def fedavg_jax_sweep(
    A: jax.Array, b: jax.Array, l2: Any, client_lr: jax.Array, local_steps: int, rounds: int
) -> jax.Array:
    """Plain JAX: one more vmap, over step sizes (c,)."""
    return jax.vmap(lambda lr: fedavg_jax(A, b, l2, lr, local_steps, rounds))(client_lr)
