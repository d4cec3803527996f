"""LESSBIT: dual decentralised methods with DIANA's memories, which send compressed vectors only.

    A   x_i = argmin f_i(x) - <z_i, x>
    B   x_i -= eta (grad f_i(x_i) - z_i)          one step
    C   the same with a stochastic gradient
    D   the same with that of loopless SVRG: grad f_i(x_i; rows) - grad f_i(w_i; rows) + grad f_i(w_i); w_i becomes the
        new x_i with probability p, all nodes at once (a choice of ours; SVRG takes the x_i before the step)
    q = Q(X - H) ;   Xh = H + q ;   H += alpha q ;   Z -= theta (I - W) Xh

Kovalev, Koloskova, Jaggi, Richtarik, Stich, "A Linearly Convergent Algorithm for Decentralized Optimization: Sending
Less Bits for Free!", arXiv 2011.01697. Only the abstract was read; that there are four options is recalled only, and
the form here is derived by us. Of option A the theorem is proved by us: with alpha = 1/(1 + omega), a = max_i (1 -
w_ii) and theta <= mu/(beta + 6 a omega), E V falls by max{1 - theta lmin/L, 1 - alpha/2} a step, so that messages of
omega up to about beta/(6a) cost nothing in rounds.

Every f_i must be strongly convex. The duals z_i sum to zero and tend to the gradients at the solution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, choose, constants, covered, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, centred, chosen, dual_norm, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import lanes, pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem
from fedjax_lc.problems.losses import Squared
from fedjax_lc.problems.quadratics import Quadratic

OPTIONS = ("A", "B", "C", "D")
NEWTON = 6  #: steps of Newton's method of option A, from the last x_i; one where f_i are quadratics


@pytree.dataclass
class Hparams(Gossip):
    compressor: Compressor = hyperparameter("compressor of the messages, unbiased")
    theta: Scalar = hyperparameter("step size of the duals", "(0, inf)")
    alpha: Scalar = hyperparameter("how far memories move to what was sent, up to 1/(1 + omega) in theory", "(0, 1]")
    eta: Scalar = hyperparameter("step size of the models, of options B, C and D", "(0, inf)")
    option: str = hyperparameter(
        "how a node minimises: exactly (A), by a gradient step (B), by one of a batch (C), or by one of SVRG (D)",
        OPTIONS,
        default="B",
    )
    p: Scalar = hyperparameter("probability that option D takes the full gradient anew", "(0, 1]", default=0.1)

    def validate(self, problem: Problem) -> None:
        """Raise InputError for choices that do not fit each other or the problem."""
        super().validate(problem)
        if self.option == "A" and not problem.solvable:
            raise InputError("lessbit's option A minimises f_i exactly, which is for convex problems: take option B")
        if self.option == "A" and not pytree.is_traced(problem.strong) and not problem.strong > 0:
            raise InputError("lessbit's option A needs strongly convex f_i, got strong = 0: set l2 or kappa")
        if (self.option in ("C", "D")) != (self.batch_size is not None):
            raise InputError("lessbit's options C and D take batches, and A and B full gradients: give batch_size or "
                             "leave it out")  # fmt: skip


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    z: ClientVecs  # (n, d) duals, of sum zero over nodes
    h: ClientVecs  # (n, d) memories
    hw: ClientVecs  # (n, d) W h
    full: Full | None = None


class Full(NamedTuple):
    """The last full gradients of option D."""

    w: ClientVecs  # (n, d) where they were taken
    g: ClientVecs  # (n, d)
    taken: jax.Array  # () whether they are those of the step


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x, nothing = start(problem), zeros(problem)
    full = Full(x, problem.grads(problem.x0), jnp.array(True)) if hp.option == "D" else None
    return State(x, nothing, nothing, nothing, full)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    primal_key, message_key = jax.random.split(key)
    links = hp.links(problem)
    x, full, passes = primal(problem, hp, state, primal_key)
    q = hp.compressor.joint(message_key, x - state.h)
    qw = links.mix(q.value)
    z = centred(state.z - hp.theta * (state.h - state.hw + q.value - qw))  # (I - W)(h + q)
    h, hw = state.h + hp.alpha * q.value, state.hw + hp.alpha * qw
    return State(x, z, h, hw, full), links.cost(q.bits, passes)


def primal(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[ClientVecs, Full | None, Scalar]:
    """The new models, the full gradients of option D, and what all of it costs in full gradients."""
    x, z, full = state.x, state.z, state.full
    if hp.option == "A":
        count = 1 if is_quadratic(problem) else NEWTON
        for _ in range(count):
            x = newton(problem, x, z)
        return x, None, count
    batch_key, coin_key = jax.random.split(key)
    G, passes = gradients(problem, hp, x, batch_key)
    if full is None:
        return x - hp.eta * (G - z), None, passes
    there, _ = gradients(problem, hp, full.w, batch_key)  # the same rows
    x = x - hp.eta * (G - there + full.g - z)
    anew = jax.random.bernoulli(coin_key, hp.p)
    cost = 2 * passes + full.taken  # those taken at the end of the last step
    full = lanes.rarely(anew, lambda old: old._replace(w=x, g=problem.grads(x)), full)
    return x, full._replace(taken=anew), cost


def is_quadratic(problem: Problem) -> bool:
    """Whether one step of Newton's method minimises f_i."""
    return isinstance(problem, Quadratic) or getattr(problem, "loss", None) is Squared


