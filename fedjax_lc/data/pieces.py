"""Pieces of a data set, each of one client or of none, of training or of test rows, put together and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import columns, named
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.columns import Columns
from fedjax_lc.data.dataset import Dataset, from_arrays
from fedjax_lc.data.named import Arrays
from fedjax_lc.data.tables import Table


class Piece(NamedTuple):
    """Rows of one client (None where data do not come split) for training, or for testing."""

    rows: Columns | Arrays
    test: bool = False
    client: Hashable = None

    @property
    def size(self) -> int:
        return self.rows.rows if isinstance(self.rows, Columns) else len(self.rows.targets)


def assembled(pieces: Sequence[Piece], how: Reading) -> Table:
    """One table of all pieces; clients are numbered as they come, those with test rows alone last.

    Raises InputError if there are no training rows, and for pieces that do not fit each other.
    """
    pieces = sorted(pieces, key=lambda piece: piece.test)
    where = pieces[0].rows.where
    if pieces[0].test:
        raise InputError(f"{where}: there are test rows and no training rows; give a training part")
    sizes = [piece.size for piece in pieces]
    test = np.repeat([piece.test for piece in pieces], sizes)
    groups = None
    if pieces[0].client is not None:
        numbers = {client: k for k, client in enumerate(dict.fromkeys(piece.client for piece in pieces))}
        groups = np.repeat([numbers[piece.client] for piece in pieces], sizes)
    parts: list[Any] = [piece.rows for piece in pieces]
    if all(isinstance(part, Columns) for part in parts):
        made = columns.table(columns.joined(parts), how, ~test)
    elif all(isinstance(part, Arrays) for part in parts):
        whole = named.joined(parts)
        groups = whole.groups if groups is None else groups
        made = Table(whole.features, whole.targets, whole.notes)
    else:
        raise InputError(f"{where}: some parts are tables of columns, others arrays; give all parts alike")
    kept = slice(None) if made.kept is None else made.kept
    return made._replace(
        groups=None if groups is None else groups[kept], test=test[kept] if test.any() else None, kept=None
    )


def finished(
    table: Table, name: str, labels: Any = None, scale: str | None = None, missing: str | None = None
) -> Dataset:
    """The checked data set of a table; targets of test rows are encoded with the others', and then set apart.

    missing: what becomes of numbers that are NaN, as in `asked.Reading`. Raises InputError as `from_arrays` does.
    """
    if missing is not None:
        table = _without_gaps(table, missing, name)
    data = from_arrays(table.features, table.targets, name=name, labels=labels, groups=table.groups, notes=table.notes)
    if table.test is None:
        return data.scaled(scale)
    if table.test.all():
        raise InputError(f"{name}: no training rows are left; keep more of them")
    test = data.subset(table.test) if table.test.any() else None
    return dataclasses.replace(data.subset(~table.test), test=test).scaled(scale)


def summary(data: Dataset, said: str) -> str:
    """The line that says how data were read: the target, rows, features and classes."""
    rows = f"{len(data.targets)}" + (f" + {len(data.test.targets)} test" if data.test else "") + " rows"
    size = "x".join(map(str, data.shape)) if data.shape else f"{data.features.shape[1]}"
    shown = ", ".join(map(str, data.classes[:6])) + ", ..." * (len(data.classes) > 6)
    task = f"{len(data.classes)} classes ({shown})" if data.task in ("binary", "multiclass") else data.task
    clients = "" if data.groups is None else f", {data.groups.max() + 1} clients"
    return f"{data.name}: {said}, {rows}, {size} features, {task}{clients}"


def _without_gaps(table: Table, missing: str, name: str) -> Table:
    features = np.asarray(table.features) if not hasattr(table.features, "tocsr") else table.features
    if hasattr(features, "tocsr") or features.dtype.kind != "f":
        return table
    gaps = np.isnan(features)
    if not gaps.any():
        return table
    count = int(gaps.sum())
    if missing == "mean":
        train = np.ones(len(features), bool) if table.test is None else ~table.test
        known = (~gaps & train.reshape(-1, *(1,) * (features.ndim - 1))).sum(axis=0)
        if not known.all():
            raise InputError(f"{name}: a column of features holds no number; take it out")
        mean = columns.mean(np.where(gaps, 0.0, features)[train], known)
        note = f"empty cells filled with the mean of their column: {count}"
        return table._replace(features=np.where(gaps, mean, features), notes=(*table.notes, note))
    keep = ~gaps.reshape(len(features), -1).any(axis=1)
    if not keep.any():
        raise InputError(f"{name}: every row has an empty cell; take missing='mean'")
    note = f"rows with an empty cell, left out: {int((~keep).sum())} of {len(keep)}"
    rest: dict[str, Any] = {
        part: None if (of := getattr(table, part)) is None else of[keep] for part in ("groups", "test")
    }
    targets = np.asarray(table.targets)[keep]
    return table._replace(features=features[keep], targets=targets, notes=(*table.notes, note), **rest)
