"""Reading CIFAR's "python version": pickled batches of images, and the names of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import pickles
from fedjax_lc.data.remote import File

_PIXELS = 32 * 32 * 3
_LONGEST_NAME = 100  # characters of a class


def content_of(file: File) -> dict[str, Any]:
    """The dict that a pickle of Python 2 or 3 holds, its keys as strings. Raises InputError if it holds no dict."""
    content = pickles.parse(file.content, file.where)
    if not isinstance(content, dict):
        raise InputError(f"{file.where}: holds a {type(content).__name__}, expected a dict; get the original file")
    return {_text(key): value for key, value in content.items()}


def batch(file: File, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) of one batch; `key` is "labels", "fine_labels" or "coarse_labels".

    Stored rows hold 1024 red, 1024 green, then 1024 blue values, each row-major. Raises InputError for a file that
    is no such batch.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the layout is that of
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    content = content_of(file)
    data, labels = _entry(content, "data", file), _entry(content, key, file)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"{file.where}: 'data' must be uint8 of shape (N, {_PIXELS}), got {got}")
    if type(labels) is not list or len(labels) != len(data):
        got = f"{len(labels)} entries" if type(labels) is list else type(labels).__name__
        raise InputError(f"{file.where}: {len(data)} images need a list of as many labels in {key!r}, got {got}")
    for place, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < 256:
            got = str(label)[:40] if type(label) is int else f"a {type(label).__name__}"
            raise InputError(f"{file.where}: label {place} in {key!r} must be a whole number in 0..255, got {got}")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def label_names(file: File, key: str) -> list[str]:
    """The names of the classes in a meta file, under `key`. Raises InputError if they are not there."""
    names = _entry(content_of(file), key, file)
    if type(names) is not list or not all(type(n) in (str, bytes) and len(n) <= _LONGEST_NAME for n in names):
        raise InputError(f"{file.where}: {key!r} must be a list of names of up to {_LONGEST_NAME} characters each")
    return [_text(name) for name in names]


def _text(word: str | bytes) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else word


def _entry(content: dict[str, Any], key: str, file: File) -> Any:
    if key not in content:
        raise InputError(
            f"{file.where}: has no {key!r} (it holds {', '.join(map(repr, content))}); get the original file"
        )
    return content[key]
