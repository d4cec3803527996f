"""The parts of a round between clients and a server: who takes part, the turns of messages, uplinks and downlinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregation
from fedjax_lc.algorithms.frames.base import gradients, mean_cost
from fedjax_lc.algorithms.frames.participation import select
from fedjax_lc.compressors import Message
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem
from fedjax_lc.problems.draws import some_of


class Cohort(NamedTuple):
    """Who takes part in a round: `active` (n,), each with probability `share`; None for all. size: how many they are,
    where that is known beforehand."""

    active: jax.Array | None
    share: Scalar
    size: int | None = None

    def mean(self, rows: ClientVecs) -> Vec:
        """Unbiased estimate of the mean over all clients, from those that take part: their sum over share n."""
        if self.active is None:
            return jnp.mean(rows, axis=0)
        return jnp.mean(jnp.where(self.active[:, None], rows, 0), axis=0) / self.share

    def moved(self, new: ClientVecs, old: ClientVecs) -> ClientVecs:
        """`new` where a client takes part, `old` where not."""
        return new if self.active is None else jnp.where(self.active[:, None], new, old)

    def groups(self, group_of: jax.Array, count: int) -> Cohort:
        """Of `count` groups, client i being in group group_of[i], those with somebody who takes part."""
        if self.active is None:
            return self
        return Cohort(jnp.zeros(count, bool).at[group_of].max(self.active), self.share)

    def members(self, group_of: jax.Array) -> Cohort:
        """The clients of a cohort of groups."""
        return self if self.active is None else Cohort(self.active[group_of], self.share)

    def cost(self, each: Scalar) -> Scalar:
        """Mean over all clients of what those that take part pay, one number or (n,)."""
        return mean_cost(each if self.active is None else jnp.where(self.active, each, 0))


class Oracle(NamedTuple):
    """The gradients of a round, for uplinks that need others than those at x (d,) or (n, d), what the clients see.

    A batch costs `passes` full gradients, () or (n,).
    """

    problem: Problem
    hp: Any
    x: Vec | ClientVecs
    key: Key
    passes: Scalar

    def at(self, y: Vec | ClientVecs, cohort: Cohort) -> ClientVecs:
        """(n, d) gradients at y on this round's batches; of a cohort of known size, only those, and zeros elsewhere."""
        if cohort.size is None or cohort.active is None:
            return gradients(self.problem, self.hp, y, self.key)[0]
        (who,) = jnp.nonzero(cohort.active, size=cohort.size)
        g, _ = gradients(self.problem.cohort(who), self.hp, y if y.ndim == 1 else y[who], self.key)
        return jnp.zeros((self.problem.n, self.problem.dim), g.dtype).at[who].set(g, unique_indices=True)

    def full(self) -> ClientVecs:
        """(n, d) full gradients at x."""
        return self.problem.grads(self.x)


class Coder:
    """The uplink's compressor in one step, as it is traced: each call carries on the state that the compressor keeps.

    state: as the calls so far have left it, for the next step; None of a compressor without one.
    answers: bits that come back to a client for its messages.
    """

    def __init__(self, compressor: Any, state: PyTree) -> None:
        self.state, self.answers, self._compressor = state, 0, compressor

    def __call__(self, key: Key, rows: ClientVecs, present: jax.Array | None) -> Message:
        message, self.state = self._compressor.joint_with(key, rows, self.state, present)
        self.answers += self._compressor.answer_bits
        return message


class Turn(NamedTuple):
    """Of one message round: its number k = 1, 2, ..., its step size, who takes part, its key, its `Oracle`, how the
    server puts together what clients send, and the compressor of the uplink."""

    k: jax.Array
    gamma: Scalar
    cohort: Cohort
    key: Key
    oracle: Oracle
    aggregate: Aggregation
    coder: Coder

    def compress(self, rows: ClientVecs) -> Message:
        """The messages of rows (n, d), by the field `compressor`, which may keep a state between rounds."""
        return self.coder(self.key, rows, self.cohort.active)

    def part(self, rows: ClientVecs) -> Vec:
        """What those who take part bring to the mean over all clients: (1/n) times their sum."""
        return self.aggregate.part(rows, self.cohort.active, len(rows))

    def mean(self, rows: ClientVecs) -> Vec:
        """Unbiased estimate of the mean over all clients, from those that take part: their sum over share n."""
        return self.part(rows) if self.cohort.active is None else self.part(rows) / self.cohort.share


