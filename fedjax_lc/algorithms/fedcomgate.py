"""FedCOMGATE: local steps with gradient tracking, and compressed model changes.

Haddadpour, Kamani, Mokhtari, Mahdavi, "Federated Learning with Compression: Unified Analysis and Sharp Guarantees",
arXiv 2007.01154, Algorithm 2 (step sizes recalled only; the update is as in the authors' code, FedTorch).

Corrections delta_i track how a client's gradient differs from the mean, so local steps do not drift; they learn from
the same compressed messages that move the model. Nothing damps that learning: the square of delta_i's error comes back
about omega (1 - 1/n) times as large, whatever the step size, so the compressor needs an omega well below 1 (natural, or
qsgd with many levels). With `own_delta` it is damped, but the delta_i no longer average to zero and the model settles
off the solution.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, choose, constants, register, tile
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS, divisor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.platforms import repeat
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    client_lr: Scalar = hyperparameter("eta, step size of local steps", "(0, inf)")
    server_lr: Scalar = hyperparameter("gamma, step size of the server, in units of eta", "(0, inf)")
    local_steps: Scalar = hyperparameter(
        "tau, local steps of a client in a round", "whole [1, inf)", default=10, count=True
    )
    own_delta: bool = hyperparameter(
        "whether delta_i learns from the client's change as it was before compression (FedTorch's code)", default=False
    )


class State(NamedTuple):
    w: Vec  # (d,) the model
    delta: ClientVecs  # (n, d) gradient corrections
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, jnp.zeros((problem.n, problem.dim), problem.dtype), start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    (uplink_key,) = jax.random.split(key, 1)
    w, delta, memories = state
    aggregate = Aggregation(hp, memories, key)
    eta, gamma, tau = hp.client_lr, hp.server_lr, hp.local_steps
    local_step = lambda _, w_i: w_i - eta * (problem.grads(w_i) - delta)
    w_i = repeat(tau, local_step, tile(w, problem.n))
    Delta_i = (w[None] - w_i) / eta
    message = hp.compressor.joint(uplink_key, Delta_i)
    Q = aggregate(message.value)
    w = w - eta * gamma * Q
    learnt = Delta_i if hp.own_delta else message.value
    delta = delta + (learnt - Q[None]) / divisor(tau, w.dtype)
    return State(w, delta, aggregate.memories), Cost.of(message.bits, FLOAT_BITS * problem.dim, grads=tau, rounds=1)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.w


def theory(
    problem: Problem,
    compressor: Compressor | str = "natural",
    local_steps: int = 10,
    server_lr: float = 1.0,
    own_delta: bool = False,
) -> Hparams:
    """eta = 1/(2 L (1 + omega/n) tau gamma), L = max_i L_i (recalled only; the paper's theory asks for gamma >= n)."""
    compressor = choose(compressor, problem)
    L, _ = constants(problem, "fedcomgate")
    omega = compressor.omega(problem.dim)
    eta = 1 / (2 * L * (1 + omega / problem.n) * local_steps * server_lr)
    return Hparams(compressor, eta, server_lr, local_steps, own_delta)


register(
    "fedcomgate",
    title="FedCOMGATE",
    up="C((x - y_i)/η)",
    down="x",
    speed="(1 + ω) κ log 1/ε rounds (recalled)",
    paper="2007.01154 Federated Learning with Compression: Unified Analysis and Sharp Guarantees",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
