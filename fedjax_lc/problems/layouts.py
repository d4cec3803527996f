"""How the clients' matrices are laid out: padded to the largest client, cut into blocks of rows, or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import whole_vectors
from fedjax_lc.core.shares import here, of_each, stored_rows
from fedjax_lc.problems.features import PIECE, Dense, Ragged, Sparse

BLOCKS = (128, 64, 32, 16, 8, 4, 2)  #: rows of a block of the ragged form, the first that pads little
CUT_UP_TO = 1.25  #: rows of all blocks over those of all clients that are little padding
PADDED_UP_TO = 1.5  #: the same of clients padded to the largest, up to which they are
SMALL = 2**20  #: numbers of clients padded to the largest, up to which they are in any case: blocks would gain nothing


class Cut(NamedTuple):
    """How the rows of clients are cut into blocks.

    Over several devices, each has as many blocks: those of its clients first, then some that are not used.

    Attributes:
        rows: rows of a block.
        owners: (B,) the client of each block; n for a block that is not used.
        first: (n,) the first block of each client.
        devices: the number of devices whose blocks are apart.
    """

    rows: int
    owners: np.ndarray
    first: np.ndarray
    devices: int = 1

    @classmethod
    def of(cls, sizes: np.ndarray, d: int, devices: int = 1) -> Cut | None:
        """Blocks for clients of these sizes (n,) and d features: as large as keeps the padding small; None where every
        client is better padded to the largest."""
        padded = len(sizes) * int(sizes.max())
        if padded * d <= SMALL or padded <= PADDED_UP_TO * sizes.sum():
            return None
        counts = lambda rows: -(-sizes // rows)
        small = (rows for rows in BLOCKS if counts(rows).sum() * rows <= CUT_UP_TO * sizes.sum())
        cut = cls.apart(sizes, next(small, 1), devices)
        return cut if len(cut.owners) * cut.rows < padded else None

    @classmethod
    def apart(cls, sizes: np.ndarray, rows: int, devices: int) -> Cut:
        """Blocks of so many rows, over so many devices that share the clients."""
        n, counts = len(sizes), -(-sizes // rows)
        each = -(-n // devices)  # clients of a device
        before = np.cumsum(counts) - counts
        of_device = np.array([counts[k * each : (k + 1) * each].sum() for k in range(devices)])
        most, place = int(of_device.max()), np.arange(n) // each
        first = before - (np.cumsum(of_device) - of_device)[place] + place * most
        owners = np.full(devices * most, n, np.int32)
        owners[np.repeat(first - before, counts) + np.arange(counts.sum())] = np.repeat(np.arange(n), counts)
        return cls(rows, owners, first.astype(np.int32), devices)

    @classmethod
    def padded(cls, sizes: np.ndarray) -> Cut:
        """A block for each client, as large as the largest."""
        each = np.arange(len(sizes), dtype=np.int32)
        return cls(int(sizes.max()), each, each)

    def starts(self, clients: np.ndarray) -> np.ndarray:
        """Where the rows of these clients begin among those that this process holds."""
        return np.searchsorted(here(len(self.owners)), self.first[clients]) * self.rows

    def table(self, parts: Sequence[np.ndarray], row: tuple[int, ...] = ()) -> np.ndarray:
        """(B, rows, ...) the rows of clients, parts (m_i, ...), in blocks; those that this process holds.

        row: the shape of a row.
        """
        blocks = len(here(len(self.owners)))
        table = np.zeros((blocks * self.rows, *row))
        for start, part in zip(self.starts(here(len(self.first))), parts, strict=True):
            table[start : start + len(part)] = part
        return table.reshape(blocks, self.rows, *row)

    def untied(self, whole: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
        """The rows of each client that this process holds, of all that it does."""
        numbers = here(len(self.first))
        lengths = -(-sizes[numbers] // self.rows) * self.rows
        return [whole[start : start + m] for start, m in zip(self.starts(numbers), lengths, strict=True)]


def laid_out(
    A: Any, sizes: np.ndarray, cut: Cut | None, dtype: Any, *, vectors: bool = True
) -> Dense | Ragged | Sparse:
    """Features of the (B, m, d) array A, or of one CSR array (m_i, d) per client, in float type `dtype`.

    Of several processes that wait for each other, each gives the blocks or clients that it holds.

    sizes: (n,) rows of each client.
    cut: how A is cut into blocks; None for one block per client.
    vectors: whether to pad dense rows to whole vector registers of a CPU, for products with vectors.
    """
    if not isinstance(A, np.ndarray):
        return _in_pieces(A, len(sizes), int(sizes.max()), dtype)
    count = len(sizes) if cut is None else len(cut.owners)
    if count * A.shape[1] >= 2**31:
        raise InputError(f"{count} blocks of {A.shape[1]} rows are more than 2^31 rows: use fewer clients or rows")
    dense = Dense(stored_rows(whole_vectors(A, dtype) if vectors else A, count, dtype), A.shape[-1])
    if cut is None:
        return dense
    return Ragged(dense, jnp.asarray(cut.owners), jnp.asarray(cut.first), int(sizes.max()), devices=cut.devices)


def among(features: Ragged, sizes: np.ndarray, devices: int) -> tuple[Ragged, Callable[[Any], np.ndarray]]:
    """The same matrices with each device's blocks apart, and a function that turns tables (B, m) of the one into those
    of the other."""
    cut = Cut.apart(sizes, features.blocks.longest, devices)
    used = np.flatnonzero(cut.owners < len(sizes))
    owners = cut.owners[used]
    source = np.asarray(features.first)[owners] + used - cut.first[owners]

    def turned(table: Any) -> np.ndarray:
        blocks = np.zeros((len(cut.owners), *table.shape[1:]), table.dtype)
        blocks[used] = np.asarray(table)[source]
        return blocks

    blocks = Dense(turned(features.blocks.array), features.width)  # type: ignore[arg-type]
    ragged = Ragged(blocks, jnp.asarray(cut.owners), jnp.asarray(cut.first), features.longest, devices=devices)
    return ragged, turned


def _in_pieces(parts: Sequence[Any], clients: int, m: int, dtype: Any) -> Sparse:
    n, d = len(parts), parts[0].shape[1]
    if clients * d >= 2**31:
        raise InputError(f"{clients} clients of {d} features are more than 2^31 numbers: use fewer clients")
    counts = [-(-np.diff(part.indptr) // PIECE) for part in parts]  # pieces of each row
    most = [[int(count.sum()), int(count.max())] for count in counts]
    P, longest = map(int, of_each(np.max([[1, 1], *most], axis=0)).max(axis=0))
    # Padding uses all columns in turn, so that an accelerator's additions to one column do not queue.
    columns = np.tile((np.arange(P * PIECE) % d).astype(np.int32), (n, 1))
    values = np.zeros((n, P * PIECE), dtype)
    owners, first = np.full((n, P), m - 1, np.int32), np.zeros((n, m), np.int32)
    for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
        rows, starts = len(count), np.cumsum(count) - count
        first[i, :rows] = starts
        owners[i, : count.sum()] = np.repeat(np.arange(rows), count)
        places = np.arange(part.nnz) + np.repeat(starts * PIECE - part.indptr[:-1], np.diff(part.indptr))
        columns[i, places], values[i, places] = part.indices, part.data
    shape = (n, P, PIECE)
    columns, values, owners, first = (
        stored_rows(array, clients) for array in (columns.reshape(shape), values.reshape(shape), owners, first)
    )
    return Sparse(columns, values, owners, first, d, longest)
