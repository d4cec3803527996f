"""Rounds of local training: who takes part, the steps of each between two communications, and what they cost.

A method's step opens a round, lets its cohort train and puts together what comes back:

    round = begin(problem, hp, state.t, key)
    y = round.train(lambda y, g: y - round.hp.client_lr * g, state.x)
    x = state.x + round.mean(y - state.x)

Only the cohort computes: its problem and its rows of a state (n, d) are gathered, and put back after the round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories
from fedjax_lc.algorithms.frames.base import Batches, Cost, mean_cost, tile
from fedjax_lc.algorithms.frames.participation import Cohorts, Members, select, where_rows
from fedjax_lc.algorithms.frames.rules import largest_step
from fedjax_lc.algorithms.frames.schedules import Schedule, parse
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import PER_CLIENT, SCHEDULE, hyperparameter
from fedjax_lc.core.platforms import repeat
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem
from fedjax_lc.problems.base import Sampled

CLIENT_STEPS, SERVER_STEPS = ("client_lr", "gamma"), ("server_lr",)  #: fields that the schedules multiply


@pytree.dataclass
class Local(Batches, Cohorts, Aggregated):
    """Hyperparameters of all methods with local training; batches are those of a local step."""

    _: dataclasses.KW_ONLY
    local_steps: Scalar = hyperparameter(
        "K, local steps of a client in a round", "whole [1, inf)", default=10, count=True, kind=PER_CLIENT
    )
    local_epochs: int | None = hyperparameter(
        "passes over a client's rows in random orders, instead of local_steps",
        "whole [1, inf)",
        default=None,
        static=True,
    )
    client_weights: str = hyperparameter(
        "weights of the clients in a round's mean, by their rows or equal (right where F itself counts rows)",
        ("equal", "size"),
        default="equal",
    )
    client_schedule: Schedule = hyperparameter(
        "factor of the local step size over rounds, as in cosine:100 (fedjax-lc list schedules)",
        default="constant",
        kind=SCHEDULE,
    )
    server_schedule: Schedule = hyperparameter(
        "factor of the server's step size over rounds, as in cosine:100 (fedjax-lc list schedules)",
        default="constant",
        kind=SCHEDULE,
    )

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        super().validate(problem)
        for name, steps in (("client_schedule", CLIENT_STEPS), ("server_schedule", SERVER_STEPS)):
            schedule = getattr(self, name)
            if schedule != "constant" and not any(hasattr(self, step) for step in steps):
                raise InputError(f"{name}={schedule!r} has nothing to act on: this method has no {steps[0]}")
        if isinstance(self.local_steps, list | tuple):
            raise InputError("local_steps must be one number or an array (n,), got a list: wrap it in jnp.array")
        if np.ndim(self.local_steps) and np.shape(self.local_steps) != (problem.n,):
            raise InputError(f"local_steps must be one number or {problem.n}, one for each client, got shape "
                             f"{np.shape(self.local_steps)}")  # fmt: skip
        if self.client_weights == "size" and not isinstance(problem, Sampled):
            raise InputError("client_weights by size need a problem whose clients have rows")
        scale = problem.scale if self.client_weights == "size" and isinstance(problem, Sampled) else 1.0
        if not pytree.is_traced(scale) and np.ptp(scale) > 1e-3:
            raise InputError("client_weights='size' beside an F that weighs its clients would count sizes twice: leave "
                             "out one of them")  # fmt: skip
        if self.local_epochs is not None and (self.batch_size is None or not isinstance(problem, Sampled)):
            raise InputError("local_epochs are passes over rows in batches: give batch_size, and a problem with rows")


@dataclasses.dataclass
class Round:
    """One round: the cohort of c clients, their work and what it costs.

    problem: the functions f_i of the cohort. hp: hyperparameters, step sizes already scheduled. ids: (c,) the clients'
    numbers, None for all n in order. present: (c,) which of them are real, None for all. shares: (c,) weights of sum 1
    (0 of who is absent). steps: local steps, a plain number, () or (c,). orders: the rows' orders of local epochs.
    aggregate: how the server puts together what they send.
    """

    problem: Any
    hp: Any
    n: int
    ids: jax.Array | None
    present: jax.Array | None
    shares: jax.Array
    steps: Any
    orders: Any
    batch_key: Key
    uplink_key: Key
    aggregate: Aggregation

    @property
    def c(self) -> int:
        """Places in the cohort."""
        return self.problem.n

    # --- the rows of a state (n, d), or any (n, ...) ---

    @property
    def members(self) -> Members:
        return Members(self.ids, self.n, self.present)

    def rows(self, rows: Any) -> Any:
        """(c, ...) the cohort's rows of (n, ...)."""
        return self.members.rows(rows)

    def put(self, rows: Any, new: Any) -> Any:
        """(n, ...) with the cohort's rows replaced by `new` (c, ...); who is absent keeps theirs."""
        return self.members.put(rows, new)

    def mean(self, rows: ClientVecs) -> Vec:
        """sum_i w_i rows_i over the cohort."""
        return self.aggregate(rows, self.shares)

    def part(self, rows: ClientVecs) -> Vec:
        """What those present bring to the mean over all n clients: (1/n) times their sum."""
        return self.aggregate.part(rows, self.present, self.n)

    @property
    def aggregation(self) -> Memories:
        """The memories of the means so far, for the next round."""
        return self.aggregate.memories

    # --- local training ---

    def gradients(self, h: Any, y: Vec | ClientVecs) -> ClientVecs:
        """(c, d) gradients on the batches of local step h; the same h, the same batches."""
        hp, key = self.hp, jax.random.fold_in(self.batch_key, h)
        if hp.batch_size is None:
            return self.problem.grads(y)
        if self.orders is None:
            return self.problem.stochastic_grads(key, y, hp.batch_size, replacement=hp.replacement)
        return self.problem.batch_grads(*self.problem.turn(self.orders, jnp.asarray(h), hp.batch_size), y, key)

    def train(self, move: Callable[..., Any], x: Vec | ClientVecs, *memory: PyTree, first: int = 0) -> Any:
        """K local steps of every client from x: `move(y, g, *memory)` returns the next y, and memory if there is any.

        x (d,) or (c, d); memory: pytrees with a leading axis of clients. Steps are those from `first` on.
        """

        def one(h: Any, now: tuple[Any, ...]) -> tuple[Any, ...]:
            moved = move(now[0], self.gradients(h, now[0]), *now[1:])
            return moved if memory else (moved,)

        start = tile(x, self.c) if x.ndim == 1 else x
        end = self.loop(one, (start, *memory), first)
        return end if memory else end[0]

    def loop(self, one: Callable[[Any, PyTree], PyTree], carry: PyTree, first: int = 0) -> PyTree:
        """`carry = one(h, carry)` for h = first, ..., K - 1, where a client whose K is reached keeps its rows."""

        def step(h: jax.Array, carry: PyTree) -> PyTree:
            new = one(h, carry)
            if jnp.ndim(self.steps) == 0:
                return new
            return jax.tree.map(lambda a, b: where_rows(h < self.steps, a, b), new, carry)

        return repeat(self.steps if jnp.ndim(self.steps) == 0 else jnp.max(self.steps), step, carry, first)

    # --- communication ---

    def upload(self, compressor: Compressor, rows: ClientVecs) -> tuple[ClientVecs, jax.Array]:
        """What the server decodes of rows (c, d), and the bits of each message (c,)."""
        if self.ids is None or compressor.shares:
            message = compressor.joint(self.uplink_key, rows)
        else:
            message = jax.vmap(compressor)(self.problem.client_keys(self.uplink_key), rows)
        return message.value, jnp.broadcast_to(jnp.asarray(message.bits, jnp.float32), (self.c,))

    def cost(self, up: Scalar, down: Scalar, *, times: Scalar = 1, extra: Scalar = 0) -> Cost:
        """Cost of the round: bits up and down of each present client, () or (c,), and its gradients: `times` of its
        batches' in every local step, and `extra` full ones besides."""
        steps = self.hp.local_epochs if self.orders is not None else self.steps * self.passes
        return Cost.of(self._over_all(up), self._over_all(down), self._over_all(times * steps + extra), 1)

    @property
    def passes(self) -> Any:
        """The share of a full gradient that the batch of one local step costs, 1 or (c,)."""
        if self.hp.batch_size is None:
            return 1
        return self.problem.passes(self.hp.batch_size, replacement=self.hp.replacement and self.orders is None)

    def floats(self, vectors: Scalar) -> Scalar:
        """Bits of so many vectors (d,) of floats."""
        return FLOAT_BITS * vectors * self.problem.dim

    def _over_all(self, each: Any) -> jax.Array:
        """() mean over all n clients of what those present pay."""
        each = jnp.broadcast_to(jnp.asarray(each, jnp.float32), (self.c,))
        return mean_cost(each if self.present is None else jnp.where(self.present, each, 0), self.n)


