"""How the server puts together what clients send: a pair of pure functions, chosen by name, that every method uses.

A method's step opens its aggregation and calls it once for each quantity that its clients send:

    aggregate = Aggregation(hp, state.aggregation, key)
    x = state.x - hp.gamma * aggregate(problem.grads(state.x))
    return State(x, aggregate.memories), ...

Rounds of local training and turns with a server hold one, as their `mean`. Another one, for all methods at once:

    def apply(rows, weights, memory, key):
        average = weighted(rows, weights)
        return average + 0.01 * jax.random.normal(key, average.shape, average.dtype), memory

    register("noisy", Aggregator(apply))

Under compression a rule sees what the server sees: a coordinate that most clients leave out has the median 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from fedjax_lc.core import lanes, products, pytree
from fedjax_lc.core.devices import shared
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem

T = TypeVar("T")

Memories = tuple[PyTree, ...] | None  #: one for each quantity that a step aggregates; None where nothing is remembered
FOLD = 2**31  #: quantity j of a step draws by fold_in(key of the step, FOLD + j), apart from what the method draws


class Aggregator(NamedTuple):
    """A rule in place of the mean.

    apply(rows, weights, memory, key) -> ((d,), memory), from rows (c, d) of c clients. weights: None where all rows
    count the same; else (c, 1), or (c, d) where clients send different coordinates, >= 0 and of sum 1 over the
    clients, with 0 for what is not sent. init(problem) -> the memory, any pytree, of one quantity before the first
    round; None: there is no memory.
    """

    apply: Callable[[ClientVecs, jax.Array | None, PyTree, Key], tuple[Vec, PyTree]]
    init: Callable[[Problem], PyTree] | None = None


def weighted(rows: ClientVecs, weights: jax.Array | None) -> Vec:
    """The mean (d,) of rows (c, d), with weights as an `Aggregator` gets them."""
    if weights is None:
        return jnp.mean(rows, axis=0)
    return products.matmul(weights[:, 0], rows) if weights.shape[1] == 1 else jnp.sum(weights * rows, axis=0)


def weighted_median(rows: ClientVecs, weights: jax.Array | None) -> Vec:
    """The median (d,) of each coordinate: half of the weight lies on either side of it, and between two such values it
    is the middle."""
    if weights is None:
        return jnp.median(rows, axis=0)
    order = jnp.argsort(rows, axis=0)
    rows = jnp.take_along_axis(rows, order, axis=0)
    below = jnp.cumsum(jnp.take_along_axis(jnp.broadcast_to(weights, rows.shape), order, axis=0), axis=0)
    rounding = len(rows) * jnp.finfo(rows.dtype).eps
    first = lambda there: jnp.take_along_axis(rows, jnp.argmax(there, axis=0)[None], axis=0)[0]
    return (first(below > 0.5 - rounding) + first(below > 0.5 + rounding)) / 2


_REGISTRY: dict[str, Aggregator] = {
    "mean": Aggregator(lambda rows, weights, memory, key: (weighted(rows, weights), memory)),
    "median": Aggregator(lambda rows, weights, memory, key: (weighted_median(rows, weights), memory)),
}


def register(name: str, aggregator: Aggregator) -> None:
    """Make an aggregation known by name, for every method. The same code may be registered again.

    Raises:
        InputError: the name stands for other code; programs that were compiled with that would not change.
    """
    if not all(map(_same, _REGISTRY.setdefault(name, aggregator), aggregator)):
        raise InputError(f"aggregation {name} is registered already, as something else: choose another name")


def _same(one: Any, other: Any) -> bool:
    code, closure = getattr(one, "__code__", None), getattr(one, "__closure__", None)
    return one is other or (code is not None and closure is None and code == getattr(other, "__code__", None))


def names() -> tuple[str, ...]:
    """All aggregations by name, the mean first."""
    return tuple(_REGISTRY)


def get(name: str) -> Aggregator:
    """The aggregation of that name.

    Raises:
        InputError: an unknown name, with the nearest known one.
    """
    if name not in _REGISTRY:
        raise unknown("aggregation", name, _REGISTRY)
    return _REGISTRY[name]


@pytree.dataclass
class Aggregated:
    """How the server puts together what clients send."""

    _: dataclasses.KW_ONLY
    aggregation: str = hyperparameter("how the server puts together what clients send", names, default="mean")


def start(problem: Problem, hp: Aggregated, count: int = 1) -> Memories:
    """The memories of a method that aggregates `count` quantities in a step, before its first one."""
    init = get(hp.aggregation).init
    return None if init is None else (init(problem),) * count


class Aggregation:
    """The aggregations of one step, as it is traced: each call takes the next memory and key.

    memories: as the calls so far have left them, for the next step.
    """

    def __init__(self, hp: Aggregated, memories: Memories, key: Key) -> None:
        self.memories, self._key, self._calls = memories, key, 0
        self._apply, init = get(hp.aggregation)
        if init is not None and memories is None:
            raise InputError(f"aggregation={hp.aggregation!r} keeps a memory, and this method's state has no place for "
                             "one: choose mean or median")  # fmt: skip

    def __call__(self, rows: ClientVecs, weights: jax.Array | None = None) -> Vec:
        """(d,) from rows (c, d); weights (c,) or (c, d) of sum 1 over the clients, None for equal ones."""
        j, self._calls = self._calls, self._calls + 1
        key = jax.random.fold_in(self._key, FOLD + j)
        weights = weights[:, None] if weights is not None and weights.ndim == 1 else weights
        if self.memories is None:
            return self._apply(rows, weights, None, key)[0]
        if j >= len(self.memories):
            raise InputError(f"a step aggregates more than {len(self.memories)} quantities, for which its init has "
                             "memories: raise the count there")  # fmt: skip
        value, memory = self._apply(rows, weights, self.memories[j], key)
        self.memories = (*self.memories[:j], memory, *self.memories[j + 1 :])
        return value

    def part(self, rows: ClientVecs, present: jax.Array | None, n: int) -> Vec:
        """What those present (c,), all if None, make of the mean over n clients, others being 0 in it: theirs, times
        how many of n they are."""
        if present is None:
            return self(rows) * (len(rows) / n)
        count = jnp.sum(shared(present.astype(rows.dtype)))
        return self(rows, present / count) * (count / n)

    def rarely(self, coin: Scalar, talk: Callable[[T], T], operand: T) -> T:
        """`lanes.rarely` for a talk that aggregates."""
        new, self.memories = lanes.rarely(coin, self._carrying(talk), (operand, self.memories))
        return new

    def cond(self, coin: Scalar, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """`lax.cond` for branches that aggregate, each another quantity."""
        branches = (self._carrying(lambda _: yes()), self._carrying(lambda _: no()))
        new, self.memories = jax.lax.cond(coin, *branches, (None, self.memories))
        return new

    def _carrying(self, branch: Callable[[Any], T]) -> Callable[[tuple[Any, Memories]], tuple[T, Memories]]:
        def carrying(carried: tuple[Any, Memories]) -> tuple[T, Memories]:
            operand, self.memories = carried
            return branch(operand), self.memories

        return carrying
