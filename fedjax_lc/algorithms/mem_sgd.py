"""MEM-SGD, also EF-SGD: what a client's message leaves out is added to its next gradient.

Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", arXiv 1809.07599; Karimireddy, Rebjock, Stich, Jaggi, "Error
Feedback Fixes SignSGD", arXiv 1901.09847 (recalled, re-derived and checked numerically). Errors are in units of
gradients, as in the code of LIEC-SGD, arXiv 2402.11857; with a constant step size the classical form is the same.
"""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import error_feedback, plain
from fedjax_lc.algorithms.frames.server import Rounds, compose
from fedjax_lc.algorithms.frames.step_sizes import feedback_step, leftover
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink, contractive")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


def theory(problem: Problem, compressor: Compressor | str | None = None) -> Hparams:
    """gamma = 1/(L (1 + 2 rho)), rho = `leftover` of the compressor, L = max_i L_i (derived by us)."""
    up = choose(compressor, problem, contractive=True)
    return Hparams(up, feedback_step(problem, leftover(up, problem.dim)))


register(
    "mem_sgd",
    title="MEM-SGD",
    up="C(g_i + e_i)",
    down="x",
    speed="1/√(nT) + n/(δ²T) (ours)",
    paper="1809.07599 Sparsified SGD with Memory",
    Hparams=Hparams,
    **compose(error_feedback, plain),
    theory=theory,
    error=lambda problem, hp, state: state.up.mean(axis=0),
)