def begin(problem: Any, hp: Any, t: jax.Array, key: Key, aggregation: Memories = None) -> Round:
    """Round t = 0, 1, ...: its cohort, drawn by `key`, and their work; with the memories of the round before.

    Raises:
        InputError: choices that cannot be, see `Local.validate`.
    """
    hp.validate(problem)
    cohort_key, batch_key, order_key, uplink_key = jax.random.split(key, 4)
    ids, present = select(problem, hp, t, cohort_key)
    cohort = problem if ids is None else problem.cohort(ids)
    raw = cohort.sizes.astype(problem.dtype) if hp.client_weights == "size" else jnp.ones(cohort.n, problem.dtype)
    raw = raw if present is None else jnp.where(present, raw, 0)
    shares = raw / jnp.sum(raw)
    steps, orders = hp.local_steps, None
    if hp.local_epochs is not None:
        steps = hp.local_epochs * cohort.turns(hp.batch_size)
        orders = cohort.orders(order_key, hp.local_epochs)
    elif not pytree.is_whole(steps):
        steps = jnp.asarray(steps).astype(jnp.int32)
        steps = steps if jnp.ndim(steps) == 0 or ids is None else steps[ids]
    return Round(
        problem=cohort,
        hp=scheduled(hp, t),
        n=problem.n,
        ids=ids,
        present=present,
        shares=shares,
        steps=steps,
        orders=orders,
        batch_key=batch_key,
        uplink_key=uplink_key,
        aggregate=Aggregation(hp, aggregation, key),
    )


