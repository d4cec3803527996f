"""FedAMS and FedCAMS: AMSGrad at the server; FedCAMS with compressed changes and error feedback at the clients.

Wang, Lin, Chen, "Communication-Efficient Adaptive Federated Learning", arXiv 2205.02719; FedCAMS's errors from the
authors' code, the paper's form of the server step recalled only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms import fedavg
from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, register
from fedjax_lc.algorithms.frames.local import Local, begin, client_zeros, clock, step_size, usual
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem

PAPER = "2205.02719 Communication-Efficient Adaptive Federated Learning"


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta_l, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("eta, step size of the server's optimiser", "(0, inf)")
    compressor: Compressor = hyperparameter("compressor of the clients' changes, contractive")
    b1: Scalar = hyperparameter("weight of the old first moment", "[0, 1)", default=0.9)
    b2: Scalar = hyperparameter("weight of the old second moment", "[0, 1)", default=0.99)
    eps: Scalar = hyperparameter(
        "the least vmax in the paper's form, added to its root in the code's", "(0, inf)", default=1e-8
    )
    form: str = hyperparameter(
        "x += eta m/sqrt(vmax) as in the paper, or the code's bias corrections and vmax from 1e-3 on",
        ("paper", "code"),
        default="paper",
    )


class Moments(NamedTuple):
    m: Vec  # (d,) of the changes
    v: Vec  # (d,) of their squares
    vmax: Vec  # (d,) the largest v so far


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    s: Moments
    e_i: ClientVecs | None  # (n, d) what clients still owe; None for FedAMS
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def _init(problem: Problem, hp: Hparams, errors: ClientVecs | None) -> State:
    zero = jnp.zeros_like(problem.x0)
    vmax = jnp.full_like(zero, 1e-3 if hp.form == "code" else 0.0)
    return State(problem.x0, Moments(zero, zero, vmax), errors, clock(), start(problem, hp))


def ams(hp: Hparams, x: Vec, s: Moments, t: jax.Array, Delta: Vec) -> tuple[Vec, Moments]:
    """The server's step."""
    m, v = hp.b1 * s.m + (1 - hp.b1) * Delta, hp.b2 * s.v + (1 - hp.b2) * Delta**2
    vmax = jnp.maximum(s.vmax, v)
    if hp.form == "paper":
        vmax = jnp.maximum(vmax, hp.eps)
        return x + hp.server_lr * m / jnp.sqrt(vmax), Moments(m, v, vmax)
    count = (t + 1).astype(x.dtype)
    root = jnp.sqrt(vmax) / jnp.sqrt(1 - hp.b2**count) + hp.eps
    return x + hp.server_lr / (1 - hp.b1**count) * m / root, Moments(m, v, vmax)


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return _init(problem, hp, None)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    Delta, round, cost = fedavg.change(problem, hp, state, key)
    x, s = ams(round.hp, state.x, state.s, state.t, Delta)
    return State(x, s, None, state.t + 1, round.aggregation), cost


def cams_init(problem: Problem, hp: Hparams, key: Key) -> State:
    return _init(problem, hp, client_zeros(problem))


def cams_step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    y = round.train(lambda y, g: y - round.hp.client_lr * g, state.x)
    v = round.rows(state.e_i) + (y - state.x[None])
    c, bits = round.upload(hp.compressor, v)
    x, s = ams(round.hp, state.x, state.s, state.t, round.mean(c))
    cost = round.cost(bits, round.floats(1))
    return State(x, s, round.put(state.e_i, v - c), state.t + 1, round.aggregation), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(
    problem: Problem, local_steps: int = 10, compressor: Compressor | str = "identity", form: str = "paper"
) -> Hparams:
    """client_lr as FedAvg, server_lr = 0.01, eps = 1e-6 (our choices: the paper tunes them)."""
    lr = step_size(problem, local_steps)
    return Hparams(lr, 1e-2, choose(compressor, problem), eps=1e-6, form=form, **usual(problem, local_steps))


def cams_theory(
    problem: Problem, local_steps: int = 10, compressor: Compressor | str | None = None, form: str = "paper"
) -> Hparams:
    """As FedAMS, with a contractive compressor: top-k by default."""
    hp: Any = theory(problem, local_steps, "identity", form)
    return pytree.replace(hp, compressor=choose(compressor, problem, contractive=True))


register(
    "fedams",
    title="FedAMS",
    up="C(y_i - x), C = id by default",
    down="x",
    paper=PAPER,
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)

register(
    "fedcams",
    title="FedCAMS",
    up="C(y_i - x + e_i)",
    down="x",
    paper=PAPER,
    Hparams=Hparams,
    init=cams_init,
    step=cams_step,
    point=point,
    theory=cams_theory,
)
