"""Reading files: packed ones, members of archives, tables (`.npz` and `.csv`); with one-line errors."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError

_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".bz2": bz2.decompress,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}


class Table(NamedTuple):
    """What a file holds, not yet checked: features (N, d), targets (N,), remarks, and client ids if it has any."""

    features: NDArray[Any]
    targets: NDArray[Any]
    notes: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None


def read_bytes(path: Path) -> bytes:
    """The content of a file, uncompressed if its name ends in .bz2, .gz or .xz.

    Raises InputError for a missing, unreadable, truncated or corrupt file.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return unpacked(content, path)


def unpacked(content: bytes, path: Path) -> bytes:
    """The content uncompressed if its path ends in .bz2, .gz or .xz. Raises InputError if it is corrupt."""
    unpack = _UNPACK.get(path.suffix)
    if unpack is None:
        return content
    try:
        return unpack(content)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        raise InputError(f"{path}: the {path.suffix} file is truncated or corrupt; copy or download it again") from None


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The content of files in a `.zip` or (packed) `.tar` archive, by their names without folders.

    Raises InputError for an archive that cannot be read, and if it lacks one of the files.
    """
    read = _zip_members if path.suffix == ".zip" else _tar_members
    try:
        contents = read(path, names)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile):
        raise InputError(f"{path}: the archive is truncated or corrupt; copy or download it again") from None
    for name in names:
        if name not in contents:
            raise InputError(f"{path}: the archive has no file {name}; copy or download it again")
    return contents


def _zip_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        inside = {PurePosixPath(name).name: name for name in archive.namelist()}
        return {name: archive.read(inside[name]) for name in names if name in inside}


def _tar_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if name in names else None
            if content is not None:
                contents[name] = content.read()
    return contents


def differ(kind: str, expected: str, got: str) -> str:
    """What to say of two checksums: nothing if they are equal."""
    return "" if got == expected else f"expected {kind} {expected[:12]}..., got {got[:12]}..."


def read_npz(path: Path) -> Table:
    """A `.npz` file with arrays `features` and `targets`, or `X` and `y` (or `Y`), and perhaps `groups`.

    Raises InputError if the arrays are not there or the file cannot be read.
    """
    content = read_bytes(path)
    try:
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, zlib.error):
        raise InputError(f"{path}: not a readable .npz file of plain arrays; save it with numpy.savez") from None
    for features, targets in (("features", "targets"), ("X", "y"), ("X", "Y")):
        if features in arrays and targets in arrays:
            return Table(arrays[features], arrays[targets], groups=arrays.get("groups"))
    raise InputError(
        f"{path}: needs arrays 'features' and 'targets' (or 'X' and 'y'), got {', '.join(map(repr, arrays)) or 'none'}"
    )


def read_csv(path: Path, target: str | int | None = None) -> Table:
    """A `.csv` file (separated by comma, semicolon or tab; with or without a header line).

    target: the target's column by name, or by place counted from 0 (negative: from the right); default: the last.
    Raises InputError for an unknown column, rows of unequal length, and cells that are not numbers.
    """
    lines, rows = _cells(path)
    header = _header(rows[0], target)
    place = _target_place(path, rows[0], header, target)
    body = list(zip(lines, rows, strict=True))[1 if header else 0 :]
    for line, row in body:
        if len(row) != len(rows[0]):
            raise InputError(f"{path}, line {line}: {len(row)} columns, but the first line has {len(rows[0])}")
    if not body or len(rows[0]) < 2:
        raise InputError(f"{path}: needs at least one row of data and two columns, the features and the target")
    words = np.array([row for _, row in body], dtype=str)
    features = np.delete(words, place, axis=1)
    try:
        return Table(features.astype(np.float64), words[:, place])
    except ValueError:
        raise _bad_cell(path, body, place) from None


def _cells(path: Path) -> tuple[list[int], list[list[str]]]:
    """Line numbers and cells of the lines that are not blank."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    if not numbered:
        raise InputError(f"{path}: the file is empty")
    return [line for line, _ in numbered], [row for _, row in numbered]


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


def _bad_cell(path: Path, body: list[tuple[int, list[str]]], place: int) -> InputError:
    for line, row in body:
        for column, cell in enumerate(row):
            if column != place and not _is_number(cell):
                where = f"{path}, line {line}, column {column + 1}"
                return InputError(f"{where}: {cell!r} is not a number; fill empty cells and encode words as numbers")
    raise AssertionError("unreachable: some cell is not a number")
