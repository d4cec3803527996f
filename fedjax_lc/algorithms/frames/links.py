"""The uplinks and downlinks that methods share: who keeps which error or memory, and when it is paid back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.turns import Directed, Downlink, Sent, Turn, Uplink, dense
from fedjax_lc.compressors import Compressor
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import Problem

# --- uplinks ---


def _send_uncompressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    return Sent(turn.mean(g), None, turn.cohort.cost(dense(g)))


def _send_compressed(hp: Any, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    q = turn.compress(g)
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
    q = turn.compress(v)
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


def shifted(hp: Any, shifts: Shifts, g: ClientVecs, turn: Turn) -> Shifts:
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
        q = turn.compress(g - h_i)
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
