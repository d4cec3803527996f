"""TAMUNA: CompressedScaffnew with a random cohort of clients in every round.

Condat, Agarsky, Malinovsky, Richtarik, "TAMUNA: Doubly Accelerated Distributed Optimization with Local Training,
Compression, and Partial Participation", arXiv 2302.09832, Algorithm 1.

One step is one round: the cohort starts from the server's model, takes L ~ Geometric(p) local steps and sends masked
vectors; clients that sit out do nothing, and their control variates wait.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.compressed_scaffnew import mask, sharing, uplink_bits
from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Cost, constants, register, tile
from fedjax_lc.algorithms.frames.participation import sample
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import shared
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Aggregated):
    gamma: Scalar = hyperparameter("step size, below 2/L", "(0, inf)")
    s: Scalar = hyperparameter("number of clients that send each coordinate", "whole [2, cohort_size]")
    chi: Scalar = hyperparameter("relaxation of the control variates")
    p: Scalar = hyperparameter("probability that a local step ends the round: 1/p of them on average", "(0, 1]")
    cohort_size: int | None = hyperparameter(
        "c, clients in a round; all if None", "whole [1, n]", default=None, static=True
    )
    bits: str = hyperparameter(
        "uplink bits that count: their mean over clients or the largest message", ("mean", "max"), default="mean"
    )


class State(NamedTuple):
    xbar: Vec  # (d,) the server's model
    h: ClientVecs  # (n, d) control variates, of sum zero
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    return State(problem.x0, jnp.zeros((problem.n, problem.dim), problem.dtype), start(problem, hp))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    cohort_key, length_key, mask_key = jax.random.split(key, 3)
    aggregate = Aggregation(hp, state.aggregation, key)
    n, d, c = problem.n, problem.dim, hp.cohort_size or problem.n
    cohort, clients = sample(problem, cohort_key, c)
    L = jax.random.geometric(length_key, hp.p, dtype=jnp.int32)
    h = cohort.rows(state.h)
    local_step = lambda _, x: x - hp.gamma * (clients.grads(x) - h)
    x = jax.lax.fori_loop(0, L, local_step, tile(state.xbar, c))
    q = mask(shared(jax.random.permutation(mask_key, c)), d, hp.s)
    xbar = aggregate(x, q.astype(x.dtype) / hp.s)
    h = h + hp.p * hp.chi / hp.gamma * q * (xbar[None] - x)
    up, share = uplink_bits(q, hp.bits), c / n
    # Down go the model and, at the end, the new average where a client's mask asks for it.
    down = FLOAT_BITS * (d + jnp.mean(jnp.sum(q, axis=1)))
    cost = Cost.of(up if hp.bits == "max" else share * up, share * down, grads=share * L, rounds=1)
    return State(xbar, cohort.put(state.h, h), aggregate.memories), cost


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.xbar


def theory(problem: Problem, cohort_size: int | None = None, s: int | None = None, bits: str = "mean") -> Hparams:
    """gamma = 2/(L + mu), and chi, p as CompressedScaffnew with n clients, L = max_i L_i; s = max(2, floor(c/d))."""
    L, mu = constants(problem, "tamuna")
    c = cohort_size or problem.n
    s = max(2, c // problem.dim) if s is None else s
    chi, p = sharing(problem.n, s, L / mu)
    return Hparams(gamma=2 / (L + mu), s=s, chi=chi, p=p, cohort_size=cohort_size, bits=bits)


register(
    "tamuna",
    title="TAMUNA",
    up="masked x_i: sd/n floats on average",
    down="x, then x⁺ masked",
    paper="2302.09832 TAMUNA: Doubly Accelerated Distributed Optimization with Local Training, Compression, and "
    "Partial Participation",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
