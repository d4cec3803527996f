"""`Dataset`: a checked table of features and targets, and the one place where data is checked.

Everything that enters the package passes through `from_arrays` (tables), `from_images` or `from_sequences`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.axes import upright
from fedjax_lc.data.files import check_memory
from fedjax_lc.data.scaling import scaled
from fedjax_lc.data.sparse import as_array, as_csr, by_column, is_sparse, stays_sparse
from fedjax_lc.data.targets import Task, against_rest, encode


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A table of N rows and d features with one target per row (task "sequence": one target per feature).

    features: (N, d): float64, a SciPy CSR array where they are large and sparse (see `data.sparse`); uint8 0..255 of
        images as they are stored; int32 character ids of a "sequence".
    targets: (N,): float64 in {-1, +1} (binary), int64 in 0..C-1 (multiclass), or float64 (regression);
        (N, d) int32 in 0..C-1 (sequence): the same text one character later.
    classes: the original labels; binary: (label of -1, label of +1); multiclass: label of class c at place c;
        sequence: the character of id c at place c.
    notes: one-line remarks, such as a constant column.
    groups: (N,) int64 client ids 0..G-1 of data that comes already split, else None (partition "natural").
    shape: the shape of one row whose d features are an image, row-major (height, width, channels); else ().
    test: the set's test part, alike in all but its rows; its groups are the clients of the training part.

    >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0], [4.0, 4.0]], [1, 2, 2])
    >>> data.task, data.classes, data.targets.tolist()
    ('binary', (1, 2), [-1.0, 1.0, 1.0])
    """

    features: Any
    targets: NDArray[Any]
    name: str
    task: Task
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    shape: tuple[int, ...] = ()
    test: Dataset | None = None

    def __repr__(self) -> str:
        rows, dim = self.features.shape
        test = f" + {len(self.test.targets)} test rows" if self.test else ""
        sparse = ", sparse" if is_sparse(self.features) else ""
        return f"Dataset({self.name!r}, {self.task}, {rows} x {dim}{sparse}{test}, classes={self.classes})"

    def binary(self, positive: Any) -> Dataset:
        """The same rows with target +1 for the class (or classes) `positive` and -1 for all others.

        Raises InputError for data without classes, for a label that does not occur, and if nothing is left for -1.
        """
        if self.task in ("regression", "sequence"):
            raise InputError(f"{self.name}: {self.task} targets have no classes to make binary targets from")
        place = (self.targets > 0).astype(int) if self.task == "binary" else self.targets
        targets, classes = against_rest(place, self.classes, positive, self.name)
        test = self.test and self.test.binary(positive)
        return dataclasses.replace(self, targets=targets, classes=classes, task="binary", test=test)

    def scaled(self, scale: str | None) -> Dataset:
        """The same rows under one of `scalings()`, float64; the test part by the training rows' statistics.

        None and "none" leave the features as they are. Raises InputError for an unknown name, for a sequence, and for a
        scaling that would make sparse features dense.
        """
        if scale not in (None, "none") and self.task == "sequence":
            raise InputError(f"{self.name}: scale {scale!r} is for numbers, but features are characters; leave it out")
        test = self.test and dataclasses.replace(self.test, features=scaled(self.test.features, scale, self.features))
        return dataclasses.replace(self, features=scaled(self.features, scale), test=test)

    def split(self, share: float, seed: int = 0) -> Dataset:
        """The same data set with a random `test` part taken out of it.

        share: in (0, 1), the test part's share of each client where the data comes already split, else of each
            class, else of all rows; rounded, and none loses all its rows. Raises InputError for another share, for
            a test part that is empty or already there, and for a negative seed.

        >>> data = from_arrays([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]).split(0.5)
        >>> sorted(data.targets.tolist()), sorted(data.test.targets.tolist())
        ([-1.0, 1.0], [-1.0, 1.0])
        """
        if self.test is not None:
            raise InputError(f"{self.name}: has a test part of {len(self.test.targets)} rows already; use that one")
        if not 0 < share < 1:
            raise InputError(f"{self.name}: the share of the test part must be between 0 and 1, got {share}")
        if seed < 0:
            raise InputError(f"{self.name}: the split seed must be 0 or more, got {seed}")
        out = _drawn(self._strata(), share, np.random.default_rng(seed))
        if not out.any():
            raise InputError(f"{self.name}: a share of {share} leaves the test part empty; use a larger one")
        return dataclasses.replace(self.subset(~out), test=self.subset(out))

    def _strata(self) -> NDArray[Any]:
        if self.groups is not None:
            return self.groups
        return self.targets if self.task in ("binary", "multiclass") else np.zeros(len(self.targets))

    def subset(self, rows: NDArray[np.bool_]) -> Dataset:
        """The rows (N,) of the training part that are True, without the test part."""
        groups = None if self.groups is None else self.groups[rows]
        chosen = {"features": self.features[rows], "targets": self.targets[rows], "groups": groups, "test": None}
        return dataclasses.replace(self, **chosen)


