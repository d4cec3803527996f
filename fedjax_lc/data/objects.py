"""Data sets of other packages in Python, known by what they can do: frames (pandas, polars, pyarrow), PyTorch's and
Hugging Face's data sets, mappings of arrays, pairs of training and test parts, and lists with one of these a client.

No other package is imported here: whoever holds such an object has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import arrow, named
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.columns import Columns
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.files import check_memory
from fedjax_lc.data.named import Arrays
from fedjax_lc.data.pieces import Piece, assembled, finished, summary
from fedjax_lc.data.sparse import is_sparse
from fedjax_lc.data.tables import Table

KINDS = (
    "a name, a file or folder, a Dataset, a pair (features, targets), a frame, a mapping of arrays, a data set of "
    "PyTorch or Hugging Face, or a list with one of these for each client"
)
_TEST, _TRAIN = ("test", "validation", "valid"), "train"


def from_object(
    data: Any, *, name: str = "", labels: Any = None, scale: str | None = None, how: Reading | None = None
) -> Dataset:
    """A checked `Dataset` of data that live in Python.

    data: a pair (features, targets); a frame (pandas, polars, pyarrow), whose target is a column; a mapping of arrays
        (X and y, x_train and y_test, ...) or of parts ({"train": ..., "test": ...}, as Hugging Face has them); a data
        set of PyTorch, whose rows are (features, target), or of Hugging Face (or a partition of flwr-datasets); a pair
        of pairs ((X, y), (X_test, y_test)), as Keras has them; or a list with one of these for each client, whose test
        rows are that client's.
    labels, scale: as in `from_arrays`.
    how: target, categories, missing, as in `load`.

    Raises InputError (one line) for anything else, and as `load` does.

    >>> from_object({"X": [[1.0], [2.0]], "y": [0, 1]}).targets.tolist()
    [-1.0, 1.0]
    """
    how = how or Reading()
    how.only(name or "data", ["target", "categories", "missing"])
    name = name or _kind(data)
    try:
        if isinstance(data, tuple) and len(data) == 2 and not all(map(_is_pair, data)):
            how.only(name, ["missing"])
            pair = Table(_array(data[0]), _array(data[1]))
            return finished(pair, name, labels, scale, how.missing)
        table = assembled(_pieces(data, name, how), how)
        made = finished(table, name, labels, scale, how.missing)
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; take fewer rows or columns") from None

    return dataclasses.replace(made, notes=(summary(made, table.said), *made.notes))


def client_rows(clients: Sequence[Any], test: Any = None) -> tuple[list[tuple[Any, Any]], Any]:
    """Features (m_i, ...) and targets (m_i,) of each client, and of its test rows or of one test part, for a network.

    clients: one of the kinds of `from_object` each; test: one of these for all, a list with one for each client, or
        None: the clients' test parts. Pictures keep their shape, and classes are counted alike in all of them.

    Raises InputError as `from_object` does.
    """
    parts: dict[str, Any] = {"train": list(clients)} | ({} if test is None else {"test": test})
    data = from_object(list(clients) if test is None else parts, name="clients")
    owners: Any = data.groups
    rows = [_as_rows(data, owners == i) for i in range(len(clients))]
    if data.test is None:
        return rows, None
    if test is not None and not isinstance(test, list):
        return rows, _as_rows(data.test, np.ones(len(data.test.targets), bool))
    owners = data.test.groups
    return rows, [_as_rows(data.test, owners == i) for i in range(len(clients))]


def _as_rows(data: Dataset, chosen: NDArray[np.bool_]) -> tuple[Any, Any]:
    features, targets = data.features[chosen], data.targets[chosen]
    shaped = features.reshape(-1, *data.shape) if data.shape else features
    return shaped, (targets > 0).astype(int) if data.task == "binary" else targets


def _kind(data: Any) -> str:
    plain: dict[type, str] = {tuple: "arrays", list: "clients", dict: "data"}
    return plain.get(type(data), type(data).__name__.lower())


def _pieces(data: Any, where: str, how: Reading, client: Hashable = None) -> list[Piece]:
    """The pieces of data of one client, or of none (None)."""
    if isinstance(data, Dataset):
        raise InputError(f"{where}: a Dataset is checked already; give it alone")
    if isinstance(data, Mapping) and _is_parts(data):
        test = next((part for part in _TEST if part in data), None)
        chosen = [(data[_TRAIN], False)] + ([] if test is None else [(data[test], True)])
        made = [(piece, test) for of, test in chosen for piece in _pieces(of, where, how, client)]
        return [piece._replace(test=test) for piece, test in made]
    if isinstance(data, tuple) and len(data) == 2 and all(_is_pair(part) for part in data):
        return _pieces({"train": data[0], "test": data[1]}, where, how, client)
    if isinstance(data, list):
        if not data:
            raise InputError(f"{where}: an empty list; give one data set for each client")
        if client is not None:
            raise InputError(f"{where}: lists within a list; give one data set for each client")
        return [piece for i, each in enumerate(data) for piece in _pieces(each, f"client {i}", how, client=i)]
    if isinstance(data, Mapping) and not hasattr(data, "iloc"):
        if _has_arrays(data):
            keys = {str(key): key for key in data}
            how.only(where, ["missing"])
            picked = named.pick(keys, lambda key: data[keys[key]], where)
            return [Piece(part, test, client) for part, test in picked]
        return [Piece(arrow.of_mapping(data, where, how), client=client)]
    return [Piece(_one(data, where, how), client=client)]


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and all(np.ndim(of) > 0 and len(of) for of in part)


def _is_parts(data: Mapping[Any, Any]) -> bool:
    return _TRAIN in data and not isinstance(data[_TRAIN], str | bytes)


def _has_arrays(data: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds features as one array of rows, and not each column of a table."""
    return any(
        (role := named.role(str(key))) and role.kind == "features" and (is_sparse(value) or np.ndim(value) > 1)
        for key, value in data.items()
    )


