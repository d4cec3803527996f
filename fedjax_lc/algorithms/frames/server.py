"""Rounds with a server between an uplink and a downlink: three choices that compose into a method.

An *uplink* turns the clients' gradients into the server's estimate ghat of the mean gradient; a *downlink* says what
the model moves along, and what the clients see of it next (`turns`; those that methods share are in `links`). A method
is who keeps which error, and when it is paid back: the clients or the server in a later message (`error_feedback`,
`gradient_with_error`), a client in its model at once (the residuals of CSER and LIEC-SGD), or a memory that messages
are differences to (`memory`, EF21's `corrections`, MCM's H). Around them, once for all methods: full or mini-batch
gradients at what the clients see, a step size that may fall, weight decay and momentum, cohorts, and averaged iterates.
The first message may be the gradients themselves: then all clients send it, and it costs 32 bits an entry, whatever the
method.

Source: Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression in distributed
settings", arXiv 2102.12528, and LIEC-SGD, arXiv 2402.11857, with the details of the authors' codes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Batches, Cost, passes
from fedjax_lc.algorithms.frames.participation import Cohorts
from fedjax_lc.algorithms.frames.schedules import Schedule, parse
from fedjax_lc.algorithms.frames.turns import (
    Coder,
    Downlink,
    Oracle,
    Sent,
    Turn,
    Uplink,
    cohort_of,
    dense,
    participants,
)
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import SCHEDULE, hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Rounds(Batches, Cohorts, Aggregated):
    """Hyperparameters of all these methods."""

    _: dataclasses.KW_ONLY
    decay: Scalar = hyperparameter(
        "power of k in the step size gamma / k^decay of round k = 1, 2, ..., times gamma_schedule",
        "[0, inf)",
        default=0.0,
    )
    momentum: Scalar | None = hyperparameter(
        "m of v = m v + u: the model moves along v instead of u; off if None", "[0, 1)", default=None
    )
    weight_decay: Scalar | None = hyperparameter(
        "weight of the model w that is added to its direction u, uncompressed, before momentum; off if None",
        "[0, inf)",
        default=None,
    )
    participation: Scalar | None = hyperparameter(
        "probability that a client takes part, given that somebody does; all, or a cohort, if None",
        "(0, 1]",
        default=None,
    )
    average_every: int | None = hyperparameter(
        "rounds between steps of the average of iterates, evaluated instead of the last one; off if None",
        "whole [1, inf)",
        default=None,
        static=True,
    )
    gamma_schedule: Schedule = hyperparameter(
        "factor of the step size over rounds, as in cosine:100 (fedjax-lc list schedules)",
        default="constant",
        kind=SCHEDULE,
    )

    @property
    def starts_dense(self) -> bool:
        """Whether round 1 brings the gradients of all clients to the server, uncompressed."""
        return False

    @property
    def for_all(self) -> bool:
        """Whether everyone takes part in every round."""
        return self.participation is None and self.cohort_size is None and self.schedule is None

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        super().validate(problem)
        if self.participation is not None and not (self.cohort_size is None and self.schedule is None):
            raise InputError("participation and cohort_size or schedule all say who takes part: give one of them")


@pytree.dataclass
class WithMemory(Rounds):
    """The same, and those of methods with uplink memories."""

    _: dataclasses.KW_ONLY
    smart: bool = hyperparameter(
        "whether h_i = g_i in round 1, which all clients send uncompressed, as in the authors' code", default=False
    )
    memories: str = hyperparameter(
        "memories of the server: one for each client (all, PP1) or a single one (PP2); the same where all take part",
        ("all", "one"),
        default="all",
    )

    @property
    def starts_dense(self) -> bool:
        return self.smart


class State(NamedTuple):
    w: Vec | ClientVecs  # (d,) the model, or (n, d), one of each client
    seen: Vec | ClientVecs | None  # (d,) or (n, d) what the clients see of it; None: w
    up: PyTree  # the uplink's memories
    down: PyTree  # the downlink's
    k: jax.Array  # () rounds so far
    active: jax.Array | None  # (n,) who takes part in the next round; None for all
    average: Vec | None  # (d,) w_bar
    v: Vec | ClientVecs | None  # as w: momentum
    aggregation: Memories = None
    coding: PyTree = None  # what the uplink's compressor keeps between rounds


def compose(uplink: Uplink, downlink: Downlink) -> dict[str, Any]:
    """init, step and point of the method that sends up by `uplink` and down by `downlink`, for `register`."""

    def init(problem: Problem, hp: Any, key: Key) -> State:
        hp.validate(problem)
        w, seen, down = downlink.start(problem, hp)
        return State(
            w=w,
            seen=seen,
            up=uplink.start(problem, hp),
            down=down,
            k=jnp.zeros((), jnp.int32),
            active=participants(problem, hp, 0, key),
            average=None if hp.average_every is None else problem.x0,
            v=None if hp.momentum is None else jnp.zeros_like(w),
            aggregation=start(problem, hp, uplink.aggregates + downlink.aggregates),
            coding=hp.compressor.start(problem.n, problem.dim, problem.dtype) if hasattr(hp, "compressor") else None,
        )

    def step(problem: Problem, hp: Any, state: State, key: Key) -> tuple[State, Cost]:
        batch_key, up_key, down_key, cohort_key = jax.random.split(key, 4)
        k = state.k + 1
        gamma, cohort = step_size(hp, k, problem.dtype), cohort_of(hp, state.active, k)
        seen = state.w if state.seen is None else state.seen
        oracle = Oracle(problem, hp, seen, batch_key, passes(problem, hp))
        aggregate, coder = Aggregation(hp, state.aggregation, key), Coder(getattr(hp, "compressor", None), state.coding)
        g = oracle.at(seen, cohort._replace(size=None) if hp.starts_dense else cohort)
        sent = uplink.send(hp, state.up, g, Turn(k, gamma, cohort, up_key, oracle, aggregate, coder))
        sent, coding = dense_at_first(hp, sent, k), coder.state
        if hp.starts_dense:
            coding = jax.tree.map(lambda new, old: jnp.where(k == 1, old, new), coding, state.coding)
        coming = cohort_of(hp, participants(problem, hp, k, cohort_key), k + 1)
        turn = Turn(k, gamma, coming, down_key, oracle, aggregate, coder)
        base, u, down, bits_down, more_up = downlink.direct(hp, state.down, state.w, sent, turn)
        w, v = moved(hp, gamma, base, u, state.v)
        announced = downlink.announce(hp, down, w, state.seen, turn)
        average = averaged(hp, state.average, announced.w, k)
        grads = cohort.cost(oracle.passes) if sent.passes is None else sent.passes
        bits_down = bits_down + announced.bits + (cohort.cost(coder.answers) if coder.answers else 0)
        cost = Cost.of(sent.bits + more_up, bits_down, grads, rounds=1)
        memories = aggregate.memories
        new = State(
            announced.w, announced.seen, sent.memory, announced.memory, k, coming.active, average, v, memories, coding
        )
        return new, cost

    def point(problem: Problem, hp: Any, state: State) -> Vec:
        return model(state.w) if state.average is None else state.average

    return {"init": init, "step": step, "point": point}


def step_size(hp: Any, k: jax.Array, dtype: Any) -> Scalar:
    """gamma of round k = 1, 2, ..."""
    gamma = hp.gamma / k.astype(dtype) ** hp.decay
    if hp.gamma_schedule == "constant":
        return gamma
    return gamma * jnp.asarray(parse(hp.gamma_schedule)((k - 1).astype(dtype)), dtype)


def moved(hp: Any, gamma: Scalar, base: Any, u: Any, v: Any) -> tuple[Any, Any]:
    """base - gamma u, with weight decay and momentum v, and the new v."""
    if hp.weight_decay is not None:
        u = u + hp.weight_decay * base
    if v is not None:
        v = u = hp.momentum * v + u
    return base - gamma * u, v


def everyone(method: str, hp: Rounds) -> None:
    """Raise InputError where clients would stay away from a method that needs all of them."""
    if not hp.for_all:
        raise InputError(f"{method} needs all clients in every round: leave out participation and cohorts")


def model(w: Vec | ClientVecs) -> Vec:
    """(d,) the model; where each client has one, their mean."""
    return w if w.ndim == 1 else jnp.mean(w, axis=0)


def dense_at_first(hp: Rounds, sent: Sent, k: jax.Array) -> Sent:
    """`sent` at the price of the gradients themselves in round 1, where these are sent."""
    if not hp.starts_dense:
        return sent
    return sent._replace(bits=jnp.where(k == 1, dense(sent.ghat), sent.bits))


def averaged(hp: Rounds, average: Vec | None, w: Any, k: jax.Array) -> Vec | None:
    """w_bar after round k, moved every `average_every` rounds."""
    if average is None or hp.average_every is None:
        return None
    new = average + (model(w) - average) / (k + 1).astype(w.dtype)
    return jnp.where(k % hp.average_every == 0, new, average)
