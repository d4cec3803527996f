"""How the clients' matrices are laid out: padded to the largest client, cut into blocks, or in pieces of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import whole_vectors
from fedjax_lc.core.shares import exchanged, here, of_each, stored_rows
from fedjax_lc.problems.features import PIECE, Dense, Sparse
from fedjax_lc.problems.ragged import Ragged
from fedjax_lc.problems.ragged_sparse import RaggedSparse, matrices

#: rows of the blocks of the ragged form, each a multiple of the next: large ones are multiplied faster, small ones pad
#: little. XLA's products on a CPU keep blocks of up to 2^15 numbers, 266 rows of 123 features, on one core.
BLOCKS = (640, 320, 32, 8, 4, 1)
CUT_UP_TO = 1.15  #: rows of all blocks over those of all clients that are little padding
PADDED_UP_TO = 1.5  #: the same of clients padded to the largest, up to which they are
SMALL = 2**20  #: numbers of clients padded to the largest, up to which they are in any case: blocks would gain nothing


class Cut(NamedTuple):
    """How the rows of clients are cut into blocks of a few sizes, see `Ragged`.

    Over several devices, each has as many blocks: those of its clients first, then some that are not used.

    Attributes:
        rows: rows of the smallest blocks, and entries of a row of a table.
        owners: (B,) the client of each row of a table; n for a block that is not used.
        first: (n,) the first row of each client.
        classes: of each class, rows of a block and blocks of a device.
        devices: the number of devices whose blocks are apart.
    """

    rows: int
    owners: np.ndarray
    first: np.ndarray
    classes: tuple[tuple[int, int], ...]
    devices: int = 1

    @classmethod
    def of(cls, sizes: np.ndarray, d: int, devices: int = 1) -> Cut | None:
        """Blocks for clients of these sizes (n,) and d features: as large as keeps the padding small; None where every
        client is better padded to the largest."""
        if _pad_little(sizes.astype(np.int64) * d):
            return None
        ladders = (BLOCKS[: k + 1] for k in range(len(BLOCKS)))
        little = lambda cut: len(cut.owners) * cut.rows <= CUT_UP_TO * sizes.sum()
        rows = next(rows for rows in ladders if little(cls.apart(sizes, rows, 1)))
        cut = cls.apart(sizes, rows, devices)
        return cut if len(cut.owners) * cut.rows < len(sizes) * int(sizes.max()) else None

    @classmethod
    def of_sparse(cls, parts: Sequence[Any], sizes: np.ndarray, devices: int = 1) -> Cut | None:
        """Each row apart, for CSR arrays (m_i, d), of which this process holds these; None as of `of`."""
        numbers = np.array([PIECE * pieces(part).sum() + part.shape[0] for part in parts], np.int64)
        return None if _pad_little(exchanged(numbers, len(sizes))) else cls.apart(sizes, (1,), devices)

    @classmethod
    def apart(cls, sizes: np.ndarray, rows: tuple[int, ...], devices: int) -> Cut:
        """Blocks of so many rows in each class, over so many devices that share the clients.

        A client lies in the first class that pads it little, or in the last.
        """
        n, of_class = len(sizes), np.full(len(sizes), len(rows) - 1)
        for k in reversed(range(len(rows) - 1)):
            of_class[-(-sizes // rows[k]) * rows[k] <= CUT_UP_TO * sizes] = k
        device = np.arange(n) // -(-n // devices)
        several = np.array(rows)[of_class] // rows[-1]
        counts = -(-sizes // np.array(rows)[of_class]) * several  # rows of a table
        first, start, classes = np.zeros(n, np.int64), 0, list[tuple[int, int]]()
        for k, each in enumerate(rows):
            there = np.where(of_class == k, counts, 0)
            of_device = np.bincount(device, there, devices).astype(np.int64)
            before = np.cumsum(there) - there - (np.cumsum(of_device) - of_device)[device]
            first = np.where(of_class == k, start + before, first)
            if of_device.any() or k == len(rows) - 1:
                classes.append((each, int(of_device.max()) * rows[-1] // each))
            start += int(of_device.max())
        first += device * start
        owners = np.full(devices * start, n, np.int32)
        owners[np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())] = np.repeat(
            np.arange(n), counts
        )
        return cls(rows[-1], owners, first.astype(np.int32), tuple(classes), devices)

    @classmethod
    def padded(cls, sizes: np.ndarray) -> Cut:
        """A block for each client, as large as the largest."""
        each = np.arange(len(sizes), dtype=np.int32)
        return cls(int(sizes.max()), each, each, ((int(sizes.max()), len(sizes)),))

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

    def laid_out(self, table: np.ndarray, width: int, longest: int, store: Callable[[np.ndarray, int], Any]) -> Ragged:
        """Features of the (B, rows, d) rows of a table that this process holds; `store` is called with the blocks of
        each class that it holds, and their number in all."""
        blocks, start = list[Dense](), 0
        of_device = table.reshape(-1, sum(r // self.rows * count for r, count in self.classes), *table.shape[1:])
        for rows, count in self.classes:
            ends = start + count * rows // self.rows
            part = of_device[:, start:ends].reshape(-1, rows, table.shape[-1])
            blocks.append(Dense(store(part, count * self.devices), width))
            start = ends
        owners, first = jnp.asarray(self.owners), jnp.asarray(self.first)
        return Ragged(tuple(blocks), owners, first, longest, devices=self.devices)


def _pad_little(numbers: np.ndarray) -> bool:
    """Whether clients that have so many numbers (n,) are better padded to the largest."""
    padded = len(numbers) * int(numbers.max())
    return padded <= SMALL or padded <= PADDED_UP_TO * int(numbers.sum())


def laid_out(
    A: Any, sizes: np.ndarray, cut: Cut | None, dtype: Any, *, vectors: bool = True
) -> Dense | Ragged | Sparse | RaggedSparse:
    """Features of the (B, m, d) array A, or of one CSR array (m_i, d) per client, in float type `dtype`.

    Of several processes that wait for each other, each gives the blocks or clients that it holds.

    sizes: (n,) rows of each client.
    cut: how A is cut into blocks; None for one block per client.
    vectors: whether to pad dense rows to whole vector registers of a CPU, for products with vectors.
    """
    if not isinstance(A, np.ndarray):
        return (
            _in_pieces(A, len(sizes), int(sizes.max()), dtype)
            if cut is None
            else _one_after_the_other(A, sizes, cut, dtype)
        )
    count = len(sizes) if cut is None else len(cut.owners)
    if count * A.shape[1] >= 2**31:
        raise InputError(f"{count} blocks of {A.shape[1]} rows are more than 2^31 rows: use fewer clients or rows")
    table = whole_vectors(A, dtype) if vectors else A
    if cut is None:
        return Dense(stored_rows(table, count, dtype), A.shape[-1])
    return cut.laid_out(table, A.shape[-1], int(sizes.max()), lambda part, count: stored_rows(part, count, dtype))


def among(features: Any, sizes: np.ndarray, devices: int) -> tuple[Ragged | RaggedSparse, Callable[[Any], np.ndarray]]:
    """The same matrices with each device's blocks apart, and a function that turns tables (B, m) of the one into those
    of the other."""
    cut = Cut.apart(sizes, tuple(rows for rows, _ in features.classes), devices)
    used = np.flatnonzero(cut.owners < len(sizes))
    owners = cut.owners[used]
    source = np.asarray(features.first)[owners] + used - cut.first[owners]

    def turned(table: Any) -> np.ndarray:
        rows = np.zeros((len(cut.owners), *table.shape[1:]), table.dtype)
        rows[used] = np.asarray(table)[source]
        return rows

    kept = lambda part, _: part
    if isinstance(features, RaggedSparse):
        return _one_after_the_other(list(matrices(features, sizes)), sizes, cut, features.values.dtype, kept), turned
    table = turned(features.joined(map(np.asarray, features.arrays)))
    return cut.laid_out(table, features.width, features.longest, kept), turned


# --- sparse matrices ---


def pieces(part: Any) -> np.ndarray:
    """(m_i,) the pieces that each row of a CSR matrix takes."""
    return -(-np.diff(part.indptr) // PIECE)


def _in_pieces(parts: Sequence[Any], clients: int, m: int, dtype: Any) -> Sparse:
    n, (d, P, longest) = len(parts), _largest(parts, clients)
    owners, first = np.full(n * P, m - 1, np.int32), np.zeros(n * m, np.int32)
    arrays = _filled(parts, d, dtype, owners, first, [(k * P, k * m, 0, 0) for k in range(n)])
    shapes = [(n, P, PIECE), (n, P, PIECE), (n, P), (n, m)]
    columns, values, owners, first = (
        stored_rows(array.reshape(shape), clients) for array, shape in zip(arrays, shapes, strict=True)
    )
    return Sparse(columns, values, owners, first, d, longest)


def _one_after_the_other(
    parts: Sequence[Any],
    sizes: np.ndarray,
    cut: Cut,
    dtype: Any,
    store: Callable[[np.ndarray, int], Any] = stored_rows,
) -> RaggedSparse:
    n, (d, _, longest) = len(sizes), _largest(parts, len(sizes))
    counts = exchanged(np.array([max(1, pieces(part).sum()) for part in parts], np.int64), n)
    of_pieces = Cut.apart(counts, (1,), cut.devices)
    P, B, numbers = len(of_pieces.owners), len(cut.owners), here(n)
    most, most_rows = P // cut.devices, B // cut.devices
    rows = ((here(P) // most + 1) * most_rows - 1).astype(np.int32)  # of unused pieces the last row of a device
    starts = (here(B) // most_rows * most).astype(np.int32)
    at = zip(of_pieces.starts(numbers), cut.starts(numbers), of_pieces.first[numbers], cut.first[numbers], strict=True)
    columns, values, rows, starts = _filled(parts, d, dtype, rows, starts, at)
    return RaggedSparse(
        store(columns, P),
        store(values, P),
        store(rows[:, None], P),
        store(starts[:, None], B),
        jnp.asarray(counts, jnp.int32),
        jnp.asarray(cut.owners),
        jnp.asarray(cut.first),
        int(sizes.max()),
        d,
        longest,
        int(counts.max()),
        devices=cut.devices,
    )


def _largest(parts: Sequence[Any], clients: int) -> tuple[int, int, int]:
    """Columns, and the most pieces of a client and of a row, of the CSR matrices of all processes."""
    each = [(part.shape[1], pieces(part).sum(), pieces(part).max()) for part in parts]
    d, most, longest = map(int, of_each(np.max([(1, 1, 1), *each], axis=0)).max(axis=0))
    if clients * d >= 2**31:
        raise InputError(f"{clients} clients of {d} features are more than 2^31 numbers: use fewer clients")
    return d, most, longest


def _filled(
    parts: Sequence[Any],
    d: int,
    dtype: Any,
    owners: np.ndarray,
    first: np.ndarray,
    at: Iterable[tuple[int, int, int, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns and values (P, PIECE) of the pieces of CSR matrices, the row of each piece, the first piece of each row.

    owners, first: (P,) and (rows,) what the latter two are where there is padding.
    at: of each matrix, the places of its first piece and row, and the numbers that these have.
    """
    # Padding uses all columns in turn, so that an accelerator's additions to one column do not queue.
    columns, values = (np.arange(owners.size * PIECE) % d).astype(np.int32), np.zeros(owners.size * PIECE, dtype)
    for part, (place, row_place, piece, row) in zip(parts, at, strict=True):
        count = pieces(part)
        starts = np.cumsum(count) - count
        first[row_place : row_place + len(count)] = piece + starts
        owners[place : place + max(1, count.sum())] = row
        owners[place : place + count.sum()] = row + np.repeat(np.arange(len(count)), count)
        places = np.arange(part.nnz) + np.repeat((place + starts) * PIECE - part.indptr[:-1], np.diff(part.indptr))
        columns[places], values[places] = part.indices, part.data
    return columns.reshape(-1, PIECE), values.reshape(-1, PIECE), owners, first
