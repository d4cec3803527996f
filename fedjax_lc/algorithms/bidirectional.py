"""Rounds with a server between an uplink and a downlink: three choices that compose into a method.

An *uplink* turns the clients' gradients into the server's estimate ghat of the mean gradient; a *downlink* steps with
it and says what the clients see next. Around them, once for all methods: full or mini-batch gradients at what the
clients see, a step size that may fall, clients that take part at random, and averaged iterates.

Source: Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression in distributed
settings", arXiv 2102.12528, with the details of the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc import pytree
from fedjax_lc.algorithms.base import Batches, Cost, gradients
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.errors import InputError, unknown
from fedjax_lc.problems import Problem
from fedjax_lc.typing import ClientVecs, Key, PyTree, Scalar, Vec

CONVENTIONS = ("paper", "mcm_repo")  #: whose parameters `theory` gives


@pytree.dataclass
class Rounds(Batches):
    """What all these methods know.

    decay: the step size of round k, from 1 on, is gamma / k^decay. momentum: m of v = m v + ghat, which then takes
    ghat's place at the server; None without. participation: every client takes part with
    this probability (drawn again while nobody does), None for all. average_every: evaluate the average of the iterates
    after every so many rounds, w_bar += (w - w_bar)/(k + 1), instead of the last one.
    """

    _: dataclasses.KW_ONLY
    decay: Scalar = 0.0
    momentum: Scalar | None = None
    participation: Scalar | None = None
    average_every: int | None = pytree.static(default=None)


@pytree.dataclass
class WithMemory(Rounds):
    """What methods with uplink memories know besides.

    smart: h_i = g_i in round 1, free of charge, as the authors' code has it (not with participation). memories: the
    server keeps one for each client ("all", PP1) or a single one ("one", PP2); the same where all take part.
    """

    _: dataclasses.KW_ONLY
    smart: bool = pytree.static(default=False)
    memories: str = pytree.static(default="all")


class State(NamedTuple):
    w: Vec  # (d,) the server's model
    seen: Vec | ClientVecs  # (d,) what all clients see of it, or (n, d), each its own
    up: PyTree  # the uplink's memories
    down: PyTree  # the downlink's
    k: jax.Array  # () rounds so far
    active: jax.Array | None  # (n,) who takes part in the next round; None for all
    average: Vec | None  # (d,) w_bar
    v: Vec | None  # (d,) momentum


class Cohort(NamedTuple):
    """Who takes part in a round: `active` (n,), each with probability `share`; None for all."""

    active: jax.Array | None
    share: Scalar

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


class Turn(NamedTuple):
    """Of one message round: its number k = 1, 2, ..., its step size, who takes part, its key."""

    k: jax.Array
    gamma: Scalar
    cohort: Cohort
    key: Key


class Uplink(NamedTuple):
    """start(problem, hp) -> memory; send(hp, memory, g, turn) -> (ghat (d,), memory, bits), from gradients g (n, d).

    bits () is what a client sends, the mean over clients.
    """

    start: Callable[..., PyTree]
    send: Callable[..., tuple[Vec, PyTree, Scalar]]


class Downlink(NamedTuple):
    """start(problem, hp) -> (seen, memory); send(hp, memory, w, seen, ghat, turn) -> (w, seen, memory, bits).

    The cohort of `turn` is the next round's: who needs the message now.
    """

    start: Callable[..., tuple[Vec | ClientVecs, PyTree]]
    send: Callable[..., tuple[Vec, Vec | ClientVecs, PyTree, Scalar]]


def compose(uplink: Uplink, downlink: Downlink) -> dict[str, Callable[..., Any]]:
    """init, step and point of the method that sends up by `uplink` and down by `downlink`, for `register`."""

    def init(problem: Problem, hp: Any, key: Key) -> State:
        seen, down = downlink.start(problem, hp)
        return State(
            w=problem.x0,
            seen=seen,
            up=uplink.start(problem, hp),
            down=down,
            k=jnp.zeros((), jnp.int32),
            active=participants(problem, hp, key),
            average=None if hp.average_every is None else problem.x0,
            v=None if hp.momentum is None else jnp.zeros_like(problem.x0),
        )

    def step(problem: Problem, hp: Any, state: State, key: Key) -> tuple[State, Cost]:
        batch_key, up_key, down_key, cohort_key = jax.random.split(key, 4)
        k, cohort = state.k + 1, Cohort(state.active, hp.participation)
        gamma = hp.gamma / k.astype(problem.dtype) ** hp.decay
        g, passes = gradients(problem, hp, state.seen, batch_key)
        ghat, up, bits_up = uplink.send(hp, state.up, g, Turn(k, gamma, cohort, up_key))
        v = None if state.v is None else hp.momentum * state.v + ghat
        coming = Cohort(participants(problem, hp, cohort_key), hp.participation)
        turn = Turn(k, gamma, coming, down_key)
        w, seen, down, bits_down = downlink.send(hp, state.down, state.w, state.seen, ghat if v is None else v, turn)
        average = averaged(hp, state.average, w, k)
        cost = Cost.of(bits_up, bits_down, grads=cohort.cost(passes), rounds=1)
        return State(w, seen, up, down, k, coming.active, average, v), cost

    def point(problem: Problem, hp: Any, state: State) -> Vec:
        return state.w if state.average is None else state.average

    return {"init": init, "step": step, "point": point}


def participants(problem: Problem, hp: Rounds, key: Key) -> jax.Array | None:
    """(n,) who takes part: each with that probability, drawn again while nobody does; None for all."""
    share = hp.participation
    if share is None:
        return None

    def again(both: tuple[Key, jax.Array]) -> tuple[Key, jax.Array]:
        key, own = jax.random.split(both[0])
        return key, jax.random.bernoulli(own, share, (problem.n,))

    nobody = lambda both: ~jnp.any(both[1])
    return jax.lax.while_loop(nobody, again, again((key, jnp.zeros(problem.n, bool))))[1]


def averaged(hp: Rounds, average: Vec | None, w: Vec, k: jax.Array) -> Vec | None:
    """w_bar after round k, moved every `average_every` rounds."""
    if average is None or hp.average_every is None:
        return None
    moved = average + (w - average) / (k + 1).astype(w.dtype)
    return jnp.where(k % hp.average_every == 0, moved, average)


def smoothness(problem: Problem, convention: str) -> float:
    """L: max_i L_i for "paper"; mean_i L_i for "mcm_repo", the authors' code.

    Raises:
        InputError: another convention.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)
    return float(jnp.max(problem.smooth) if convention == "paper" else jnp.mean(problem.smooth))