def newton(problem: Problem, x: ClientVecs, z: ClientVecs) -> ClientVecs:
    """A step of Newton's method for f_i(x) - <z_i, x>, damped where f_i is no quadratic; it counts as one gradient."""
    slope = problem.grads(x) - z
    along = lambda e: problem.hvps(x, jnp.broadcast_to(e, x.shape))
    hessians = jnp.moveaxis(jax.vmap(along)(jnp.eye(problem.dim, dtype=x.dtype)), 0, 2)
    move = jnp.linalg.solve(hessians, slope[..., None])[..., 0]
    if is_quadratic(problem):
        return x - move
    decrement = jnp.sqrt(jnp.maximum(jnp.sum(slope * move, axis=1, keepdims=True), 0))
    return x - move / (1 + decrement)


def theory(
    problem: Problem,
    topology: Topology | str = "ring",
    compressor: Compressor | str | None = None,
    option: str = "B",
    batch_size: int | None = None,
) -> Hparams:
    """alpha = 1/(1 + omega), theta = mu/(beta + 6 a omega), a = max_i (1 - w_ii), of the theorem on option A (derived
    by us); eta = 1/L for B, measured to stay stable to 8 theta, and 1/(6 L) for C and D (a choice of ours)."""
    if option not in OPTIONS:
        raise unknown("option", option, OPTIONS)
    (kept, graph), Q = chosen(topology, problem), choose(compressor, problem)
    (L, mu), omega = constants(problem, "lessbit"), float(Q.omega(problem.dim))
    theta = mu / (graph.beta + 6 * spread(graph) * omega)
    eta = 1 / (L if option in ("A", "B") else 6 * L)
    return Hparams(Q, theta, 1 / (1 + omega), eta, option=option, batch_size=batch_size, topology=kept)


def spread(graph: Topology) -> float:
    """a = max_i (1 - w_ii)."""
    return float(1 - graph.self_weights.min())


def lyapunov(problem: Problem, hp: Hparams, state: State) -> Scalar:
    """<Z - Z*, (I - W)^+ (Z - Z*)> + (4 a omega/alpha) theta^2 |H - X*|^2, Z* = G(X*); of option A (derived by us)."""
    x_star, graph = jnp.asarray(problem.x_star, problem.dtype), hp.graph(problem)
    memory = 4 * spread(graph) * hp.compressor.omega(problem.dim) / hp.alpha * hp.theta**2
    dual = dual_norm(graph, state.z - problem.grads(x_star))
    return dual + memory * jnp.sum((state.h - x_star[None]) ** 2)


def rate(problem: Problem, hp: Hparams) -> Scalar:
    """max{1 - theta lmin/L, 1 - alpha/2} of option A, for theta and alpha no larger than theory's (proved by us)."""
    if hp.option != "A":
        return math.inf
    (L, _), most = constants(problem, "lessbit"), theory(problem, hp.topology, hp.compressor)
    known = max(1 - hp.theta * hp.graph(problem).lmin / L, 1 - hp.alpha / 2)
    return covered(known, (hp.theta, most.theta), (hp.alpha, most.alpha))


register(
    "lessbit",
    title="LESSBIT",
    up="Q(x_i - h_i) to neighbours",
    down="mixed by W",
    speed="max{1 - θ l_min/L, 1 - α/2} per step, option A (ours)",
    paper="2011.01697 A Linearly Convergent Algorithm for Decentralized Optimization: Sending Less Bits for Free!",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
    lyapunov=lyapunov,
    rate=rate,
)
