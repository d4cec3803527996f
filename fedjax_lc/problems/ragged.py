"""Dense matrices of clients with very different numbers of rows, cut into blocks of rows.

Small blocks pad little, and large ones are multiplied faster: a CPU takes half the time for blocks of 64 rows that it
takes for as many rows in blocks of 8. So each client lies in the largest blocks that pad it little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.devices import each_device
from fedjax_lc.problems.features import Dense, rows_at


@pytree.dataclass
class Ragged:
    """Dense matrices in blocks of one or more classes; the blocks of a class have equally many rows.

    The rows of a client fill consecutive blocks of one class; the last of them is padded. A table has as many entries
    in each row as the smallest blocks have rows; a larger block takes several rows of it. On each device, rows of a
    table are those of its blocks, class after class.

    Attributes:
        blocks: of each class, the matrices of its blocks, as if each were a client; the smallest blocks last. All
            devices have as many of a class.
        owners: (B,) the client of each row of a table, in increasing order for each class on each device; n for a
            block that is not used.
        first: (n,) the first row of each client in a table.
        longest: rows of the largest client.
        whole: of a cohort, the matrices of all clients, `first` being that of the cohort's, so that a batch is
            gathered from there and the cohort's blocks are not; None if this is no cohort.
        devices: the number of devices that have the blocks of their own clients, and no others.
    """

    blocks: tuple[Dense, ...]
    owners: jax.Array
    first: jax.Array
    longest: int = pytree.static()
    whole: Ragged | None = None
    devices: int = pytree.static(default=1)

    @property
    def width(self) -> int:
        return self.blocks[0].width

    @property
    def entries(self) -> int:
        """Entries of a row of a table."""
        return self.blocks[-1].longest

    def predict(self, x: jax.Array) -> jax.Array:
        return self.joined(blocks.predict(at) for blocks, at in self._points(x, x.ndim == 1))

    def pull_back(self, s: jax.Array) -> jax.Array:
        return self._add_up(blocks.pull_back(part) for blocks, part in self._parts(s))

    def predict_classes(self, W: jax.Array) -> jax.Array:
        return self.joined(blocks.predict_classes(at) for blocks, at in self._points(W, W.ndim == 2))

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        return self._add_up(blocks.pull_back_classes(part) for blocks, part in self._parts(S))

    def together(self, lanes: int, dtype: Any) -> bool:
        return self.blocks[0].together(lanes, dtype)

    def predict_lanes(self, X: jax.Array) -> jax.Array:
        points = [(blocks, X if X.ndim == 2 else X[:, owners]) for blocks, owners in self._owned()]
        return _turned(self.joined(_turned(blocks.predict_lanes(at)) for blocks, at in points))

    def pull_back_lanes(self, S: jax.Array) -> jax.Array:
        parts = [jnp.swapaxes(b.pull_back_lanes(_turned(part)), 0, 1) for b, part in self._parts(_turned(S))]
        return jnp.swapaxes(self._add_up(parts), 0, 1)

    def for_lanes(self) -> Ragged:
        return pytree.replace(self, blocks=tuple(blocks.for_lanes() for blocks in self.blocks))

    def take(self, picks: jax.Array) -> Dense:
        arrays = [blocks.array for blocks in (self if self.whole is None else self.whole).blocks]
        if self.whole is not None:
            return Dense(self.whole._at(None, self.whole.first, picks, *arrays), self.width)
        return Dense(self._apart(self._at, (picks, *arrays), len(self.first)), self.width)

    def of(self, clients: jax.Array) -> Ragged:
        whole = self if self.whole is None else self.whole
        blocks, owners, first, start = list[Dense](), list[jax.Array](), jnp.zeros(len(clients), jnp.int32), 0
        for each, (source, of_blocks, before, used) in zip(self.blocks, self._gathered(clients), strict=True):
            several = each.longest // self.entries
            first = jnp.where(used, start + before * several, first)
            blocks.append(each.of(source))
            owners.append(jnp.repeat(of_blocks, several))
            start += len(source) * several
        whole = pytree.replace(whole, first=whole.first[clients])
        return Ragged(tuple(blocks), jnp.concatenate(owners), first, self.longest, whole)

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
        return self._add_up(jnp.sum(part, axis=-1) for _, part in self._parts(table))

    # --- tables and classes of blocks ---

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
        for blocks in self.blocks:
            count, several = len(blocks.array) // self.devices, blocks.longest // self.entries
            places.append((start, count, several))
            start += count * several
        return places

    def _parts(self, table: jax.Array) -> list[tuple[Dense, jax.Array]]:
        """Of each class, its blocks and their entries (B_k, rows, ...) of a table."""
        split = self.split(table)
        return [
            (b, part.reshape(len(part), b.longest, *table.shape[2:]))
            for b, part in zip(self.blocks, split, strict=True)
        ]

    def _owned(self) -> list[tuple[Dense, jax.Array]]:
        """Of each class, its blocks and the client (B_k,) of each."""
        return [(blocks, part[:, 0]) for blocks, part in zip(self.blocks, self.split(self.owners), strict=True)]

    def _points(self, x: jax.Array, shared: bool) -> list[tuple[Dense, jax.Array]]:
        """Of each class, its blocks and x, or the entry of x (n, ...) of each block's client."""
        if shared:
            return [(blocks, x) for blocks in self.blocks]
        at = lambda owners, _, x: x[owners[0]]
        return [(b, self._apart(at, (x,), len(owners), [owners])) for b, owners in self._owned()]

    def _add_up(self, parts: Iterable[jax.Array]) -> jax.Array:
        """(n, ...) sums over the blocks of each client, of parts (B_k, ...) of each class; all are added to one array,
        for sums of each class apart take a CPU longer."""
        parts, in_order = tuple(parts), self.devices == 1

        def sums(owners: Sequence[jax.Array], first: jax.Array, *parts: jax.Array) -> jax.Array:
            total = jnp.zeros((len(first), *parts[0].shape[1:]), parts[0].dtype)
            for each, part in zip(owners, parts, strict=True):
                total = total.at[each].add(part, indices_are_sorted=in_order)
            return total

        return self._apart(sums, parts, len(self.first), [owners for _, owners in self._owned()])

    def _apart(
        self, one: Callable[..., jax.Array], arrays: Sequence[Any], count: int, owners: Sequence[jax.Array] = ()
    ) -> jax.Array:
        """`one(owners, first, *arrays)` (count, ...), each device for its clients, which there, as its rows of a table,
        are numbered from 0."""
        if self.devices == 1:
            return one(owners, self.first, *arrays)
        of_device = len(self.owners) // self.devices

        def there(rows: Any, _: Any) -> jax.Array:
            first, owners, numbers, arrays = rows
            start = first[0] // of_device * of_device
            return one([each - numbers[0] for each in owners], jnp.maximum(first - start, 0), *arrays)

        rows = (self.first, list(owners), jnp.arange(len(self.first)), tuple(arrays))
        return each_device(there, rows, count=count)

    def _at(self, _: Any, first: jax.Array, picks: jax.Array, *arrays: jax.Array) -> jax.Array:
        """(c, b, d) rows `picks` (c, b) of clients that begin at `first` (c,), of the arrays of all classes."""
        if len(arrays) == 1:
            return rows_at(arrays[0], first[:, None] * self.entries + picks)
        rows_of_device = len(self.owners) // self.devices
        device, first = first // rows_of_device, first % rows_of_device
        rows = None
        for array, (start, count, several) in zip(arrays, self._places(), strict=True):
            block = several * self.entries
            numbers = (device * (count * block) + (first - start) * self.entries)[:, None] + picks
            there = rows_at(array, jnp.clip(numbers, 0, array.shape[0] * block - 1))
            rows = there if rows is None else jnp.where((first >= start)[:, None, None], there, rows)
        assert rows is not None
        return rows

    def _gathered(self, clients: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
        """Of each class, the blocks of these clients, one client after the other: numbers (C,) here, owners (C,) and
        first (c,) there, and (c,) whether a client has any.

        C is as many as they may be: all, or those of c largest clients.
        """
        (c,), gathered = clients.shape, list[Any]()
        rows_of_device = len(self.owners) // self.devices
        begins = self.first[clients]
        device, begins = begins // rows_of_device, begins % rows_of_device
        for (blocks, owners), (start, count, several) in zip(self._owned(), self._places(), strict=True):
            total = len(owners)
            most = min(total, c * -(-self.longest // blocks.longest))
            counts = jnp.bincount(owners, length=len(self.first))[clients].astype(jnp.int32)
            ends = jnp.cumsum(counts, dtype=jnp.int32)
            place = jnp.arange(most, dtype=jnp.int32)
            there = jnp.searchsorted(ends, place, side="right").astype(jnp.int32)
            member = jnp.minimum(there, c - 1)
            before = ends - counts
            source = (device * count + (begins - start) // several)[member] + place - before[member]
            gathered.append((jnp.clip(source, 0, total - 1), there, before, counts > 0))
        return gathered


def _turned(table: jax.Array) -> jax.Array:
    """(B, m, lanes) of a table (B, lanes, m), and the reverse."""
    return jnp.swapaxes(table, 1, 2)
