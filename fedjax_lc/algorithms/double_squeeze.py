"""DoubleSqueeze: error feedback on the way up and on the way down.

Tang, Lian, Yu, Zhang, Liu, "DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-Pass Error-Compensated
Compression", arXiv 1905.05957. form="mcm_repo" is the version that the code of arXiv 2102.12528 runs: unbiased
compressors, and errors that come back with the coefficient c_ef, the first step size (with 1 it diverges).
"""

from __future__ import annotations

from fedjax_lc import pytree
from fedjax_lc.algorithms.base import choose, register
from fedjax_lc.algorithms.bidirectional import (
    Rounds,
    both_ways,
    compose,
    error_feedback,
    gradient_with_error,
    known_form,
)
from fedjax_lc.compressors import Compressor
from fedjax_lc.problems import Problem
from fedjax_lc.typing import Scalar


@pytree.dataclass
class Hparams(Rounds):
    """compressor, downlink: both unbiased. gamma: step size. c_ef: what part of the errors comes back. The rest: see
    `bidirectional.Rounds`."""

    compressor: Compressor
    downlink: Compressor
    gamma: Scalar
    c_ef: Scalar


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    form: str = "mcm_repo",
) -> Hparams:
    """gamma as Artemis, c_ef = gamma."""
    known_form("double_squeeze", form)
    up, down = choose(compressor, problem), choose(downlink, problem)
    gamma = both_ways(problem, up, down, convention)
    return Hparams(up, down, gamma, c_ef=gamma)


register(
    "double_squeeze",
    title="DoubleSqueeze",
    paper="1905.05957 DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-Pass Error-Compensated "
    "Compression",
    Hparams=Hparams,
    **compose(error_feedback, gradient_with_error),
    theory=theory,
)
