"""Tables in files: `.npz` and `.csv`, as they are, not yet checked."""

from __future__ import annotations

import array
import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import arrays
from fedjax_lc.data.files import check_memory, checked_lines, decoded, read_bytes


class Table(NamedTuple):
    """What a file holds, not yet checked: features (N, d), targets (N,), remarks, and client ids if it has any."""

    features: Any
    targets: NDArray[Any]
    notes: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None


_SPELLINGS = (("features", "targets"), ("X", "y"), ("X", "Y"))


def read_npz(path: Path) -> Table:
    """A `.npz` file with arrays `features` and `targets`, or `X` and `y` (or `Y`), and perhaps `groups`.

    Raises InputError if the arrays are not there or the file cannot be read.
    """
    wanted = {name for pair in _SPELLINGS for name in pair}
    held, names = arrays.read_npz(path, (*sorted(wanted), "groups"))
    for features, targets in _SPELLINGS:
        if features in held and targets in held:
            return Table(held[features], held[targets], groups=held.get("groups"))
    raise InputError(
        f"{path}: needs arrays 'features' and 'targets' (or 'X' and 'y'), got {', '.join(map(repr, names)) or 'none'}"
    )


def read_csv(path: Path, target: str | int | None = None) -> Table:
    """A `.csv` file (separated by comma, semicolon or tab; with or without a header line).

    target: the target's column by name, or by place counted from 0 (negative: from the right); default: the last.
    Raises InputError for an unknown column, rows of unequal length, and cells that are not numbers.
    """
    rows = _rows(path)
    line, first = next(rows, (0, []))
    if not first:
        raise InputError(f"{path}: the file is empty")
    header = _header(first, target)
    place = _target_place(path, first, header, target)
    width, numbers = len(first), array.array("d")
    body = rows if header else itertools.chain([(line, first)], rows)
    targets = [_read_row(path, line, row, place, width, numbers) for line, row in body]
    if not targets or width < 2:
        raise InputError(f"{path}: needs at least one row of data and two columns, the features and the target")
    return Table(np.frombuffer(numbers).reshape(len(targets), -1), np.array(targets, dtype=object))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not blank."""
    text = decoded(read_bytes(path), path)
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = text.count("\n") + text.count("\r") + 1
    check_memory(path, 24 * (text.count(separator) + rows) + 100 * rows, f"its {rows} rows of float64")
    reader = csv.reader(checked_lines(io.StringIO(text, newline=""), path), delimiter=separator)
    try:
        yield from ((reader.line_num, [cell.strip() for cell in row]) for row in reader if row)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not a row of cells ({error}); a quotation mark may not be closed"
        ) from None


def _read_row(path: Path, line: int, row: list[str], place: int, width: int, numbers: array.array[float]) -> str:
    """Appends the features of a row to `numbers`, and returns its target."""
    if len(row) != width:
        raise InputError(f"{path}, line {line}: {len(row)} columns, but the first line has {width}")
    target = row.pop(place)
    try:
        numbers.extend(map(float, row))
    except ValueError:
        column = next(k for k, cell in enumerate(row) if not _is_number(cell))
        raise InputError(
            f"{path}, line {line}, column {column + 1 + (column >= place)}: {row[column][:40]!r} is not a number; "
            "fill empty cells and encode words as numbers"
        ) from None
    return target


def _header(first: list[str], target: str | int | None) -> bool:
    """A first line is a header if the target is asked by name, or if none of its cells is a number."""
    return (isinstance(target, str) and target in first) or not any(map(_is_number, first))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _target_place(path: Path, first: list[str], header: bool, target: str | int | None) -> int:
    if target is None:
        return len(first) - 1
    if header and target in first:
        return first.index(str(target))
    try:
        place = int(target)
    except ValueError:
        named = ", ".join(first) if header else "no header line"
        raise InputError(f"{path}: no target column {target!r} (columns: {named})") from None
    if not -len(first) <= place < len(first):
        raise InputError(f"{path}: target column {place} is out of range; there are {len(first)} columns")
    return place % len(first)
