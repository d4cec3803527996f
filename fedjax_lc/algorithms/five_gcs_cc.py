"""5GCS-CC: a primal-dual method with local solves, client sampling and compressed dual updates.

Grudzien, Malinovsky, Richtarik, "Can 5th Generation Local Training Methods Support Client Sampling? Yes!", arXiv
2212.14370 (5GCS), and "Improving Accelerated Federated Learning with Compression and Importance Sampling", arXiv
2306.03240 (5GCS-CC).

Sampled clients solve a small proximal problem around the server's point by local steps, and send the compressed change
of their dual variable u_m, which tends to their gradient at the solution.

Recalled only, and the least certain of the methods here: the update and 5GCS's constants were recalled, the exact
constants of 5GCS-CC are not known to us. `theory` uses a safe choice of ours that reduces to 5GCS's without
compression and may be slow; label curves made with it accordingly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, constants, register, tile
from fedjax_lc.algorithms.frames.participation import sample
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.platforms import repeat
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    gamma: Scalar = hyperparameter("primal step size", "(0, inf)")
    tau: Scalar = hyperparameter("dual step size", "(0, inf)")
    client_lr: Scalar = hyperparameter("step size of the local solver", "(0, inf)")
    local_steps: Scalar = hyperparameter(
        "K, accelerated steps of the local solver", "whole [1, inf)", default=10, count=True
    )
    cohort_size: int | None = hyperparameter(
        "C, clients in a round; all if None", "whole [1, n]", default=None, static=True
    )


class State(NamedTuple):
    x: Vec  # (d,) the model
    u: ClientVecs  # (n, d) dual variables of the clients
    v: Vec  # (d,) their sum, at the server
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    u = jnp.zeros((problem.n, problem.dim), problem.dtype)
    return State(problem.x0, u, jnp.zeros_like(problem.x0), start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    cohort_key, uplink_key = jax.random.split(key)
    x, u, v, memories = state
    aggregate = Aggregation(hp, memories, key)
    n, mu, C = problem.n, problem.strong, hp.cohort_size or problem.n
    omega = hp.compressor.omega(problem.dim)
    xhat = (x - hp.gamma * v) / (1 + hp.gamma * mu)
    cohort, clients = sample(problem, cohort_key, C)
    grad_F = lambda y: (clients.grads(y) - mu * y) / n  # F_m = (f_m - (mu/2)|.|^2) / n
    y = local_solve(grad_F, hp, tile(xhat, C), cohort.rows(u))
    # Zero rows for those who sit out: C(0) = 0, and a client's randomness does not depend on the cohort.
    change = cohort.put(jnp.zeros_like(u), grad_F(y) - cohort.rows(u))
    message = hp.compressor.joint(uplink_key, change)
    u = u + message.value / (1 + omega)
    v_new = n * aggregate(u)
    x = xhat - hp.gamma * (1 + omega) * (n / C) * (v_new - v)
    taking_part = cohort.put(jnp.zeros(n), jnp.ones(C))
    down = FLOAT_BITS * problem.dim * taking_part
    cost = Cost.of(message.bits * taking_part, down, grads=(hp.local_steps + 1) * taking_part, rounds=1)
    return State(x, u, v_new, aggregate.memories), cost


def local_solve(grad_F, hp: Hparams, start: ClientVecs, u: ClientVecs) -> ClientVecs:  # type: ignore[no-untyped-def]
    """argmin_y F_m(y) + (tau/2) |y - (xhat + u_m/tau)|^2 by K steps of Nesterov's method from xhat, (C, d)."""
    root = jnp.sqrt(1 / (hp.client_lr * hp.tau))  # of the subproblem's condition number
    beta = (root - 1) / (root + 1)

    def one(_: jax.Array, carry: tuple[ClientVecs, ClientVecs]) -> tuple[ClientVecs, ClientVecs]:
        y, ahead = carry
        y_new = ahead - hp.client_lr * (grad_F(ahead) + hp.tau * (ahead - start) - u)
        return y_new, y_new + beta * (y_new - y)

    return repeat(hp.local_steps, one, (start, start))[0]


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    cohort_size: int | None = None,
    local_steps: int | None = None,
) -> Hparams:
    """gamma = (3/16) sqrt(C / (n L mu (1 + omega)(1 + omega/C))), tau = 1/(2 gamma n (1 + omega/C)), L = max_i L_i.

    as 5GCS for omega = 0 (recalled only), our safe choice otherwise. The local solver's step is one over its
    smoothness (L - mu)/n + tau, and K = ceil(2 sqrt(kappa_local) log(4 kappa)).
    """
    compressor = choose(compressor, problem)
    L, mu = constants(problem, "five_gcs_cc")
    n, C = problem.n, cohort_size or problem.n
    omega = compressor.omega(problem.dim)
    gamma = 3 / 16 * math.sqrt(C / (n * L * mu * (1 + omega) * (1 + omega / C)))
    tau = 1 / (2 * gamma * n * (1 + omega / C))
    client_lr = 1 / ((L - mu) / n + tau)
    K = math.ceil(2 * math.sqrt(1 / (client_lr * tau)) * math.log(4 * L / mu))
    return Hparams(compressor, gamma, tau, client_lr, K if local_steps is None else local_steps, cohort_size)


register(
    "five_gcs_cc",
    title="5GCS-CC",
    up="C(change of h_i), h_i duals",
    down="x",
    speed="((1 + √ω + ω/√n) √κ + ω) log 1/ε rounds (recalled)",
    paper="2212.14370, 2306.03240 Improving Accelerated Federated Learning with Compression and Importance Sampling "
    "(recalled only; constants are ours)",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
