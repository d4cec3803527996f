"""A folder (or a zip archive) as data: pictures with one folder a class, LEAF's files, arrays, or tables called train
and test."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import axes, formats, leaf, named
from fedjax_lc.data.arrays import parse_npy
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.files import check_memory
from fedjax_lc.data.named import Arrays
from fedjax_lc.data.pieces import Piece
from fedjax_lc.data.sources import Source, listed
from fedjax_lc.data.tables import Table

Content = list[Piece] | Table | Dataset  # what a file or a folder holds
_TRAIN, _TEST, _VALID = {"train", "training"}, {"test", "testing"}, {"val", "valid", "validation"}
_PART = re.compile(r"(train|test)", re.IGNORECASE)
_TABLES = {end for name in ("CSV", "Parquet", "Arrow", "LIBSVM") for end in formats.KNOWN[name][0]}


def read(sources: Sequence[Source], where: str, name: str, one: Callable[[Source], Content]) -> Content:
    """What the files of a folder or an archive hold together.

    where, name: what messages and the data set are called; one: reads a single file. Raises InputError for a folder
    of several things, or of none that is known.
    """
    if not sources:
        raise InputError(f"{where}: holds no files; give a file, or a folder of {formats.known()}")
    kinds = [source.path.suffix.lower() for source in sources]
    if chosen := leaf.sources_of(sources):
        return leaf.read(chosen, name)
    tables = [source for source in sources if source.path.suffix.lower() in _TABLES]
    within = [len(source.path.parts) > 1 for source in sources if source.path.suffix.lower() in axes.ENDINGS]
    if any(within) or (within and not tables):
        return _pictures(sources, where)
    if ".npy" in kinds:
        return of_npy([source for source in sources if source.path.suffix == ".npy"], where)
    if len(tables) == 1 or len(sources) == 1:
        return one((tables or list(sources))[0])
    if tables:
        return _parts(tables, where, one)
    raise InputError(f"{where}: holds no data that are known ({listed(list(sources))}); read are {formats.known()}")


def of_npy(sources: Sequence[Source], where: str) -> list[Piece]:
    """Pieces of `.npy` files that are called as arrays of an `.npz` file are: X.npy and y.npy, x_train.npy, ..."""
    files = {source.path.stem: source for source in sources}
    picked = named.pick(files, lambda key: parse_npy(files[key].read(), files[key].where), where)
    return [Piece(part, test) for part, test in picked]


def beside(path: PurePosixPath, names: Sequence[str]) -> dict[str, str]:
    """Of the `.npy` files of a folder, those that belong to one of them: role name -> file name.

    A file called X.npy belongs with y.npy, a_X.npy with a_y.npy. Empty if the file's name has no role.

    >>> beside(PurePosixPath("toy_X.npy"), ["toy_X.npy", "toy_y.npy", "y.npy"])
    {'X': 'toy_X.npy', 'y': 'toy_y.npy'}
    """
    stem = path.stem
    cuts = [k for k in range(len(stem)) if (k == 0 or stem[k - 1] in "_-.") and named.role(stem[k:])]
    if not cuts:
        return {}
    before = stem[: cuts[0]]
    stems = [name.removesuffix(".npy") for name in names if name.endswith(".npy") and name.startswith(before)]
    return {stem[len(before) :]: f"{stem}.npy" for stem in stems if named.role(stem[len(before) :])}


def _parts(tables: Sequence[Source], where: str, one: Callable[[Source], Content]) -> list[Piece]:
    """Tables that are called train and test (and perhaps come in several files each)."""
    pieces: list[Piece] = []
    for source in tables:
        match = _PART.match(source.path.name) or next(filter(None, map(_PART.match, source.path.parts[:-1])), None)
        if match is None:
            raise InputError(
                f"{where}: holds several tables ({listed(list(tables))}); give one of them, or call the two parts of a "
                "data set train and test"
            )
        made = one(source)
        if not isinstance(made, list):
            raise InputError(f"{source.where}: a part of {where} that is no table of columns; give it alone")
        pieces += [piece._replace(test=match[0].lower() == "test") for piece in made]
    return pieces


def _pictures(sources: Sequence[Source], where: str) -> list[Piece]:
    """Pictures whose folder names their class; folders train and test above those name the part."""
    files = [source for source in sources if source.path.suffix.lower() in axes.ENDINGS]
    depth = min(len(source.path.parts) for source in files)
    if depth > 2 and len({source.path.parts[0] for source in files}) == 1:  # all within one folder
        files = [source._replace(path=PurePosixPath(*source.path.parts[1:])) for source in files]
    tops = {source.path.parts[0].lower() for source in files if len(source.path.parts) > 1}
    split = bool(tops) and tops <= _TRAIN | _TEST | _VALID and bool(tops & _TRAIN)
    held_out = _TEST if tops & _TEST else _VALID
    notes = [f"files that are no pictures, left out: {len(sources) - len(files)}"] * (len(files) < len(sources))
    aside = sorted(tops - _TRAIN - held_out) if split else []
    notes += [f"folders of neither part, left out: {', '.join(aside)}"] * bool(aside)
    parts: dict[bool, tuple[list[np.ndarray], list[str], list[str]]] = {}
    for source in files:
        folders = source.path.parts[:-1]
        part = folders[0].lower() if split else "train"
        if part not in _TRAIN | held_out:
            continue
        label = folders[int(split) :]
        if not label:
            raise InputError(
                f"{source.where}: a picture outside of the folders of classes; put it into one, as in cat/1.png"
            )
        picture = axes.decoded(source.read(), source.where)
        if not parts:
            check_memory(where, 2 * picture.nbytes * len(files), f"{len(files)} pictures and a copy")
        pictures, names, labels = parts.setdefault(part in held_out and split, ([], [], []))
        pictures.append(picture)
        names.append(source.where)
        labels.append("/".join(label))
    every = axes.stacked(
        [p for part in parts.values() for p in part[0]], [n for part in parts.values() for n in part[1]]
    )
    pieces, place = [], 0
    for test, (pictures, _, labels) in parts.items():
        rows = every[place : place + len(pictures)]
        place += len(pictures)
        pieces.append(Piece(Arrays(where, rows, np.array(labels, dtype=object), notes=tuple(notes)), test))
    return pieces
