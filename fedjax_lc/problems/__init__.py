"""What is minimised: F(x) = (1/n) sum_i f_i(x), one pytree with all clients' data stacked.

Ragged clients are padded to the longest one and masked by row weights of zero, so a client's loss is always
`f_i(x) = sum_s r_is loss(<a_is, x>, b_is) + (l2/2) |x|^2` with r_is = 1/m_i on its own rows. Client weights w_i (say
m_i / N) multiply r_is by n w_i, so that the plain mean over clients is the weighted objective and no method needs to
know. A network's rows lie in one table instead (`networks`).
"""

from fedjax_lc.problems.base import Problem
from fedjax_lc.problems.from_data import problem
from fedjax_lc.problems.from_network import neural
from fedjax_lc.problems.linear import LinearModel, least_squares, logistic_regression
from fedjax_lc.problems.networks import Neural
from fedjax_lc.problems.quadratics import Quadratic, quadratic
from fedjax_lc.problems.softmax import SoftmaxModel, softmax_regression

__all__ = [
    "LinearModel",
    "Neural",
    "Problem",
    "Quadratic",
    "SoftmaxModel",
    "least_squares",
    "logistic_regression",
    "neural",
    "problem",
    "quadratic",
    "softmax_regression",
]
