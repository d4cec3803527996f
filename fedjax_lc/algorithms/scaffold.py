"""SCAFFOLD: local steps corrected by control variates, so that clients do not drift apart.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
arXiv 1910.06378, Algorithm 1 (recalled only).

Every client has a control variate c_i, an estimate of its gradient, and the server their mean c; a local step goes
along g_i - c_i + c. What a client sends is its model and its new c_i.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register
from fedjax_lc.algorithms.frames.local import Local, begin, client_zeros, clock, step_size, usual
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta_l, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("eta_g, step size of the server along the mean change", "(0, inf)")
    option: str = hyperparameter(
        "how c_i is renewed: the full gradient at x (I), or c_i - c + (x - y_i)/(K eta_l) (II)",
        ("I", "II"),
        default="II",
    )


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    c: Vec  # (d,) its control variate, the mean of c_i
    c_i: ClientVecs  # (n, d) those of the clients
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, jnp.zeros_like(problem.x0), client_zeros(problem), clock(), start(problem, hp, 2))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    x, c, c_i, eta_l = state.x, state.c, round.rows(state.c_i), round.hp.client_lr
    y = round.train(lambda y, g: y - eta_l * (g - c_i + c[None]), x)
    if hp.option == "I":
        c_next = round.problem.grads(x)
    else:
        K = jnp.broadcast_to(jnp.asarray(round.steps, x.dtype), (round.c,))
        c_next = c_i - c[None] + (x[None] - y) / (K * eta_l)[:, None]
        c_next = jnp.where(eta_l > 0, c_next, c_i)  # where a schedule has come to 0, nothing is learnt
    x = x + round.hp.server_lr * round.mean(y - x[None])
    c = c + round.part(c_next - c_i)
    cost = round.cost(round.floats(2), round.floats(2), extra=1 if hp.option == "I" else 0)
    return State(x, c, round.put(state.c_i, c_next), state.t + 1, round.aggregation), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10, option: str = "II") -> Hparams:
    """client_lr as `local.step_size`, server_lr = 1; the paper's is of the order 1/(L K)."""
    return Hparams(step_size(problem, local_steps), 1.0, option, **usual(problem, local_steps))


register(
    "scaffold",
    title="SCAFFOLD",
    up="y_i - x and change of h_i",
    down="x and mean h_i",
    paper="1910.06378 SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
