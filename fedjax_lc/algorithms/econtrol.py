"""EControl: EF21 whose corrections carry back a controlled part of all the error that is left.

Gao, Islamov, Stich, "EControl: Fast Distributed Optimization with Compression and Error Control", arXiv 2311.05645
(recalled, re-derived and checked numerically; constants recalled only).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Batches, choose, register
from fedjax_lc.algorithms.frames.estimators import Follow, Move, State, compose, dense, step_size
from fedjax_lc.algorithms.frames.step_sizes import leftover
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Batches):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    eta: Scalar = hyperparameter("part of the error that comes back", "[0, inf)")


class Own(NamedTuple):
    h_i: ClientVecs  # (n, d) the server's picture of the gradients
    e_i: ClientVecs  # (n, d) the sum of what it lacked


def _start(problem: Problem, hp: Hparams, move: Move) -> Follow:
    h_i = move.at(move.x)
    return Follow(Own(h_i, jnp.zeros_like(h_i)), jnp.mean(h_i, axis=0), dense(move.x), 0, move.passes)


def _follow(problem: Problem, hp: Hparams, own: Own, g: Vec, move: Move) -> Follow:
    h_i, e_i = own
    g_i = move.at(move.x_new)
    Delta = hp.compressor.joint(move.up_key, hp.eta * e_i + g_i - h_i)
    h_i = h_i + Delta.value
    e_i = e_i + g_i - h_i
    return Follow(Own(h_i, e_i), g + jnp.mean(Delta.value, axis=0), Delta.bits, dense(g), move.passes)


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """eta = delta/(3 sqrt(1 - delta) (1 + sqrt(1 - delta))), at most 1 (recalled only); gamma = 1/(L + 4 Lt s), s =
    sqrt(beta/theta) as in EF21: of the order of delta/Lt (its order recalled only, the constant ours)."""
    compressor = choose(compressor, problem, contractive=True)
    delta = float(compressor.delta(problem.dim))
    left = math.sqrt(1 - delta)
    eta = min(1.0, delta / (3 * left * (1 + left))) if left else 1.0
    return Hparams(compressor, step_size(problem, 4 * leftover(compressor, problem.dim)), eta)


def owed(problem: Problem, hp: Hparams, state: State) -> Vec:
    """mean_i e_i."""
    return state.own.e_i.mean(axis=0)


register(
    "econtrol",
    title="EControl",
    up="C(g_i - h_i + ηe_i)",
    down="x",
    paper="2311.05645 EControl: Fast Distributed Optimization with Compression and Error Control",
    Hparams=Hparams,
    **compose(_start, _follow),
    theory=theory,
    error=owed,
)
