"""Adapters: any model as pure functions of its parameters, and the parameters as one vector."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen, nnx

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, PyTree, Vec

#: names of a model's flag for training mode; True for a flag that means evaluation mode
FLAGS = {"train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True}


class Network(Protocol):
    """A model as two pure functions. It must be hashable, as compiled programs depend on it.

    `statistics` are BatchNorm's running averages; () for a model without BatchNorm.
    """

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        """(parameters, statistics) for inputs like x (B, ...)."""

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        """Outputs (B, ...), and the statistics, which training mode updates. key: for dropout; None without dropout."""


@dataclasses.dataclass(frozen=True)
class Linen:
    """A `flax.linen` module; training mode is passed to the flags among FLAGS that its `__call__` has."""

    module: linen.Module

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        variables = dict(self.module.init({"params": key, "dropout": key}, x, **self._mode(False)))
        params, statistics = variables.pop("params", {}), variables.pop("batch_stats", ())
        if variables:
            raise InputError(f"the model keeps variables of kind {', '.join(variables)}: only params and batch_stats "
                             "are known here")  # fmt: skip
        if jax.tree.leaves(statistics) and not self._mode(True):
            raise InputError("the model keeps batch statistics, but its __call__ has no flag for training mode: give "
                             f"it one of {', '.join(FLAGS)}")  # fmt: skip
        return params, statistics

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        variables = {"params": params} | ({"batch_stats": statistics} if jax.tree.leaves(statistics) else {})
        rngs = None if key is None else {"dropout": key}
        moved: Any = ["batch_stats"] if train and "batch_stats" in variables else False
        out: Any = self.module.apply(variables, x, rngs=rngs, mutable=moved, **self._mode(train))
        return (out[0], out[1]["batch_stats"]) if moved else (out, statistics)

    def _mode(self, train: bool) -> dict[str, Any]:
        known = inspect.signature(type(self.module).__call__).parameters
        return {name: train != opposite for name, opposite in FLAGS.items() if name in known}


@dataclasses.dataclass(frozen=True)
class Function:
    """A function (params, x) whose parameters are given; it has no randomness and no statistics."""

    function: Callable[[PyTree, jax.Array], jax.Array]

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        raise InputError("a plain function says nothing of its parameters: pass params=")

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        return self.function(params, x), statistics


@dataclasses.dataclass(frozen=True)
class Nnx:
    """A `flax.nnx` model in training and evaluation mode; build it by `split_nnx`."""

    modes: tuple[Any, Any]

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        raise InputError("an nnx model contains its parameters: take them from split_nnx")

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        model = nnx.merge(self.modes[0 if train else 1], params, statistics, copy=True)  # of the caller's trace
        out = model(x)
        return out, nnx.state(model, nnx.BatchStat)


def split_nnx(model: nnx.Module) -> tuple[Nnx, PyTree, PyTree]:
    """(network, parameters, statistics) of a `flax.nnx` model; the model is not changed.

    Raises:
        InputError: the model keeps random state (dropout).
    """
    modes: list[Any] = []
    for prepare in ("train", "eval"):
        copy = nnx.clone(model)
        getattr(copy, prepare)()
        parts: Any = nnx.split(copy, nnx.Param, nnx.BatchStat, ...)
        graph, params, statistics, rest = parts
        if jax.tree.leaves(rest):
            raise InputError("an nnx model that keeps random state (dropout) is not known here: write it in flax.linen")
        modes.append(graph)
    return Nnx((modes[0], modes[1])), params, statistics


def adapt(model: Any, key: Key, x: jax.Array, params: PyTree = None) -> tuple[Network, PyTree, PyTree]:
    """(network, parameters, statistics) of a linen module, an nnx module, a `Network`, or a function (params, x).

    Args:
        x: (B, ...) example inputs, for their shape.
        params: initial parameters; None for those that the model contains or initialises.

    Raises:
        InputError: the model is of another kind, or a function without params.
    """
    if isinstance(model, nnx.Module):
        network, initial, statistics = split_nnx(model)
        return network, initial if params is None else params, statistics
    if isinstance(model, linen.Module):
        model = Linen(model)
    elif not hasattr(model, "apply") and callable(model):
        model = Function(model)
    elif not (hasattr(model, "apply") and hasattr(model, "init")):
        raise InputError(f"a model must be a flax module, a Network or a function (params, x), got {model!r}")
    if isinstance(model, Function) and params is not None:
        return model, params, ()
    initial, statistics = model.init(key, x)
    return model, initial if params is None else params, statistics


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a tree of parameters in one vector: leaves in order, each raveled row by row."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, params: PyTree) -> Layout:
        """The layout of these parameters.

        Raises:
            InputError: there are no parameters, or one holds whole numbers.
        """
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        names = tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
        if not paths:
            raise InputError("the model has no parameters: there is nothing to train")
        for name, (_, leaf) in zip(names, paths, strict=True):
            if not jnp.issubdtype(kind := jnp.result_type(leaf), jnp.floating):
                raise InputError(f"parameter {name} is of type {kind}: parameters must be real numbers")
        return cls(structure, tuple(jnp.shape(leaf) for _, leaf in paths), names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def ravel(self, params: PyTree, dtype: Any) -> Vec:
        """(d,) the parameters as one vector."""
        return jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in jax.tree.leaves(params)])

    def unravel(self, x: Vec) -> PyTree:
        """The tree of parameters of the vector x (d,)."""
        leaves, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            leaves.append(jax.lax.slice(x, (start,), (start + size,)).reshape(shape))
            start += size
        return jax.tree.unflatten(self.structure, leaves)


@contextlib.contextmanager
def only_rows(valid: jax.Array) -> Iterator[None]:
    """Within the block BatchNorm of linen modules computes its statistics from the rows marked in `valid` (B,)."""

    def masked(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, linen.BatchNorm) and context.method_name == "__call__":
            kwargs = {"mask": valid.reshape(-1, *(1,) * (args[0].ndim - 1))} | kwargs
        return call(*args, **kwargs)

    with linen.intercept_methods(masked):
        yield


def batch_statistics(network: Network, params: PyTree, statistics: PyTree, x: jax.Array, key: Key) -> PyTree:
    """BatchNorm's statistics b of the batch x, whatever its momentum m.

    BatchNorm updates an average a to m a + (1 - m) b; the updates of a = 0 and a = 1 determine m and b.
    """
    starts = (jax.tree.map(make, statistics) for make in (jnp.zeros_like, jnp.ones_like))
    moved = [network.apply(params, start, x, train=True, key=key)[1] for start in starts]
    return jax.tree.map(lambda at_0, at_1: at_0 / (1 - (at_1 - at_0)), *moved)
