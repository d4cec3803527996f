"""LEAF's JSON: files {"users": [...], "user_data": {user: {"x": [...], "y": [...]}}}, one user is one client.

Source: Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import text
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.files import check_memory, decoded, refusing
from fedjax_lc.data.named import Arrays
from fedjax_lc.data.pieces import Piece
from fedjax_lc.data.sources import Source

_PARTS = ("train", "test")
_BYTES = 16  # of a number in a list of Python, for each of its characters at most
FEMNIST = 28 * 28  #: numbers of a row that is a picture of 28 x 28


def sources_of(sources: Sequence[Source]) -> list[tuple[Source, bool]]:
    """The JSON files of a folder of LEAF that count, and whether they are of the test part.

    Those in `train/` and `test/`, else those in `all_data/`, else those of the folder itself; in it or in its `data/`.
    """
    files = [source for source in sources if source.path.suffix.lower() == ".json"]
    for base in ((), ("data",)):
        chosen = [(s, s.path.parts[-2] == "test") for s in files if s.path.parts[:-1] in [(*base, p) for p in _PARTS]]
        if any(not test for _, test in chosen):
            return chosen
        for folder in ((*base, "all_data"), base):
            if chosen := [(source, False) for source in files if source.path.parts[:-1] == folder]:
                return chosen
    return []


def read(sources: Sequence[tuple[Source, bool]], name: str) -> list[Piece] | Dataset:
    """A piece for each user and part; of texts, the data set of their windows.

    Rows of 784 numbers, FEMNIST's, are pictures of 28 x 28. Raises InputError for a file of another form.
    """
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    pieces: list[Piece] = []
    for source, test in sources:
        content = source.read()
        check_memory(source.where, _BYTES * len(content), "its numbers")
        try:
            with refusing("it is cut off, or has another form"):
                users = text.leaf_rows(json.loads(decoded(content, source.where)))
                if any(isinstance(x, str) for of_user in users.values() for x in of_user["x"][:1]):
                    parts[test].append(text.leaf_users(users))
                else:
                    made = [(user, _arrays(of_user, source.where, user)) for user, of_user in users.items()]
                    pieces += [Piece(rows, test, user) for user, rows in made]
        except InputError as error:
            raise InputError(
                f"{source.where}: not a JSON file of LEAF ({error}); make it again by LEAF's preprocess.sh"
            ) from None
    if parts[0] or parts[1]:
        if pieces:
            raise InputError(f"{name}: some users have texts, others numbers; give files of one kind")
        return text.leaf_windows(parts, name)
    if not pieces:
        raise InputError(f"{name}: no user has rows; make the files again by LEAF's preprocess.sh")
    return pieces


def _arrays(rows: dict[str, Any], where: str, user: str) -> Arrays:
    with refusing(f"user {user!r}: x holds what is no number, or rows of several lengths"):
        features = np.array(rows["x"], np.float64)
        features = features[:, None] if features.ndim == 1 else features
    with refusing(f"user {user!r}: y holds what is no number or word"):
        targets = np.array(rows["y"])
    if len(features) != len(targets) or targets.ndim != 1 or targets.dtype.kind not in "biufU":
        raise InputError(f"user {user!r}: {len(features)} rows of x need as many numbers or words in y")
    if features.shape[1:] == (FEMNIST,):
        return Arrays(where, features.reshape(-1, 28, 28), targets, notes=("rows of 784 numbers are read as 28x28",))
    return Arrays(where, features, targets)
