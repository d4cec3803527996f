"""Columns of Parquet files, of Arrow (Feather) files and of frames in Python: pandas, polars, pyarrow."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import ipc
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.axes import decoded, stacked
from fedjax_lc.data.columns import Columns, as_cells, find_target
from fedjax_lc.data.files import MOST_UNPACKED, check_memory
from fedjax_lc.data.named import Arrays

_LEAST_LIMIT = 1 << 20


def read_parquet(content: bytes, where: str, how: Reading) -> Columns | Arrays:
    """The columns of a Parquet file; see `of_values`.

    Raises InputError for a damaged file, and for one whose head claims more cells than its bytes can hold.
    """
    import pyarrow.parquet

    def read() -> Any:
        # Words stay codes of a dictionary, so that one long word in many rows is held once. Of the head, only numbers
        # of rows and columns are asked for: what it says of single columns may end the process.
        schema = pyarrow.parquet.read_schema(io.BytesIO(content))
        words = [name for name, kind in zip(schema.names, schema.types, strict=True) if _is_words(kind)]
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content), read_dictionary=words)
        _check_size(where, content, file.metadata.num_rows, file.metadata.num_columns)
        return file.read(use_threads=False)

    return of_arrow(_guarded(read, where, "Parquet"), where, how)


def read_arrow(content: bytes, where: str, how: Reading) -> Columns | Arrays:
    """The columns of an Arrow file or stream; see `of_values`. Raises InputError for a damaged file."""
    import pyarrow.ipc

    def read() -> Any:
        _check_size(where, content, ipc.claimed(content) // 8, 1)
        opened = pyarrow.ipc.open_file if content.startswith(b"ARROW1") else pyarrow.ipc.open_stream
        with opened(pyarrow.BufferReader(content), options=pyarrow.ipc.IpcReadOptions(use_threads=False)) as reader:
            return reader.read_all()

    return of_arrow(_guarded(read, where, "Arrow"), where, how)


def _check_size(where: str, content: bytes, rows: int, width: int) -> None:
    if not 0 <= rows * max(width, 1) <= MOST_UNPACKED * len(content) + _LEAST_LIMIT:
        raise InputError(f"{where}: claims {rows} rows of {width} columns in {len(content)} bytes; save it again")
    check_memory(where, 24 * rows * width, f"{rows} x {width} cells")


def _guarded(read: Any, where: str, what: str) -> Any:
    """The table that `read` gives, whose buffers are checked; damage of any kind becomes an InputError."""
    try:
        table = read()
        table.validate(full=True)
    except InputError:
        raise
    # A size was checked before, so that a lack of memory is damage, too.
    except Exception as error:
        lacks = " (packed by a codec that this pyarrow lacks)" if "codec" in str(error).lower() else ""
        raise InputError(
            f"{where}: the {what} file is truncated or corrupt{lacks}; copy or download it again"
        ) from None
    return table


def of_arrow(table: Any, where: str, how: Reading) -> Columns | Arrays:
    """The columns of a `pyarrow.Table`."""
    values = [(name, lambda k=k: _arrow_values(table.column(k))) for k, name in enumerate(table.column_names)]
    return of_values(values, table.num_rows, where, how)


def _is_words(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind)


def _arrow_values(column: Any) -> Any:
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        parts = [_of_codes(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=object)
    if kinds.is_floating(column.type) or kinds.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def _of_codes(chunk: Any) -> Any:
    """The values of a dictionary array, of which each word is held once."""
    words = np.array([*chunk.dictionary.to_pylist(), None], dtype=object)
    return words[chunk.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]


def of_frame(frame: Any, where: str, how: Reading) -> Columns | Arrays:
    """The columns of a pandas frame, by place; its index is no column."""

    def one(k: int) -> Any:
        column = frame.iloc[:, k]
        kind = column.dtype
        if getattr(kind, "kind", "O") in "biuf" and not isinstance(kind, np.dtype):  # pandas' numbers that may lack
            return column.to_numpy(np.float64, na_value=np.nan)
        return column.to_numpy() if isinstance(kind, np.dtype) else column.to_numpy(dtype=object, na_value=None)

    values = [(str(name), lambda k=k: one(k)) for k, name in enumerate(frame.columns)]
    return of_values(values, len(frame), where, how)


def of_mapping(columns: Mapping[str, Any], where: str, how: Reading) -> Columns | Arrays:
    """The columns of a mapping from names to N values each, as Hugging Face data sets have them."""
    values = [(str(name), lambda name=name: columns[name]) for name in columns]
    rows = len(next(iter(columns.values()))) if columns else 0
    return of_values(values, rows, where, how)


def of_values(values: list[tuple[str, Any]], rows: int, where: str, how: Reading) -> Columns | Arrays:
    """Columns from names and functions that give the N values of each.

    Where one column holds pictures (Pillow's, arrays, or bytes of files), they are the features and the other columns
    but the target are left out, with a note; where it holds lists of numbers of one length, these are columns.
    """
    columns: list[tuple[str, Any]] = []
    pictures: list[tuple[str, Any]] = []
    for name, read in values:
        made = _column(read(), where, name)
        if made.ndim > 2:
            pictures.append((name, made))
        elif made.ndim == 2:
            columns += [(f"{name}[{k}]", made[:, k]) for k in range(made.shape[1])]
        else:
            columns.append((name, made))
    names = tuple(name for name, _ in columns)

    def place(row: int, k: int) -> str:
        return f"{where}: row {row + 1}, column {names[k]!r}"

    def cells(k: int) -> Any:
        return as_cells(columns[k][1], f"{where}: column {names[k]!r}")

    plain = Columns(where, names, rows, cells, place)
    return plain if not pictures else _of_pictures(pictures, plain, how)


def _of_pictures(pictures: list[tuple[str, Any]], others: Columns, how: Reading) -> Arrays:
    """One column of pictures as features, and one of the others as the target."""
    if len(pictures) > 1:
        raise InputError(
            f"{others.where}: columns {', '.join(repr(name) for name, _ in pictures)} all hold pictures; keep one"
        )
    if not others.names:
        raise InputError(f"{others.where}: has no column of targets beside {pictures[0][0]!r}; add one")
    target, said = find_target(others, how.target)
    left = [name for k, name in enumerate(others.names) if k != target]
    notes = [f"pictures are column {pictures[0][0]!r}, {said}"]
    notes += [f"columns {', '.join(left)} are left out beside the pictures"] * bool(left)
    return Arrays(others.where, pictures[0][1], others.cells(target), notes=tuple(notes))


def _column(values: Any, where: str, name: str) -> Any:
    """The N values as an array: one axis for numbers and words, two for lists of numbers, more for pictures."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    first = next((value for value in values if value is not None), None)
    if first is None or isinstance(first, str | bytes | bool | int | float | np.generic):
        return np.fromiter(values, dtype=object, count=len(values))
    called = f"{where}: column {name!r}"
    if isinstance(first, Mapping) and "bytes" in first:
        files: list[Any] = [value["bytes"] if value else None for value in values]
        if any(not isinstance(file, bytes) for file in files):
            raise InputError(f"{called}: a picture has no bytes; save pictures into the file")
        rows = [f"{called}, row {k + 1}" for k in range(len(files))]
        return stacked([decoded(file, row) for file, row in zip(files, rows, strict=True)], rows)
    if hasattr(first, "convert") and hasattr(first, "getbands"):  # Pillow's
        grey = all(value.mode in ("1", "L") for value in values)
        made = [np.asarray(value.convert("L" if grey else "RGB")) for value in values]
        return stacked(
            [each.reshape(*each.shape[:2], -1) for each in made], [f"{called}, row {k + 1}" for k in range(len(made))]
        )
    if isinstance(first, list | tuple | np.ndarray):
        try:
            return np.array([np.asarray(value, np.float64) for value in values], np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{called}: lists of several lengths, or not of numbers; make columns of them") from None
    return np.fromiter(values, dtype=object, count=len(values))