def both_ways(problem: Problem, up: Compressor, down: Compressor, convention: str) -> float:
    """gamma of methods that compress ghat too: 1/(2 L (1 + omega_down)(1 + omega_up/n)), the order of Artemis' bound
    (recalled only); 1/L with convention="mcm_repo"."""
    L, d = smoothness(problem, convention), problem.dim
    if convention == "mcm_repo":
        return 1 / L
    return 1 / (2 * L * (1 + down.omega(d)) * (1 + up.omega(d) / problem.n))


def known_form(method: str, form: str) -> None:
    """Raise InputError for a form of the method that is not here."""
    if form != "mcm_repo":
        raise InputError(f"{method} has form 'mcm_repo' only, got {form!r}")


def memory_rate(omega: Scalar) -> Scalar:
    """alpha = 1/(2 (omega + 1)), of both memories in the authors' code; the paper's bound for alpha_up (recalled)."""
    return 1 / (2 * (omega + 1))


# --- uplinks ---


def _send_uncompressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> tuple[Vec, None, Scalar]:
    return turn.cohort.mean(g), None, turn.cohort.cost(FLOAT_BITS * g.shape[1])


def _send_compressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> tuple[Vec, None, Scalar]:
    q = hp.compressor.joint(turn.key, g)
    return turn.cohort.mean(q.value), None, turn.cohort.cost(q.bits)


def _send_with_errors(hp: Any, e_i: ClientVecs, g: ClientVecs, turn: Turn) -> tuple[Vec, ClientVecs, Scalar]:
    cohort, v = turn.cohort, g + hp.c_ef * e_i
    q = hp.compressor.joint(turn.key, v)
    return cohort.mean(q.value), cohort.moved(v - q.value, e_i), cohort.cost(q.bits)


def no_memory(problem: Problem, hp: Any) -> None:
    return None


