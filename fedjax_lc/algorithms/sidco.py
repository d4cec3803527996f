"""SIDCo: MEM-SGD whose clients keep what exceeds a fitted threshold, with as many stages of fitting as prove right.

Abdelmoniem, Elzanaty, Alouini, Canini, "An Efficient Statistical-based Gradient Compression Technique for Distributed
Training Systems", arXiv 2101.10761 (all of it from the authors' code). The compressor `sidco` fits a law to the moduli
of g_i + e_i in several stages and counts how much its messages keep; the number of stages follows. Where clients differ
it stalls as MEM-SGD does (measured), and a ratio below 1/d may send nothing, which the error makes good.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import client_zeros, plain
from fedjax_lc.algorithms.frames.server import Rounds, compose
from fedjax_lc.algorithms.frames.step_sizes import feedback_step, leftover
from fedjax_lc.algorithms.frames.turns import Sent, Turn, Uplink
from fedjax_lc.compressors import Compressor, Sidco, Threshold, TopK, check, parse
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink: sidco, threshold, or a contractive one")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    ec_grad: Scalar = hyperparameter("weight of g_i + e_i in the error of entries that are not sent", default=1.0)
    ec_mem: Scalar = hyperparameter("weight of the old error there", default=0.0)


def _send(hp: Hparams, e_i: ClientVecs, g: ClientVecs, turn: Turn) -> Sent:
    v = g + e_i
    q = turn.compress(v)
    left = hp.ec_grad * (v - q.value) + hp.ec_mem * jnp.where(q.value == 0, e_i, 0)
    return Sent(turn.mean(q.value), turn.cohort.moved(left, e_i), turn.cohort.cost(q.bits))


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """gamma as MEM-SGD, with top-k of the same ratio in place of a fitted threshold: a guess, as that has no worst case
    (derived by us). The default ratio is that of ceil(d/n) entries."""
    d = problem.dim
    up = Sidco(math.ceil(d / problem.n) / d) if compressor is None else parse(compressor)
    if isinstance(up, Threshold):
        check(up, d)
        behind = leftover(TopK(100 * float(up.ratio), "percent"), d)
    else:
        up = choose(up, problem, contractive=True)
        behind = leftover(up, d)
    return Hparams(up, feedback_step(problem, behind))


register(
    "sidco",
    title="SIDCo",
    up="entries of g_i + e_i above τ_i",
    down="x",
    paper="2101.10761 An Efficient Statistical-based Gradient Compression Technique for Distributed Training Systems",
    Hparams=Hparams,
    **compose(Uplink(client_zeros, _send), plain),
    theory=theory,
    error=lambda problem, hp, state: state.up.mean(axis=0),
)
