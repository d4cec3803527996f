"""Rounds with a server between an uplink and a downlink: three choices that compose into a method.

An *uplink* turns the clients' gradients into the server's estimate ghat of the mean gradient; a *downlink* says what
the model moves along, and what the clients see of it next. A method is who keeps which error, and when it is paid back:
the clients or the server in a later message (`error_feedback`, `gradient_with_error`), a client in its own model at
once (the residual of `immediate`), a memory that messages are differences to (`memory`, MCM's H). Around them, once for
all methods: full or mini-batch gradients at what the clients see, a step size that may fall, weight decay and momentum,
clients that take part at random, and averaged iterates. The first message may be the gradients themselves: then all
clients send it, and it costs 32 bits an entry, whatever the method.

Source: Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression in distributed
settings", arXiv 2102.12528, and LIEC-SGD, arXiv 2402.11857, with the details of the authors' codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Memories, start
from fedjax_lc.algorithms.frames.base import Batches, Cost, gradients
from fedjax_lc.algorithms.frames.participation import Cohorts, select
from fedjax_lc.algorithms.frames.schedules import Schedule, parse
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import SCHEDULE, hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem
from fedjax_lc.problems.base import some_of


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
    w: Vec | ClientVecs  # (d,) the model, or (n, d), every client's own
    seen: Vec | ClientVecs | None  # (d,) or (n, d) what the clients see of it; None: w
    up: PyTree  # the uplink's memories
    down: PyTree  # the downlink's
    k: jax.Array  # () rounds so far
    active: jax.Array | None  # (n,) who takes part in the next round; None for all
    average: Vec | None  # (d,) w_bar
    v: Vec | ClientVecs | None  # as w: momentum
    aggregation: Memories = None


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

    def groups(self, own: jax.Array, count: int) -> Cohort:
        """Of `count` groups, client i being in group own[i], those with somebody who takes part."""
        if self.active is None:
            return self
        return Cohort(jnp.zeros(count, bool).at[own].max(self.active), self.share)

    def members(self, own: jax.Array) -> Cohort:
        """The clients of a cohort of groups."""
        return self if self.active is None else Cohort(self.active[own], self.share)

    def cost(self, each: Scalar) -> Scalar:
        """Mean over all clients of what those that take part pay, one number or (n,)."""
        each = jnp.asarray(each, jnp.float32)
        return jnp.mean(each if self.active is None else jnp.where(self.active, each, 0))


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


class Turn(NamedTuple):
    """Of one message round: its number k = 1, 2, ..., its step size, who takes part, its key, its `Oracle`, and how the
    server puts together what clients send."""

    k: jax.Array
    gamma: Scalar
    cohort: Cohort
    key: Key
    oracle: Oracle
    aggregate: Aggregation

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


class Told(NamedTuple):
    """The model w after the move, what the clients see of it (None: w), the downlink's memory, and the bits of it."""

    w: Vec | ClientVecs
    seen: Vec | ClientVecs | None
    memory: PyTree
    bits: Scalar


def _nothing_sent(hp: Any, memory: PyTree, w: Vec, sent: Sent, turn: Turn) -> Directed:
    return Directed(w, sent.ghat, memory, 0.0)


def _all_see_it(hp: Any, memory: PyTree, w: Vec, seen: None, turn: Turn) -> Told:
    return Told(w, None, memory, 0.0)


