"""Where a run's arrays lie: on one device, or its clients spread over the devices of a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core import devices
from fedjax_lc.core.typing import Key, PyTree
from fedjax_lc.problems import Problem
from fedjax_lc.running import loop
from fedjax_lc.running.loop import At, Metrics, Ran


class Places(NamedTuple):
    """The devices of a run, and its programs there; mesh: None for JAX's default device."""

    mesh: Mesh | None

    def problem(self, problem: Problem) -> Any:
        """The problem with its arrays on the devices."""
        return problem if self.mesh is None else problem.on(self.mesh)

    def put(self, tree: PyTree) -> PyTree:
        """Arrays that all clients share, on every device."""
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.tree.map(functools.partial(devices.everywhere, mesh=self.mesh), tree)

    def run(self, at: At, n: int) -> At:
        """A run that the host holds, on the devices."""
        return At(*jax.device_put(tuple(at))) if self.mesh is None else devices.place(at, n, self.mesh)

    def start(self, algorithm: Algorithm, metrics: Metrics) -> Callable[..., tuple[At, dict[str, jax.Array]]]:
        """`loop.start`, compiled: (problem, hp, key) -> the run before its first step, and the metrics there."""
        return _start(algorithm, metrics, self.mesh)

    def chunk(self, algorithm: Algorithm, every: int, capacity: int, metrics: Metrics) -> Callable[..., Ran]:
        """`loop.chunk`, to be compiled."""
        return _over_clients(loop.chunk(algorithm, every, capacity, metrics), self.mesh)


@functools.cache
def _start(algorithm: Algorithm, metrics: Metrics, mesh: Mesh | None) -> Callable[..., Any]:
    def start(problem: Problem, hp: Any, key: Key) -> Any:
        # Copies: the buffers of the state will be donated, and must not be shared with the problem.
        return jax.tree.map(jnp.copy, loop.start(algorithm, problem, hp, key, metrics))

    return jax.jit(_over_clients(start, mesh))


@functools.cache
def _over_clients(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`function` of placed arguments, the problem first: it sees them whole, and the run that it returns is placed."""
    if mesh is None:
        return function

    def call(problem: Any, *arguments: Any) -> Any:
        problem, arguments = devices.whole((problem, arguments))
        with devices.spreading(mesh):
            result = function(problem, *arguments)
        of_run = lambda part: isinstance(part, At)
        n = lambda part: problem.n if of_run(part) else -1  # a record is the same on every device
        return jax.tree.map(lambda part: devices.spread(part, n(part), mesh), result, is_leaf=of_run)

    return call
