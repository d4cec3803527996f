"""CSV text: cells between commas, semicolons or tabs, with or without a header line, as columns."""

from __future__ import annotations

import array
import csv
import functools
import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.columns import TARGETS, Columns, is_number
from fedjax_lc.data.files import check_memory, checked_lines

SEPARATORS = ",;\t"
_EMPTY = {"", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"}  #: cells without a value
_WORD = 70  # bytes of a short word and its place in a list


def columns(text: str, where: str, target: str | int | None = None) -> Columns:
    """The columns of CSV text; the first line is a header if it names the `target`, or reads like one (see `_header`).

    Raises InputError for rows of unequal length and for a quotation mark that is not closed.
    """
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    count = text.count("\n") + text.count("\r") + 1
    check_memory(where, 24 * (text.count(separator) + count) + 100 * count, f"its {count} rows of float64")
    numbers, lines, first, worded = array.array("d"), array.array("q"), list[str](), set[int]()
    for line, row in _rows(text, separator, where):
        first = first or row
        if len(row) != len(first):
            raise InputError(f"{where}, line {line}: {len(row)} columns, but the first line has {len(first)}")
        lines.append(line)
        for k in worded:  # whose numbers are words, too
            row[k] = "nan"
        try:
            numbers.extend([float(cell) for cell in row])
        except ValueError:
            numbers.extend([float(cell) if is_number(cell) else np.nan for cell in row])
            if len(lines) > 1:
                worded.update(k for k, cell in enumerate(row) if cell not in _EMPTY and not is_number(cell))
    if not first:
        raise InputError(f"{where}: the file is empty")
    strange = {k for k, cell in enumerate(first) if cell not in _EMPTY and not is_number(cell)}

    @functools.cache
    def words() -> dict[int, list[str]]:
        """The cells of the columns that hold words, those of the first line too."""
        kept = {k: list[str]() for k in sorted(worded | strange)}
        check_memory(where, _WORD * len(kept) * len(lines), f"the words of {len(kept)} columns")
        for _, row in _rows(text, separator, where):
            for k, column in kept.items():
                column.append(row[k])
        return kept

    start = int(_header(first, worded, target, lambda k: words()[k]))
    matrix = np.frombuffer(numbers).reshape(len(lines), -1)[start:]
    names = tuple(first) if start else ("",) * len(first)

    def cells(k: int) -> NDArray[np.float64] | NDArray[np.object_]:
        if k not in worded and (start or k not in strange):
            return matrix[:, k]
        return np.array([None if cell in _EMPTY else cell for cell in words()[k][start:]], dtype=object)

    def place(row: int, k: int) -> str:
        named = f" ({names[k]!r})" if names[k] else ""
        return f"{where}, line {lines[row + start]}, column {k + 1}{named}"

    return Columns(where, names, len(lines) - start, cells, place, header=bool(start))


def _rows(text: str, separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not blank."""
    reader = csv.reader(checked_lines(io.StringIO(text, newline=""), where), delimiter=separator)
    try:
        yield from ((reader.line_num, [cell.strip() for cell in row]) for row in reader if row)
    except csv.Error as error:
        raise InputError(
            f"{where}, line {reader.line_num}: not a row of cells ({error}); a quotation mark may not be closed"
        ) from None


def _header(first: list[str], worded: set[int], target: str | int | None, words: Callable[[int], list[str]]) -> bool:
    """Whether the first line names the columns.

    It does if it names the target. Else, a line with other numbers than 0, 1, 2, ... (what pandas calls columns without
    a name) is no header, and neither is one without a word, nor one whose words stand in most of their columns again.
    """
    if isinstance(target, str) and target in first:
        return True
    counted = [cell for cell in first if is_number(cell)]
    strange = [k for k, cell in enumerate(first) if cell not in _EMPTY and not is_number(cell)]
    if not strange or counted not in ([str(k) for k in range(len(counted))], [str(k + 1) for k in range(len(counted))]):
        return False
    if counted and all(k in worded for k in strange):  # words over words: a header only if it is a target's name
        return any(first[k].lower() in TARGETS and first[k] not in words(k)[1:] for k in strange)
    if any(k not in worded for k in strange):
        return True
    return 2 * sum(first[k] in words(k)[1:] for k in strange) <= len(strange)
