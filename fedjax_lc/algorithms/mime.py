"""MIME and MimeLite: clients use the server's optimiser, its state frozen during local training.

Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Mime: Mimicking Centralized Stochastic Algorithms in Federated
Learning", arXiv 2008.03606, in the form of google/fedjax's code.

G is the cohort's mean full gradient at x. A local step of MIME goes along g_i(y) - g_i(x) + G, both on the same batch;
MimeLite's along g_i(y). After the round the optimiser's state moves once, by G.
"""

from __future__ import annotations

from collections.abc import Callable
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
    server_lr: Scalar = hyperparameter("eta_g, step size of the server along the mean change", "(0, inf)")
    b1: Scalar = hyperparameter(
        "momentum of sgd (buffer = g + b1 buffer), or weight of Adam's old first moment", "[0, 1)", default=0.9
    )
    b2: Scalar = hyperparameter("weight of Adam's old second moment", "[0, 1)", default=0.99)
    eps: Scalar = hyperparameter("added to the root of Adam's second moment", "(0, inf)", default=1e-8)
    opt: str = hyperparameter("the optimiser whose state the clients use", ("sgd", "adam"), default="sgd")
    frozen: str = hyperparameter(
        "whether Adam's denominator mixes in the local gradient for the one step (fedjax) or not (strict)",
        ("fedjax", "strict"),
        default="fedjax",
    )


class Moments(NamedTuple):
    m: Vec  # (d,) momentum, or Adam's first moment
    v: Vec | None  # (d,) Adam's second one
    updates: jax.Array  # () so far


class State(NamedTuple):
    x: Vec  # (d,) the server's model
    s: Moments  # its optimiser's
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    zero = jnp.zeros_like(problem.x0)
    return State(problem.x0, Moments(zero, zero if hp.opt == "adam" else None, clock()), clock(), start(problem, hp, 2))


def update(hp: Hparams, s: Moments, g: Any) -> tuple[Any, Moments]:
    """(direction, moments) after gradients g, (d,) or (c, d)."""
    if hp.opt == "sgd":
        m = g + hp.b1 * s.m
        return m, Moments(m, None, s.updates + 1)
    m, v = hp.b1 * s.m + (1 - hp.b1) * g, hp.b2 * s.v + (1 - hp.b2) * g**2
    count = (s.updates + 1).astype(g.dtype)
    direction = m / (1 - hp.b1**count) / (jnp.sqrt(v / (1 - hp.b2**count)) + hp.eps)
    return direction, Moments(m, v, s.updates + 1)


def frozen_direction(hp: Hparams, s: Moments, g: Any) -> Any:
    """Where a local step goes from gradients g (c, d), the server's moments held."""
    s = Moments(s.m[None], None if s.v is None else s.v[None], s.updates)
    if hp.opt == "sgd" or hp.frozen == "fedjax":
        return update(hp, s, g)[0]
    count = s.updates.astype(g.dtype)
    m = (hp.b1 * s.m + (1 - hp.b1) * g) / (1 - hp.b1 ** (count + 1))
    v: Any = s.v
    before = 1 - hp.b2 ** jnp.maximum(count, 1)
    return m / (jnp.sqrt(jnp.where(count > 0, v / before, v)) + hp.eps)


def mime(lite: bool) -> Callable[..., tuple[State, Cost]]:
    """The step of MIME, or of MimeLite."""

    def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
        round = begin(problem, hp, state.t, key, state.aggregation)
        hp, x, s = round.hp, state.x, state.s
        G = round.mean(round.problem.grads(x))

        def local(h: Any, y: Any) -> Any:
            g = round.gradients(h, y)
            if not lite:
                g = g - round.gradients(h, x) + G[None]
            return y - hp.client_lr * frozen_direction(hp, s, g)

        y = round.loop(local, tile(x, round.c))
        x = x + hp.server_lr * round.mean(y - x[None])
        moments = 1 if hp.opt == "sgd" else 2
        down = round.floats(1 + moments + (not lite))
        cost = round.cost(round.floats(2), down, times=1 if lite else 2, extra=1)
        return State(x, update(hp, s, G)[1], state.t + 1, round.aggregation), cost

    return step


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(problem: Problem, local_steps: int = 10, opt: str = "sgd", frozen: str = "fedjax") -> Hparams:
    """client_lr as FedAvg times 1 - b1 for sgd, 0.001 for Adam; server_lr = 1 (our choices: the paper tunes them)."""
    lr = step_size(problem, local_steps) * 0.1 if opt == "sgd" else 1e-3
    return Hparams(lr, 1.0, opt=opt, frozen=frozen, **usual(problem, local_steps))


PAPER = "2008.03606 Mime: Mimicking Centralized Stochastic Algorithms in Federated Learning"

for _name, _title, _lite in (("mime", "MIME", False), ("mimelite", "MimeLite", True)):
    register(
        _name,
        title=_title,
        up="y_i and g_i(x)",
        down="x, moments" if _lite else "x, mean g_i(x), moments",
        paper=PAPER,
        Hparams=Hparams,
        init=init,
        step=mime(_lite),
        point=point,
        theory=theory,
    )
