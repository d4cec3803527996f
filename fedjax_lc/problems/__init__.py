"""Problems: minimise F(x) = (1/n) sum_i f_i(x) over n clients. A problem is one pytree with all clients' data.

Clients with fewer rows are padded to the longest client, or, where that would take much memory, rows are cut into small
blocks or, if they are sparse, kept one after the other (`layouts`); padded rows have weight 0. So the loss of client i
is always `f_i(x) = sum_s r_is loss(<a_is, x>, b_is) + (l2/2) |x|^2`, with r_is = 1/m_i on its m_i rows. Client weights
w_i (for example m_i / N) multiply r_is by n w_i: the plain mean over clients is then the weighted objective, and
methods need not know the weights. The rows of a network's clients lie in one table instead (`networks`).
"""

from fedjax_lc.problems.base import Problem
from fedjax_lc.problems.drift import drifting
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
    "drifting",
    "least_squares",
    "logistic_regression",
    "neural",
    "problem",
    "quadratic",
    "softmax_regression",
]
