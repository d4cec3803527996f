"""`Dataset`: a checked table of features and targets, and the one place where data is checked.

Everything that enters the package (arrays, files, embedded and synthetic sets) passes through `from_arrays`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedjax_lc.errors import InputError, unknown

Task = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]

# Whole numbers with more distinct values than this are read as a regression target.
_MAX_CLASSES = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A table of N rows and d features with one target per row.

    features: (N, d) float64.
    targets: (N,): float64 in {-1, +1} (binary), int64 in 0..C-1 (multiclass), or float64 (regression).
    classes: the original labels; binary: (label of -1, label of +1); multiclass: label of class c at place c.
    notes: one-line remarks, such as a constant column.
    groups: (N,) int64 client ids 0..G-1 of data that comes already split, else None (partition "natural").

    >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0], [4.0, 4.0]], [1, 2, 2])
    >>> data.task, data.classes, data.targets.tolist()
    ('binary', (1, 2), [-1.0, 1.0, 1.0])
    """

    features: Floats
    targets: NDArray[Any]
    name: str
    task: Task
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        rows, dim = self.features.shape
        return f"Dataset({self.name!r}, {self.task}, {rows} x {dim}, classes={self.classes})"

    def binary(self, positive: Any) -> Dataset:
        """The same rows with target +1 for the class (or classes) `positive` and -1 for all others.

        Raises InputError for regression data, for a label that does not occur, and if nothing is left for -1.
        """
        if self.task == "regression":
            raise InputError(f"{self.name}: regression targets have no classes to make binary targets from")
        place = (self.targets > 0).astype(int) if self.task == "binary" else self.targets
        targets, classes = _against_rest(place, self.classes, positive, self.name)
        return dataclasses.replace(self, targets=targets, classes=classes, task="binary")


def from_arrays(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    name: str = "arrays",
    labels: Any = None,
    scale: str | None = None,
    groups: ArrayLike | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """A checked `Dataset` from arrays, nested lists, data frames or SciPy sparse matrices.

    features: (N, d), or (n, m, d) with targets (n, m) for data of n clients already split (groups are set).
    labels: None guesses the task (two values: binary; strings or at most 100 whole numbers: multiclass; else
        regression); "regression" keeps the numbers; "multiclass" takes every distinct value as a class; one
        label, or a sequence of labels, makes them +1 and all others -1. A guessed pair of labels maps the
        larger one to +1 (so -1/1, 0/1, 1/2 and 2/4 all work).
    scale: None, or a name of `scalings()`.

    Raises InputError (one line) for wrong shapes, non-finite numbers, features that are all constant, and one
    class only.

    >>> from_arrays([[1.0], [2.0], [4.0]], ["no", "yes", "no"]).targets.tolist()
    [-1.0, 1.0, -1.0]
    """
    table, column, ids = _shapes(features, targets, groups, name)
    _check_finite(table, name)
    table, remarks = scaled(table, scale), _constant_columns(table, name)
    encoded, task, classes, guess = _encode(column, labels, name)
    return Dataset(table, encoded, name, task, classes, (*notes, *remarks, *guess), ids)


# --- scaling ---


def _standard(table: Floats) -> Floats:
    return (table - table.mean(axis=0)) / _safe(np.where(np.ptp(table, axis=0) > 0, table.std(axis=0), 0.0))


def _minmax(table: Floats) -> Floats:
    low, width = table.min(axis=0), np.ptp(table, axis=0)
    return np.where(width > 0, 2 * (table - low) / _safe(width) - 1, 0.0)


def _maxabs(table: Floats) -> Floats:
    return table / _safe(np.abs(table).max(axis=0))


def _unit(table: Floats) -> Floats:
    return table / _safe(np.linalg.norm(table, axis=1))[:, None]


def _safe(divisor: Floats) -> Floats:
    return np.where(divisor > 0, divisor, 1.0)


_SCALINGS = {
    "none": lambda table: table,
    "standard": _standard,
    "minmax": _minmax,
    "maxabs": _maxabs,
    "unit": _unit,
}


def scalings() -> list[str]:
    """Names of the scalings: none, standard (zero mean, unit population deviation per column), minmax ([-1, 1]
    per column), maxabs (largest absolute value 1 per column), unit (norm 1 per row).

    Constant columns become 0 under standard and minmax; zero rows stay zero under unit.
    """
    return list(_SCALINGS)


def scaled(table: Floats, scale: str | None) -> Floats:
    """The (N, d) table under one of `scalings()`; None is none. Raises InputError for an unknown name."""
    if scale is not None and scale not in _SCALINGS:
        raise unknown("scale", scale, _SCALINGS)
    return _SCALINGS[scale or "none"](table)


# --- checks ---


def _shapes(
    features: ArrayLike, targets: ArrayLike, groups: ArrayLike | None, name: str
) -> tuple[Floats, NDArray[Any], NDArray[np.int64] | None]:
    if hasattr(features, "toarray"):  # a SciPy sparse matrix
        features = features.toarray()
    table, column = _numbers(features, name), np.asarray(targets)
    if table.ndim == 3 and column.shape == table.shape[:2]:
        groups = np.repeat(np.arange(len(table)), table.shape[1])
        table, column = table.reshape(-1, table.shape[2]), column.ravel()
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"{name}: features must be a non-empty (rows, columns) table, got shape {table.shape}")
    if column.shape != (len(table),):
        raise InputError(
            f"{name}: {len(table)} rows of features need targets of shape ({len(table)},), got {column.shape}"
        )
    if groups is None:
        return table, column, None
    ids = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    if ids.shape != column.shape:
        raise InputError(f"{name}: {len(table)} rows need one group each, got groups of shape {ids.shape}")
    return table, column, ids


