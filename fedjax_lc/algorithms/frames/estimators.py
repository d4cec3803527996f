"""Methods whose server steps along an estimate g of the mean gradient, which then follows the gradients at the new x.

Unlike messages with errors fed back, what compression leaves out of an estimate vanishes as the gradients settle, with
clients that differ as well. A method is its `follow`: what clients send so that g comes closer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, gradients
from fedjax_lc.compressors.base import FLOAT_BITS
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem


def starts() -> Any:
    """The field `init` of these methods, read by `first_message`."""
    words = "start of the estimates g_i: the gradients at x0, or their compressed messages"
    return hyperparameter(words, ("dense", "compressed"), default="dense")


class State(NamedTuple):
    x: Vec  # (d,) the model
    own: PyTree  # what clients remember, of leading axis n
    g: Vec  # (d,) the estimate, at the server
    owed: Cost  # what init cost, until the first step charges it


class Follow(NamedTuple):
    """An estimate after it followed: what clients remember, g (d,), mean bits of a client each way, its gradients."""

    own: PyTree
    g: Vec
    bits_up: Scalar
    bits_down: Scalar
    grads: Scalar


class Move(NamedTuple):
    """From x to x_new, both (d,); at(y) are the gradients (n, d) at y on this step's batches, full ones where there are
    none, of all clients or at(y, clients) of a cohort's problem, each costing `passes` full gradients; two keys of the
    step, for messages up and for anything else."""

    x: Vec
    x_new: Vec
    at: Callable[..., ClientVecs]
    passes: Scalar
    up_key: Key
    other_key: Key


def compose(
    start: Callable[[Problem, Any, Move], Follow],
    follow: Callable[[Problem, Any, PyTree, Vec, Move], Follow],
) -> dict[str, Any]:
    """init, step and point, for `register`: start(problem, hp, move), a move that stays at x0, and follow(problem, hp,
    own, g, move) are the estimate's."""

    def moving(problem: Problem, hp: Any, x: Vec, x_new: Vec, key: Key) -> Move:
        batch_key, up_key, other_key = jax.random.split(key, 3)
        passes = 1 if hp.batch_size is None else problem.passes(hp.batch_size, replacement=hp.replacement)
        at = lambda y, clients=problem: gradients(clients, hp, y, batch_key)[0]
        return Move(x, x_new, at, passes, up_key, other_key)

    def init(problem: Problem, hp: Any, key: Key) -> State:
        begun = start(problem, hp, moving(problem, hp, problem.x0, problem.x0, key))
        return State(problem.x0, begun.own, begun.g, Cost.of(begun.bits_up, begun.bits_down, begun.grads))

    def step(problem: Problem, hp: Any, state: State, key: Key) -> tuple[State, Cost]:
        x = state.x - hp.gamma * state.g
        new = follow(problem, hp, state.own, state.g, moving(problem, hp, state.x, x, key))
        cost = Cost.of(new.bits_up, new.bits_down, new.grads, rounds=1)
        return State(x, new.own, new.g, owed=Cost.of()), cost.plus(state.owed)

    def point(problem: Problem, hp: Any, state: State) -> Vec:
        return state.x

    return {"init": init, "step": step, "point": point}


def first_message(hp: Any, move: Move) -> tuple[ClientVecs, Scalar]:
    """(n, d) the first estimates and the bits of a client's message: the gradients themselves (init="dense") or C of
    them ("compressed")."""
    if hp.init == "dense":
        return move.at(move.x), dense(move.x)
    message = hp.compressor.joint(move.up_key, move.at(move.x))
    return message.value, jnp.mean(message.bits)


def step_size(problem: Problem, *lags: float) -> float:
    """1/(L + Lt lag) for the sum of the lags, L of F and Lt = sqrt(mean_i L_i^2): an estimate stays behind by at most
    lag Lt |x_new - x|. With EF21's lag, sqrt(beta/theta) = `leftover`, it is EF21's bound (2106.05203, Theorem 1, from
    the code of flpytorch). 1/L for a network, of which no theory holds."""
    L, spread = float(problem.smooth_mean), float(jnp.sqrt(jnp.mean(problem.smooth**2)))
    return 1 / (L + spread * sum(lags)) if problem.solvable else 1 / L


def dense(x: Vec) -> int:
    """Bits of a vector like x, sent as it is."""
    return FLOAT_BITS * x.shape[0]
