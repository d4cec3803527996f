"""Tables of columns with names, as CSV, Parquet and frames have them: which column is the target, which is no feature,
and what becomes of words and of empty cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.asked import Reading, option
from fedjax_lc.data.files import check_memory
from fedjax_lc.data.tables import Table

TARGETS = ("target", "label", "class", "y")  #: names of a target, the first that is there
_UNNAMED = {"", "unnamed: 0", "__index_level_0__", "rownames"}
_INDICES = _UNNAMED | {"index", "id", "idx", "row", "rowid", "row_id"}
_SHOWN = 5  # words of a category, in a note
_EMPTY_WORD = "(empty)"


class Columns(NamedTuple):
    """Columns of N cells each.

    where: the file or frame, in messages; names: of the columns, "" where there is no header line.
    cells: column k as (N,) float64, NaN where it is empty, or as objects: words, None where it is empty.
    place: how messages call the cell of row r and column k.
    """

    where: str
    names: tuple[str, ...]
    rows: int
    cells: Callable[[int], NDArray[Any]]
    place: Callable[[int, int], str]
    header: bool = True


def as_cells(column: Any, where: str) -> NDArray[Any]:
    """A column of any values as `Columns` has its cells. Raises InputError for values that are no numbers or words."""
    values = np.asarray(column)
    if values.ndim != 1:
        raise InputError(f"{where}: cells of shape {values.shape[1:]} are no numbers or words; make columns of them")
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind in "US":
        values = values.astype(object)
    if values.dtype.kind != "O":
        kind = "dates" if values.dtype.kind in "Mm" else f"entries of type {values.dtype}"
        raise InputError(f"{where}: holds {kind}; make numbers of them")
    out = np.array([_plain(value) for value in values], dtype=object)
    for value in out:
        if not (value is None or isinstance(value, str | float)):
            raise InputError(f"{where}: holds a {type(value).__name__}, which is no number or word; make columns of it")
    if not any(isinstance(value, str) for value in out):
        return np.array([np.nan if value is None else value for value in out], np.float64)
    return np.array([_word(value) for value in out], dtype=object)


def _plain(value: Any) -> Any:
    """A value as float, text or None, where it is one of these."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool | int | float | np.generic) or type(value).__name__ == "Decimal":
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return value
        return None if np.isnan(number) else number
    return value


