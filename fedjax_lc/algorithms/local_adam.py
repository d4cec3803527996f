"""Local Adam: every client runs Adam, and the models are averaged.

Chen, Li, Li, "Toward Communication Efficient Adaptive Gradient Method", arXiv 2106.02305 (recalled only).

The moments are reset at every round, averaged, or kept by their clients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register
from fedjax_lc.algorithms.frames.local import Local, begin, clock, usual
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta_l, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("step size of the server along the mean change", "(0, inf)", default=1.0)
    b1: Scalar = hyperparameter("weight of Adam's old first moment", "[0, 1)", default=0.9)
    b2: Scalar = hyperparameter("weight of Adam's old second moment", "[0, 1)", default=0.99)
    eps: Scalar = hyperparameter("added to the root of Adam's second moment", "(0, inf)", default=1e-8)
    moments: str = hyperparameter(
        "what becomes of the clients' moments after a round", ("reset", "average", "keep"), default="reset"
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        if self.moments == "average" and (self.local_epochs is not None or jnp.ndim(self.local_steps)):
            raise InputError("averaged moments need equal local steps: give one number as local_steps, no local_epochs")


class Moments(NamedTuple):
    m: Any  # first moment: (c, d) of a cohort, (n, d) kept, (d,) averaged
    v: Any  # second moment
    steps: jax.Array  # those of Adam behind them


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    s: Moments | None  # (n, d) if kept, (d,) if averaged, None if reset
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    shapes = {"reset": None, "average": (), "keep": (problem.n,)}
    leading, memories = shapes[hp.moments], start(problem, hp, 3 if hp.moments == "average" else 1)
    if leading is None:
        return State(problem.x0, None, clock(), memories)
    zero = jnp.zeros((*leading, problem.dim), problem.dtype)
    return State(problem.x0, Moments(zero, zero, jnp.zeros(leading, jnp.int32)), clock(), memories)


def adam(hp: Hparams, y: ClientVecs, g: ClientVecs, s: Moments) -> tuple[ClientVecs, Moments]:
    """One step of every client, with bias correction."""
    m, v, count = hp.b1 * s.m + (1 - hp.b1) * g, hp.b2 * s.v + (1 - hp.b2) * g**2, s.steps + 1
    power = count.astype(g.dtype)[:, None]
    direction = m / (1 - hp.b1**power) / (jnp.sqrt(v / (1 - hp.b2**power)) + hp.eps)
    return y - hp.client_lr * direction, Moments(m, v, count)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    hp, x, s = round.hp, state.x, state.s
    if s is None:
        zero = jnp.zeros((round.c, problem.dim), x.dtype)
        moments = Moments(zero, zero, jnp.zeros(round.c, jnp.int32))
    elif hp.moments == "average":
        moments = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (round.c, *leaf.shape)), s)
    else:
        moments = jax.tree.map(round.rows, s)
    y, moments = round.train(lambda y, g, s: adam(hp, y, g, s), x, moments)
    if hp.moments == "average":
        s = Moments(round.mean(moments.m), round.mean(moments.v), jnp.max(moments.steps))
    elif hp.moments == "keep":
        s = jax.tree.map(round.put, s, moments)
    vectors = 3 if hp.moments == "average" else 1
    x = x + hp.server_lr * round.mean(y - x[None])
    return State(x, s, state.t + 1, round.aggregation), round.cost(round.floats(vectors), round.floats(vectors))


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10, moments: str = "reset") -> Hparams:
    """client_lr = 0.001, Adam's usual default (no theory here)."""
    return Hparams(1e-3, moments=moments, **usual(problem, local_steps))


register(
    "local_adam",
    title="Local Adam",
    up="y_i; its moments if averaged",
    down="x; moments if averaged",
    paper="2106.02305 Toward Communication Efficient Adaptive Gradient Method",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
