"""Local AdaAlter: AdaGrad with local steps, its accumulator renewed at communications only.

Xie, Koyejo, Gupta, Lin, "Local AdaAlter: Communication-Efficient Stochastic Gradient Descent with Adaptive Learning
Rates", arXiv 1911.09030 (recalled only).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register, tile
from fedjax_lc.algorithms.frames.local import Local, begin, clock, step_size, usual
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta_l, step size of local steps", "(0, inf)")
    eps: Scalar = hyperparameter(
        "t eps^2 stands under the root at the t-th step since the last communication", "(0, inf)", default=1e-3
    )
    v0: Scalar = hyperparameter("start of the accumulator", "[0, inf)", default=0.0)


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    B2: Vec  # (d,) the accumulator that all clients divide by
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, jnp.full_like(problem.x0, hp.v0), clock(), start(problem, hp, 2))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    hp, x, B2 = round.hp, state.x, state.B2

    def local(h: Any, now: Any) -> Any:
        y, A2 = now
        g = round.gradients(h, y)
        since = jnp.asarray(h + 1, x.dtype)
        return y - hp.client_lr * g / jnp.sqrt(B2 + since * hp.eps**2)[None], A2 + g**2

    y, A2 = round.loop(local, (tile(x, round.c), tile(B2, round.c)))
    x, B2 = x + round.mean(y - x[None]), B2 + round.mean(A2 - B2[None])
    return State(x, B2, state.t + 1, round.aggregation), round.cost(round.floats(2), round.floats(2))


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10) -> Hparams:
    """eps = 1 and client_lr as `local.step_size`, so that the first steps are those of Local SGD (our choices)."""
    return Hparams(step_size(problem, local_steps), 1.0, **usual(problem, local_steps))


register(
    "local_adaalter",
    title="Local AdaAlter",
    up="y_i and sum of g_i²",
    down="x and mean sum of g_i²",
    paper="1911.09030 Local AdaAlter: Communication-Efficient Stochastic Gradient Descent with Adaptive Learning Rates",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
