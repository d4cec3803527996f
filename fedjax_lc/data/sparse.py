"""Sparse tables of features: which data stay sparse, and as what.

A table stays sparse where the dense one would hold more than DENSE_UP_TO numbers and less than a tenth of them are
entries; any other is dense, whose products are faster. This is the one rule, of files and of arrays alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError

DENSE_UP_TO = 2**25  #: numbers of a table that is dense however few of them are entries: 256 MiB
FILLED = 0.1  #: share of entries from which a table of any size is dense


def is_sparse(table: Any) -> bool:
    """Whether a table is a SciPy sparse matrix or array."""
    return hasattr(table, "tocsr")


def as_csr(table: Any) -> Any:
    """A table of either kind as SciPy's float64 CSR array: sorted, without duplicates and without zeros.

    Raises InputError for what is no table of real numbers.
    """
    from scipy.sparse import csr_array

    table = table if is_sparse(table) else np.asarray(table)
    if table.ndim != 2 or table.dtype.kind not in "fiub":
        raise InputError(f"sparse features must be a (rows, columns) table of real numbers, got {table.dtype} of shape "
                         f"{table.shape}")  # fmt: skip
    rows = csr_array(table, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def as_array(table: Any) -> np.ndarray:
    """A table of either kind as dense float64 array. Raises InputError for complex numbers."""
    return real(table.toarray() if is_sparse(table) else table, "features").astype(np.float64, copy=False)


def real(values: Any, what: str) -> np.ndarray:
    """The values as an array. Raises InputError for complex numbers, which a cast would halve in silence."""
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise InputError(f"{what} must be real, got complex numbers; give real and imaginary parts as columns")
    return array


def by_column(table: Any, reduce: np.ufunc) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a CSR table, the columns with entries, how many each has, and what `reduce` makes of them.

    It takes memory for the entries, not for the columns, of which there may be billions.
    """
    order = np.argsort(table.indices, kind="stable")
    columns, starts, counts = np.unique(table.indices[order], return_index=True, return_counts=True)
    return columns, counts, reduce.reduceat(table.data[order], starts) if len(starts) else table.data


def stays_sparse(table: Any) -> bool:
    """Whether a sparse table stays one, by the rule of this module."""
    numbers = table.shape[0] * table.shape[1]
    return numbers > DENSE_UP_TO and table.nnz < FILLED * numbers
