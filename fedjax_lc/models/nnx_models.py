"""Models of `flax.nnx` as pure functions: their parameters, statistics and random state apart."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, PyTree

#: (B,) the rows from which BatchNorm computes its statistics; None for all
VALID: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("valid", default=None)


@dataclasses.dataclass(frozen=True)
class Nnx:
    """A `flax.nnx` model in training and evaluation mode; build it by `split_nnx`.

    Attributes:
        modes: the graphs of both modes.
        random: the structure of the random state, and for each of its leaves whether it is a key.
        flags: names of the flags of training mode that `__call__` takes, True for one that means evaluation.
    """

    modes: tuple[Any, Any]
    random: tuple[Any, tuple[bool, ...]]
    flags: tuple[tuple[str, bool], ...] = ()

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        raise InputError("an nnx model contains its parameters: take them from split_nnx")

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        random = self._random(jax.random.key(0) if key is None else key)
        # a copy, of the caller's trace
        model: Any = nnx.merge(self.modes[0 if train else 1], params, statistics, random, copy=True)
        out = model(x, **{name: train != opposite for name, opposite in self.flags})
        return out, nnx.state(model, nnx.BatchStat)

    def _random(self, key: Key) -> PyTree:
        """The random state that this key gives: every stream of draws begins with another key."""
        structure, keys = self.random
        leaves = [jax.random.fold_in(key, i) if is_key else jnp.uint32(0) for i, is_key in enumerate(keys)]
        return jax.tree.unflatten(structure, leaves)


def split_nnx(model: nnx.Module, flags: dict[str, bool]) -> tuple[Nnx, PyTree, PyTree]:
    """(network, parameters, statistics) of a `flax.nnx` model; the model is not changed.

    Args:
        flags: names of flags of training mode; True for one that means evaluation mode.

    Raises:
        InputError: the model keeps variables of another kind.
    """
    known = inspect.signature(type(model).__call__).parameters
    modes: list[Any] = []
    for prepare in ("train", "eval"):
        copy = nnx.clone(model)
        getattr(copy, prepare)()
        for _, module in list(nnx.iter_modules(copy)):
            if isinstance(module, nnx.BatchNorm):
                object.__setattr__(module, "__class__", _by_rows(type(module)))
        parts: Any = nnx.split(copy, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
        graph, params, statistics, random, rest = parts
        if jax.tree.leaves(rest):
            kinds = {
                type(leaf).__name__ for leaf in jax.tree.leaves(rest, is_leaf=lambda n: isinstance(n, nnx.Variable))
            }
            raise InputError(f"the model keeps variables of kind {', '.join(sorted(kinds))}: only Param, BatchStat and "
                             "the state of nnx.Rngs are known here")  # fmt: skip
        modes.append(graph)
    leaves, structure = jax.tree.flatten(random)
    keys = tuple(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)
    taken = tuple((name, opposite) for name, opposite in flags.items() if name in known)
    return Nnx((modes[0], modes[1]), (structure, keys), taken), params, statistics


@functools.cache
def _by_rows(kind: Any) -> Any:
    """The class of a BatchNorm that computes its statistics from the rows in VALID."""

    class ByRows(kind):
        def __call__(self, x: jax.Array, *args: Any, mask: jax.Array | None = None, **kwargs: Any) -> jax.Array:
            valid = VALID.get()
            if mask is None and valid is not None:
                mask = valid.reshape(-1, *(1,) * (x.ndim - 1))
            return super().__call__(x, *args, mask=mask, **kwargs)

    ByRows.__name__, ByRows.__qualname__, ByRows.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return ByRows
