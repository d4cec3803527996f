"""Dense matrices of clients with very different numbers of rows, cut into blocks of rows.

Small blocks pad little, and large ones are multiplied faster: a CPU takes half the time for blocks of 320 rows of 123
features that it takes for as many rows in blocks of 32. So each client lies in the largest blocks that pad it little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lc.core import pytree
from fedjax_lc.problems.features import Dense, Slope, rows_at
from fedjax_lc.problems.tables import Tables


@pytree.dataclass
class Ragged(Tables):
    """Dense matrices in blocks of rows, as `Tables` says.

    Attributes:
        blocks: of each class, the matrices of its blocks, as if each were a client; the smallest blocks last. All
            devices have as many of a class.
        owners, first, longest, devices: as `Tables` says.
        whole: of a cohort, the matrices of all clients, `first` being that of the cohort's, so that a batch is
            gathered from there and the cohort's blocks are not; None if this is no cohort.
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
    def classes(self) -> list[tuple[int, int]]:
        return [(blocks.longest, len(blocks.array) // self.devices) for blocks in self.blocks]

    @property
    def arrays(self) -> list[jax.Array]:
        """Of each class, the matrices (B_k, rows, d') of its blocks."""
        return [blocks.array for blocks in self.blocks]

    def predict(self, x: jax.Array) -> jax.Array:
        return self.joined(blocks.predict(at) for blocks, at in self._points(x, x.ndim == 1))

    def pull_back(self, s: jax.Array) -> jax.Array:
        return self._add_up(blocks.pull_back(part) for blocks, part in self._with(self._parts(s)))

    def predict_classes(self, W: jax.Array) -> jax.Array:
        return self.joined(blocks.predict_classes(at) for blocks, at in self._points(W, W.ndim == 2))

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        return self._add_up(blocks.pull_back_classes(part) for blocks, part in self._with(self._parts(S)))

    def together(self, lanes: int, dtype: Any) -> bool:
        return self.blocks[0].together(lanes, dtype)

    def gradients(self, x: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        points = self._points(x, x.ndim == 1)
        return self._add_up(
            blocks.gradients(at, slope, *parts)
            for (blocks, at), parts in zip(points, self._parts_of(tables), strict=True)
        )

    def lane_gradients(self, X: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        points = [X if X.ndim == 2 else X[:, owners] for owners in self._owned()]
        sums = self._add_up(
            jnp.swapaxes(blocks.lane_gradients(at, slope, *parts), 0, 1)
            for (blocks, at), parts in zip(self._with(points), self._parts_of(tables), strict=True)
        )
        return jnp.swapaxes(sums, 0, 1)

    def for_lanes(self) -> Ragged:
        return pytree.replace(self, blocks=tuple(blocks.for_lanes() for blocks in self.blocks))

    def take(self, picks: jax.Array) -> Dense:
        arrays = (self if self.whole is None else self.whole).arrays
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

    def _with(self, parts: Iterable[jax.Array]) -> list[tuple[Dense, jax.Array]]:
        """Of each class, its blocks and its part."""
        return list(zip(self.blocks, parts, strict=True))

    def _parts_of(self, tables: Sequence[jax.Array]) -> Iterator[tuple[jax.Array, ...]]:
        """Of each class, its parts of the tables: over many lanes, what is computed class by class takes less than half
        the time of what is joined to a table and split again."""
        return zip(*map(self._parts, tables), strict=True)

    def _points(self, x: jax.Array, shared: bool) -> list[tuple[Dense, jax.Array]]:
        """Of each class, its blocks and x, or the entry of x (n, ...) of each block's client."""
        if shared:
            return [(blocks, x) for blocks in self.blocks]
        at = lambda owners, _, x: x[owners[0]]
        return self._with(self._apart(at, (x,), len(owners), [owners]) for owners in self._owned())

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
