"""Dore: DIANA's memories on the way up, the compressed residual of the model with error feedback on the way down.

Liu, Li, Tang, Yan, "A Double Residual Compression Algorithm for Efficient Distributed Learning", arXiv 1910.07561,
without a regulariser (recalled, re-derived and checked numerically). form="mcm_repo" is the version that the code of
arXiv 2102.12528 runs: the mean gradient is compressed, not the model residual, and the error comes back with the
coefficient c_ef, the first step size (with 1 it diverges).
"""

from __future__ import annotations

from typing import NamedTuple

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import gradient_with_error, memory, server_zeros, to_all
from fedjax_lc.algorithms.frames.server import WithMemory, compose
from fedjax_lc.algorithms.frames.step_sizes import CONVENTIONS, both_ways, known_form, memory_rate
from fedjax_lc.algorithms.frames.turns import Announced, Directed, Downlink, Sent, Turn
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(WithMemory):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    alpha_up: Scalar = hyperparameter("learning rate of the uplink memories h_i", "[0, 1]")
    c_ef: Scalar = hyperparameter("part of the error that comes back, the paper's eta", "[0, inf)")
    beta: Scalar = hyperparameter("rate at which the model takes the residuals", "(0, 1]", default=1.0)
    form: str = hyperparameter(
        "update of the DORE paper or of the code of arXiv 2102.12528", CONVENTIONS, default="paper"
    )


class _Before(NamedTuple):
    """The server's error, and the model before the move."""

    e: Vec
    x: Vec


def _direct(hp: Hparams, e: Vec, x: Vec, sent: Sent, turn: Turn) -> Directed:
    if hp.form == "mcm_repo":
        return gradient_with_error.direct(hp, e, x, sent, turn)
    return Directed(x, sent.ghat, _Before(e, x), 0.0)


def _announce(hp: Hparams, memory: Vec | _Before, w: Vec, seen: None, turn: Turn) -> Announced:
    if not isinstance(memory, _Before):
        return Announced(w, None, memory, 0.0)
    e, x = memory
    q = w - x + hp.c_ef * e
    message, bits = to_all(hp.downlink, turn.key, q)
    return Announced(x + hp.beta * message, None, q - message, bits)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    form: str | None = None,
) -> Hparams:
    """gamma as Artemis, alpha_up = 1/(1 + omega_up), beta = eta = 1/(1 + omega_down) (the paper: beta no larger, eta
    small; recalled only).

    form="mcm_repo", which is that of convention="mcm_repo": alpha_up as Artemis, c_ef = gamma, beta = 1.
    """
    form = known_form(form or convention)
    up, down = choose(compressor, problem), choose(downlink, problem)
    gamma, omega = both_ways(problem, up, down, convention), up.omega(problem.dim)
    if form == "mcm_repo":
        smart = convention == "mcm_repo"
        return Hparams(up, down, gamma, memory_rate(omega), c_ef=gamma, form=form, smart=smart)
    beta = 1 / (1 + down.omega(problem.dim))
    return Hparams(up, down, gamma, 1 / (1 + omega), c_ef=beta, beta=beta, form=form)


register(
    "dore",
    title="Dore",
    up="C(g_i - h_i)",
    down="C(x⁺ - x + ηe)",
    paper="1910.07561 A Double Residual Compression Algorithm for Efficient Distributed Learning",
    Hparams=Hparams,
    **compose(memory(), Downlink(server_zeros, _direct, _announce)),
    theory=theory,
)
