"""How the clients' matrices are laid out: padded to the largest client, cut into blocks of rows, or in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.devices import stored
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import whole_vectors
from fedjax_lc.problems.features import PIECE, Dense, Ragged, Sparse

BLOCKS = (128, 64, 32, 16, 8, 4, 2)  #: rows of a block of the ragged form, the first that pads little
CUT_UP_TO = 1.25  #: rows of all blocks over those of all clients that are little padding
PADDED_UP_TO = 1.5  #: the same of clients padded to the largest, up to which they are
SMALL = 2**20  #: numbers of clients padded to the largest, up to which they are in any case: blocks would gain nothing


class Cut(NamedTuple):
    """How the rows of clients are cut into blocks.

    Attributes:
        rows: rows of a block.
        owners: (B,) the client of each block.
        first: (n,) the first block of each client.
    """

    rows: int
    owners: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray, d: int) -> Cut | None:
        """Blocks for clients of these sizes (n,) and d features: as large as keeps the padding small; None where every
        client is better padded to the largest."""
        padded = len(sizes) * int(sizes.max())
        if padded * d <= SMALL or padded <= PADDED_UP_TO * sizes.sum():
            return None
        counts = lambda rows: -(-sizes // rows)
        small = (rows for rows in BLOCKS if counts(rows).sum() * rows <= CUT_UP_TO * sizes.sum())
        count = counts(rows := next(small, 1))
        owners = np.repeat(np.arange(len(sizes), dtype=np.int32), count)
        return cls(rows, owners, (np.cumsum(count) - count).astype(np.int32))

    def table(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(B, rows, ...) the rows of all clients, parts (m_i, ...), in blocks."""
        table = np.zeros((len(self.owners) * self.rows, *parts[0].shape[1:]))
        for start, part in zip(self.first * self.rows, parts, strict=True):
            table[start : start + len(part)] = part
        return table.reshape(len(self.owners), self.rows, *parts[0].shape[1:])


def laid_out(
    A: Any, sizes: np.ndarray, cut: Cut | None, dtype: Any, *, vectors: bool = True
) -> Dense | Ragged | Sparse:
    """Features of the (B, m, d) array A, or of one CSR array (m_i, d) per client, in float type `dtype`.

    sizes: (n,) rows of each client.
    cut: how A is cut into blocks; None for one block per client.
    vectors: whether to pad dense rows to whole vector registers of a CPU, for products with vectors.
    """
    if not isinstance(A, np.ndarray):
        return _in_pieces(A, int(sizes.max()), dtype)
    if A.shape[0] * A.shape[1] >= 2**31:
        raise InputError(f"{A.shape[0]} blocks of {A.shape[1]} rows are more than 2^31 rows: use fewer clients or rows")
    dense = Dense(stored(whole_vectors(A, dtype) if vectors else A, dtype), A.shape[-1])
    if cut is None:
        return dense
    return Ragged(dense, jnp.asarray(cut.owners), jnp.asarray(cut.first), int(sizes.max()))


def _in_pieces(parts: Sequence[Any], m: int, dtype: Any) -> Sparse:
    n, d = len(parts), parts[0].shape[1]
    if n * d >= 2**31:
        raise InputError(f"{n} clients of {d} features are more than 2^31 numbers: use fewer clients")
    counts = [-(-np.diff(part.indptr) // PIECE) for part in parts]  # pieces of each row
    P = max(1, *(int(count.sum()) for count in counts))
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
    most = max(1, *(int(count.max()) for count in counts))
    entries = stored(columns.reshape(shape)), stored(values.reshape(shape))
    return Sparse(*entries, stored(owners), stored(first), d, most)
