"""BiQSGD: gradients are compressed on the way up, and their mean on the way down, without memory.

A baseline of Philippenko and Dieuleveut, arXiv 2102.12528 and 2006.14591.
"""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import compressed, gradient
from fedjax_lc.algorithms.frames.server import Rounds, compose
from fedjax_lc.algorithms.frames.step_sizes import both_ways
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Rounds):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
) -> Hparams:
    """gamma as Artemis."""
    up, down = choose(compressor, problem), choose(downlink, problem)
    return Hparams(up, down, both_ways(problem, up, down, convention))


register(
    "biqsgd",
    title="BiQSGD",
    up="C(g_i)",
    down="C(mean)",
    paper="2006.14591 Bidirectional compression in heterogeneous settings for distributed or federated learning with "
    "partial participation: tight convergence guarantees",
    Hparams=Hparams,
    **compose(compressed, gradient),
    theory=theory,
)
