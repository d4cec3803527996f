"""FedOpt: local steps at the clients, an adaptive optimiser at the server that takes the mean change for a gradient.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization", arXiv 2003.00295,
Algorithm 2 (FedAdagrad, FedAdam, FedYogi; recalled only but for FedYogi's v), without bias correction. FedAvgM: Hsu,
Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", arXiv
1909.06335 (recalled only). `fedopt` is any server optimiser of optax.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lc.algorithms import fedavg
from fedjax_lc.algorithms.frames.aggregation import Memories, start
from fedjax_lc.algorithms.frames.base import Cost, register
from fedjax_lc.algorithms.frames.local import clock
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem

PAPER = "2003.00295 Adaptive Federated Optimization"


@pytree.dataclass
class MomentumHparams(fedavg.Hparams):
    b1: Scalar = hyperparameter("weight of the server's old momentum", "[0, 1)")


@pytree.dataclass
class AdaptiveHparams(fedavg.Hparams):
    b1: Scalar = hyperparameter("weight of the server's old first moment", "[0, 1)")
    b2: Scalar = hyperparameter("weight of the server's old second moment", "[0, 1)")
    tau: Scalar = hyperparameter("added to the root of the second moment", "(0, inf)")
    v0: Scalar = hyperparameter("start of the second moment; tau^2 in theory, 0 in Flower", "[0, inf)")


@pytree.dataclass
class OptaxHparams(fedavg.Hparams):
    server: str | Callable[[Any], optax.GradientTransformation] = hyperparameter(
        "an optimiser of optax by name, or a function server_lr -> optax transformation", static=True
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        if isinstance(self.server, str):
            _check_descends(self.server)


class MomentumState(NamedTuple):
    x: Vec  # (d,) the server's model
    m: Vec  # (d,) its momentum
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


class AdaptiveState(NamedTuple):
    x: Vec  # (d,) the server's model
    m: Vec  # (d,) first moment of the changes
    v: Vec  # (d,) second moment
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


class OptaxState(NamedTuple):
    x: Vec  # (d,) the server's model
    server: PyTree  # of the optimiser
    t: jax.Array  # () rounds so far
    aggregation: Memories = None


def momentum_init(problem: Problem, hp: MomentumHparams, key: Key) -> MomentumState:
    return MomentumState(problem.x0, jnp.zeros_like(problem.x0), clock(), start(problem, hp))


def momentum_step(problem: Problem, hp: MomentumHparams, state: MomentumState, key: Key) -> tuple[MomentumState, Cost]:
    Delta, round, cost = fedavg.change(problem, hp, state, key)
    m = hp.b1 * state.m + Delta
    return MomentumState(state.x + round.hp.server_lr * m, m, state.t + 1, round.aggregation), cost


def adaptive_init(problem: Problem, hp: AdaptiveHparams, key: Key) -> AdaptiveState:
    m, v = jnp.zeros_like(problem.x0), jnp.full_like(problem.x0, hp.v0)
    return AdaptiveState(problem.x0, m, v, clock(), start(problem, hp))


def adaptive(second_moment: Callable[[Vec, Vec, Scalar], Vec]) -> Callable[..., tuple[AdaptiveState, Cost]]:
    """The step whose v follows `second_moment(v, Delta^2, b2)`."""

    def step(problem: Problem, hp: AdaptiveHparams, state: AdaptiveState, key: Key) -> tuple[AdaptiveState, Cost]:
        Delta, round, cost = fedavg.change(problem, hp, state, key)
        m = hp.b1 * state.m + (1 - hp.b1) * Delta
        v = second_moment(state.v, Delta**2, hp.b2)
        x = state.x + round.hp.server_lr * m / (jnp.sqrt(v) + hp.tau)
        return AdaptiveState(x, m, v, state.t + 1, round.aggregation), cost

    return step


def adagrad(v: Vec, square: Vec, b2: Scalar) -> Vec:
    return v + square


def adam(v: Vec, square: Vec, b2: Scalar) -> Vec:
    return b2 * v + (1 - b2) * square


def yogi(v: Vec, square: Vec, b2: Scalar) -> Vec:
    return v - (1 - b2) * square * jnp.sign(v - square)


def _optimiser(server: str | Callable[..., Any], server_lr: Scalar) -> optax.GradientTransformation:
    make = getattr(optax, server, None) if isinstance(server, str) else server
    if not callable(make):
        raise InputError(f"server {server!r} is no optimiser of optax: adam, lion, sgd, adabelief, ...")
    try:
        transform = make(server_lr)
    except TypeError as error:
        raise InputError(f"server {server!r} takes more than a learning rate ({error}): pass a function "
                         "server_lr -> optax transformation") from None  # fmt: skip
    if not isinstance(transform, optax.GradientTransformation):
        raise InputError(f"server {server!r} is no optimiser of optax: adam, lion, sgd, adabelief, ...")
    return transform


@functools.cache
def _check_descends(server: str) -> None:
    """Raise InputError for names of optax that need more than a gradient, or do not step down one."""
    with jax.ensure_compile_time_eval():
        x, g = jnp.ones(3), jnp.arange(1.0, 4.0)
        try:
            optimiser = _optimiser(server, 0.1)
            update, _ = optimiser.update(g, optimiser.init(x), x)
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError):
            raise InputError(
                f"server {server!r} needs more than a gradient: choose another optimiser of optax"
            ) from None
        ascends = float(jnp.vdot(jnp.asarray(update), g)) > 0
    if ascends:
        raise InputError(f"server {server!r} does not step down a gradient: it is a part of optimisers; pass a "
                         "function server_lr -> optax.chain(...)")  # fmt: skip


def optax_init(problem: Problem, hp: OptaxHparams, key: Key) -> OptaxState:
    return OptaxState(problem.x0, _optimiser(hp.server, hp.server_lr).init(problem.x0), clock(), start(problem, hp))


def optax_step(problem: Problem, hp: OptaxHparams, state: OptaxState, key: Key) -> tuple[OptaxState, Cost]:
    Delta, round, cost = fedavg.change(problem, hp, state, key)
    updates, server = _optimiser(hp.server, round.hp.server_lr).update(-Delta, state.server, state.x)
    return OptaxState(state.x + jnp.asarray(updates), server, state.t + 1, round.aggregation), cost


def point(problem: Problem, hp: Any, state: Any) -> Vec:
    return state.x


def momentum_theory(
    problem: Problem, local_steps: int = 10, compressor: Compressor | str = "identity", b1: float = 0.9
) -> MomentumHparams:
    """As FedAvg with server_lr = 1 - b1, so that a steady change moves x as FedAvg does (our choice)."""
    hp = fedavg.theory(problem, local_steps, compressor)
    return MomentumHparams(**(vars(hp) | {"server_lr": 1 - b1}), b1=b1)


def adaptive_theory(
    problem: Problem,
    local_steps: int = 10,
    compressor: Compressor | str = "identity",
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
) -> AdaptiveHparams:
    """client_lr as FedAvg; server_lr = 0.01, b1, b2, tau as Flower's defaults (from its code), v0 = tau^2. The paper
    tunes all of them."""
    hp = fedavg.theory(problem, local_steps, compressor)
    return AdaptiveHparams(**(vars(hp) | {"server_lr": 1e-2}), b1=b1, b2=b2, tau=tau, v0=tau**2)


def optax_theory(
    problem: Problem, local_steps: int = 10, compressor: Compressor | str = "identity", server: str = "adam"
) -> OptaxHparams:
    """client_lr as FedAvg; server_lr = 0.01."""
    hp = fedavg.theory(problem, local_steps, compressor)
    return OptaxHparams(**(vars(hp) | {"server_lr": 1e-2}), server=server)


register(
    "fedavgm",
    title="FedAvgM",
    up="C(y_i - x), C = id by default",
    down="x",
    paper="1909.06335 Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    Hparams=MomentumHparams,
    init=momentum_init,
    step=momentum_step,
    point=point,
    theory=momentum_theory,
)

for _name, _title, _rule in (
    ("fedadagrad", "FedAdagrad", adagrad),
    ("fedadam", "FedAdam", adam),
    ("fedyogi", "FedYogi", yogi),
):
    register(
        _name,
        title=_title,
        up="C(y_i - x), C = id by default",
        down="x",
        paper=PAPER,
        Hparams=AdaptiveHparams,
        init=adaptive_init,
        step=adaptive(_rule),
        point=point,
        theory=adaptive_theory,
    )

register(
    "fedopt",
    title="FedOpt",
    up="C(y_i - x), C = id by default",
    down="x",
    paper=PAPER,
    Hparams=OptaxHparams,
    init=optax_init,
    step=optax_step,
    point=point,
    theory=optax_theory,
)
