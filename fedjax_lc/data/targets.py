"""Targets of a table: which task they make, and their encoding as numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.data.scaling import Floats

Task = Literal["binary", "multiclass", "regression", "sequence"]

# Whole numbers with more distinct values than this are read as a regression target.
_MAX_CLASSES = 100

Encoded = tuple[NDArray[Any], Task, tuple[Any, ...], tuple[str, ...]]


def encode(column: NDArray[Any], labels: Any, name: str) -> Encoded:
    """(targets, task, classes, notes) from the raw target column."""
    given = column
    column = _as_numbers_if_possible(given)
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
    if given.dtype.kind in "iu" and len(np.unique(given)) > len(distinct):
        raise InputError(f"{name}: targets beyond 2**53 are not told apart as float64; number the classes from 0")
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
    targets, pair = against_rest(place, classes, labels, name)
    return targets, "binary", pair, ()


def is_real(targets: NDArray[Any]) -> bool:
    """Whether (N,) targets look like real numbers, not class labels: floats with fractions or over 100 values."""
    if targets.dtype.kind != "f":
        return False
    distinct = np.unique(targets)
    return bool(len(distinct) > _MAX_CLASSES or np.any(distinct % 1))


def _as_numbers_if_possible(column: NDArray[Any]) -> NDArray[Any]:
    """Numbers as float64; else words as Python strings, each as long as it is."""
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        words = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in column]
        return np.array(words, dtype=object)


def _plain(value: Any) -> Any:
    """A label as Python int, float or str: 1.0 becomes 1."""
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def against_rest(
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