class Downlink(NamedTuple):
    """start(problem, hp) -> (w, seen, memory); direct(hp, memory, w, sent, turn) -> Directed, by default along ghat;
    tell(hp, memory, w, seen, turn) -> Told, once the model has moved to w, by default that all know it. It aggregates
    so many quantities of what clients send for it in a turn.

    Messages about the direction belong into direct, those about the model into tell. The cohort of `turn` is the next
    round's: who needs the message now.
    """

    start: Callable[..., tuple[Vec | ClientVecs, Vec | ClientVecs | None, PyTree]]
    direct: Callable[..., Directed] = _nothing_sent
    tell: Callable[..., Told] = _all_see_it
    aggregates: int = 0


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
        )

    def step(problem: Problem, hp: Any, state: State, key: Key) -> tuple[State, Cost]:
        batch_key, up_key, down_key, cohort_key = jax.random.split(key, 4)
        k = state.k + 1
        gamma, cohort = step_size(hp, k, problem.dtype), cohort_of(hp, state.active, k)
        seen = state.w if state.seen is None else state.seen
        passes = 1 if hp.batch_size is None else problem.passes(hp.batch_size, replacement=hp.replacement)
        oracle = Oracle(problem, hp, seen, batch_key, passes)
        aggregate = Aggregation(hp, state.aggregation, key)
        g = oracle.at(seen, cohort._replace(size=None) if hp.starts_dense else cohort)
        sent = uplink.send(hp, state.up, g, Turn(k, gamma, cohort, up_key, oracle, aggregate))
        sent = dense_at_first(hp, sent, k)
        coming = cohort_of(hp, participants(problem, hp, k, cohort_key), k + 1)
        turn = Turn(k, gamma, coming, down_key, oracle, aggregate)
        base, u, down, bits_down, more_up = downlink.direct(hp, state.down, state.w, sent, turn)
        w, v = moved(hp, gamma, base, u, state.v)
        told = downlink.tell(hp, down, w, state.seen, turn)
        average = averaged(hp, state.average, told.w, k)
        grads = cohort.cost(passes) if sent.passes is None else sent.passes
        cost = Cost.of(sent.bits + more_up, bits_down + told.bits, grads, rounds=1)
        new = State(told.w, told.seen, sent.memory, told.memory, k, coming.active, average, v, aggregate.memories)
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


def at_period(hp: Any, turn: Turn) -> jax.Array:
    """Whether the round's number is a multiple of the field `period`."""
    return turn.k % jnp.asarray(hp.period).astype(turn.k.dtype) == 0


def model(w: Vec | ClientVecs) -> Vec:
    """(d,) the model; of every client's own, their mean."""
    return w if w.ndim == 1 else jnp.mean(w, axis=0)


def participants(problem: Problem, hp: Rounds, t: Scalar, key: Key) -> jax.Array | None:
    """(n,) who takes part in round t = 0, 1, ...; None for all."""
    if hp.participation is not None:
        active = some_of(key, hp.participation, problem.n)
    else:
        who, present = select(problem, hp, jnp.asarray(t), key)
        if who is None:
            return None
        active = jnp.zeros(problem.n, bool).at[who].max(True if present is None else present)
    return active | (t == 0) if hp.starts_dense else active


def cohort_of(hp: Rounds, active: jax.Array | None, k: Scalar) -> Cohort:
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


def dense_at_first(hp: Rounds, sent: Sent, k: jax.Array) -> Sent:
    """`sent` at the price of the gradients themselves in round 1, where these are sent."""
    if not hp.starts_dense:
        return sent
    return sent._replace(bits=jnp.where(k == 1, dense(sent.ghat), sent.bits))


def dense(x: Vec) -> int:
    """Bits of a vector like x (..., d), sent as it is."""
    return FLOAT_BITS * x.shape[-1]


def averaged(hp: Rounds, average: Vec | None, w: Any, k: jax.Array) -> Vec | None:
    """w_bar after round k, moved every `average_every` rounds."""
    if average is None or hp.average_every is None:
        return None
    new = average + (model(w) - average) / (k + 1).astype(w.dtype)
    return jnp.where(k % hp.average_every == 0, new, average)


# --- uplinks ---


def _send_uncompressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    return Sent(turn.mean(g), None, turn.cohort.cost(dense(g)))


def _send_compressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    q = hp.compressor.joint(turn.key, g)
    return Sent(turn.mean(q.value), None, turn.cohort.cost(q.bits))


def no_memory(problem: Problem, hp: Any) -> None:
    return None


def client_zeros(problem: Problem, hp: Any) -> ClientVecs:
    return jnp.zeros((problem.n, problem.dim), problem.dtype)


uncompressed = Uplink(no_memory, _send_uncompressed)  #: ghat = mean_i g_i
compressed = Uplink(no_memory, _send_compressed)  #: ghat = mean_i C(g_i)


def errors_back(hp: Any) -> Scalar:
    """What part of an error comes back with the next message: the field c_ef of methods that have it, else all."""
    return getattr(hp, "c_ef", 1)


