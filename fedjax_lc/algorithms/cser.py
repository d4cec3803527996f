"""CSER: what messages leave out goes into the clients' models at once, and is averaged at every H-th iteration.

Xie, Zheng, Koyejo, Gupta, Li, Lin, "CSER: Communication-efficient SGD with Error Reset", arXiv 2007.13221 (recalled,
re-derived and checked numerically), with errors in units of gradients as in the code of LIEC-SGD, arXiv 2402.11857. The
paper compresses by random blocks that all clients share, so that the downlink is sparse too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, mean_cost, register, tile
from fedjax_lc.algorithms.frames.links import client_zeros, no_memory
from fedjax_lc.algorithms.frames.local import step_size
from fedjax_lc.algorithms.frames.server import Rounds, compose, everyone
from fedjax_lc.algorithms.frames.turns import Directed, Downlink, Sent, Turn, Uplink, at_period
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar
from fedjax_lc.problems import Problem

METERS = ("dense", "sparse")


@pytree.dataclass
class Hparams(Rounds):
    """Every client has a momentum, and everybody takes part."""

    compressor: Compressor = hyperparameter("C2, compressor of the gradients, contractive")
    reset: Compressor = hyperparameter("C1, compressor of the errors, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    period: Scalar = hyperparameter(
        "H, iterations from one reset of the errors to the next", "whole [1, inf)", default=8
    )
    down: str = hyperparameter(
        "bits of a mean of messages on its way down: 32 d, or those of one message where all send the same entries",
        METERS,
        default="dense",
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        everyone("cser", self)


def _send(hp: Hparams, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    q = hp.compressor.joint(turn.key, g)
    return Sent(turn.mean(q.value), None, mean_cost(q.bits), residual=g - q.value)


def _direct(hp: Hparams, e_i: ClientVecs, x: ClientVecs, sent: Sent, turn: Turn) -> Directed:
    plain = sent.ghat[None] + sent.residual, e_i + sent.residual, jnp.zeros((), jnp.float32)
    now = at_period(hp, turn)
    u, e_i, bits = turn.aggregate.rarely(now, lambda moved: _reset(hp, *moved, turn), plain)
    down = _downwards(hp, sent.bits, x) + jnp.where(now, _downwards(hp, bits, x), 0)
    return Directed(x, u, e_i, down, bits_up=bits)


def _reset(
    hp: Hparams, u: ClientVecs, e_i: ClientVecs, bits: jax.Array, turn: Turn
) -> tuple[ClientVecs, ClientVecs, jax.Array]:
    m = hp.reset.joint(turn.key, e_i)
    return u + turn.mean(m.value)[None] - m.value, e_i - m.value, mean_cost(m.bits)


def _downwards(hp: Hparams, bits: Scalar, x: ClientVecs) -> Scalar:
    """Bits of a mean of messages of so many bits."""
    return FLOAT_BITS * x.shape[1] if hp.down == "dense" else bits


def _start(problem: Problem, hp: Hparams) -> tuple[ClientVecs, None, ClientVecs]:
    return tile(problem.x0, problem.n), None, client_zeros(problem, hp)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    reset: Compressor | str | None = None,
    period: int = 8,
    down: str = "dense",
) -> Hparams:
    """gamma as Local SGD with H local steps (`local.step_size`), which bounds the drift of the models (our choice)."""
    of_gradients, of_errors = (choose(c, problem, contractive=True) for c in (compressor, reset))
    return Hparams(of_gradients, of_errors, step_size(problem, period), period, down)


register(
    "cser",
    title="CSER",
    up="C(g_i); every H-th also C(e_i)",
    down="mean; every H-th also mean C(e_i)",
    speed="1/√(nT) + n H²(1-δ)/T (ours)",
    paper="2007.13221 CSER: Communication-efficient SGD with Error Reset",
    Hparams=Hparams,
    **compose(Uplink(no_memory, _send), Downlink(_start, _direct, aggregates=1)),
    theory=theory,
    error=lambda problem, hp, state: state.down.mean(axis=0),
)
