"""EF21-SGDM: EF21 of momentum, so that the noise of batches is averaged before it is compressed.

Fatkhullin, Tyurin, Richtarik, "Momentum Provably Improves Error Feedback!", arXiv 2305.15155 (recalled, re-derived and
checked numerically; that of double momentum recalled only).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms import ef21
from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import Shifts, no_shifts, plain
from fedjax_lc.algorithms.frames.server import compose
from fedjax_lc.algorithms.frames.step_sizes import following_step, leftover
from fedjax_lc.algorithms.frames.turns import Sent, Turn, Uplink
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(ef21.Hparams):
    _: dataclasses.KW_ONLY
    eta: Scalar = hyperparameter("share of a new gradient in the momentum", "(0, 1]", default=0.1)
    double: bool = hyperparameter("whether the momentum of the momentum is sent", default=False)


class Momenta(NamedTuple):
    shifts: Shifts  # the server's picture of what is sent
    v_i: ClientVecs  # (n, d) momenta
    u_i: ClientVecs | None  # (n, d) momenta of these, where they are sent


def _start(problem: Problem, hp: Hparams) -> Momenta:
    shifts = no_shifts(problem, hp)
    return Momenta(shifts, shifts.h_i, shifts.h_i if hp.double else None)


def _send(hp: Hparams, memory: Momenta, g: ClientVecs, turn: Turn) -> Sent:
    shifts, v_i, u_i = memory
    eta = jnp.where(turn.k == 1, 1, hp.eta)  # both start as the first gradient
    v_i = turn.cohort.moved((1 - eta) * v_i + eta * g, v_i)
    if u_i is not None:
        u_i = turn.cohort.moved((1 - eta) * u_i + eta * v_i, u_i)
    sent = ef21.follow(hp, shifts, v_i if u_i is None else u_i, turn)
    return sent._replace(memory=Momenta(sent.memory, v_i, u_i))


def theory(
    problem: Problem, compressor: Compressor | str | None = None, eta: float = 0.1, double: bool = False
) -> Hparams:
    """gamma = 1/(L + Lt (s + m)), s = sqrt(beta/theta) as in EF21 and m = (1 - eta)/eta, how far momentum is behind
    (twice for double; derived by us)."""
    compressor = choose(compressor, problem, contractive=True)
    if not 0 < eta <= 1:
        raise InputError(f"ef21_sgdm needs eta in (0, 1], got {eta}")
    behind = (1 - eta) / eta * (2 if double else 1)
    gamma = following_step(problem, leftover(compressor, problem.dim), behind)
    return Hparams(compressor, gamma, eta=eta, double=double)


register(
    "ef21_sgdm",
    title="EF21-SGDM",
    up="C(v_i - h_i), v_i momentum",
    down="x",
    speed="L̃/(δε²) + … + Lσ²/(nε⁴) to ‖∇F‖ = ε (recalled)",
    paper="2305.15155 Momentum Provably Improves Error Feedback!",
    Hparams=Hparams,
    **compose(Uplink(_start, _send, aggregates=2), plain),
    theory=theory,
)
