"""LIEC-SGD: a client pays what its message left out back at once, in its model; only the server keeps an error.

Cheng et al., "Communication-Efficient Distributed Learning with Local Immediate Error Compensation",
arXiv 2402.11857; updates and units are those of the authors' code, the paper's text was not consulted. All models are
averaged in every p-th iteration, without compression. Without an uplink it is Local SGD with period p, and with p = 1
parallel SGD; its drift is bounded by the period alone, so gamma must be small against the largest L_i.
"""

from __future__ import annotations

import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import choose, mean_cost, register, tile
from fedjax_lc.algorithms.frames.links import no_memory, to_all
from fedjax_lc.algorithms.frames.local import step_size
from fedjax_lc.algorithms.frames.server import Rounds, compose, everyone
from fedjax_lc.algorithms.frames.turns import Directed, Downlink, Sent, Turn, Uplink, at_period
from fedjax_lc.compressors import Compressor
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    """Every client has a momentum, and everybody takes part."""

    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    period: Scalar = hyperparameter(
        "p, iterations from one average of the models to the next", "whole [1, inf)", default=32
    )
    sync_vectors: int = hyperparameter(
        "dense vectors each way for an average: 2, model and gradient, or 1, the model after its step",
        (1, 2),
        default=2,
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        everyone("liec_sgd", self)
        if self.sync_vectors == 1 and self.momentum is not None:
            raise InputError("sync_vectors=1 sends one model, no gradient for the momentum: set sync_vectors=2")


def _dense_bits(hp: Hparams, d: int) -> int:
    return hp.sync_vectors * FLOAT_BITS * d


def _send(hp: Hparams, memory: None, g: ClientVecs, turn: Turn) -> Sent:
    sync, q = at_period(hp, turn), hp.compressor.joint(turn.key, g)
    m = jnp.where(sync, g, q.value)
    bits = jnp.where(sync, _dense_bits(hp, g.shape[1]), mean_cost(q.bits))
    return Sent(turn.mean(m), None, bits, residual=g - m)


def _direct(hp: Hparams, e: Vec, x: ClientVecs, sent: Sent, turn: Turn) -> Directed:
    sync, v = at_period(hp, turn), sent.ghat + e
    c, bits = to_all(hp.downlink, turn.key, v)
    c = jnp.where(sync, v, c)
    base = turn.aggregate.rarely(sync, lambda x: tile(turn.mean(x), len(x)), x)
    return Directed(base, c[None] + sent.residual, v - c, jnp.where(sync, _dense_bits(hp, len(e)), bits))


def _start(problem: Problem, hp: Hparams) -> tuple[ClientVecs, None, Vec]:
    return tile(problem.x0, problem.n), None, jnp.zeros_like(problem.x0)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    period: int = 32,
) -> Hparams:
    """gamma as Local SGD with p local steps (`local.step_size`), which bounds the drift of the models (our choice)."""
    up, down = (choose(c, problem, contractive=True) for c in (compressor, downlink))
    return Hparams(up, down, step_size(problem, period), period)


register(
    "liec_sgd",
    title="LIEC-SGD",
    up="C(g_i); every p-th x_i and g_i",
    down="C(mean + e); every p-th x and mean",
    speed="1/√(nT) + (n/T)(p²(1-δ) + min(1/δ², p²)) (ours)",
    paper="2402.11857 Communication-Efficient Distributed Learning with Local Immediate Error Compensation",
    Hparams=Hparams,
    **compose(Uplink(no_memory, _send), Downlink(_start, _direct, aggregates=1)),
    theory=theory,
    error=lambda problem, hp, state: state.down,
)
