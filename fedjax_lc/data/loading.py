"""`load`: one call for all sets by name, and for files of the user."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.paths import user_path
from fedjax_lc.data import formats, libsvm, synthetic
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.catalogue import CATALOGUE, Entry
from fedjax_lc.data.dataset import Dataset, from_arrays
from fedjax_lc.data.download import local_folder, obtain
from fedjax_lc.data.files import PACKED
from fedjax_lc.data.images import IMAGES
from fedjax_lc.data.reading import from_file
from fedjax_lc.data.tables import Table
from fedjax_lc.data.text import TEXTS

# Our name -> (scikit-learn's loader, its options, how targets are read).
EMBEDDED: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "breast_cancer": ("load_breast_cancer", {}, "benign"),
    "digits": ("load_digits", {}, "multiclass"),
    "wine": ("load_wine", {}, "multiclass"),
    "iris": ("load_iris", {}, "multiclass"),
    "diabetes_regression": ("load_diabetes", {"scaled": False}, "regression"),
}
_SHAPES = {"digits": (8, 8, 1)}  # of embedded images
_FINISHED = IMAGES | TEXTS  # sets whose loaders return a checked data set
_FILE_ENDINGS = {*PACKED, ".zip", ".txt", ".data", *(end for ends, _ in formats.KNOWN.values() for end in ends)}


def names() -> list[str]:
    """Every name that `load` knows: embedded, synthetic, images, texts, then the LIBSVM sets."""
    return list(described())


def described() -> dict[str, tuple[str, str]]:
    """Of each name, what kind of set it is, and what it holds in one line."""
    functions = {"synthetic": synthetic.GENERATORS, "images": IMAGES, "text": TEXTS}
    return {
        **{name: ("embedded", f"scikit-learn's {loader}") for name, (loader, _, _) in EMBEDDED.items()},
        **{name: (kind, _first_line(function)) for kind, made in functions.items() for name, function in made.items()},
        **{name: ("LIBSVM", f"{e.task}, {e.rows} x {e.features}") for name, e in CATALOGUE.items()},
    }


def _first_line(function: Callable[..., Dataset]) -> str:
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    n_features: int | str | None = None,
    scale: str | None = None,
    labels: Any = None,
    target: str | int | None = None,
    download: bool = True,
    categories: str | None = None,
    missing: str | None = None,
    allow: str | Sequence[str] = (),
) -> Dataset:
    """A data set by name, or from a file or folder.

    name_or_path: a name of `names()`, with options if it has any ("synthetic_logistic:num_clients=20,seed=1",
        "emnist:balanced", "shakespeare:seq_len=40"); or a path of one of `formats.KNOWN`: CSV, Parquet, Arrow, LIBSVM
        text, `.npz`, `X.npy` beside `y.npy`, `.mat`, LEAF's JSON, a folder of pictures; packed by gz, bz2, xz or zip
        too. Texts are in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.
    data_dir: a folder to look for known sets in (itself, `libsvm/`, `mnist/`, `cifar10/`, ...); default:
        FEDJAX_LC_DATA.
    n_features: columns of a LIBSVM file; default: the declared number of a known set, else the largest index;
        "file": the largest index in any case.
    scale: None, or one of "none", "standard", "minmax", "maxabs", "unit" (see `scalings`).
    labels: how targets are read, see `from_arrays`; one label or a list of labels become +1, all others -1.
    target: the target's column of a table, by name or place; default: the first of target, label, class and y that is
        there, else the last.
    download: whether a known set that is not on this machine may be fetched into the cache.
    categories: what becomes of words in a table, "onehot" or "codes"; default: they are refused.
    missing: what becomes of empty cells, "mean" (of their column) or "drop" (of the row); default: they are refused.
    allow: irregularities of LIBSVM text that are read: "zero", "unsorted", "repeated", "qid" (see `asked.Reading`).

    The first note of a table says which target was taken, and how many rows, features and classes there are.

    Raises InputError (one line) for an unknown name, a missing, truncated or corrupt file, a wrong checksum, and
    for data that cannot be used (see `from_arrays`). A wrong checksum of an image or text file in the folder of
    local files is a note instead: it cannot be loaded by its path.

    >>> load("iris", labels="versicolor", scale="standard")  # doctest: +SKIP
    Dataset('iris', binary, 150 x 4, classes=('setosa|virginica', 'versicolor'))
    """
    text = os.fspath(name_or_path)
    try:
        how = Reading(target, categories, missing, allow, n_features)
        return _loaded(text, data_dir, scale, labels, download, how)
    except MemoryError:
        raise InputError(f"{text}: does not fit into memory; take fewer rows or columns") from None


def _loaded(
    text: str, data_dir: str | os.PathLike[str] | None, scale: str | None, labels: Any, download: bool, how: Reading
) -> Dataset:
    path = _file(text, data_dir)
    if path is not None:
        return from_file(path, how, labels, scale)
    how.only(text, ["n_features"] if text in CATALOGUE else [])
    if text.partition(":")[0] in _FINISHED:
        return _finished(text, data_dir, download, labels, scale)
    if text in CATALOGUE:
        table, guess = _known(CATALOGUE[text], data_dir, how.n_features, download)
    elif text in EMBEDDED:
        table, guess = _embedded(text)
    else:
        table, guess = _synthetic(text)
    return from_arrays(
        table.features,
        table.targets,
        name=text,
        labels=guess if labels is None else labels,
        scale=scale,
        groups=table.groups,
        notes=table.notes,
        shape=_SHAPES.get(text, ()),
    )


def _file(text: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The path of a file that is not known by name; None for a known name. Raises InputError if there is neither."""
    name = text.partition(":")[0]
    if text in CATALOGUE or text in EMBEDDED or name in synthetic.GENERATORS | _FINISHED:
        return None
    path = user_path(text)
    if path.exists() and text:
        return path
    if path.suffix in _FILE_ENDINGS or os.sep in text:
        raise InputError(f"{text}: no such file")
    folder = local_folder(data_dir)
    known = libsvm.find(text, folder) if folder else None
    if known is None:
        raise unknown("data set", text, names())
    return known


