"""LEAD: linear decentralised learning with compression, a primal-dual method whose messages vanish.

    Y = X - eta G - eta D ;   q = Q(Y - H)
    Yh = H + q ;              Yw = Hw + W q
    H = (1-alpha) H + alpha Yh ;   Hw = (1-alpha) Hw + alpha Yw
    D += gamma/(2 eta) (Yh - Yw) ;   X = X - eta G - eta D          the same G, the new D

Liu, Li, Wang, Tang, Yan, "Linear Convergent Decentralized Optimization with Compression", arXiv 2007.00232 (recalled;
the update checked by its reduction to NIDS, the theorem by enumerating all outcomes of small problems).

D are duals, of sum zero over nodes, H memories that messages are differences to, and Hw = W H is kept by adding W q.
With Q the identity and gamma = 1 it is NIDS.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

from fedjax_lc.algorithms.frames.base import Cost, choose, constants, covered, gradients, register
from fedjax_lc.algorithms.frames.gossip import (
    MODELS,
    LocalStart,
    centred,
    chosen,
    dual_norm,
    local_at_first,
    start,
    zeros,
)
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem

CONVENTIONS = ("theorem", "practical")


@pytree.dataclass
class Hparams(LocalStart):
    """The theorem holds for full gradients and init="none"."""

    compressor: Compressor = hyperparameter("compressor of the messages, unbiased")
    eta: Scalar = hyperparameter("step size", "(0, inf)")
    gamma: Scalar = hyperparameter("step size of the duals, times 2 eta; smaller for sparsifiers", "(0, inf)")
    alpha: Scalar = hyperparameter("how far memories move to what was sent", "(0, 1]")


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    D: ClientVecs  # (n, d) duals, of sum zero over nodes
    H: ClientVecs  # (n, d) memories
    Hw: ClientVecs  # (n, d) W H
    k: jax.Array  # () steps so far


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    nothing = zeros(problem)
    return State(start(problem), nothing, nothing, nothing, hp.first)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, message_key = jax.random.split(key)
    links, (X, D, H, Hw, k) = hp.links(problem), state
    G, passes = gradients(problem, hp, X, batch_key)
    Y = X - hp.eta * G - hp.eta * D
    q = hp.compressor.joint(message_key, Y - H)
    Yh, Yw = H + q.value, Hw + links.mix(q.value)
    H, Hw = (1 - hp.alpha) * H + hp.alpha * Yh, (1 - hp.alpha) * Hw + hp.alpha * Yw
    D = centred(D + hp.gamma / (2 * hp.eta) * (Yh - Yw))
    X = X - hp.eta * G - hp.eta * D
    after = local_at_first(k, state._replace(x=Y, k=k + 1), State(X, D, H, Hw, k + 1))
    return after, links.cost(q.bits, passes, talks=k > 0)


def theory(
    problem: Problem,
    topology: Topology | str = "ring",
    compressor: Compressor | str | None = None,
    convention: str = "theorem",
) -> Hparams:
    """eta = 2/(mu + L), gamma half of its bound, alpha such that two terms of the rate are equal; for init="none".

    convention="practical": eta = 1/L, gamma = 1, alpha = 1/2, init="local", the paper's setting for quantisers of omega
    up to 2 (recalled only); sparsifiers need a smaller gamma.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)
    kept, graph = chosen(topology, problem)
    Q = choose(compressor, problem)
    if convention == "practical":
        return Hparams(Q, 1 / float(jnp.max(problem.smooth)), 1.0, 0.5, topology=kept)
    (L, mu), omega = constants(problem, "lead"), float(Q.omega(problem.dim))
    eta = 2 / (mu + L)
    m = mu * eta * (2 - mu * eta)
    gamma = _largest_gamma(omega, graph.beta, m) / 2
    return Hparams(Q, eta, gamma, _balanced(omega, graph.beta * gamma, m), init="none", topology=kept)


def _largest_gamma(omega: float, beta: float, m: float) -> float:
    """The theorem's min{2/((3 omega + 1) beta), 2 m/((2 - m) omega beta)}."""
    return min(2 / ((3 * omega + 1) * beta), 2 * m / ((2 - m) * omega * beta) if omega else np.inf)


def _a1(omega: Scalar, step: Scalar) -> Scalar:
    return 4 * (1 + omega) / (omega * step + 2)


def _interval(omega: float, step: float, m: float) -> tuple[float, float, float]:
    """a1, and the theorem's least and largest alpha; step is beta gamma."""
    a1 = _a1(omega, step)
    return a1, omega * step / (2 * (1 + omega)), min((2 - step) / (4 - step), m) / a1


def _balanced(omega: float, step: float, m: float) -> float:
    """alpha with (1 - alpha)(1 - a1 alpha) = 1 - m, clipped to the theorem's interval; step is beta gamma."""
    a1, low, high = _interval(omega, step, m)
    if low >= high:
        return high
    excess = lambda alpha: (1 - alpha) * (1 - a1 * alpha) - (1 - m)
    inside = np.nextafter(high, 0)
    if excess(low) <= 0 or excess(inside) >= 0:
        return low if excess(low) <= 0 and low > 0 else inside
    return float(brentq(excess, low, inside))


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """(1 - a1 alpha) |X - X*|^2 + (2 eta^2/gamma) <D - D*, (I - W)^+ (D - D*)> + a1 |H - X*|^2, with D* = -G(X*), a1 =
    4 (1 + omega)/(omega beta gamma + 2)."""
    x_star = jnp.asarray(problem.x_star, problem.dtype)
    a1 = _a1(hp.compressor.omega(problem.dim), hp.graph(problem).beta * hp.gamma)
    dual = state.D + problem.grads(x_star)
    primal = (1 - a1 * hp.alpha) * jnp.sum((state.x - x_star[None]) ** 2)
    memory = a1 * jnp.sum((state.H - x_star[None]) ** 2)
    return primal + 2 * hp.eta**2 / hp.gamma * dual_norm(hp.graph(problem), dual) + memory


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max{(1 - m)/(1 - a1 alpha), 1 - gamma lmin/2, 1 - alpha}, m = mu eta (2 - mu eta), for parameters within the
    theorem's bounds and init="none"."""
    (L, mu), graph, omega = constants(problem, "lead"), hp.graph(problem), float(hp.compressor.omega(problem.dim))
    m = mu * hp.eta * (2 - mu * hp.eta)
    a1, low, high = _interval(omega, graph.beta * hp.gamma, m)
    limits = [(hp.eta, 2 / (mu + L)), (hp.gamma, _largest_gamma(omega, graph.beta, m)), (hp.init != "none", 0)]
    limits += [(low, hp.alpha), (hp.alpha, high)]
    return covered(max((1 - m) / (1 - a1 * hp.alpha), 1 - hp.gamma * graph.lmin / 2, 1 - hp.alpha), *limits)


register(
    "lead",
    title="LEAD",
    up="Q(y_i - h_i) to neighbours",
    down="mixed by W",
    speed="((1+ω)(κ + κ_g) + ω κ κ_g) log 1/ε rounds (recalled)",
    paper="2007.00232 Linear Convergent Decentralized Optimization with Compression",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
