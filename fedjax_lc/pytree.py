"""Frozen dataclasses that JAX sees as pytrees: numbers are leaves (traced, swept), `static()` fields are structure."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field that fixes a shape, a trip count or a choice: hashable, part of the tree's structure, never traced."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def dataclass(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and register it as a pytree.

    Example:
        >>> @dataclass
        ... class Hparams:
        ...     gamma: float
        ...     local_steps: int = static(1)
        >>> jax.tree.leaves(Hparams(gamma=0.5))
        [0.5]
    """
    frozen = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)  # type: ignore[arg-type]
    meta = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if not f.metadata.get("static")]
    keys = [jax.tree_util.GetAttrKey(name) for name in data]

    def flatten(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(tree, name) for name in data], tuple(getattr(tree, name) for name in meta)

    def flatten_with_keys(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        children, aux = flatten(tree)
        return list(zip(keys, children, strict=True)), aux

    def unflatten(aux: tuple[Any, ...], children: Any) -> Any:
        return frozen(**dict(zip(meta, aux, strict=True)), **dict(zip(data, children, strict=True)))

    # `register_dataclass` would let structures of different classes compare equal where their fields do (jaxlib 0.10 to
    # 0.12): now and then a jitted function would run the program of another compressor.
    jax.tree_util.register_pytree_with_keys(frozen, flatten_with_keys, unflatten, flatten)
    return frozen


def cast(tree: T, dtype: Any) -> T:
    """Bring every number of `tree` to an array: floating ones to `dtype`, integers to int32, booleans as they are.

    This is the one cast that hyperparameters go through, so plain floats and float64 arrays serve any problem.
    PRNG keys and arrays that are traced pass through the same rule.
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        kind = jnp.result_type(leaf)
        if jnp.issubdtype(kind, jnp.floating):
            return jnp.asarray(leaf, dtype)
        if jnp.issubdtype(kind, jnp.integer):
            return jnp.asarray(leaf, jnp.int32)
        return jnp.asarray(leaf)

    return jax.tree.map(one, tree)


def replace(tree: T, **changes: Any) -> T:
    """A copy of a dataclass with fields changed."""
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]


def is_traced(tree: Any) -> bool:
    """Whether any leaf of `tree` is a tracer (so that no value can be read on the host)."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Bytes that the arrays of `tree` take."""
    return int(sum(np.prod(np.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree)))
