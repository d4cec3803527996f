"""Frozen dataclasses that are JAX pytrees.

Plain fields are leaves (traced, swept), `static()` fields belong to the tree's structure, and `count()` fields belong
to the structure if they are plain whole numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.hyperparameters import hyperparameter

T = TypeVar("T")


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field that fixes a shape, a trip count or a choice: hashable, part of the tree's structure, never traced."""
    return dataclasses.field(default=default, metadata={"static": True})


def count(default: Any = dataclasses.MISSING) -> Any:
    """A field that is the length of a loop, such as the number of local steps.

    A plain whole number is part of the tree's structure, so that the loop has a known length; anything else (an array,
    a tracer) is a leaf. A tree with axis numbers in place of its leaves therefore has another structure: pass in_axes=0
    to `jax.vmap`, not such a tree.

    Example:
        >>> alg.Hparams(client_lr=0.1, local_steps=10)  # a loop of length ten, compiled for ten
        >>> alg.Hparams(client_lr=0.1, local_steps=jnp.array(10))  # one program for any length
    """
    return dataclasses.field(default=default, metadata={"count": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, count, hyperparameter, dataclasses.field))
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
    counts = [f.name for f in fields if f.metadata.get("count")]

    def flatten_with_keys(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        fixed = [*meta, *(name for name in counts if is_whole(getattr(tree, name)))]
        children = [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in data if name not in fixed]
        return children, tuple((name, getattr(tree, name)) for name in fixed)

    def flatten(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        children, fixed = flatten_with_keys(tree)
        return [child for _, child in children], fixed

    def unflatten(fixed: tuple[Any, ...], children: Any) -> Any:
        known = dict(fixed)
        return frozen(**known, **dict(zip((name for name in data if name not in known), children, strict=True)))

    # `register_dataclass` would let structures of different classes compare equal where their fields do (jaxlib 0.10 to
    # 0.12): now and then a jitted function would run the program of another compressor.
    jax.tree_util.register_pytree_with_keys(frozen, flatten_with_keys, unflatten, flatten)
    return frozen


def is_whole(value: Any) -> bool:
    """Whether `value` is a plain whole number (not a truth, not an array), so that it can be a loop's known length."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def has_counts(tree: Any) -> bool:
    """Whether a `count()` field of a dataclass is a plain whole number, hence part of its structure."""
    return any(f.metadata.get("count") and is_whole(getattr(tree, f.name)) for f in dataclasses.fields(tree))


def opened(tree: T) -> T:
    """A copy whose plain counts are arrays, so that trees with different counts have one structure."""
    counts = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree) if f.metadata.get("count")}  # type: ignore[arg-type]
    return replace(tree, **{name: np.asarray(value, np.int32) for name, value in counts.items() if is_whole(value)})


def cast(tree: T, dtype: Any) -> T:
    """Convert every leaf of `tree` to an array: real numbers to `dtype`, integers to int32, booleans unchanged.

    All hyperparameters go through this cast, so plain floats and float64 arrays serve any problem. Traced arrays are
    converted too; PRNG keys are unchanged.
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
    """A copy of a dataclass with these fields changed."""
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]


def is_traced(tree: Any) -> bool:
    """Whether a leaf of `tree` is a tracer, whose value the host cannot read."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Bytes of all arrays of `tree`."""
    return int(sum(np.prod(np.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree)))


def stacked(rows: Sequence[list[Any]]) -> list[Any]:
    """The leaves of several lanes, one list for each, with the lanes as their first axis."""
    stack = lambda leaves: (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)
    return [stack(leaves) for leaves in zip(*rows, strict=True)]


def unstacked(lanes: Sequence[int], leaves: Sequence[Any]) -> dict[int, list[Any]]:
    """The leaves of each of these lanes, which are their first axis."""
    return {lane: [leaf[row] for leaf in leaves] for row, lane in enumerate(lanes)}
