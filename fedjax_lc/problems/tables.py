"""Rows of clients with very different numbers of rows, client after client: tables of them, and sums over a client's.

Each client's rows fill consecutive blocks; a table has one number for each row of every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.devices import each_device
from fedjax_lc.problems.features import rows_at

T = TypeVar("T")


class Tables:
    """The part of features that lays out tables, in blocks of one or more classes; the blocks of a class have equally
    many rows.

    The rows of a client fill consecutive blocks of one class; the last of them is padded. A table has as many entries
    in each row as the smallest blocks have rows; a larger block takes several rows of it. On each device, rows of a
    table are those of its blocks, class after class.

    Attributes:
        owners: (B,) the client of each row of a table, in increasing order for each class on each device; n for a
            block that is not used.
        first: (n,) the first row of each client in a table.
        longest: rows of the largest client.
        devices: the number of devices that have the blocks of their own clients, and no others.
    """

    owners: jax.Array
    first: jax.Array
    longest: int
    devices: int

    @property
    def classes(self) -> Sequence[tuple[int, int]]:
        """Of each class, the rows of a block and the blocks of a device; the smallest blocks last."""
        raise NotImplementedError

    @property
    def entries(self) -> int:
        """Entries of a row of a table."""
        return self.classes[-1][0]

    def table_of(self, table: jax.Array, clients: jax.Array) -> jax.Array:
        rows = [
            jnp.where((owners < len(clients))[:, None, None], part[source], 0).reshape(-1, self.entries)
            for part, (source, owners, *_) in zip(self.split(table), self._gathered(clients), strict=True)
        ]
        return jnp.concatenate(rows)

    def picked(self, table: jax.Array, picks: jax.Array) -> jax.Array:
        entries = lambda _, first, table, picks: rows_at(table, first[:, None] * table.shape[1] + picks)[..., 0]
        return self._apart(entries, (table[..., None], picks), len(self.first))

    def sums(self, table: jax.Array) -> jax.Array:
        return self._add_up(jnp.sum(part, axis=-1) for part in self._parts(table))

    # --- classes of blocks ---

    def joined(self, parts: Iterable[Any]) -> Any:
        """(B, entries, ...) table of parts (B_k, rows, ...), one of each class."""
        tables = [
            part.reshape(-1, count * several, self.entries, *part.shape[2:])
            for part, (_, count, several) in zip(parts, self._places(), strict=True)
        ]
        numbers: Any = np if isinstance(tables[0], np.ndarray) else jnp
        table = tables[0] if len(tables) == 1 else numbers.concatenate(tables, axis=1)
        return table.reshape(-1, *table.shape[2:])

    def split(self, table: Any) -> list[Any]:
        """Of each class, (B_k, r, ...) the rows of a table (B, ...), r of each block."""
        of_device, parts = table.reshape(self.devices, -1, *table.shape[1:]), list[Any]()
        for start, count, several in self._places():
            rows = of_device[:, start : start + count * several]
            parts.append(rows.reshape(-1, several, *table.shape[1:]))
        return parts

    def _places(self) -> list[tuple[int, int, int]]:
        """Of each class, its first row of a device's rows of a table, its blocks of a device, and rows of a block."""
        places, start = list[tuple[int, int, int]](), 0
        for rows, count in self.classes:
            several = rows // self.entries
            places.append((start, count, several))
            start += count * several
        return places

    def _parts(self, table: jax.Array) -> list[jax.Array]:
        """Of each class, the entries (B_k, rows, ...) of its blocks in a table."""
        split = zip(self.split(table), self.classes, strict=True)
        return [part.reshape(len(part), rows, *table.shape[2:]) for part, (rows, _) in split]

    def _owned(self) -> list[jax.Array]:
        """Of each class, the client (B_k,) of each block."""
        return [part[:, 0] for part in self.split(self.owners)]

    def _add_up(self, parts: Iterable[jax.Array]) -> jax.Array:
        """(n, ...) sums over the blocks of each client, of parts (B_k, ...) of each class; all are added to one array,
        for sums of each class apart take a CPU longer."""
        parts, in_order = tuple(parts), self.devices == 1

        def sums(owners: Sequence[jax.Array], first: jax.Array, *parts: jax.Array) -> jax.Array:
            total = jnp.zeros((len(first), *parts[0].shape[1:]), parts[0].dtype)
            for each, part in zip(owners, parts, strict=True):
                total = total.at[each].add(part, indices_are_sorted=in_order)
            return total

        return self._apart(sums, parts, len(self.first), self._owned())

    def _apart(
        self,
        one: Callable[..., T],
        arrays: Sequence[Any],
        count: int,
        owners: Sequence[jax.Array] = (),
        common: Sequence[jax.Array] = (),
    ) -> T:
        """`one(owners, first, *arrays, *common)` (count, ...), each device for its clients, which there, as its rows of
        a table, are numbered from 0; all devices have `common`."""
        if self.devices == 1:
            return one(owners, self.first, *arrays, *common)
        of_device = len(self.owners) // self.devices

        def there(rows: Any, common: Any) -> T:
            first, owners, numbers, arrays = rows
            start = first[0] // of_device * of_device
            return one([each - numbers[0] for each in owners], jnp.maximum(first - start, 0), *arrays, *common)

        rows = (self.first, list(owners), jnp.arange(len(self.first)), tuple(arrays))
        return each_device(there, rows, tuple(common), count=count)

    def _gathered(self, clients: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
        """Of each class, the blocks of these clients, one client after the other: numbers (C,) here, owners (C,) and
        first (c,) there, and (c,) whether a client has any.

        C is as many as they may be: all, or those of c largest clients.
        """
        gathered = list[Any]()
        rows_of_device = len(self.owners) // self.devices
        begins = self.first[clients]
        device, begins = begins // rows_of_device, begins % rows_of_device
        for owners, (start, count, several) in zip(self._owned(), self._places(), strict=True):
            most = min(len(owners), len(clients) * -(-self.longest // (several * self.entries)))
            counts = jnp.bincount(owners, length=len(self.first))[clients].astype(jnp.int32)
            numbers = one_after_the_other(device * count + (begins - start) // several, counts, most, len(owners))
            gathered.append((*numbers, counts > 0))
        return gathered


def one_after_the_other(
    begins: jax.Array, counts: jax.Array, most: int, total: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where to gather what c clients have, one client after the other, from arrays of `total` rows.

    begins, counts: (c,) the first row of each client there, and its number of rows; `most` of all or fewer.

    Returns:
        (most,) numbers of rows there; (most,) which client's each is, c where there is none; and (c,) the first row of
        each client here.
    """
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    place = jnp.arange(most, dtype=jnp.int32)
    client = jnp.searchsorted(ends, place, side="right").astype(jnp.int32)
    member = jnp.minimum(client, len(counts) - 1)
    before = ends - counts
    return jnp.clip(begins[member] + place - before[member], 0, total - 1), client, before
