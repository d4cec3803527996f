"""The compiled program of many lanes side by side, and the lanes that it takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.devices import EVERYWHERE, SPREAD, SPREAD_SECOND, over_devices
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import PyTree
from fedjax_lc.problems import Problem
from fedjax_lc.running import loop
from fedjax_lc.running.loop import Metrics, Ran


class Axes(NamedTuple):
    """The axis of lanes (0, or None where lanes share it) of hp's leaves, the key and the number of the next step."""

    leaves: tuple[int | None, ...]
    key: int | None
    first: int | None


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that determines the compiled code of a block, apart from shapes."""

    algorithm: Algorithm
    every: int
    capacity: int  #: records a chunk can hold
    metrics: Metrics
    axes: Axes
    mesh: Mesh

    def specs(self) -> tuple[PyTree, PyTree, PyTree, PyTree, PyTree, PyTree, PyTree]:
        """How each argument of `loop.chunk` is placed on the devices."""
        place = lambda axis: SPREAD if axis == 0 else EVERYWHERE
        return (
            EVERYWHERE,
            [place(a) for a in self.axes.leaves],
            SPREAD,
            place(self.axes.key),
            SPREAD,
            EVERYWHERE,
            SPREAD,
        )


@functools.cache
def advance(program: Program) -> Callable[..., Ran]:
    """A function (problem, hp, at, key, first, count, limits) -> Ran over lanes; devices run independently.

    `first` and `done` have one entry per device if all lanes are at the same step, else one per lane.
    """

    def run_chunk(problem, leaves, at, key, first, count, limits, structure):  # type: ignore[no-untyped-def]
        chunk = loop.chunk(program.algorithm, program.every, program.capacity, program.metrics, tuple(program.axes))
        first = first[0] if program.axes.first is None else first
        ran = chunk(problem, jax.tree.unflatten(structure, leaves), at, key, first, count, limits)
        return ran._replace(done=ran.done[None])

    out: Any = Ran(SPREAD, SPREAD, SPREAD_SECOND, SPREAD_SECOND, SPREAD, SPREAD)  # type: ignore[arg-type]

    def call(problem, hp, at, key, first, count, limits):  # type: ignore[no-untyped-def]
        leaves, structure = jax.tree.flatten(hp)
        inner = functools.partial(run_chunk, structure=structure)
        return over_devices(inner, program.mesh, program.specs(), out)(problem, leaves, at, key, first, count, limits)

    return call


@functools.cache
def begin(program: Program) -> Callable[..., Any]:
    """A function (problem, hp, at, key, fresh) -> (at, metrics) that starts the lanes of the `fresh` slots.

    `fresh` holds a boolean for each slot; the other slots are unchanged.
    """

    def one(problem, leaves, at, key, fresh, structure):  # type: ignore[no-untyped-def]
        started, values = loop.start(
            program.algorithm, problem, jax.tree.unflatten(structure, leaves), key, program.metrics
        )
        return jax.tree.map(lambda new, old: jnp.where(fresh, new, old), started, at), values

    @functools.partial(jax.jit, donate_argnums=2)
    def call(problem, hp, at, key, fresh):  # type: ignore[no-untyped-def]
        leaves, structure = jax.tree.flatten(hp)
        inner = functools.partial(one, structure=structure)
        many = jax.vmap(inner, (None, list(program.axes.leaves), 0, program.axes.key, 0))
        _, leaf_specs, at_spec, key_spec, *_ = program.specs()
        into = (EVERYWHERE, leaf_specs, at_spec, key_spec, SPREAD)
        return over_devices(many, program.mesh, into, (SPREAD, SPREAD))(problem, leaves, at, key, fresh)

    return call


class Lanes(NamedTuple):
    """The hyperparameters and keys of lanes.

    Attributes:
        numbers: (lanes,) the lanes' numbers in the sweep.
        leaves: hp's leaves in the problem's dtype, (lanes, ...) where they vary, else (...).
        varies: for each leaf, whether it varies over lanes.
        structure: hp's tree structure.
        keys: (lanes, ...) key data.
    """

    numbers: np.ndarray
    leaves: list[np.ndarray]
    varies: tuple[bool, ...]
    structure: Any
    keys: np.ndarray

    def take(self, places: np.ndarray) -> Lanes:
        """The lanes at these places."""
        leaves = [x[places] if varies else x for x, varies in zip(self.leaves, self.varies, strict=True)]
        return self._replace(numbers=self.numbers[places], leaves=leaves, keys=self.keys[places])

    def one(self) -> tuple[Any, Any]:
        """The shapes of one lane's hp and key."""
        shapes = [x.shape[1:] if varies else x.shape for x, varies in zip(self.leaves, self.varies, strict=True)]
        hp = [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in zip(shapes, self.leaves, strict=True)]
        return jax.tree.unflatten(self.structure, hp), jax.eval_shape(lambda: jax.random.wrap_key_data(self.keys[0]))


def start_shapes(program: Program, problem: Problem, lanes: Lanes) -> Any:
    """The shapes of what `loop.start` returns for one lane; nothing is computed.

    Raises:
        InputError: a metric consists of several numbers.
    """
    one = functools.partial(loop.start, program.algorithm, metrics=program.metrics)
    hp, key = lanes.one()
    shapes = jax.eval_shape(lambda problem, hp, key: one(problem, hp, key), problem, hp, key)
    for name, value in shapes[1].items():
        if value.shape:
            raise InputError(
                f"metric {name} has shape {value.shape}: a sweep records single numbers; measure it in a run"
            )
    return shapes
