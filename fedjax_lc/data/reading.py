"""One call for every file and folder of a user: what it holds is recognised, read, and said in the first note."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import arrow, delimited, folders, formats, leaf, libsvm, mat, named, sources
from fedjax_lc.data.arrays import parse_npy, read_npz
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.files import decoded
from fedjax_lc.data.folders import Content
from fedjax_lc.data.pieces import Piece, assembled, finished, summary
from fedjax_lc.data.sources import Source
from fedjax_lc.data.tables import Table

_TABLE = ("target", "categories", "missing")


def from_file(path: Path, how: Reading, labels: Any = None, scale: str | None = None) -> Dataset:
    """The checked data set of a file or folder; its first note says what was read as what.

    Raises InputError for a file that is no data, or of a format that is not read (which it names), for options that do
    not apply, and as `from_arrays` does.
    """
    held = _folder(path, how) if path.is_dir() else _file(path, how)
    name = path.name or path.resolve().name
    if isinstance(held, Dataset):
        how.only(name)
        if labels is not None and not (isinstance(labels, str) and labels == "multiclass"):
            held = held.binary(labels)
        return held.scaled(scale)
    table = held if isinstance(held, Table) else assembled(held, how)
    missing = how.missing if isinstance(held, list) else None
    data = finished(table, name, labels, scale, missing)
    return dataclasses.replace(data, notes=(summary(data, table.said), *data.notes))


def _folder(path: Path, how: Reading) -> Content:
    return folders.read(sources.of_folder(path), str(path), path.name, lambda source: _source(source, how))


def _file(path: Path, how: Reading) -> Content:
    if path.suffix.lower() == ".npz":
        how.only(path.name, ["missing"])
        return _npz(path)
    if sources.is_zip(path) or path.suffix.lower() == ".zip":
        damage = f"{path}: the archive is truncated or corrupt; copy or download it again"
        inside = sources.of_zip(path, damage)
        formats.zipped(inside, str(path))
        return folders.read(inside, str(path), path.name, lambda source: _source(source, how))
    source = sources.of_file(path)
    if source.path.suffix.lower() == ".npy":
        how.only(path.name, ["missing"])
        return _npy(path)
    return _source(source, how)


def _source(source: Source, how: Reading) -> Content:
    """What a single file holds."""
    content, where = source.read(), source.where
    kind = formats.recognised(source, content)
    known = {"LIBSVM": ("n_features", "allow"), "MATLAB": ("missing",), "NumPy": ("missing",), "LEAF": ("missing",)}
    how.only(source.path.name, known.get(kind, _TABLE))
    if kind == "LIBSVM":
        return libsvm.parse(content, where, libsvm.columns(how.n_features), how.allow)
    if kind == "LEAF":
        return leaf.read([(source._replace(read=lambda: content), False)], source.path.name)
    if kind == "MATLAB":
        return [Piece(part, test) for part, test in mat.read(content, where)]
    if kind == "NumPy":
        shape = parse_npy(content, where).shape
        raise InputError(
            f"{where}: holds one array of shape {shape}; put the targets beside it (X.npy and y.npy), or both into one "
            "file by numpy.savez(path, X=..., y=...)"
        )
    if kind == "Parquet":
        return [Piece(arrow.read_parquet(content, where, how))]
    if kind == "Arrow":
        return [Piece(arrow.read_arrow(content, where, how))]
    return [Piece(delimited.columns(decoded(content, where), where, how.target))]


def _npz(path: Path) -> list[Piece]:
    arrays, names = read_npz(path, lambda name: named.role(name) is not None)
    return [Piece(part, test) for part, test in named.pick(names, lambda name: arrays[name], str(path))]


def _npy(path: Path) -> list[Piece]:
    """The arrays of a `.npy` file and of those that belong to it; see `folders.beside`."""
    chosen = folders.beside(sources.of_file(path).path, sorted(each.name for each in path.parent.glob("*.npy")))
    files = [sources.of_file(path.parent / name) for name in chosen.values()]
    renamed = [
        source._replace(path=source.path.with_name(f"{role}.npy")) for role, source in zip(chosen, files, strict=True)
    ]
    if not renamed or len(renamed) == 1:
        return _source(sources.of_file(path), Reading())  # type: ignore[return-value]  # which says what is missing
    return folders.of_npy(renamed, str(path))
