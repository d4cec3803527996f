"""EControl: EF21 whose corrections carry back a controlled part of all the error that is left.

Gao, Islamov, Stich, "EControl: Fast Distributed Optimization with Compression and Error Control", arXiv 2311.05645
(recalled, re-derived and checked numerically; constants recalled only).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import Shifts, client_zeros, no_shifts, plain, shifted
from fedjax_lc.algorithms.frames.server import Rounds, State, compose
from fedjax_lc.algorithms.frames.step_sizes import following_step, leftover
from fedjax_lc.algorithms.frames.turns import Sent, Turn, Uplink
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    eta: Scalar = hyperparameter("part of the error that comes back", "[0, inf)")

    @property
    def starts_dense(self) -> bool:
        return True


class Memory(NamedTuple):
    shifts: Shifts  # h_i, the server's picture of the gradients
    e_i: ClientVecs  # (n, d) the sum of what it lacked


def _start(problem: Problem, hp: Hparams) -> Memory:
    return Memory(no_shifts(problem, hp), client_zeros(problem, hp))


def _send(hp: Hparams, memory: Memory, g: ClientVecs, turn: Turn) -> Sent:
    (h_i, h), e_i, cohort = shifted(hp, memory.shifts, g, turn), memory.e_i, turn.cohort
    Delta = turn.compress(hp.eta * e_i + g - h_i)
    h_i, h = cohort.moved(h_i + Delta.value, h_i), h + turn.part(Delta.value)
    e_i = cohort.moved(e_i + g - h_i, e_i)
    return Sent(h, Memory(Shifts(h_i, h), e_i), cohort.cost(Delta.bits))


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """eta = delta/(3 sqrt(1 - delta) (1 + sqrt(1 - delta))), at most 1 (recalled only); gamma = 1/(L + 4 Lt s), s =
    sqrt(beta/theta) as in EF21: of the order of delta/Lt (its order recalled only, the constant ours)."""
    compressor = choose(compressor, problem, contractive=True)
    delta = float(compressor.delta(problem.dim))
    left = math.sqrt(1 - delta)
    eta = min(1.0, delta / (3 * left * (1 + left))) if left else 1.0
    return Hparams(compressor, following_step(problem, 4 * leftover(compressor, problem.dim)), eta)


def owed(problem: Problem, hp: Hparams, state: State) -> Vec:
    """mean_i e_i."""
    return state.up.e_i.mean(axis=0)


register(
    "econtrol",
    title="EControl",
    up="C(g_i - h_i + ηe_i)",
    down="x",
    paper="2311.05645 EControl: Fast Distributed Optimization with Compression and Error Control",
    Hparams=Hparams,
    **compose(Uplink(_start, _send, aggregates=2), plain),
    theory=theory,
    error=owed,
)
