"""Rows of all clients in one table, so that ragged clients need no padding and a cohort gathers none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.sparse import is_sparse


class Table(NamedTuple):
    """Rows of data: features (N, ...), targets (N, ...), and whose they are, (N,) client numbers, or None."""

    features: jax.Array
    targets: jax.Array
    owners: jax.Array | None


def table_of(clients: Sequence[tuple[Any, Any]], kind: Any, what: str) -> Table:
    """The rows of all clients, one after the other.

    Raises:
        InputError: no clients, an empty one, or shapes that differ.
    """
    if not len(clients):
        raise InputError("there are no clients: give a list of (features, targets)")
    if any(is_sparse(features) for features, _ in clients):
        raise InputError(f"features of a {what} are a sparse matrix, but networks take dense ones: pass its toarray()")
    pairs = [(np.asarray(features), np.asarray(targets)) for features, targets in clients]
    first = pairs[0]
    for i, (features, targets) in enumerate(pairs):
        if len(features) != len(targets) or not (len(targets) or what == "test part"):
            raise InputError(f"{what} {i} has {len(features)} features and {len(targets)} targets: give one or more "
                             "rows with one target each")  # fmt: skip
        if features.shape[1:] != first[0].shape[1:] or targets.shape[1:] != first[1].shape[1:]:
            raise InputError(f"{what} {i} has rows of shape {features.shape[1:]}, targets {targets.shape[1:]}, where "
                             f"{what} 0 has {first[0].shape[1:]}, {first[1].shape[1:]}: all must be alike")  # fmt: skip
    features, targets = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    for name, column in (("features", features), ("targets", targets)):
        if not np.all(np.isfinite(column)):
            raise InputError(f"{name} hold numbers that are not finite: clean the data first")
    owners = np.repeat(np.arange(len(pairs)), [len(pair[1]) for pair in pairs])
    return Table(_stored(features, kind), _stored(targets, kind), jnp.asarray(owners, jnp.int32))


def _stored(column: np.ndarray, kind: Any) -> jax.Array:
    """uint8 as it is, other whole numbers as int32, real ones as the problem's."""
    if column.dtype == np.uint8:
        return jnp.asarray(column)
    return jnp.asarray(column, jnp.int32 if np.issubdtype(column.dtype, np.integer) else kind)


def test_table(test: Any, n: int, kind: Any) -> Table | None:
    """That of one test set, whose rows are nobody's, or of a part for each client.

    Raises:
        InputError: parts for another number of clients.
    """
    if test is None:
        return None
    if isinstance(test, tuple):
        return table_of([test], kind, "test set")._replace(owners=None)
    if len(test) != n:
        raise InputError(f"test has {len(test)} parts for {n} clients: give one pair (features, targets), or one each")
    return table_of(test, kind, "test part")


def as_input(features: jax.Array, prepare: Any, kind: Any) -> jax.Array:
    """Features (B, ...) as the model takes them: `prepare` of them, or bytes divided by 255."""
    if prepare is not None:
        return prepare(features)
    return features.astype(kind) / 255 if features.dtype == jnp.uint8 else features
