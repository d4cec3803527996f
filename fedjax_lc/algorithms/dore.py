"""Dore: DIANA's memories on the way up, error feedback on the way down.

Liu, Li, Tang, Yan, "A Double Residual Compression Algorithm for Efficient Distributed Learning", arXiv 1910.07561.
form="mcm_repo" is the version that the code of arXiv 2102.12528 runs: the mean gradient is compressed, not the model
residual, and the error comes back with the coefficient c_ef, the first step size (with 1 it diverges).
"""

from __future__ import annotations

from fedjax_lc import pytree
from fedjax_lc.algorithms.base import choose, register
from fedjax_lc.algorithms.bidirectional import (
    WithMemory,
    both_ways,
    compose,
    gradient_with_error,
    known_form,
    memory,
    memory_rate,
)
from fedjax_lc.compressors import Compressor
from fedjax_lc.problems import Problem
from fedjax_lc.typing import Scalar


@pytree.dataclass
class Hparams(WithMemory):
    """compressor, downlink: both unbiased. gamma: step size. alpha_up: learning rate of the shifts. c_ef: what part of
    the error comes back. The rest: see `bidirectional.WithMemory`."""

    compressor: Compressor
    downlink: Compressor
    gamma: Scalar
    alpha_up: Scalar
    c_ef: Scalar


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    form: str = "mcm_repo",
) -> Hparams:
    """gamma and alpha_up as Artemis, c_ef = gamma."""
    known_form("dore", form)
    up, down = choose(compressor, problem), choose(downlink, problem)
    gamma, alpha = both_ways(problem, up, down, convention), memory_rate(up.omega(problem.dim))
    return Hparams(up, down, gamma, alpha, c_ef=gamma, smart=convention == "mcm_repo")


register(
    "dore",
    title="Dore",
    paper="1910.07561 A Double Residual Compression Algorithm for Efficient Distributed Learning",
    Hparams=Hparams,
    **compose(memory(), gradient_with_error),
    theory=theory,
)
