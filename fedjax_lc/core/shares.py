"""Data of clients that wait on the host, until a run places each client's on the devices that compute it.

Of several processes each makes and holds the rows of its own devices alone (`Share`). Numbers that need all clients,
such as sizes and smoothness constants, are exchanged, bit for bit.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fedjax_lc.core.devices import CLIENTS, padded, together
from fedjax_lc.core.errors import InputError

_waiting: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("fedjax_lc_data_wait", default=None)


@contextlib.contextmanager
def waiting(mesh: Mesh | None) -> Iterator[None]:
    """Within, data that are `stored` stay on the host, until a run places each client's on the devices of the mesh."""
    token = _waiting.set(mesh)
    try:
        yield
    finally:
        _waiting.reset(token)


def stored(array: Any, dtype: Any = None) -> Any:
    """Data of clients, on JAX's default device or, within `waiting`, in NumPy."""
    return jnp.asarray(array, dtype) if _waiting.get() is None else np.asarray(array, dtype)


def stored_rows(rows: Any, count: int, dtype: Any = None) -> Any:
    """An array (count, ...) that is `stored`, of which this process has the rows `here(count)`."""
    mesh = _waiting.get()
    if mesh is None or not mesh.is_multi_process:
        return stored(rows, dtype)
    return Share(np.asarray(rows, dtype), here(count), count)


class Share:
    """An array (count, ...) of which this process holds the rows of its devices alone.

    Attributes:
        rows: (k, ...) what it holds.
        numbers: (k,) which of the `count` rows these are, in increasing order.
        shape: that of the whole array.
    """

    def __init__(self, rows: np.ndarray, numbers: np.ndarray, count: int) -> None:
        self.rows, self.numbers, self.shape, self.dtype = rows, numbers, (count, *rows.shape[1:]), rows.dtype
        self.ndim = rows.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """Rows that this process holds.

        Raises:
            InputError: it does not hold them.
        """
        first, last, _ = wanted.indices(len(self))
        start, stop = np.searchsorted(self.numbers, (first, last))
        if stop - start < last - first:
            raise InputError("the data were made for other devices: give fl.problem and fl.run the same devices=")
        return self.rows[start:stop]


def held(array: Any) -> np.ndarray:
    """The rows of an array that this process holds."""
    return array.rows if isinstance(array, Share) else np.asarray(array)


# --- which rows, and what all processes know ---


def devices_waiting() -> int:
    """How many devices will share the clients of data that wait; 1 where none wait."""
    mesh = _waiting.get()
    return 1 if mesh is None else int(mesh.shape[CLIENTS])


def several() -> bool:
    """Whether the data wait for devices of several processes."""
    mesh = _waiting.get()
    return mesh is not None and mesh.is_multi_process


def here(count: int) -> np.ndarray:
    """(k,) the numbers of those of `count` rows that this process makes and holds: all, unless `several`."""
    return _of_process(jax.process_index(), count)


def _of_process(process: int, count: int) -> np.ndarray:
    mesh = _waiting.get()
    if mesh is None or not mesh.is_multi_process:
        return np.arange(count)
    each = padded(count, mesh) // mesh.shape[CLIENTS]
    places = np.array([device.process_index for device in mesh.devices.flat])
    rows = (np.flatnonzero(places == process)[:, None] * each + np.arange(each)).ravel()
    return rows[rows < count]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Work of each process on the rows that it holds: where it fails in one, all raise InputError."""
    with together(_waiting.get()) if several() else contextlib.nullcontext():
        yield


def exchanged(rows: np.ndarray, count: int) -> np.ndarray:
    """An array (count, ...), in every process, of which each has the rows `here(count)`."""
    if not several():
        return rows
    of = [_of_process(process, count) for process in range(jax.process_count())]
    sent = np.zeros((max(map(len, of)), *rows.shape[1:]), rows.dtype)
    sent[: len(rows)] = rows
    whole = np.zeros((count, *rows.shape[1:]), rows.dtype)
    for numbers, received in zip(of, of_each(sent), strict=True):
        whole[numbers] = received[: len(numbers)]
    return whole


def of_each(array: Any) -> np.ndarray:
    """(processes, ...) the array that each process has, bit for bit, whatever JAX's 64-bit mode."""
    array = np.asarray(array)
    if not several():
        return array[None]
    every = multihost_utils.process_allgather(np.frombuffer(array.tobytes(), np.uint8))
    return np.frombuffer(np.asarray(every).tobytes(), array.dtype).reshape(jax.process_count(), *array.shape)