def members(problem: Problem, hp: Local, t: jax.Array, key: Key) -> jax.Array:
    """(n,) 1 for the clients of round t, as `begin` draws them by this key, 0 for others."""
    ids, present = select(problem, hp, t, jax.random.split(key, 4)[0])
    if ids is None:
        return jnp.ones(problem.n, problem.dtype)
    places = ids if present is None else jnp.where(present, ids, problem.n)
    return jnp.zeros(problem.n, problem.dtype).at[places].set(1, mode="drop")


def scheduled(hp: Any, t: jax.Array) -> Any:
    """hp with its step sizes as they are in round t."""
    changes = {}
    for names, schedule in ((CLIENT_STEPS, hp.client_schedule), (SERVER_STEPS, hp.server_schedule)):
        for name in names:
            if schedule != "constant" and hasattr(hp, name):
                size = getattr(hp, name)
                dtype = jnp.result_type(size)
                changes[name] = size * jnp.asarray(parse(schedule)(t.astype(dtype)), dtype)
    return dataclasses.replace(hp, **changes)


def clock() -> jax.Array:
    """The number of the first round, ()."""
    return jnp.zeros((), jnp.int32)


def client_zeros(problem: Problem) -> ClientVecs:
    """(n, d) of zeros."""
    return jnp.zeros((problem.n, problem.dim), problem.dtype)


def step_size(problem: Problem, local_steps: int) -> float:
    """1/(4 L max(1, 2 (K - 1))), L = max_i L_i: the bound of Local SGD with heterogeneous clients (Khaled, Mishchenko
    and Richtarik, arXiv 1909.04746, recalled only). Of a network no theory holds: 1/L, L estimated at the start."""
    return largest_step(problem, 1 / (4 * float(jnp.max(problem.smooth)) * max(1, 2 * (local_steps - 1))))


def usual(problem: Problem, local_steps: int) -> dict[str, Any]:
    """The fields of `Local` that theory sets: K, and minibatches where the problem's gradients are costly."""
    return {"local_steps": local_steps, "batch_size": problem.usual_batch}
