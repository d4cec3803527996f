"""The rows of each client as they are, whatever the layout: two problems are the same where these are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fedjax_lc.core.shares import Share, exchanged, here
from fedjax_lc.problems.features import Dense
from fedjax_lc.problems.ragged import Ragged


def digests(features: Any, targets: Any, weights: Any, sizes: np.ndarray) -> np.ndarray:
    """(n, 32) bytes for each client: a digest of its features, targets and row weights, without padding.

    Of several processes that wait for each other, each computes those of the clients that it holds.
    """
    return _of_all(_rows(features, _held(targets), _held(weights), sizes), len(sizes))


def of_rows(columns: Sequence[Any], sizes: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """The same of columns that hold client after client, from `starts` on, or (None) each client's rows apart."""
    held = [*map(_held, columns)]
    rows = ([column[i, :m] if starts is None else column[starts[i] : starts[i] + m] for column in held]
            for i, m in enumerate(sizes[here(len(sizes))]))  # fmt: skip
    return _of_all(rows, len(sizes))


def _of_all(clients: Iterable[Iterable[np.ndarray]], n: int) -> np.ndarray:
    each = [hashlib.sha256(b"".join(map(_digest, arrays))).digest() for arrays in clients]
    return exchanged(np.frombuffer(b"".join(each), np.uint8).reshape(-1, 32), n)


def _digest(array: np.ndarray) -> bytes:
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


def _held(array: Any) -> np.ndarray:
    return array.rows if isinstance(array, Share) else np.asarray(array)


def _rows(features: Any, targets: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """The arrays of each client that this process holds."""
    numbers = here(len(sizes))
    if isinstance(features, Dense | Ragged):
        if isinstance(features, Dense):
            matrices, first, total = _held(features.array), numbers, len(features.array)
        else:
            matrices = features.joined(_held(blocks.array) for blocks in features.blocks)
            first, total = np.asarray(features.first)[numbers], len(features.owners)
        flat = [table.reshape(-1, *table.shape[2:]) for table in (matrices, targets, weights)]
        starts = np.searchsorted(here(total), first) * matrices.shape[1]
        for start, m in zip(starts, sizes[numbers], strict=True):
            A, b, w = (table[start : start + m] for table in flat)
            yield A[:, : features.width], b, w
        return
    columns, values, owners = map(_held, (features.columns, features.values, features.owners))
    for i, m in enumerate(sizes[numbers]):
        entry = np.nonzero(values[i])
        yield owners[i][entry[0]], columns[i][entry], values[i][entry], targets[i, :m], weights[i, :m]
