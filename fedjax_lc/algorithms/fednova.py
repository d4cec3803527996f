"""FedNova: changes normalised by how many local steps they are worth, for clients that do unequal work.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
arXiv 2007.07481 (recalled; the norms re-derived and checked).

With tau_i local steps, x - y_i = eta sum_k a_ik g_ik; a client sends d_i = (x - y_i)/(eta |a_i|_1), and the server
steps by the mean of d_i times the mean norm.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register
from fedjax_lc.algorithms.frames.local import Local, begin, clock, step_size, usual
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, Scalar, Vec
from fedjax_lc.problems import Problem

SOLVERS = ("sgd", "momentum", "prox")


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("step size of the server along the normalised mean change", "(0, inf)")
    rho: Scalar = hyperparameter("momentum of the local steps, with solver=momentum", "[0, 1)", default=0.0)
    mu: Scalar = hyperparameter("weight of a proximal term (mu/2) |y - x|^2, with solver=prox", "[0, inf)", default=0.0)
    solver: str = hyperparameter(
        "local steps: plain, with momentum rho, or with the proximal term of mu", SOLVERS, default="sgd"
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        for name, solver in (("rho", "momentum"), ("mu", "prox")):
            value = getattr(self, name)
            if self.solver != solver and not pytree.is_traced(value) and np.any(value):
                raise InputError(f"{name}={value} acts with solver={solver!r} only, got solver={self.solver!r}")


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, clock(), start(problem, hp))


def norm(hp: Hparams, tau: Any) -> Any:
    """|a_i|_1, (c,), of tau (c,) local steps: tau; with momentum, (tau - rho (1 - rho^tau)/(1 - rho))/(1 - rho); with a
    proximal term, (1 - (1 - eta mu)^tau)/(eta mu)."""
    if hp.solver == "momentum":
        rho = hp.rho
        return (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)
    if hp.solver == "prox":
        shrink = hp.client_lr * hp.mu
        safe = jnp.where(shrink > 0, shrink, 1)
        return jnp.where(shrink > 0, (1 - (1 - safe) ** tau) / safe, tau)
    return tau


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    hp, x = round.hp, state.x
    pull = (lambda y: hp.mu * (y - x[None])) if hp.solver == "prox" else (lambda y: 0.0)
    rho = hp.rho if hp.solver == "momentum" else 0.0

    def move(y: Any, g: Any, buffer: Any) -> Any:
        buffer = rho * buffer + g + pull(y)
        return y - hp.client_lr * buffer, buffer

    y, _ = round.train(move, x, jnp.zeros((round.c, problem.dim), x.dtype))
    norms = norm(hp, jnp.broadcast_to(jnp.asarray(round.steps, x.dtype), (round.c,)))
    d = (x[None] - y) / norms[:, None]  # eta d_i, so that a schedule may bring eta to 0
    tau_eff = products.matmul(round.shares, norms)
    x = x - hp.server_lr * tau_eff * round.mean(d)
    return State(x, state.t + 1, round.aggregation), round.cost(round.floats(1) + FLOAT_BITS, round.floats(1))


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10, solver: str = "sgd") -> Hparams:
    """client_lr as FedAvg; rho = 0.9 with momentum, client_lr then times 1 - rho; mu = L/10 with prox (our choices)."""
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    lr, rho = step_size(problem, local_steps), 0.9 if solver == "momentum" else 0.0
    mu = float(problem.smooth.max()) / 10 if solver == "prox" else 0.0
    return Hparams(lr * (1 - rho), 1.0, rho, mu, solver, **usual(problem, local_steps))


register(
    "fednova",
    title="FedNova",
    up="(y_i - x)/a_i and a_i, its steps",
    down="x",
    paper="2007.07481 Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
