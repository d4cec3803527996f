"""Scalings of a table's columns or rows, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.data.sparse import by_column, is_sparse

Floats = NDArray[np.float64]
_EXTREME = 300  # exponents of two beyond which squares leave float64


def _tamed(table: Any, like: Any, axis: int) -> tuple[Any, Any]:
    """Both tables with columns (axis 0) or rows (axis 1) of extreme numbers divided by a power of two, which is exact.

    Then no square overflows, and none of a whole column or row vanishes.
    """
    largest = np.maximum(like.max(axis=axis, keepdims=True), -like.min(axis=axis, keepdims=True))
    exponents = np.frexp(largest)[1]
    if np.abs(exponents).max(initial=0) < _EXTREME:
        return table, like
    return np.ldexp(table, -exponents), np.ldexp(like, -exponents)


def _standard(table: Floats, like: Floats) -> Floats:
    table, like = _tamed(table, like, axis=0)
    return (table - like.mean(axis=0)) / _safe(np.where(np.ptp(like, axis=0) > 0, like.std(axis=0), 0.0))


def _minmax(table: Floats, like: Floats) -> Floats:
    table, like = _tamed(table, like, axis=0)
    low, width = like.min(axis=0), np.ptp(like, axis=0)
    return np.where(width > 0, 2 * (table - low) / _safe(width) - 1, 0.0)


def _maxabs(table: Floats, like: Floats) -> Floats:
    return table / _safe(np.abs(like).max(axis=0))


def _unit(table: Floats, like: Floats) -> Floats:
    table, _ = _tamed(table, table, axis=1)
    return table / _safe(np.linalg.norm(table, axis=1))[:, None]


def _sparse_maxabs(table: Any, like: Any) -> Any:
    columns, _, largest = by_column(abs(like), np.maximum)
    place = np.minimum(np.searchsorted(columns, table.indices), len(columns) - 1)
    known = columns[place] == table.indices
    return _with_entries(table, table.data * (1 / np.where(known, largest[place], 1.0)))


def _sparse_unit(table: Any, like: Any) -> Any:
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    largest = np.zeros(table.shape[0])
    np.maximum.at(largest, rows, np.abs(table.data))
    exponents = np.frexp(largest)[1]
    if np.abs(exponents).max(initial=0) >= _EXTREME:
        table = _with_entries(table, np.ldexp(table.data, -exponents[rows]))
    return table.multiply(1 / _safe(np.sqrt(table.power(2).sum(axis=1)))[:, None]).tocsr()


def _with_entries(table: Any, entries: Floats) -> Any:
    return type(table)((entries, table.indices, table.indptr), shape=table.shape)


def _safe(divisor: Floats) -> Floats:
    return np.where(divisor > 0, divisor, 1.0)


_SCALINGS = {"none": None, "standard": _standard, "minmax": _minmax, "maxabs": _maxabs, "unit": _unit}
_OF_SPARSE = {"maxabs": _sparse_maxabs, "unit": _sparse_unit}  # the others would fill a table


def scalings() -> list[str]:
    """Names of the scalings: none, standard (zero mean, unit population deviation per column), minmax ([-1, 1]
    per column), maxabs (largest absolute value 1 per column), unit (norm 1 per row).

    Constant columns become 0 under standard and minmax; zero rows stay zero under unit. Sparse tables take maxabs and
    unit, which keep zeros.
    """
    return list(_SCALINGS)


def scaled(table: Any, scale: str | None, like: Any = None) -> Any:
    """The (N, d) table, an array or a SciPy CSR array, under one of `scalings()`, float64; None is none, which leaves
    the table as it is.

    like: (M, d), the table whose means, deviations and ranges count (training rows, say); default: the table itself.
    Raises InputError for an unknown name, and for one that would make a sparse table dense.

    >>> scaled(np.array([[1.0], [3.0]]), "standard").tolist()
    [[-1.0], [1.0]]
    """
    if scale is not None and scale not in _SCALINGS:
        raise unknown("scale", scale, _SCALINGS)
    rule = _SCALINGS[scale or "none"]
    if rule is None:
        return table
    if is_sparse(table):
        if scale not in _OF_SPARSE:
            raise InputError(f"scale {scale!r} would make sparse features dense: take maxabs or unit, or none")
        return _OF_SPARSE[scale](table, table if like is None else like)
    table = np.asarray(table, np.float64)
    return rule(table, table if like is None else np.asarray(like, np.float64))
