"""FedAvg (Local SGD) and FedProx: local steps, then the mean of the models.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", arXiv 1602.05629; Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous
Networks", arXiv 1812.06127 (the form of google/fedjax: a proximal term in every local gradient).

With a compressor the changes y_i - x travel compressed, which is FedPAQ (arXiv 1909.13014, recalled only).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, register
from fedjax_lc.algorithms.frames.local import Local, Round, begin, clock, step_size, usual
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Local):
    client_lr: Scalar = hyperparameter("eta_l, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("eta_g, step size of the server along the mean change", "(0, inf)")
    compressor: Compressor = hyperparameter("compressor of the clients' changes, unbiased")


@pytree.dataclass
class ProxHparams(Hparams):
    mu: Scalar = hyperparameter("weight of the proximal term (mu/2) |y - x|^2", "[0, inf)")


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, clock(), start(problem, hp))


def change(problem: Problem, hp: Any, state: Any, key: Key, mu: Scalar | None = None) -> tuple[Vec, Round, Cost]:
    """Delta = sum_i w_i C(y_i - x) of one round, the round itself, and what it cost."""
    round, x = begin(problem, hp, state.t, key, state.aggregation), state.x
    pull = (lambda y: 0.0) if mu is None else (lambda y: mu * (y - x[None]))
    y = round.train(lambda y, g: y - round.hp.client_lr * (g + pull(y)), x)
    sent, bits = round.upload(hp.compressor, y - x[None])
    return round.mean(sent), round, round.cost(bits, round.floats(1))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    Delta, round, cost = change(problem, hp, state, key)
    return State(state.x + round.hp.server_lr * Delta, state.t + 1, round.aggregation), cost


def prox_step(problem: Problem, hp: ProxHparams, state: State, key: Key) -> tuple[State, Cost]:
    Delta, round, cost = change(problem, hp, state, key, hp.mu)
    return State(state.x + round.hp.server_lr * Delta, state.t + 1, round.aggregation), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10, compressor: Compressor | str = "identity") -> Hparams:
    """client_lr as `local.step_size`, server_lr = 1."""
    lr = step_size(problem, local_steps)
    return Hparams(lr, 1.0, choose(compressor, problem), **usual(problem, local_steps))


def prox_theory(
    problem: Problem, local_steps: int = 10, compressor: Compressor | str = "identity", mu: float | None = None
) -> ProxHparams:
    """As FedAvg; mu = L/10 if not given (our choice: the paper tunes it)."""
    hp = theory(problem, local_steps, compressor)
    return ProxHparams(**vars(hp), mu=float(problem.smooth.max()) / 10 if mu is None else mu)


PAPER = "1602.05629 Communication-Efficient Learning of Deep Networks from Decentralized Data"

register(
    "fedavg",
    title="FedAvg",
    up="C(y_i - x), C = id by default",
    down="x",
    speed="1-γμ per local step to noise, equal clients (recalled)",
    paper=PAPER,
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)

register(
    "fedprox",
    title="FedProx",
    up="C(y_i - x), C = id by default",
    down="x",
    paper="1812.06127 Federated Optimization in Heterogeneous Networks",
    Hparams=ProxHparams,
    init=init,
    step=prox_step,
    point=point,
    theory=prox_theory,
)
