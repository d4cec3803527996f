"""SAVIC: local steps scaled by a diagonal that changes at communications only.

"Local Methods with Adaptivity via Scaling", arXiv 2406.00846. That Local SGD is scaled by a diagonal matrix (Adam,
RMSProp, OASIS, ...) which changes at communication times is from the abstract; the shape of the algorithm below is
recalled only, its algebra re-derived and checked. Rules: Beznosikov et al. 2206.08303, Sadiev et al. 2206.00285, Jahani
et al. 2109.05198 (OASIS). The AdaGrad rule is ours. No constant here is confirmed to be the paper's.

One round: all clients start at x; their first gradients (or Hutchinson probes on the same rows) give the statistic S,
S renews D, Dhat = clip(D), and H local steps x_m -= gamma u_m / Dhat follow, the first with those very gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register, tile
from fedjax_lc.algorithms.frames.local import Local, Round, begin, client_zeros, clock, step_size, usual
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import ARRAY, hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem

RULES = ("adam", "rmsprop", "adagrad", "oasis", "adahessian", "none", "fixed")
HESSIAN = ("oasis", "adahessian")  #: rules whose statistic is the Hessian's diagonal
CORRECTED = ("adam", "adahessian")  #: rules whose beta_p is (beta - beta^p)/(1 - beta^p)


@pytree.dataclass
class Hparams(Local):
    gamma: Scalar = hyperparameter("step size", "(0, inf)")
    alpha: Scalar = hyperparameter("least entry of Dhat", "(0, inf)", default=1e-2)
    beta: Scalar = hyperparameter("weight of the old D", "[0, 1)", default=0.999)
    b1: Scalar = hyperparameter(
        "momentum of the local steps, an average without bias correction (not in the theory)", "[0, 1)", default=0.0
    )
    D: Any = hyperparameter("diagonal (d,) that rule=fixed divides by", default=None, kind=ARRAY)
    rule: str = hyperparameter("rule that makes D of gradients or Hessian-vector products", RULES, default="adam")
    scaling: str = hyperparameter(
        "the server's one D (global), or each client's, renewed once a round (local_sync) or at every step (local)",
        ("global", "local_sync", "local"),
        default="global",
    )
    agg: str = hyperparameter(
        "what global statistics are means of: gradients (grad) or, as roots, squares (sq)",
        ("grad", "sq"),
        default="grad",
    )
    timing: str = hyperparameter(
        "gradients of D at the averaged model (fresh) or at the models before averaging (stale, recalled only)",
        ("fresh", "stale"),
        default="fresh",
    )
    clip: str = hyperparameter("Dhat = max(alpha, |D|) or alpha + |D| (add)", ("max", "add"), default="max")
    n_warm: int = hyperparameter(
        "Hutchinson probes at the first refresh, one at later ones", "whole [1, inf)", default=20, static=True
    )
    shared_v: bool = hyperparameter("whether clients share their probes", default=False)
    lag: bool = hyperparameter("whether a round still divides by the Dhat of the round before", default=False)

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        if (self.rule == "fixed") != (self.D is not None):
            raise InputError("rule='fixed' and D=(d,) go together: give both")
        if self.D is not None and jnp.shape(self.D) != (problem.dim,):
            raise InputError(f"D must have shape ({problem.dim},), got {jnp.shape(self.D)}")
        if self.timing == "stale" and (
            self.selection == "schedule" or self.cohort_size not in (None, problem.n) or self.lag
        ):
            raise InputError("timing='stale' needs all clients in every round, and no lag: use timing='fresh'")
        if self.lag and self.scaling == "local":
            raise InputError("lag needs one refresh a round: use scaling='global' or 'local_sync'")


class Precond(NamedTuple):
    """The diagonal statistic: one (d,), or one row for each client; and its refreshes so far, () or by client."""

    D: Vec | ClientVecs
    p: jax.Array


class State(NamedTuple):
    x: Vec  # (d,) the model after the last communication
    x_i: ClientVecs | None  # (n, d) local models, with timing="stale"
    mom: Vec | ClientVecs  # momentum after the last communication, (d,); (n, d) with timing="stale"
    precond: Precond
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x, stale = problem.x0, hp.timing == "stale"
    D = {"none": jnp.ones_like(x), "fixed": hp.D}.get(hp.rule, jnp.zeros_like(x))
    p = jnp.zeros((), jnp.int32)
    if hp.scaling != "global":
        D, p = jnp.array(tile(D, problem.n)), jnp.zeros(problem.n, jnp.int32)
    rows = client_zeros(problem)
    x_i, mom = (tile(x, problem.n), rows) if stale else (None, rows[0])
    return State(x, x_i, mom, Precond(D, p), clock(), start(problem, hp, 3))


def refresh(hp: Hparams, old: Precond, S: Vec | ClientVecs) -> Precond:
    """D after one more statistic S: D^2 = b D^2 + (1 - b) S^2; OASIS D = b D + (1 - b) S; AdaGrad D^2 = D^2 + S^2."""
    p = old.p + 1
    if hp.rule in ("none", "fixed"):
        return Precond(old.D, p)
    if hp.rule == "adagrad":
        return Precond(jnp.sqrt(old.D**2 + S**2), p)
    if hp.rule in CORRECTED:
        new = (1 - hp.beta) / -jnp.expm1(p.astype(S.dtype) * jnp.log(hp.beta))  # (1 - beta)/(1 - beta^p)
    else:
        new = jnp.where(p == 1, 1, 1 - hp.beta)
    new = new[..., None]
    if hp.rule == "oasis":
        return Precond((1 - new) * old.D + new * S, p)
    return Precond(jnp.sqrt((1 - new) * old.D**2 + new * S**2), p)


def clipped(hp: Hparams, D: Vec | ClientVecs) -> Vec | ClientVecs:
    """Dhat."""
    if hp.rule == "none":
        return D
    return jnp.maximum(hp.alpha, jnp.abs(D)) if hp.clip == "max" else hp.alpha + jnp.abs(D)


def frozen_diagonal() -> optax.GradientTransformationExtraArgs:
    """Updates over the diagonal `Dhat` that comes with them."""

    def update(updates: Any, state: Any, params: Any = None, *, Dhat: Any, **extra: Any) -> tuple[Any, Any]:
        return updates / Dhat, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def client_optimiser(hp: Hparams) -> optax.GradientTransformationExtraArgs:
    """-gamma u / Dhat, u = b1 u + (1 - b1) g."""
    return optax.chain(optax.ema(hp.b1, debias=False), frozen_diagonal(), optax.scale(-hp.gamma))


def statistics(round: Round, h: Any, y: ClientVecs, g: ClientVecs, p: jax.Array, key: Key) -> tuple[ClientVecs, Any]:
    """(c, d) what each client says at its refresh p, and how many probes that took: its gradient, or the mean of
    v * (Hessian v) over +-1 vectors v, on the batch of local step h."""
    hp = round.hp
    if hp.rule not in HESSIAN:
        return g, 0
    count = jnp.broadcast_to(jnp.where(p == 1, hp.n_warm, 1), (round.c,))

    def add(j: Any, total: ClientVecs) -> ClientVecs:
        refresh_key = jax.random.fold_in(key, j)
        draw = lambda k: jax.random.rademacher(k, (y.shape[1],), y.dtype)
        v = tile(draw(refresh_key), round.c) if hp.shared_v else jax.vmap(draw)(round.problem.client_keys(refresh_key))
        product = jax.jvp(lambda y: round.gradients(h, y), (y,), (v,))[1]
        return total + jnp.where((j < count)[:, None], v * product, 0)

    total = jax.lax.fori_loop(1, jnp.max(count), add, add(0, jnp.zeros_like(y)))
    return total / count.astype(y.dtype)[:, None], count


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    round = begin(problem, hp, state.t, key, state.aggregation)
    hp, stale, everywhere = round.hp, hp.timing == "stale", hp.scaling == "global"
    client, probe_key = client_optimiser(hp), jax.random.fold_in(key, 4)  # begin splits key four ways
    update = jax.vmap(lambda g, opt, Dhat: client.update(g, opt, Dhat=Dhat), (0, 0, None if everywhere else 0))

    def renew(h: Any, y: ClientVecs, g: ClientVecs, old: Precond) -> tuple[Precond, Any]:
        S, probes = statistics(round, h, y, g, old.p + 1, jax.random.fold_in(probe_key, h))
        if everywhere:
            S = round.mean(S) if hp.agg == "grad" else jnp.sqrt(round.mean(S**2))
        return refresh(hp, old, S), probes

    def move(y: ClientVecs, opt: PyTree, g: ClientVecs, precond: Precond) -> tuple[ClientVecs, PyTree]:
        updates, opt = update(g, opt, clipped(hp, precond.D))
        return y + updates, opt

    # The first local step, at whose gradients D is renewed.
    y: Any = state.x_i if stale else tile(state.x, round.c)
    opt = with_momentum(jax.vmap(client.init)(y), state.mom if stale else tile(state.mom, round.c))
    old = state.precond if everywhere else jax.tree.map(round.rows, state.precond)
    g = round.gradients(0, y)
    precond, probes = renew(0, y, g, old)
    used = old if hp.lag else precond
    y, opt = move(y, opt, g, used)
    if stale:
        x, mom = round.mean(y), round.mean(momentum(opt))
        y, opt = tile(x, round.c), with_momentum(opt, tile(mom, round.c))

    # The others.
    if hp.scaling == "local":

        def local(h: Any, now: Any) -> Any:
            y, opt, old = now
            g = round.gradients(h, y)
            precond, _ = renew(h, y, g, old)
            return *move(y, opt, g, precond), precond

        y, opt, precond = round.loop(local, (y, opt, precond), first=1)
    else:
        y, opt = round.train(lambda y, g, opt: move(y, opt, g, used), y, opt, first=1)

    if stale:
        x_i, mom = y, momentum(opt)
    else:
        x_i, x = None, state.x + round.mean(y - state.x[None])
        mom = state.mom + round.mean(momentum(opt) - state.mom[None])
    if not everywhere:
        precond = jax.tree.map(round.put, state.precond, precond)
    return State(x, x_i, mom, precond, state.t + 1, round.aggregation), cost(round, probes)


def momentum(opt: PyTree) -> ClientVecs:
    return optax.tree.get(opt, "ema")


def with_momentum(opt: PyTree, mom: ClientVecs) -> PyTree:
    return optax.tree.set(opt, ema=mom)


def cost(round: Round, probes: Any) -> Cost:
    """The model and as many floats more for a statistic that is shared, and for momentum, each way; a probe costs two
    gradients."""
    hp = round.hp
    shared = hp.scaling == "global" and hp.rule not in ("none", "fixed")
    often = hp.scaling == "local" and hp.rule in HESSIAN  # a probe at every step, more at the first one
    times, probes = (3, probes - 1) if often else (1, probes)
    floats = round.floats(jnp.where(hp.b1 > 0, 1, 0) + (2 if shared else 1))
    return round.cost(floats, floats, times=times, extra=2 * probes * round.passes)


def point(problem: Problem, hp: Hparams, state: State) -> Vec:
    return state.x


def theory(
    problem: Problem,
    rule: str = "adam",
    local_steps: int = 10,
    alpha: float | None = None,
    scaling: str = "global",
) -> Hparams:
    """gamma = alpha/(4 L max(1, 2 (H - 1))), with which H scaled steps are as short as Local SGD's bound asks where D
    is smallest (derived by us for a D that is held; the paper's constant is not confirmed). alpha = 0.01, or L/10 for
    rules of the Hessian. Of a network gamma is 0.003 for rules of gradients (our choice).
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    L = float(jnp.max(problem.smooth))
    least = (L / 10 if rule in HESSIAN else 1e-2) if alpha is None else alpha
    gamma = step_size(problem, local_steps) * (1 if rule == "none" else least)
    if not problem.solvable and rule not in ("none", "fixed", *HESSIAN):
        gamma = 3e-3
    D = jnp.ones_like(problem.x0) if rule == "fixed" else None
    return Hparams(gamma, alpha=least, D=D, rule=rule, scaling=scaling, **usual(problem, local_steps))


register(
    "savic",
    title="SAVIC",
    up="y_i; global rules also diagonals",
    down="x; global rules also D",
    speed="1-γμ/Γ per local step to noise, D held, equal f_i (ours)",
    paper="2406.00846 Local Methods with Adaptivity via Scaling",
    Hparams=Hparams,
    init=init,
    step=step,
    point=point,
    theory=theory,
)
