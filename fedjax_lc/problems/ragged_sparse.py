"""Sparse matrices of clients with very different numbers of rows or entries: the pieces of all rows, one after the
other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.shares import held, here
from fedjax_lc.problems.features import PIECE, OneByOne, Sparse, rows_of_pieces
from fedjax_lc.problems.tables import Tables, one_after_the_other


@pytree.dataclass
class RaggedSparse(OneByOne, Tables):
    """Sparse matrices; the entries of each row lie in pieces of PIECE entries, as in `Sparse`, and the pieces of all
    rows one after the other. A table, as `Tables` says, has one row for each row of data.

    Attributes:
        columns, values: (P, PIECE) column and value of each entry. On several devices each has as many pieces: those of
            its clients, then some with the value 0.
        rows: (P, 1) the row of a table of each piece, in increasing order.
        starts: (B, 1) the first piece of each row of a table.
        pieces: (n,) the number of pieces of each client, at least 1.
        owners, first, longest, devices: as `Tables` says.
        width: d, the number of columns.
        most: the largest number of pieces of a row.
        largest: the largest number of pieces of a client.
        whole: of a cohort, the matrices of all clients, `first` being that of the cohort's; None if this is no cohort.
    """

    columns: jax.Array
    values: jax.Array
    rows: jax.Array
    starts: jax.Array
    pieces: jax.Array
    owners: jax.Array
    first: jax.Array
    longest: int = pytree.static()
    width: int = pytree.static()
    most: int = pytree.static()
    largest: int = pytree.static()
    whole: RaggedSparse | None = None
    devices: int = pytree.static(default=1)

    @property
    def classes(self) -> list[tuple[int, int]]:
        return [(1, len(self.owners) // self.devices)]

    def predict(self, x: jax.Array) -> jax.Array:
        shared = x.ndim == 1

        def one(owners: Sequence[jax.Array], first: jax.Array, *arrays: jax.Array) -> jax.Array:
            columns, values, rows, x = arrays
            rows = _from_zero(rows, len(self.owners) // self.devices)
            places = columns if shared else columns + _clients(owners[0], first, rows) * self.width
            sums = jnp.sum(values * x.reshape(-1).at[places].get(mode="promise_in_bounds"), axis=-1)
            z = jnp.zeros(owners[0].shape, sums.dtype)
            return z.at[rows[:, 0]].add(sums, indices_are_sorted=True, mode="promise_in_bounds")[:, None]

        arrays = (self.columns, self.values, self.rows)
        given = {"common": (x,)} if shared else {}
        return self._apart(one, arrays if shared else (*arrays, x), len(self.owners), self._owned(), **given)

    def pull_back(self, s: jax.Array) -> jax.Array:
        def one(owners: Sequence[jax.Array], first: jax.Array, *arrays: jax.Array) -> jax.Array:
            columns, values, rows, s = arrays
            rows, n = _from_zero(rows, len(self.owners) // self.devices), len(first)
            terms = values * s.reshape(-1).at[rows].get(mode="promise_in_bounds")
            g, places = jnp.zeros(n * self.width, terms.dtype), columns + _clients(owners[0], first, rows) * self.width
            return g.at[places].add(terms, mode="promise_in_bounds").reshape(n, self.width)

        return self._apart(one, (self.columns, self.values, self.rows, s), len(self.first), self._owned())

    def take(self, picks: jax.Array) -> Sparse:
        source = self if self.whole is None else self.whole

        def one(_: Any, first: jax.Array, picks: jax.Array, *arrays: jax.Array) -> Sparse:
            columns, values, rows, starts = arrays
            rows = _from_zero(rows, len(source.owners) // source.devices)
            starts = _from_zero(starts, len(source.columns) // source.devices)
            numbers = first[:, None] + picks
            begins = starts[:, 0].at[numbers].get(mode="promise_in_bounds")
            return rows_of_pieces(columns, values, rows[:, 0], numbers, begins, self.width, self.most)

        arrays = (picks, source.columns, source.values, source.rows, source.starts)
        if self.whole is not None:
            return one(None, source.first, *arrays)
        return self._apart(one, arrays, len(self.first))

    def of(self, clients: jax.Array) -> RaggedSparse:
        (c,) = clients.shape
        whole, counts = self if self.whole is None else self.whole, self.pieces[clients]
        ((row, owners, first, _),) = self._gathered(clients)
        before, begins = self.first[clients], self.starts[self.first[clients], 0]
        most = min(len(self.columns), c * self.largest)
        piece, owner, start = one_after_the_other(begins, counts, most, len(self.columns))
        there, member, of_row = owner < c, jnp.minimum(owner, c - 1), jnp.minimum(owners, c - 1)
        rows = jnp.where(there, self.rows[piece, 0] - before[member] + first[member], len(owners) - 1)
        return RaggedSparse(
            self.columns[piece],
            jnp.where(there[:, None], self.values[piece], 0),
            rows[:, None],
            (self.starts[row, 0] - begins[of_row] + start[of_row])[:, None],
            counts,
            owners,
            first,
            self.longest,
            self.width,
            self.most,
            self.largest,
            pytree.replace(whole, first=whole.first[clients]),
        )


def matrices(features: RaggedSparse | Sparse, sizes: np.ndarray) -> Iterator[Any]:
    """The SciPy CSR matrix (m_i, d) of each client that this process holds, without entries that are 0."""
    from scipy.sparse import csr_array

    numbers = here(len(sizes))
    columns, values = held(features.columns), held(features.values)
    for i, k in enumerate(numbers):
        if isinstance(features, Sparse):
            part, rows = slice(i, i + 1), held(features.owners)[i]
        else:
            at = np.searchsorted(here(len(features.owners)), np.asarray(features.first)[k])
            start = np.searchsorted(here(len(features.columns)), held(features.starts)[at, 0])
            part = slice(start, start + int(features.pieces[k]))
            rows = held(features.rows)[part, 0] - int(features.first[k])
        entries = values[part].ravel()
        there = np.flatnonzero(entries)
        ends = np.cumsum(np.bincount(np.repeat(rows, PIECE)[there], minlength=sizes[k]))
        shape = (int(sizes[k]), features.width)
        yield csr_array((entries[there], columns[part].ravel()[there], np.append(0, ends)), shape=shape)


def _from_zero(numbers: jax.Array, of_device: int) -> jax.Array:
    """Numbers (k, 1) of rows or pieces, of which each device has `of_device`, as those of the device that has them."""
    return numbers - numbers[:1] // of_device * of_device


def _clients(owners: jax.Array, first: jax.Array, rows: jax.Array) -> jax.Array:
    """(P, 1) the client of each piece; some client for pieces of rows that are not used."""
    return jnp.minimum(owners.at[rows].get(mode="promise_in_bounds"), len(first) - 1)