def client_zeros(problem: Problem, hp: Any) -> ClientVecs:
    return jnp.zeros((problem.n, problem.dim), problem.dtype)


uncompressed = Uplink(no_memory, _send_uncompressed)  #: ghat = mean_i g_i
compressed = Uplink(no_memory, _send_compressed)  #: ghat = mean_i C(g_i)
error_feedback = Uplink(
    client_zeros, _send_with_errors
)  #: v_i = g_i + c_ef e_i, ghat = mean_i C(v_i), e_i = v_i - C(v_i)


class Shifts(NamedTuple):
    """h_i (n, d) at the clients, and h (d,), the server's one memory: their mean where all take part."""

    h_i: ClientVecs
    h: Vec


def memory(rate: str = "alpha_up") -> Uplink:
    """DIANA's shifts: q_i = C(g_i - h_i), ghat = mean_i (h_i + q_i), h_i += alpha q_i, alpha being the field `rate`.

    With one memory at the server (PP2), ghat = h + mean_i q_i and h += alpha mean_i q_i, where means are over the
    cohort, unbiased.
    """

    def start(problem: Problem, hp: Any) -> Shifts:
        if hp.smart and hp.participation is not None:
            raise InputError("smart initialisation needs everyone in round 1: set smart=False or participation=None")
        if hp.memories not in ("all", "one"):
            raise InputError(f"memories must be all or one, got {hp.memories!r}")
        return Shifts(client_zeros(problem, hp), jnp.zeros_like(problem.x0))

    def send(hp: Any, shifts: Shifts, g: ClientVecs, turn: Turn) -> tuple[Vec, Shifts, Scalar]:
        (h_i, h), cohort, alpha = shifts, turn.cohort, getattr(hp, rate)
        if hp.smart:
            first = turn.k == 1
            h_i, h = jnp.where(first, g, h_i), jnp.where(first, jnp.mean(g, axis=0), h)
        q = hp.compressor.joint(turn.key, g - h_i)
        mean_q = cohort.mean(q.value)
        ghat = h + mean_q if cohort.active is None or hp.memories == "one" else cohort.mean(h_i + q.value)
        moved = Shifts(cohort.moved(h_i + alpha * q.value, h_i), h + alpha * mean_q)
        return ghat, moved, cohort.cost(q.bits)

    return Uplink(start, send)


# --- downlinks ---


def to_all(compressor: Compressor, key: Key, v: Vec) -> tuple[Vec, Scalar]:
    """What everyone decodes of v (d,), and its bits; drawn as the first of several messages of this key would be."""
    message = compressor.joint(key, v[None])
    return message.value[0], jnp.mean(message.bits)


def _send_model(hp: Any, memory: None, w: Vec, seen: Vec, ghat: Vec, turn: Turn) -> tuple[Vec, Vec, None, Scalar]:
    w = w - turn.gamma * ghat
    return w, w, None, turn.cohort.cost(FLOAT_BITS * w.shape[0])


def _send_gradient(hp: Any, memory: None, w: Vec, seen: Vec, ghat: Vec, turn: Turn) -> tuple[Vec, Vec, None, Scalar]:
    Omega, bits = to_all(hp.downlink, turn.key, ghat)
    w = w - turn.gamma * Omega
    return w, w, None, bits


def _send_gradient_with_error(
    hp: Any, e: Vec, w: Vec, seen: Vec, ghat: Vec, turn: Turn
) -> tuple[Vec, Vec, Vec, Scalar]:
    v = ghat + hp.c_ef * e
    Omega, bits = to_all(hp.downlink, turn.key, v)
    w = w - turn.gamma * Omega
    return w, w, v - Omega, bits


def seen_by_all(problem: Problem, hp: Any) -> tuple[Vec, None]:
    return problem.x0, None


# Who returns gets every message it missed, so that compressed gradients cost everyone, and what = w for all.
plain = Downlink(seen_by_all, _send_model)  #: w -= gamma ghat, what = w
gradient = Downlink(seen_by_all, _send_gradient)  #: w -= gamma C(ghat), what = w
#: v = ghat + c_ef e, w -= gamma C(v), e = v - C(v), what = w
gradient_with_error = Downlink(lambda problem, hp: (problem.x0, jnp.zeros_like(problem.x0)), _send_gradient_with_error)