def _one(data: Any, where: str, how: Reading) -> Columns | Arrays:
    if isinstance(data, tuple) and len(data) == 2:
        how.only(where, ["missing"])
        if not all(hasattr(part, "__len__") for part in data):
            raise InputError(f"{where}: needs rows of features and as many targets, got {type(data[1]).__name__}")
        return Arrays(where, _array(data[0]), _array(data[1]))
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return arrow.of_frame(data, where, how)
    if hasattr(data, "column_names") and hasattr(data, "to_pylist"):
        return arrow.of_arrow(data, where, how)
    if hasattr(data, "column_names") and hasattr(data, "with_format"):
        return _hugging_face(data, where, how)
    if hasattr(data, "columns") and hasattr(data, "to_arrow"):  # polars
        return arrow.of_arrow(data.to_arrow(), where, how)
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise InputError(f"{where}: is a loader of batches; give its data set (loader.dataset)")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | np.ndarray):
        return _torch(data, where, how)
    raise InputError(f"data are {KINDS}, got {type(data).__name__}")


def _hugging_face(data: Any, where: str, how: Reading) -> Columns | Arrays:
    """The columns of a data set of Hugging Face; numbers of a ClassLabel become its names, and it is the target."""
    columns = dict(data.with_format(None)[:])
    classes = {name: of.names for name, of in data.features.items() if getattr(of, "names", None)}
    for name, names in classes.items():
        columns[name] = [None if code is None or code < 0 else names[code] for code in columns[name]]
    if how.target is None and len(classes) == 1:
        last = next(iter(classes))
        columns = {name: columns[name] for name in (*(c for c in columns if c != last), last)}
    return arrow.of_mapping(columns, where, how)


def _torch(data: Any, where: str, how: Reading) -> Columns | Arrays:
    """All rows of a data set of PyTorch; what its transforms draw at random is drawn once."""
    count = len(data)
    if not count:
        raise InputError(f"{where}: has no rows; leave such a client out")
    first = data[0]
    if isinstance(first, Mapping):
        rows = [data[i] for i in range(count)]
        return arrow.of_mapping({key: [_array(row[key]) for row in rows] for key in first}, where, how)
    if not (isinstance(first, tuple | list) and len(first) == 2):
        raise InputError(f"{where}: a row must be a pair (features, target), got {type(first).__name__}")
    how.only(where, ["missing"])
    check_memory(where, 2 * count * np.asarray(_array(first[0])).nbytes, f"its {count} rows and a copy")
    features, targets = [], []
    for i in range(count):
        x, y = data[i]
        features.append(np.asarray(_array(x)))
        targets.append(np.asarray(_array(y)))
        if features[-1].shape != features[0].shape or targets[-1].shape != targets[0].shape:
            shapes = [features[-1].shape, features[0].shape]
            raise InputError(f"{where}: row {i} has shape {shapes[0]}, but row 0 has {shapes[1]}: make all rows alike")
    table = np.stack(features)
    return Arrays(where, table[:, None] if table.ndim == 1 else table, np.stack(targets))


def _array(values: Any) -> Any:
    """Values as NumPy takes them: tensors leave their graph and device, pictures become arrays of bytes."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return np.asarray(values)
    return np.asarray(values) if hasattr(values, "convert") else values
