"""DoubleSqueeze: error feedback on the way up and on the way down.

Tang, Lian, Yu, Zhang, Liu, "DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-Pass Error-Compensated
Compression", arXiv 1905.05957 (recalled, re-derived and checked numerically; as in the code of LIEC-SGD, arXiv
2402.11857). form="mcm_repo" is the version that the code of arXiv 2102.12528 runs: unbiased compressors, and errors
that come back with the coefficient c_ef, the first step size (with 1 it diverges).
"""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import error_feedback, gradient_with_error
from fedjax_lc.algorithms.frames.server import Rounds, State, compose
from fedjax_lc.algorithms.frames.step_sizes import both_ways, feedback_step, known_form, leftover, leftover_of_both
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar, Vec
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    """The compressors are unbiased in the form of arXiv 2102.12528."""

    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    downlink: Compressor = hyperparameter("compressor of the downlink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    c_ef: Scalar = hyperparameter("part of the errors that comes back", "[0, inf)", default=1.0)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
    form: str | None = None,
) -> Hparams:
    """gamma = 1/(L (1 + 2 rho)), rho = `leftover_of_both` compressors, L = max_i L_i (derived by us); c_ef = 1.

    form="mcm_repo", which is that of convention="mcm_repo": gamma as Artemis, c_ef = gamma.
    """
    repo = known_form(form or convention) == "mcm_repo"
    up, down = (choose(c, problem, contractive=not repo) for c in (compressor, downlink))
    if repo:
        gamma = both_ways(problem, up, down, convention)
        return Hparams(up, down, gamma, c_ef=gamma)
    rho = leftover_of_both(leftover(up, problem.dim), leftover(down, problem.dim))
    return Hparams(up, down, feedback_step(problem, rho))


def owed(problem: Problem, hp: Hparams, state: State) -> Vec:
    """mean_i e_i + e."""
    return state.up.mean(axis=0) + state.down


register(
    "double_squeeze",
    title="DoubleSqueeze",
    up="C(g_i + e_i)",
    down="C(mean + e)",
    speed="1/√(nT) + Δ^⅔/T^⅔ + 1/T, Δ bounds errors (recalled)",
    paper="1905.05957 DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-Pass Error-Compensated "
    "Compression",
    Hparams=Hparams,
    **compose(error_feedback, gradient_with_error),
    theory=theory,
    error=owed,
)
