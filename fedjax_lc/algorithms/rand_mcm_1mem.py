"""Rand-MCM with one downlink memory at the server: the clients rebuild with copies, which drift from it.

An ablation of Philippenko and Dieuleveut, arXiv 2102.12528: Om_i = C_i(w+ - H), H += alpha_dwn mean_i Om_i, and client
i rebuilds what_i = H_i + Om_i with H_i += alpha_dwn Om_i. With `reset_every` (the paper's Reset has 4), H_i = H before
the messages of rounds 1, 1 + reset_every, ...
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fedjax_lc.algorithms import mcm
from fedjax_lc.algorithms.frames.base import register, tile
from fedjax_lc.algorithms.frames.links import memory
from fedjax_lc.algorithms.frames.server import compose
from fedjax_lc.algorithms.frames.turns import Announced, Downlink, Turn
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(mcm.Hparams):
    reset_every: int | None = hyperparameter(
        "rounds from one reset of the clients' copies to the next; no resets if None",
        "whole [1, inf)",
        default=None,
        static=True,
    )


def _start(problem: Problem, hp: Any) -> tuple[Vec, ClientVecs, tuple[Vec, ClientVecs]]:
    everyone = tile(problem.x0, problem.n)
    return problem.x0, everyone, (problem.x0, everyone)


def _announce(hp: Any, memories: tuple[Vec, ClientVecs], w: Vec, seen: ClientVecs, turn: Turn) -> Announced:
    (H, H_i), cohort = memories, turn.cohort
    copies = H_i
    if hp.reset_every is not None:
        copies = jnp.where((turn.k - 1) % hp.reset_every == 0, H[None], H_i)
    Omega = hp.downlink.joint(turn.key, tile(w - H, len(H_i)))
    seen = cohort.moved(copies + Omega.value, seen)
    H_i = cohort.moved(copies + hp.alpha_dwn * Omega.value, H_i)
    H = H + hp.alpha_dwn * cohort.mean(Omega.value)
    return Announced(w, seen, (H, H_i), cohort.cost(Omega.bits))


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    rates: str = "authors",
    reset_every: int | None = None,
) -> Hparams:
    """As MCM."""
    return Hparams(**vars(mcm.theory(problem, compressor, downlink, convention, rates)), reset_every=reset_every)


register(
    "rand_mcm_1mem",
    title="Rand-MCM 1Mem",
    up="C(g_i - h_i)",
    down="C_i(x - H)",
    paper=mcm.PAPER,
    Hparams=Hparams,
    **compose(memory(), Downlink(_start, announce=_announce)),
    theory=theory,
)