class Sent(NamedTuple):
    """What an uplink brings about: ghat (d,) at the server, its memory, bits () of a client's message (the mean over
    clients), r_i (n, d), what each client's message left out, where a downlink pays it back at once, and the full
    gradients that a client took, () the mean over clients, where it was not one batch each."""

    ghat: Vec
    memory: PyTree
    bits: Scalar
    residual: Any = None
    passes: Scalar | None = None


class Uplink(NamedTuple):
    """start(problem, hp) -> memory; send(hp, memory, g, turn) -> Sent, from gradients g (n, d). It aggregates up to so
    many quantities in a turn."""

    start: Callable[..., PyTree]
    send: Callable[..., Sent]
    aggregates: int = 1


class Directed(NamedTuple):
    """What the model moves from and along, base and u, (d,) or (n, d); the downlink's memory, the bits of it, and those
    that the clients sent for it besides the uplink's."""

    base: Vec | ClientVecs
    u: Vec | ClientVecs
    memory: PyTree
    bits: Scalar
    bits_up: Scalar = 0.0


class Announced(NamedTuple):
    """The model w after the move, what the clients see of it (None: w), the downlink's memory, and the bits of it."""

    w: Vec | ClientVecs
    seen: Vec | ClientVecs | None
    memory: PyTree
    bits: Scalar


def _nothing_sent(hp: Any, memory: PyTree, w: Vec, sent: Sent, turn: Turn) -> Directed:
    return Directed(w, sent.ghat, memory, 0.0)


def _all_see_it(hp: Any, memory: PyTree, w: Vec, seen: None, turn: Turn) -> Announced:
    return Announced(w, None, memory, 0.0)


class Downlink(NamedTuple):
    """start(problem, hp) -> (w, seen, memory); direct(hp, memory, w, sent, turn) -> Directed, by default along ghat;
    announce(hp, memory, w, seen, turn) -> Announced, once the model has moved to w, by default that all know it.
    aggregates: quantities that it aggregates in a turn, of what clients send for it.

    Messages about the direction belong into direct, those about the model into announce. The cohort of `turn` is the
    next round's: who needs the message now.
    """

    start: Callable[..., tuple[Vec | ClientVecs, Vec | ClientVecs | None, PyTree]]
    direct: Callable[..., Directed] = _nothing_sent
    announce: Callable[..., Announced] = _all_see_it
    aggregates: int = 0


def participants(problem: Problem, hp: Any, t: Scalar, key: Key) -> jax.Array | None:
    """(n,) who takes part in round t = 0, 1, ...; None for all."""
    if hp.participation is not None:
        active = some_of(key, hp.participation, problem.n)
    else:
        who, present = select(problem, hp, jnp.asarray(t), key)
        if who is None:
            return None
        active = jnp.zeros(problem.n, bool).at[who].max(True if present is None else present)
    return active | (t == 0) if hp.starts_dense else active


def cohort_of(hp: Any, active: jax.Array | None, k: Scalar) -> Cohort:
    """Those who take part in round k = 1, 2, ..., and with which probability."""
    if active is None:
        return Cohort(None, 1)
    if hp.participation is not None:
        share, size = hp.participation, None
    elif hp.cohort_size is not None:
        share, size = hp.cohort_size / len(active), hp.cohort_size if hp.selection != "bernoulli" else None
    else:
        share, size = jnp.mean(active, dtype=jnp.result_type(float)), None
    return Cohort(active, jnp.where(k == 1, 1, share) if hp.starts_dense else share, size)


def at_period(hp: Any, turn: Turn) -> jax.Array:
    """Whether the round's number is a multiple of the field `period`."""
    return turn.k % jnp.asarray(hp.period).astype(turn.k.dtype) == 0


def dense(x: Vec) -> int:
    """Bits of a vector like x (..., d), sent as it is."""
    return FLOAT_BITS * x.shape[-1]
