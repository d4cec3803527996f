"""The rows of each client as they are, whatever the layout: two problems are the same where these are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fedjax_lc.core.shares import exchanged, held, here
from fedjax_lc.problems.features import Sparse
from fedjax_lc.problems.ragged_sparse import RaggedSparse, matrices
from fedjax_lc.problems.tables import Tables


def digests(features: Any, targets: Any, weights: Any, sizes: np.ndarray) -> np.ndarray:
    """(n, 32) bytes for each client: a digest of its features, targets and row weights, without padding.

    Of several processes that wait for each other, each computes those of the clients that it holds.
    """
    return _of_all(_rows(features, held(targets), held(weights), sizes), len(sizes))


def of_rows(columns: Sequence[Any], sizes: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """The same of columns that hold client after client, from `starts` on, or (None) each client's rows apart."""
    columns = [*map(held, columns)]
    rows = ([column[i, :m] if starts is None else column[starts[i] : starts[i] + m] for column in columns]
            for i, m in enumerate(sizes[here(len(sizes))]))  # fmt: skip
    return _of_all(rows, len(sizes))


def _of_all(clients: Iterable[Iterable[np.ndarray]], n: int) -> np.ndarray:
    each = [hashlib.sha256(b"".join(map(_digest, arrays))).digest() for arrays in clients]
    return exchanged(np.frombuffer(b"".join(each), np.uint8).reshape(-1, 32), n)


def _digest(array: np.ndarray) -> bytes:
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


def _rows(features: Any, targets: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """The arrays of each client that this process holds."""
    numbers = here(len(sizes))
    tables = isinstance(features, Tables)
    first, total = (np.asarray(features.first)[numbers], len(features.owners)) if tables else (numbers, len(sizes))
    spans = list(zip(np.searchsorted(here(total), first) * targets.shape[1], sizes[numbers], strict=True))
    if isinstance(features, Sparse | RaggedSparse):
        parts: Iterable[tuple[np.ndarray, ...]] = map(_entries, matrices(features, sizes))
    else:
        array = features.joined(map(held, features.arrays)) if tables else held(features.array)
        dense = array.reshape(-1, array.shape[-1])
        parts = ((dense[start : start + m, : features.width],) for start, m in spans)
    targets, weights = targets.ravel(), weights.ravel()
    for part, (start, m) in zip(parts, spans, strict=True):
        yield *part, targets[start : start + m], weights[start : start + m]


def _entries(matrix: Any) -> tuple[np.ndarray, ...]:
    """Row, column and value of each entry of a CSR matrix."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    return rows, matrix.indices, matrix.data
