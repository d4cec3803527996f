"""Problems in both forms, random draws replayed for the references, and outcomes prescribed to our steps."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import algorithms, problems
from fedjax_lc.compressors import Compressor, Message
from fedjax_lc.core import pytree
from tests.quickly import QUICKLY
from tests.reference import problems as ref_problems

KEY = jax.random.key(7)


def quadratic_pair(rng, n, d, kappa):
    """(our problem, its reference): every client has extreme eigenvalues 1 and kappa, in its own basis.

    Ours carries x_star as `attached`, from the normal equations.
    """
    Q = []
    for _ in range(n):
        basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
        matrix = basis * np.concatenate([[1.0, kappa], rng.uniform(1, kappa, d - 2)]) @ basis.T
        Q.append((matrix + matrix.T) / 2)
    b = 5 * rng.normal(size=(n, d))
    x_star = np.linalg.solve(np.mean(Q, axis=0), b.mean(axis=0))
    ours = problems.quadratic(np.array(Q), b).replace(attached=jnp.asarray(x_star))
    return ours, ref_problems.Quadratic(list(zip(Q, b, strict=True)))


@functools.cache
def scan(name, steps, quick=True):
    """(problem, hp, state, keys) -> states, costs and points after each step."""
    algorithm = algorithms.get(name)

    @functools.partial(jax.jit, compiler_options=QUICKLY if quick else {})
    def go(problem, hp, state, keys):
        def one(state, key):
            state, cost = algorithm.step(problem, hp, state, key)
            return state, (state, cost, algorithm.point(problem, hp, state))

        return jax.lax.scan(one, state, keys, length=steps)[1]

    return go


def walk(name, problem, hp, steps, key=KEY, keys=None, state=None, quick=True):
    """States, costs and points after each step, stacked: NumPy arrays with a leading axis of `steps`. quick: compiled
    soon into slow code, or as users have it."""
    algorithm, hp = algorithms.get(name), pytree.cast(hp, problem.dtype)
    keys = step_keys(steps, key) if keys is None else keys
    state = algorithm.init(problem, hp, jax.random.fold_in(key, 2**32 - 1)) if state is None else state
    return jax.tree.map(np.asarray, scan(name, steps, quick)(problem, hp, state, keys))


@functools.partial(jax.jit, static_argnums=0)
def step_keys(steps, key=KEY):
    return jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(steps))


def purposes(steps, count, key=KEY):
    """(steps, count) keys: what the first line of a step that splits `count` ways gets."""
    return jax.vmap(lambda k: jax.random.split(k, count))(step_keys(steps, key))


@functools.partial(jax.jit, static_argnums=3)
def _joint(compressor, key, v, n):
    """Row i is what client i would send of v: rows of independent compressors do not depend on each other."""
    return compressor.joint(key, jnp.broadcast_to(v, (n, v.shape[0]))).value


def replay(compressor, keys, n):
    """`compress(t, i, slot, v)` of the references: row i of our compressor with `keys[t, slot]`."""
    compressor = pytree.cast(compressor, jnp.float64)
    return lambda t, i, slot, v: np.asarray(_joint(compressor, keys[t, slot], jnp.asarray(v), n))[i]


@pytree.dataclass
class Prescribed(Compressor):
    """Sends `values` (n, d) whatever it is given, and claims the constant `w`: one outcome of a real compressor."""

    values: Any
    w: Any
    name: ClassVar[str] = "prescribed"

    def joint(self, key, X, sent=None):
        return Message(self.values, X.shape[1], 32, 0, 0)

    def omega(self, d):
        return self.w


@functools.partial(jax.jit, static_argnums=1)
def _tosses(p, count):
    keys = jax.random.split(KEY, 512)
    coin = lambda k: jax.random.bernoulli(jax.random.split(k, count)[0], p)
    return keys, jax.vmap(coin)(keys)


def coin_keys(p, count=2):
    """A step key whose coin (the first of `count` purposes) shows heads at p < 1, and one with tails."""
    keys, heads = _tosses(p, count)
    assert 0 < heads.sum() < len(heads)
    return keys[int(np.argmax(heads))], keys[int(np.argmin(heads))]


def gradient_of_rows(problem, reference, clients, hp, keys):
    """grad(t, i, x) of a reference of least squares: of all rows, or of those that our sampler draws with keys[t]."""
    if getattr(hp, "batch_size", None) is None:
        return lambda t, i, x: reference.grad(i, x)
    draw = jax.vmap(lambda key: problem.draw(key, hp.batch_size, hp.replacement))
    (picks, weights), l2 = map(np.asarray, draw(keys)), float(problem.strong)

    def grad(t, i, x):
        (A, b), g = clients[i], l2 * x
        for row, weight in zip(picks[t, i], weights[t, i], strict=True):
            g = g + weight * (A[row] @ x - b[row]) * A[row]
        return g

    return grad
