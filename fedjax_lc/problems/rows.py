"""The rows of all clients in one table: no padding for clients of different sizes, no copies for a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.shares import Share, here, of_each, several, stored
from fedjax_lc.data.sparse import is_sparse, real


class Table(NamedTuple):
    """Rows of data: features (N, ...), targets (N, ...), and owners (N,), the number of each row's client, or None."""

    features: jax.Array
    targets: jax.Array
    owners: jax.Array | None


def table_of(clients: Sequence[tuple[Any, Any]], dtype: Any, what: str) -> Table:
    """The rows of all clients, client after client; `what` names a client in errors.

    Raises:
        InputError: there are no clients, a client is empty, or shapes differ.
    """
    if not len(clients):
        raise InputError("there are no clients: give a list of (features, targets)")
    if any(is_sparse(features) for features, _ in clients):
        raise InputError(f"features of a {what} are a sparse matrix, but networks take dense ones: pass its toarray()")
    pairs = [(real(features, "features"), real(targets, "targets")) for features, targets in clients]
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
    return Table(_column(features, dtype), _column(targets, dtype), stored(owners, jnp.int32))


def rows_apart(table: Table, sizes: np.ndarray) -> Table:
    """The rows (n, longest, ...) of each client in NumPy, zeros at the end, of a table that holds client after client.
    Of several processes that wait for each other, each has the rows of its own clients alone.

    sizes: (n,) rows of each client, of all processes.
    """
    numbers, longest = here(len(sizes)), int(sizes.max())
    of = sizes[numbers]
    places = np.repeat(np.arange(len(of)) * longest - (np.cumsum(of) - of), of) + np.arange(of.sum())

    def one(column: Any) -> Any:
        padded = np.zeros((len(of) * longest, *column.shape[1:]), column.dtype)
        padded[places] = column
        rows = padded.reshape(len(of), longest, *column.shape[1:])
        return Share(rows, numbers, len(sizes)) if several() else rows

    return Table(one(table.features), one(table.targets), None)


def some_rows(table: Table, sizes: np.ndarray, rows: np.ndarray) -> Table:
    """The rows with these numbers among those of all clients, in every process; arguments as of `rows_apart`."""
    starts, numbers = np.cumsum(sizes) - sizes, here(len(sizes))
    held = np.concatenate([np.arange(starts[i], starts[i] + sizes[i]) for i in numbers] or [np.zeros(0, int)])
    mine = np.flatnonzero(np.isin(rows, held))

    def one(column: Any) -> Any:
        sent = np.zeros((len(rows), *column.shape[1:]), column.dtype)
        sent[mine] = np.asarray(column)[np.searchsorted(held, rows[mine])]
        return of_each(sent).sum(axis=0, dtype=column.dtype)

    return Table(one(table.features), one(table.targets), None)


def _column(column: np.ndarray, dtype: Any) -> jax.Array:
    """A column as stored: uint8 unchanged, other whole numbers as int32, real numbers as `dtype`."""
    if column.dtype == np.uint8:
        return stored(column)
    return stored(column, jnp.int32 if np.issubdtype(column.dtype, np.integer) else dtype)


def test_table(test: Any, n: int, dtype: Any) -> Table | None:
    """The table of one test set (owners None), or of a list with a test part for each client.

    Raises:
        InputError: the number of test parts is not that of clients.
    """
    if test is None:
        return None
    if isinstance(test, tuple):
        return table_of([test], dtype, "test set")._replace(owners=None)
    if len(test) != n:
        raise InputError(f"test has {len(test)} parts for {n} clients: give one pair (features, targets), or one each")
    return table_of(test, dtype, "test part")


def as_input(features: jax.Array, prepare: Any, dtype: Any) -> jax.Array:
    """The model's input for features (B, ...): `prepare(features)`, or bytes divided by 255, or unchanged."""
    if prepare is not None:
        return prepare(features)
    return features.astype(dtype) / 255 if features.dtype == jnp.uint8 else features
