"""Reading CIFAR's "python version": pickled batches, opened without running anything that a pickle may hold."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.remote import File

_PIXELS = 32 * 32 * 3


class _Refused(Exception):
    """What a pickle asks for and may not have."""


def _latin1(text: str, encoding: str) -> bytes:
    """What stands for bytes in old pickles that Python 3 wrote."""
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding}")
    return text.encode("latin1")


# An array names the functions that rebuild it; asking it for them needs no private module.
_REBUILD: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
_FROM_BUFFER: Callable[..., Any] = np.empty(0).__reduce_ex__(5)[0]  # type: ignore[assignment]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _REBUILD for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
}


class _Plain(pickle.Unpickler):
    """Builds arrays, dicts, lists, bytes, strings and numbers; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def unpickle(file: File) -> dict[str, Any]:
    """The dict that a pickle of Python 2 or 3 holds, its keys as strings.

    Raises InputError for anything but a dict of arrays, lists, bytes, strings and numbers; nothing else is run.
    """
    try:
        content = _Plain(io.BytesIO(file.content), encoding="bytes").load()
    except _Refused as error:
        raise InputError(
            f"{file.where}: not a pickle of plain data (it asks for {error}); get the original file"
        ) from None
    # A damaged stream of opcodes may fail in any way.
    except Exception:
        raise InputError(f"{file.where}: the pickle is truncated or corrupt; copy or download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{file.where}: holds a {type(content).__name__}, expected a dict; get the original file")
    word = lambda key: key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    return {word(key): value for key, value in content.items()}


def batch(file: File, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) of one batch; `key` is "labels", "fine_labels" or "coarse_labels".

    Stored rows hold 1024 red, 1024 green, then 1024 blue values, each row-major. Raises InputError for a file that
    is no such batch.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the layout is that of
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    content = unpickle(file)
    data, labels = _entry(content, "data", file), np.asarray(_entry(content, key, file), dtype=object)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"{file.where}: 'data' must be uint8 of shape (N, {_PIXELS}), got {got}")
    if labels.shape != data.shape[:1] or not all(isinstance(label, int | np.integer) for label in labels):
        raise InputError(
            f"{file.where}: {len(data)} images need as many whole numbers in {key!r}, got {str(labels)[:40]!r}"
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def label_names(file: File, key: str) -> list[str]:
    """The names of the classes in a meta file, under `key`. Raises InputError if they are not there."""
    names = _entry(unpickle(file), key, file)
    if not isinstance(names, list):
        raise InputError(f"{file.where}: {key!r} must be a list of names, got {str(names)[:40]!r}")
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names]


def _entry(content: dict[str, Any], key: str, file: File) -> Any:
    if key not in content:
        raise InputError(
            f"{file.where}: has no {key!r} (it holds {', '.join(map(repr, content))}); get the original file"
        )
    return content[key]