def _numbers(features: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: features must be a table of numbers; encode words as numbers first") from None


def _check_finite(table: Floats, name: str) -> None:
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{name}: feature in row {row + 1}, column {column + 1} (counted from 1) is {table[row, column]}; "
            "features must be finite numbers"
        )


def _constant_columns(table: Floats, name: str) -> tuple[str, ...]:
    constant = np.flatnonzero(np.ptp(table, axis=0) == 0)
    if len(constant) == table.shape[1]:
        raise InputError(f"{name}: all {len(constant)} feature columns are constant, so there is nothing to learn from")
    if len(constant) == 0:
        return ()
    if len(constant) == 1:
        return (f"column {constant[0] + 1} (counted from 1) is constant: {table[0, constant[0]]:g} in every row",)
    shown = ", ".join(str(c + 1) for c in constant[:5]) + (", ..." if len(constant) > 5 else "")
    return (f"{len(constant)} columns are constant (counted from 1): {shown}",)


# --- targets ---

Encoded = tuple[NDArray[Any], Task, tuple[Any, ...], tuple[str, ...]]


def _encode(column: NDArray[Any], labels: Any, name: str) -> Encoded:
    """(targets, task, classes, notes) from the raw target column."""
    column = _as_numbers_if_possible(column)
    numeric = column.dtype.kind == "f"
    if numeric and not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise InputError(f"{name}: target in row {row + 1} (counted from 1) is {column[row]}; targets must be finite")
    distinct, place = np.unique(column, return_inverse=True)
    if isinstance(labels, str) and labels == "regression":
        if not numeric:
            raise InputError(f"{name}: labels='regression' needs numbers as targets, got {str(column[0])!r}")
        return column, "regression", (), ()
    if labels is None and is_real(column):
        return column, "regression", (), ()
    classes = tuple(_plain(value) for value in distinct)
    if len(classes) == 1:
        raise InputError(
            f"{name}: all {len(column)} targets are {classes[0]}, but classification needs two classes; "
            "labels='regression' takes targets as numbers"
        )
    if labels is None and len(classes) == 2:
        return np.where(place == 1, 1.0, -1.0), "binary", classes, ()
    if labels is None or (isinstance(labels, str) and labels == "multiclass"):
        many = numeric and labels is None and len(classes) > 20
        note = f"targets are read as {len(classes)} classes; labels='regression' takes them as numbers"
        return place.astype(np.int64), "multiclass", classes, (note,) if many else ()
    targets, pair = _against_rest(place, classes, labels, name)
    return targets, "binary", pair, ()


def is_real(targets: NDArray[Any]) -> bool:
    """Whether (N,) targets look like real numbers, not class labels: floats with fractions or over 100 values."""
    if targets.dtype.kind != "f":
        return False
    distinct = np.unique(targets)
    return bool(len(distinct) > _MAX_CLASSES or np.any(distinct % 1))


def _as_numbers_if_possible(column: NDArray[Any]) -> NDArray[Any]:
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        return column.astype(str)


def _plain(value: Any) -> Any:
    """A label as Python int, float or str: 1.0 becomes 1."""
    value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _against_rest(
    place: NDArray[Any], classes: tuple[Any, ...], positive: Any, name: str
) -> tuple[Floats, tuple[Any, Any]]:
    """+1 for rows whose class is one of `positive`, -1 for the rest, and the two (joined) labels."""
    wanted = [positive] if isinstance(positive, str) or not isinstance(positive, Iterable) else list(positive)
    # Compared as text, so that 1, 1.0 and "1" from a command line all name class 1.
    texts = [str(c) for c in classes]
    asked = [str(_plain(np.asarray(w))) for w in wanted]
    for label in asked:
        if label not in texts:
            raise unknown(f"label of {name}", label, texts)
    rest = [t for t in texts if t not in asked]
    if not asked or not rest:
        raise InputError(f"{name}: positive labels {', '.join(asked) or '(none)'} leave no row of the other class")
    chosen = np.array([t in asked for t in texts])
    pair = tuple(s[0] if len(s) == 1 else "|".join(map(str, s)) for s in _split(classes, chosen))
    return np.where(chosen[place], 1.0, -1.0), (pair[0], pair[1])


def _split(classes: tuple[Any, ...], chosen: NDArray[np.bool_]) -> tuple[list[Any], list[Any]]:
    return [c for c, yes in zip(classes, chosen, strict=True) if not yes], [
        c for c, yes in zip(classes, chosen, strict=True) if yes
    ]