Read = tuple[Table, str | None]  # a table, and how its targets are to be read (None: guess)


def _known(entry: Entry, data_dir: str | os.PathLike[str] | None, n_features: int | str | None, download: bool) -> Read:
    columns = libsvm.columns(n_features, entry.features)
    path = obtain(entry, data_dir, download)
    table = libsvm.read(path, columns)
    if len(table.targets) != entry.rows:
        raise InputError(
            f"{path}: {len(table.targets)} rows, but {entry.name!r} has {entry.rows}; the file is cut off or another "
            "set: delete it to fetch it again, or give its path to load it as your own data"
        )
    # With the right number of rows, a missing line break at the end is no sign of a file cut off.
    return table._replace(notes=()), None if entry.task == "binary" else entry.task


def _finished(text: str, data_dir: Any, download: bool, labels: Any, scale: str | None) -> Dataset:
    name, options = spec.call("data set", text, _FINISHED, hidden=("data_dir", "download"))
    data = _FINISHED[name](**options, data_dir=data_dir, download=download)
    if labels is not None and not (isinstance(labels, str) and labels == "multiclass"):
        data = data.binary(labels)
    return data.scaled(scale)


def _embedded(name: str) -> Read:
    import sklearn.datasets

    loader, options, task = EMBEDDED[name]
    bunch: Any = getattr(sklearn.datasets, loader)(**options)
    named = bunch.target if task == "regression" else np.asarray(bunch.target_names)[bunch.target]
    return Table(bunch.data, named), task


def _synthetic(text: str) -> Read:
    made = synthetic.generate(text)
    return Table(made.features, made.targets, groups=made.groups), None if made.task == "binary" else made.task
