"""QSGD: every client compresses its gradient; the model goes down uncompressed.

Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
arXiv 1610.02132. With full gradients of heterogeneous clients it does not converge: what is compressed does not vanish.
"""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import compressed, plain
from fedjax_lc.algorithms.frames.server import Rounds, compose
from fedjax_lc.algorithms.frames.step_sizes import smoothness
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


def theory(problem: Problem, compressor: Compressor | str | None = None, convention: str = "paper") -> Hparams:
    """gamma = 1/(2 L (1 + omega/n)) (recalled only); 1/L with convention="mcm_repo"."""
    compressor = choose(compressor, problem)
    L = smoothness(problem, convention)
    spread = 2 * (1 + compressor.omega(problem.dim) / problem.n) if convention == "paper" else 1
    return Hparams(compressor, 1 / (L * spread))


register(
    "qsgd",
    title="QSGD",
    up="C(g_i)",
    down="x",
    paper="1610.02132 QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
    Hparams=Hparams,
    **compose(compressed, plain),
    theory=theory,
)
