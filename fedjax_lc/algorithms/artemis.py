"""Artemis: DIANA's memories on the way up, and the compressed mean gradient on the way down.

Philippenko and Dieuleveut, "Bidirectional compression in heterogeneous settings for distributed or federated learning
with partial participation: tight convergence guarantees", arXiv 2006.14591; as run in arXiv 2102.12528, without a
downlink memory. The server takes the compressed step itself, so the noise of both directions multiplies.
"""

from __future__ import annotations

from fedjax_lc.algorithms.frames.base import choose, register
from fedjax_lc.algorithms.frames.links import gradient, memory
from fedjax_lc.algorithms.frames.server import WithMemory, compose
from fedjax_lc.algorithms.frames.step_sizes import both_ways, memory_rate
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(WithMemory):
    compressor: Compressor = hyperparameter("compressor of the uplink, unbiased")
    downlink: Compressor = hyperparameter("compressor of the downlink, unbiased")
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    alpha_up: Scalar = hyperparameter("learning rate of the uplink memories h_i", "[0, 1]")


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    convention: str = "paper",
) -> Hparams:
    """gamma = 1/(2 L (1 + omega_down)(1 + omega_up/n)) (its order recalled only), alpha_up = 1/(2 (1 + omega_up)).

    convention="mcm_repo" has gamma = 1/mean_i L_i and smart initialisation.
    """
    up, down = choose(compressor, problem), choose(downlink, problem)
    gamma, alpha = both_ways(problem, up, down, convention), memory_rate(up.omega(problem.dim))
    return Hparams(up, down, gamma, alpha, smart=convention == "mcm_repo")


register(
    "artemis",
    title="Artemis",
    up="C(g_i - h_i)",
    down="C(mean)",
    speed="noise floor ∝ (1 + ω_up)(1 + ω_dwn) (recalled)",
    paper="2006.14591 Bidirectional compression in heterogeneous settings for distributed or federated learning with "
    "partial participation: tight convergence guarantees",
    Hparams=Hparams,
    **compose(memory(), gradient),
    theory=theory,
)