def _send_with_errors(hp: Any, e_i: ClientVecs, g: ClientVecs, turn: Turn) -> Sent:
    cohort, v = turn.cohort, g + errors_back(hp) * e_i
    q = hp.compressor.joint(turn.key, v)
    return Sent(turn.mean(q.value), cohort.moved(v - q.value, e_i), cohort.cost(q.bits))


#: v_i = g_i + c_ef e_i, ghat = mean_i C(v_i), e_i = v_i - C(v_i)
error_feedback = Uplink(client_zeros, _send_with_errors)


class Shifts(NamedTuple):
    """h_i (n, d) at the clients, and h (d,), the server's one memory: their mean where all take part."""

    h_i: ClientVecs
    h: Vec


def no_shifts(problem: Problem, hp: Any) -> Shifts:
    """All zero."""
    return Shifts(client_zeros(problem, hp), jnp.zeros_like(problem.x0))


def shifted(hp: Rounds, shifts: Shifts, g: ClientVecs, turn: Turn) -> Shifts:
    """What differences are taken to in this round: g itself (n, d) in round 1, where that is sent dense."""
    if not hp.starts_dense:
        return shifts
    first = turn.k == 1
    return Shifts(jnp.where(first, g, shifts.h_i), jnp.where(first, turn.aggregate(g), shifts.h))


def memory(rate: str = "alpha_up") -> Uplink:
    """DIANA's shifts: q_i = C(g_i - h_i), ghat = mean_i (h_i + q_i), h_i += alpha q_i, alpha being the field `rate`.

    With one memory at the server (PP2), ghat = h + mean_i q_i and h += alpha mean_i q_i, where means are over the
    cohort, unbiased.
    """

    def send(hp: Any, shifts: Shifts, g: ClientVecs, turn: Turn) -> Sent:
        (h_i, h), cohort, alpha = shifted(hp, shifts, g, turn), turn.cohort, getattr(hp, rate)
        q = hp.compressor.joint(turn.key, g - h_i)
        mean_q = turn.mean(q.value)
        ghat = h + mean_q if cohort.active is None or hp.memories == "one" else turn.mean(h_i + q.value)
        new = Shifts(cohort.moved(h_i + alpha * q.value, h_i), h + alpha * mean_q)
        return Sent(ghat, new, cohort.cost(q.bits))

    return Uplink(no_shifts, send, aggregates=3)


# --- downlinks ---


def to_all(compressor: Compressor, key: Key, v: Vec) -> tuple[Vec, Scalar]:
    """What everyone decodes of v (d,), and its bits; drawn as the first of several messages of this key would be."""
    message = compressor.joint(key, v[None])
    return message.value[0], jnp.mean(message.bits)


def _direct_uncompressed(hp: Any, memory: None, w: Vec, sent: Sent, turn: Turn) -> Directed:
    return Directed(w, sent.ghat, None, turn.cohort.cost(dense(w)))


def _direct_compressed(hp: Any, memory: None, w: Vec, sent: Sent, turn: Turn) -> Directed:
    Omega, bits = to_all(hp.downlink, turn.key, sent.ghat)
    return Directed(w, Omega, None, bits)


def _direct_with_error(hp: Any, e: Vec, w: Vec, sent: Sent, turn: Turn) -> Directed:
    v = sent.ghat + errors_back(hp) * e
    Omega, bits = to_all(hp.downlink, turn.key, v)
    return Directed(w, Omega, v - Omega, bits)


def seen_by_all(problem: Problem, hp: Any) -> tuple[Vec, None, None]:
    """Clients see w itself, and there is no memory."""
    return problem.x0, None, None


def seen_apart(problem: Problem, hp: Any) -> tuple[Vec, Vec, None]:
    """What clients see of w is not w; there is no memory."""
    return problem.x0, problem.x0, None


def server_zeros(problem: Problem, hp: Any) -> tuple[Vec, None, Vec]:
    """Clients see w itself, and the server keeps an error."""
    return problem.x0, None, jnp.zeros_like(problem.x0)


# Who returns gets every message it missed, so that compressed gradients cost everyone, and clients see w.
plain = Downlink(seen_by_all, _direct_uncompressed)  #: w -= gamma ghat
gradient = Downlink(seen_by_all, _direct_compressed)  #: w -= gamma C(ghat)
#: v = ghat + c_ef e, w -= gamma C(v), e = v - C(v)
gradient_with_error = Downlink(server_zeros, _direct_with_error)
