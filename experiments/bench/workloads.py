"""The work that is timed: logistic regression W1, and the two methods of it that the package itself does not list."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms import Algorithm, Cost, tile
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import lanes, pytree
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import LinearModel, Problem, logistic_regression


class Size(NamedTuple):
    """Shape of W1 and how long one timed block of it is; the defaults are W1 itself."""

    clients: int = 100
    rows: int = 100
    dim: int = 123
    local_steps: int = 10  #: of W1(b), full-batch
    diana_rounds: int = 1000
    fedavg_rounds: int = 150
    locodl_steps: int = 1500

    @property
    def k(self) -> int:
        """Entries that rand-k keeps."""
        return max(1, self.dim // 10)


class Work(NamedTuple):
    """W1 as plain arrays, and as a problem of this package."""

    A: np.ndarray  # (n, m, d)
    b: np.ndarray  # (n, m) labels -1 and +1
    l2: float
    problem: LinearModel


def w1(size: Size, dtype: str = "float32", seed: int = 0) -> Work:
    """Logistic regression on rows of about unit length, kappa 1e3.

    Example:
        >>> w1(Size(clients=3, rows=4, dim=20)).A.shape
        (3, 4, 20)
    """
    rng = np.random.default_rng(seed)
    A = (rng.standard_normal((size.clients, size.rows, size.dim)) / np.sqrt(size.dim)).astype(dtype)
    b = rng.choice((-1.0, 1.0), size=A.shape[:2]).astype(dtype)
    # Nothing here compares F with its minimum, so the search for it is spared: 0 stands for it.
    problem = logistic_regression(list(zip(A, b, strict=True)), kappa=1e3, f_star=0.0, dtype=dtype)
    return Work(A, b, float(problem.strong), problem)


@pytree.dataclass
class LocalHparams:
    """client_lr: step size. local_steps: gradient steps between two averages."""

    client_lr: Scalar
    local_steps: int = pytree.static(default=1)


def _fedavg_step(problem: Problem, hp: LocalHparams, x: Vec, key: Key) -> tuple[Vec, Cost]:
    local = lambda _, x: x - hp.client_lr * problem.grads(x)
    x = jax.lax.fori_loop(0, hp.local_steps, local, tile(x, problem.n))
    bits = FLOAT_BITS * problem.dim
    return jnp.mean(x, axis=0), Cost.of(bits, bits, grads=hp.local_steps, rounds=1)


def _local_step(problem: Problem, hp: LocalHparams, x: ClientVecs, key: Key) -> tuple[ClientVecs, Cost]:
    return x - hp.client_lr * problem.grads(x), Cost.of(grads=1)


def _theory(problem: Problem, local_steps: int = 1) -> LocalHparams:
    return LocalHparams(1 / float(jnp.max(problem.smooth)), local_steps)


#: W1(b): `local_steps` full-batch gradient steps at every client, then the average; `run` takes it like any method.
FEDAVG = Algorithm(
    name="bench_fedavg",
    title="FedAvg",
    paper="1602.05629 Communication-Efficient Learning of Deep Networks from Decentralized Data",
    Hparams=LocalHparams,
    init=lambda problem, hp, key: problem.x0,
    step=_fedavg_step,
    point=lambda problem, hp, x: x,
    theory=_theory,
)

#: What LoCoDL would be if it never talked and had no control variates: one gradient step at every client's own point.
GRADIENT_ONLY = Algorithm(
    name="bench_gradient_only",
    title="gradient only",
    paper="none",
    Hparams=LocalHparams,
    init=lambda problem, hp, key: tile(problem.x0, problem.n),
    step=_local_step,
    point=lambda problem, hp, x: jnp.mean(x, axis=0),
    theory=_theory,
)


def with_plain_branches(algorithm: Algorithm) -> Algorithm:
    """The method without the rules for lanes: over lanes a branch is a select, and every lane pays for it."""

    def step(problem: Problem, hp: Any, state: Any, key: Key) -> tuple[Any, Cost]:
        with lanes.plain():
            return algorithm.step(problem, hp, state, key)

    return dataclasses.replace(algorithm, name=f"bench_plain_{algorithm.name}", step=step)