def _word(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return None if np.isnan(value) else str(int(value)) if float(value).is_integer() else str(value)


def joined(parts: Sequence[Columns]) -> Columns:
    """One part under the other. Raises InputError for parts with other columns."""
    first = parts[0]
    if len(parts) == 1:
        return first
    for other in parts[1:]:
        if other.names != first.names:
            lacks = sorted({*first.names} ^ {*other.names}) or ["their order"]
            raise InputError(
                f"{other.where}: has other columns than {first.where} ({', '.join(lacks[:5])} differ): "
                "give all parts the same columns"
            )
    starts = np.cumsum([0, *(part.rows for part in parts)])

    def cells(k: int) -> NDArray[Any]:
        columns = [part.cells(k) for part in parts]
        if any(column.dtype == object for column in columns):
            columns = [np.array([_word(value) for value in column], dtype=object) for column in columns]
        return np.concatenate(columns)

    def place(row: int, k: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].place(row - int(starts[part]), k)

    return Columns(first.where, first.names, int(starts[-1]), cells, place, first.header)


def table(columns: Columns, how: Reading, train: NDArray[np.bool_] | None = None) -> Table:
    """The features and targets of a table.

    train: (N,) the rows whose means fill empty cells; None for all.
    Raises InputError for a target that is not there, and for words and empty cells, unless `how` says what becomes of
    them.
    """
    names, rows = columns.names, columns.rows
    if not rows or len(names) < 2:
        raise InputError(
            f"{columns.where}: needs at least one row of data and two columns, the features and the target"
        )
    target, said = find_target(columns, how.target)
    kept, notes = _without_indices(columns, target)
    blocks = [_Block.of(columns, k, how) for k in kept]
    width = sum(block.width for block in blocks)
    check_memory(columns.where, 8 * rows * width, f"{rows} x {width} float64 features")
    features, place, empty, filled = np.empty((rows, width)), 0, np.zeros(rows, bool), 0
    for block in blocks:
        part = features[:, place : place + block.width]
        block.write(part)
        place += block.width
        lacking = np.isnan(part[:, 0])
        if how.missing == "mean" and lacking.any():
            known = ~lacking if train is None else ~lacking & train
            if not known.any():
                raise InputError(f"{columns.where}: column {_called(columns, block.k)} holds no number; take it out")
            part[lacking] = mean(part[known], int(known.sum()))
            filled += int(lacking.sum())
        elif how.missing is None and lacking.any():
            cell = columns.place(int(np.argmax(lacking)), block.k)
            raise InputError(
                f"{cell}: the cell is empty; {option('missing', 'mean', 'drop')} fills it or leaves the row out"
            )
        empty |= lacking if how.missing == "drop" else False
    targets = columns.cells(target)
    lacking = np.isnan(targets) if targets.dtype == np.float64 else np.array([value is None for value in targets])
    if lacking.any() and how.missing != "drop":
        cell = columns.place(int(np.argmax(lacking)), target)
        raise InputError(f"{cell}: the target is empty; {option('missing', 'drop')} leaves the row out")
    empty |= lacking
    kinds = [f"{_called(columns, b.k)} ({b.shown()})" for b in blocks if b.words is not None]
    notes += [f"words read as {how.categories}: {'; '.join(kinds[:_SHOWN])}{'; ...' * (len(kinds) > _SHOWN)}"] * bool(
        kinds
    )
    notes += [f"empty cells filled with the mean of their column: {filled}"] * bool(filled)
    if not empty.any():
        return Table(features, targets, tuple(notes), said=said)
    if empty.all():
        raise InputError(f"{columns.where}: every row has an empty cell; take {option('missing', 'mean')}")
    notes.append(f"rows with an empty cell, left out: {int(empty.sum())} of {rows}")
    return Table(features[~empty], targets[~empty], tuple(notes), said=said, kept=~empty)


class _Block(NamedTuple):
    """The columns of features that one column of a table becomes.

    words: the categories of a column of words, else None; codes: (N,) places among them, -1 where it is empty; numbers:
    (N,) of another column.
    """

    k: int
    words: list[str] | None
    values: NDArray[Any]
    width: int

    @classmethod
    def of(cls, columns: Columns, k: int, how: Reading) -> _Block:
        cells = columns.cells(k)
        if cells.dtype != object:
            return cls(k, None, cells, 1)
        if how.categories is None:
            row = next(row for row, cell in enumerate(cells) if cell is not None and not is_number(cell))
            cure = option("categories", "onehot", "codes")
            hint = "write decimals with a point, or " if is_number(cells[row].replace(",", ".")) else ""
            raise InputError(
                f"{columns.place(row, k)}: {cells[row][:40]!r} is not a number; {hint}{cure} makes numbers of words"
            )
        if how.missing == "mean":
            cells = np.array([_EMPTY_WORD if cell is None else cell for cell in cells], dtype=object)
        words = sorted({cell for cell in cells if cell is not None})
        places = {word: place for place, word in enumerate(words)} | {None: -1}
        codes = np.array([places[cell] for cell in cells])
        return cls(k, words, codes, len(words) if how.categories == "onehot" else 1)

    def write(self, out: NDArray[np.float64]) -> None:
        """Write the columns to (N, width); NaN where the cell is empty."""
        if self.words is None or self.width != len(self.words):
            out[:, 0] = self.values
        else:
            out[:] = self.values[:, None] == np.arange(self.width)
        if self.words is not None:
            out[self.values < 0] = np.nan

    def shown(self) -> str:
        words = self.words or []
        return f"{len(words)}: {', '.join(words[:_SHOWN])}{', ...' * (len(words) > _SHOWN)}"


def mean(values: NDArray[np.float64], count: Any) -> NDArray[np.float64]:
    """The sum over the first axis divided by a count, without overflow where the mean itself does not."""
    with np.errstate(invalid="ignore"):  # inf - inf; such cells are refused later
        return (values / count).sum(axis=0)


def find_target(columns: Columns, target: str | int | None) -> tuple[int, str]:
    """The place of the target's column, and words on it. Raises InputError for one that is not there."""
    names = columns.names
    if target is None:
        known = [name.lower() for name in names] if columns.header else []
        place = next((known.index(name) for name in TARGETS if name in known), len(names) - 1)
        last = "" if columns.header and names[place].lower() in TARGETS else ", the last column"
        return place, f"target {_called(columns, place)}{last}"
    if columns.header and target in names:
        return names.index(str(target)), f"target {target!r}"
    try:
        place = int(target)
    except ValueError:
        shown = ", ".join(names[:30]) + ", ..." * (len(names) > 30) if columns.header else f"0 to {len(names) - 1}"
        raise InputError(f"{columns.where}: no target column {target!r}; name one of the columns: {shown}") from None
    if not -len(names) <= place < len(names):
        raise InputError(f"{columns.where}: target column {place} is out of range; there are {len(names)} columns")
    return place % len(names), f"target {_called(columns, place % len(names))}"


def _without_indices(columns: Columns, target: int) -> tuple[list[int], list[str]]:
    """The places of the features, and notes on columns that number or name the rows."""
    features = [k for k in range(len(columns.names)) if k != target]
    if not columns.header:
        first = columns.cells(features[0])
        counts = (
            first.dtype != object and columns.rows >= 10 and np.array_equal(first, first[0] + np.arange(len(first)))
        )
        note = f"column {features[0] + 1} numbers the rows, but is taken as a feature; take it out if it is an index"
        return features, [note] if counts and first[0] in (0, 1) else []
    indices, notes = [], []
    for k in features:
        name = columns.names[k].lower()
        if name not in _INDICES:
            continue
        cells = columns.cells(k)
        distinct = len({*cells.tolist()}) == columns.rows
        if distinct and (name in _UNNAMED or (cells.dtype != object and not np.any(cells % 1))):
            indices.append(k)
        else:
            notes.append(f"column {_called(columns, k)} is taken as a feature; take it out if it is an index")
    if not indices or len(indices) == len(features):
        return features, notes
    shown = ", ".join(_called(columns, k) for k in indices)
    notes.append(f"column {shown} numbers the rows and is left out; under another name it is a feature")
    return [k for k in features if k not in indices], notes


def _called(columns: Columns, k: int) -> str:
    return repr(columns.names[k]) if columns.names[k] else str(k + 1)


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
