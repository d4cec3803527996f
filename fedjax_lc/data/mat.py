"""Reading MATLAB's `.mat` files (level 5, as `save -v6` and `-v7` write them): plain and sparse matrices of numbers.

SciPy reads the matrices; before, every size that the file claims is compared with the bytes that are there.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import named
from fedjax_lc.data.files import MOST_UNPACKED, check_memory, refusing
from fedjax_lc.data.named import Arrays

_HEAD = 128
_MATRIX, _PACKED = 14, 15
_CHARACTERS, _SPARSE, _NUMBERS = 4, 5, range(6, 16)  # classes of arrays
_COMPLEX = 0x0800
_MOST_PARTS = 8  # of a matrix; sparse ones have six
_LEAST_LIMIT = 1 << 20


def read(content: bytes, where: str) -> list[tuple[Arrays, bool]]:
    """The training rows, and the test rows if there are any (True beside them), of the matrices of a file.

    Matrices whose last axis counts the targets, as MATLAB stores pictures, are turned. Raises InputError for a damaged
    file, and if features or targets are not there (see `named.pick`).
    """
    import scipy.io

    damage = f"{where}: the .mat file is truncated or corrupt; copy it again, or save it with -v7"
    with refusing(damage):
        order, matrices = _unpacked(content, where, damage)
    plain = content[:_HEAD] + b"".join(struct.pack(f"{order}II", _MATRIX, len(m)) + m for m in matrices.values())

    def one(name: str) -> Any:
        with refusing(damage):
            return scipy.io.loadmat(io.BytesIO(plain), variable_names=[name], spmatrix=False)[name]

    return [(_turned(part), test) for part, test in named.pick(matrices, one, where)]


def _turned(part: Arrays) -> Arrays:
    targets = np.asarray(part.targets)
    if targets.ndim == 2 and 1 in targets.shape:
        targets = targets.ravel()
    features, rows = part.features, len(targets)
    if features.shape[0] != rows and features.shape[-1] == rows:
        features = features.T if features.ndim == 2 else np.moveaxis(features, -1, 0)
        return part._replace(features=features, targets=targets, notes=("rows of features are along their last axis",))
    return part._replace(targets=targets)


def _unpacked(content: bytes, where: str, damage: str) -> tuple[str, dict[str, bytes]]:
    """The order of bytes, and the matrices of numbers by name, unpacked; others are passed over."""
    order = {b"IM": "<", b"MI": ">"}[content[126:128]]
    matrices = {}
    for kind, element in _elements(content[_HEAD:], order):
        if kind == _PACKED:
            stream = zlib.decompressobj()
            most = MOST_UNPACKED * len(element) + _LEAST_LIMIT
            check_memory(where, 2 * min(most, 64 * len(element)), "an unpacked matrix")
            whole = stream.decompress(element, most)
            if stream.unconsumed_tail or not stream.eof:
                raise InputError(damage)
            ((kind, element),) = _elements(whole, order)
        if kind == _MATRIX and (name := _name(element, order, where)):
            matrices[name] = element
    return order, matrices


def _name(element: bytes, order: str, where: str) -> str:
    """The name of a matrix whose parts hold as many bytes as its size needs; "" for one that is not of numbers."""
    parts = [*itertools.islice(_elements(element, order), _MOST_PARTS)]
    (flags,) = struct.unpack(f"{order}I", parts[0][1][:4])
    kind = flags & 0xFF
    if kind not in (_SPARSE, *_NUMBERS):
        return ""
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    name = parts[2][1].decode("ascii")
    if flags & _COMPLEX:
        raise InputError(f"{where}: {name} holds complex numbers; save real and imaginary parts as columns")
    size = int(np.prod(np.array(shape, dtype=object)))
    if min(shape) < 0 or (kind != _SPARSE and (len(parts) != 4 or _count(parts[3]) != size)):
        raise ValueError
    if kind == _SPARSE:
        _check_sparse(shape, parts[3:], order)
    return name


def _check_sparse(shape: tuple[int, ...], parts: list[tuple[int, bytes]], order: str) -> None:
    """Raise ValueError unless the rows, the starts of columns and the entries of a sparse matrix fit its shape."""
    rows, starts = (np.frombuffer(part[1], f"{order}i4") for part in parts[:2])
    if len(shape) != 2 or len(starts) != shape[1] + 1 or starts[0] != 0 or np.any(np.diff(starts) < 0):
        raise ValueError
    rows = rows[: starts[-1]]
    if min(len(rows), _count(parts[2])) < starts[-1] or np.any((rows < 0) | (rows >= shape[0])):
        raise ValueError


_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}


def _count(part: tuple[int, bytes]) -> int:
    return len(part[1]) // _BYTES[part[0]]


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The kind and the bytes of one element after the other; raises ValueError for one that is cut off."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # a small element: its bytes lie in its head
            kind, size = kind & 0xFFFF, kind >> 16
            start, place = place + 4, place + 8
            if size > 4:
                raise ValueError
        else:
            start = place + 8
            place = start + size + (-size % 8 if kind != _PACKED else 0)
        if start + size > len(content):
            raise ValueError
        yield kind, content[start : start + size]
