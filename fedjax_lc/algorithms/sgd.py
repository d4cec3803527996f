"""SGD with all clients in every round, nothing compressed: the yardstick of the compressed methods (P-SGD)."""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import register
from fedjax_lc.algorithms.frames.links import plain, uncompressed
from fedjax_lc.algorithms.frames.server import Rounds, compose
from fedjax_lc.algorithms.frames.step_sizes import smoothness
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


def theory(problem: Problem, convention: str = "paper") -> Hparams:
    """gamma = 1/L, L = max_i L_i; mean_i L_i with convention="mcm_repo"."""
    return Hparams(1 / smoothness(problem, convention))


register(
    "sgd",
    title="SGD",
    up="g_i",
    down="x",
    speed="1-γμ to noise, γ ≤ 1/(4L), equal clients (recalled)",
    paper="textbook: stochastic gradient descent, one step per round",
    Hparams=Hparams,
    **compose(uncompressed, plain),
    theory=theory,
)
