"""Arrays with names, as `.npz` and `.mat` files, folders of `.npy` files and mappings in Python hold them: which are
the features, the targets and the client ids, of training and of test rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.sparse import as_csr, is_sparse

# The names of each kind of array, the best first.
FEATURES = ("features", "x", "images", "image", "data", "inputs", "imgs")
TARGETS = ("targets", "target", "y", "labels", "label", "class", "classes")
GROUPS = ("groups", "group", "clients", "client_ids", "users")
_KINDS = {"features": FEATURES, "targets": TARGETS, "groups": GROUPS}
_SPLITS = {"train": False, "training": False, "tr": False, "test": True, "testing": True, "te": True}
_SPLIT = "|".join(sorted(_SPLITS, key=len, reverse=True))
_NAME = re.compile(rf"(?P<split>{_SPLIT})_?(?P<what>\w+?)|(?P<what2>\w+?)_?(?P<split2>{_SPLIT})")
_NEEDED = "'features' and 'targets' (or 'X' and 'y', 'x_train' and 'y_train', 'images' and 'labels')"


class Arrays(NamedTuple):
    """Rows in arrays: features (N, ...), targets (N,) or one-hot (N, C), client ids (N,) or None."""

    where: str
    features: Any
    targets: Any
    groups: Any = None
    notes: tuple[str, ...] = ()


class Role(NamedTuple):
    """What an array holds by its name: features, targets or groups; whether of test rows; its rank among names."""

    kind: str
    test: bool
    rank: int


def role(name: str) -> Role | None:
    """The role of an array of this name, or None.

    >>> role("X"), role("y_test"), role("theta")
    (Role(kind='features', test=False, rank=1), Role(kind='targets', test=True, rank=2), None)
    """
    word = name.lower()
    if all(word not in names for names in _KINDS.values()) and (match := _NAME.fullmatch(word)):
        word, split = match["what"] or match["what2"], match["split"] or match["split2"]
    else:
        split = "train"
    kind = next((kind for kind, names in _KINDS.items() if word in names), None)
    return None if kind is None else Role(kind, _SPLITS[split], _KINDS[kind].index(word))


def pick(names: Iterable[str], read: Callable[[str], Any], where: str) -> list[tuple[Arrays, bool]]:
    """The training rows among arrays of these names, and the test rows if there are any (True beside them).

    read: the array of a name, called for those that are wanted. Raises InputError if features or targets are not there.
    """
    names = list(names)
    best: dict[tuple[str, bool], tuple[int, bool, str]] = {}
    for name in names:
        if (of := role(name)) is not None:
            rank = (of.rank, name in ("Y", "x"), name)  # X and y before x and Y, as NumPy's users write them
            best[of.kind, of.test] = min(best.get((of.kind, of.test), rank), rank)
    if ("features", False) not in best or ("targets", False) not in best:
        raise InputError(f"{where}: needs arrays {_NEEDED}, got {', '.join(map(repr, names[:20])) or 'none'}")
    parts = []
    for test in (False, True):
        if ("features", test) in best and ("targets", test) in best:
            wanted = [kind for kind in _KINDS if (kind, test) in best]
            parts.append((Arrays(where, **{kind: read(best[kind, test][2]) for kind in wanted}), test))
    return parts


def joined(parts: list[Arrays]) -> Arrays:
    """One part under the other. Raises InputError for rows of other shapes."""
    first = parts[0]
    if len(parts) == 1:
        return first
    for what in ("features", "targets"):
        shapes = [np.shape(getattr(part, what))[1:] for part in parts]
        if different := [k for k, shape in enumerate(shapes) if shape != shapes[0]]:
            raise InputError(
                f"{parts[different[0]].where}: {what} of shape {shapes[different[0]]} a row, but {first.where} has "
                f"{shapes[0]}: give all parts rows of one shape"
            )
    if any(is_sparse(part.features) for part in parts):
        from scipy.sparse import vstack

        features = vstack([as_csr(part.features) for part in parts], format="csr")
    else:
        features = np.concatenate([np.asarray(part.features) for part in parts])
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    groups = [part.groups for part in parts]
    every = None if any(each is None for each in groups) else np.concatenate([np.asarray(each) for each in groups])
    return Arrays(first.where, features, np.concatenate([np.asarray(part.targets) for part in parts]), every, notes)
