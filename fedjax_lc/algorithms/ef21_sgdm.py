"""EF21-SGDM: EF21 of momentum, so that the noise of batches is averaged before it is compressed.

Fatkhullin, Tyurin, Richtarik, "Momentum Provably Improves Error Feedback!", arXiv 2305.15155 (recalled, re-derived and
checked numerically; that of double momentum recalled only).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from fedjax_lc.algorithms import ef21
from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.estimators import Follow, Move, compose, step_size
from fedjax_lc.algorithms.frames.step_sizes import leftover
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(ef21.Hparams):
    _: dataclasses.KW_ONLY
    eta: Scalar = hyperparameter("share of a new gradient in the momentum", "(0, 1]", default=0.1)
    double: bool = hyperparameter("whether the momentum of the momentum is sent", default=False)


class Own(NamedTuple):
    g_i: ClientVecs  # (n, d) the server's picture of the momenta
    v_i: ClientVecs  # (n, d) momenta
    u_i: ClientVecs | None  # (n, d) momenta of these, where they are sent


def _start(problem: Problem, hp: Hparams, move: Move) -> Follow:
    begun, v_i = ef21.start(problem, hp, move), move.at(move.x)
    return begun._replace(own=Own(begun.own, v_i, v_i if hp.double else None))


def _follow(problem: Problem, hp: Hparams, own: Own, g: Vec, move: Move) -> Follow:
    v_i = (1 - hp.eta) * own.v_i + hp.eta * move.at(move.x_new)
    u_i = None if own.u_i is None else (1 - hp.eta) * own.u_i + hp.eta * v_i
    new = ef21.follow(problem, hp, own.g_i, g, move._replace(at=lambda y: v_i if u_i is None else u_i))
    return new._replace(own=Own(new.own, v_i, u_i))


def theory(
    problem: Problem, compressor: Compressor | str | None = None, eta: float = 0.1, double: bool = False
) -> Hparams:
    """gamma = 1/(L + Lt (s + m)), s = sqrt(beta/theta) as in EF21 and m = (1 - eta)/eta, how far momentum is behind
    (twice for double; derived by us)."""
    compressor = choose(compressor, problem, contractive=True)
    if not 0 < eta <= 1:
        raise InputError(f"ef21_sgdm needs eta in (0, 1], got {eta}")
    behind = (1 - eta) / eta * (2 if double else 1)
    gamma = step_size(problem, leftover(compressor, problem.dim), behind)
    return Hparams(compressor, gamma, eta=eta, double=double)


register(
    "ef21_sgdm",
    title="EF21-SGDM",
    up="C(v_i - h_i), v_i momentum",
    down="x",
    speed="L̃/(δε²) + … + Lσ²/(nε⁴) to ‖∇F‖ = ε (recalled)",
    paper="2305.15155 Momentum Provably Improves Error Feedback!",
    Hparams=Hparams,
    **compose(_start, _follow),
    theory=theory,
)