def _drawn(strata: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows a random share of every stratum takes."""
    chosen = np.zeros(len(strata), dtype=bool)
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.cumsum(np.unique(strata, return_counts=True)[1])[:-1]):
        count = min(round(share * len(rows)), len(rows) - 1)
        chosen[rng.permutation(rows)[:count]] = True
    return chosen


def from_arrays(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    name: str = "arrays",
    labels: Any = None,
    scale: str | None = None,
    groups: ArrayLike | None = None,
    notes: Sequence[str] = (),
    shape: tuple[int, ...] = (),
) -> Dataset:
    """A checked `Dataset` from arrays, nested lists, data frames or SciPy sparse matrices.

    features: (N, d), where large and sparse SciPy matrices stay sparse (see `data.sparse`) and others become dense;
        images (N, height, width), (N, height, width, channels) or (N, channels, height, width) with targets (N,), which
        are kept with channels last, those of type uint8 as bytes; or (n, m, d) with targets (n, m) for data of n
        clients already split (groups are set).
    targets: (N,) numbers or words, or one-hot (N, C).
    labels: None guesses the task (two values: binary; strings or at most 100 whole numbers: multiclass; else
        regression); "regression" keeps the numbers; "multiclass" takes every distinct value as a class; one
        label, or a sequence of labels, makes them +1 and all others -1. A guessed pair of labels maps the
        larger one to +1 (so -1/1, 0/1, 1/2 and 2/4 all work).
    scale: None, or a name of `scalings()`.
    shape: (height, width, channels) if the d features of a row are an image.

    Raises InputError (one line) for wrong shapes, non-finite numbers, features that are all constant, and one
    class only.

    >>> from_arrays([[1.0], [2.0], [4.0]], ["no", "yes", "no"]).targets.tolist()
    [-1.0, 1.0, -1.0]
    """
    table, column = _numbers(features, name), _column(targets, name)
    column, shaped = _one_a_row(column, table)
    if not shape and table.ndim in (3, 4) and column.shape == table.shape[:1] and 0 not in table.shape:
        table, turned = upright(table[..., None] if table.ndim == 3 else table)
        shape, table, shaped = table.shape[1:], table.reshape(len(table), -1), (*shaped, *turned)
    elif table.dtype == np.uint8:
        table = table.astype(np.float64)
    table, column, ids = _shapes(table, column, groups, name)
    _check_finite(table, name)
    table, remarks = scaled(table, scale), _constant_columns(table, name)
    encoded, task, classes, guess = encode(column, labels, name)
    if shape and math.prod(shape) != table.shape[1]:
        raise InputError(f"{name}: rows of shape {shape} have {math.prod(shape)} features, got {table.shape[1]}")
    return Dataset(table, encoded, name, task, classes, (*notes, *shaped, *remarks, *guess), ids, shape)


def from_images(
    images: ArrayLike,
    targets: ArrayLike,
    *,
    name: str = "images",
    classes: Sequence[Any] = (),
    notes: Sequence[str] = (),
    groups: ArrayLike | None = None,
    test: Dataset | None = None,
) -> Dataset:
    """A checked multiclass `Dataset` of images, whose pixels stay bytes.

    images: (N, height, width), (N, height, width, channels) or (N, channels, height, width) uint8, kept with channels
        last; targets: (N,) whole numbers 0..C-1.
    classes: the C labels; default: 0..C-1 with the largest target as C-1.
    groups, test: as in `Dataset`.

    Raises InputError (one line) for wrong shapes and types, and for a target that is no class.

    >>> from_images(np.zeros((2, 4, 4), np.uint8), [0, 1]).shape
    (4, 4, 1)
    """
    pixels, column = np.asarray(images), np.asarray(targets)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or 0 in pixels.shape:
        raise InputError(
            f"{name}: images must be uint8 of shape (N, height, width) or (N, height, width, channels), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    if column.shape != pixels.shape[:1] or column.dtype.kind not in "iu":
        raise InputError(f"{name}: {len(pixels)} images need as many whole numbers as targets, got {_told(column)}")
    labels = tuple(classes) or tuple(range(int(column.max()) + 1))
    _check_ids(column, len(labels), "target", name)
    pixels, turned = upright(pixels[..., None] if pixels.ndim == 3 else pixels)
    shape, table, ids = pixels.shape[1:], pixels.reshape(len(pixels), -1), _group_ids(groups, len(pixels), name)
    return Dataset(table, column.astype(np.int64), name, "multiclass", labels, (*notes, *turned), ids, shape, test)


def from_sequences(
    features: ArrayLike,
    targets: ArrayLike,
    characters: str,
    *,
    name: str = "text",
    notes: Sequence[str] = (),
    groups: ArrayLike | None = None,
    test: Dataset | None = None,
) -> Dataset:
    """A checked "sequence" `Dataset`: N windows of T characters as ids, and what follows each of them.

    features: (N, T) ids 0..C-1; targets: (N, T) ids of the character after each feature; characters: the C of them.
    groups, test: as in `Dataset`.

    Raises InputError (one line) for wrong shapes and for ids that are no character's.

    >>> from_sequences([[0, 1], [1, 0]], [[1, 0], [0, 1]], "ab").classes
    ('a', 'b')
    """
    table, after = np.asarray(features), np.asarray(targets)
    if (
        table.ndim != 2
        or 0 in table.shape
        or table.shape != after.shape
        or {table.dtype.kind, after.dtype.kind} - {*"iu"}
    ):
        raise InputError(
            f"{name}: needs ids of one shape (windows, characters) as features and targets, "
            f"got {_told(table)} and {_told(after)}"
        )
    for column, what in ((table, "feature"), (after, "target")):
        _check_ids(column, len(characters), what, name)
    ids = _group_ids(groups, len(table), name)
    table, after = table.astype(np.int32), after.astype(np.int32)
    return Dataset(table, after, name, "sequence", tuple(characters), tuple(notes), ids, test=test)


# --- checks ---


def _shapes(
    table: Any, column: NDArray[Any], groups: ArrayLike | None, name: str
) -> tuple[Any, NDArray[Any], NDArray[np.int64] | None]:
    if table.ndim == 3 and column.shape == table.shape[:2] and 0 not in table.shape:
        groups = np.repeat(np.arange(len(table)), table.shape[1])
        table, column = table.reshape(-1, table.shape[2]), column.ravel()
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"{name}: features must be a non-empty (rows, columns) table, got shape {table.shape}")
    rows = table.shape[0]
    if column.shape != (rows,):
        raise InputError(f"{name}: {rows} rows of features need targets of shape ({rows},), got {column.shape}")
    return table, column, _group_ids(groups, rows, name)


def _one_a_row(column: NDArray[Any], table: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Targets (N,) of (N, 1), and of one-hot (N, C), with a note; others as they are."""
    if column.ndim != 2 or (table.ndim == 3 and column.shape == table.shape[:2]) or 0 in column.shape:
        return column, ()
    if column.shape[1] == 1:
        return column[:, 0], ()
    numbers = column.dtype.kind in "biuf"
    if not numbers or np.any((column != 0) & (column != 1)) or np.any(column.sum(axis=1) != 1):
        return column, ()
    return column.argmax(axis=1), (f"targets are read as one-hot, of {column.shape[1]} classes",)


def _group_ids(groups: ArrayLike | None, rows: int, name: str) -> NDArray[np.int64] | None:
    """Client ids 0..G-1 in the order of the given ones."""
    if groups is None:
        return None
    given = _column(groups, name, "groups")
    if given.shape != (rows,):
        raise InputError(f"{name}: {rows} rows need one group each, got groups of shape {given.shape}")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _check_ids(ids: NDArray[Any], count: int, what: str, name: str) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= count:
        raise InputError(f"{name}: {what}s must be in 0..{count - 1} for {count} classes, got {low}..{high}")


def _told(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _column(values: ArrayLike, name: str, what: str = "targets") -> NDArray[Any]:
    """Targets or groups as an array of numbers or words. Raises InputError for any other kind, such as complex ones."""
    try:
        column = np.asarray(values)
    except ValueError:
        raise InputError(f"{name}: {what} must be one number or word per row, got lists of unequal lengths") from None
    if column.dtype.kind not in "biufUSOT":
        raise InputError(f"{name}: {what} must be real numbers or words, got entries of type {column.dtype}")
    return column


def _numbers(features: Any, name: str) -> Any:
    if is_sparse(features):
        return as_csr(features) if stays_sparse(features) else as_array(features)
    try:
        table = np.asarray(features)
        if table.dtype.kind not in "cMm":
            if table.dtype == np.uint8 and table.ndim in (3, 4):
                return table  # pictures stay bytes
            if table.dtype != np.float64:
                check_memory(name, 2 * 8 * table.size, f"{table.size} features as float64 and a working copy")
            return table.astype(np.float64, copy=False)
        kind = "complex numbers" if table.dtype.kind == "c" else f"entries of type {table.dtype}"
        raise InputError(f"{name}: features must be real numbers, got {kind}; give each part as a column of its own")
    except InputError:
        raise
    except (TypeError, ValueError):
        raise InputError(f"{name}: features must be a table of numbers; encode words as numbers first") from None


def _check_finite(table: Any, name: str) -> None:
    if is_sparse(table):
        entries = table.tocoo()
        bad = np.stack([entries.row, entries.col], axis=1)[~np.isfinite(entries.data)]
    else:
        bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{name}: feature in row {row + 1}, column {column + 1} (counted from 1) is {table[row, column]}; "
            "features must be finite numbers"
        )


def _constant_columns(table: Any, name: str) -> tuple[str, ...]:
    varying, dim = _varying(table), table.shape[1]
    count = dim - len(varying)
    if count == dim:
        raise InputError(f"{name}: all {dim} feature columns are constant, so there is nothing to learn from")
    if count == 0:
        return ()
    constant = np.setdiff1d(np.arange(min(dim, len(varying) + 5)), varying)[:5]
    if count == 1:
        return (f"column {constant[0] + 1} (counted from 1) is constant: {table[0, constant[0]]:g} in every row",)
    shown = ", ".join(str(c + 1) for c in constant) + (", ..." if count > 5 else "")
    return (f"{count} columns are constant (counted from 1): {shown}",)


def _varying(table: Any) -> NDArray[Any]:
    """The columns that are not constant."""
    if not is_sparse(table):
        return np.flatnonzero(table.max(axis=0) != table.min(axis=0))
    columns, counts, high = by_column(table, np.maximum)
    low = by_column(table, np.minimum)[2]
    return columns[(counts < table.shape[0]) | (high != low)]  # entries are not zero
