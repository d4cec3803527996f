"""Reading NumPy's files `.npy` and `.npz`, with plain numbers and words only, and no larger than the file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.files import opened_zip, refusing, zip_member

_LONGEST_HEAD = 1000  # bytes of the literal that says type and shape
_LAST_CHARACTER = 0x10FFFF
_HALVES = (0xD800, 0xDFFF)  # no characters of their own
_NEEDS = "needs real numbers, whole numbers or words"


def parse_npy(content: bytes, where: str) -> NDArray[Any]:
    """The array of a `.npy` file. Raises InputError for one that is cut off or holds anything but numbers and words.

    Source: NumPy, numpy.lib.format (version 1.0 and 2.0).
    """
    damage = f"{where}: not a readable .npy file of plain arrays; save it with numpy.save"
    file = io.BytesIO(content)
    with refusing(damage):
        head = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = head[version[0] - 1](file, max_header_size=_LONGEST_HEAD)
    if dtype.kind == "c":
        raise InputError(f"{where}: holds complex numbers, but {_NEEDS}; save real and imaginary parts as columns")
    if dtype.hasobject or dtype.kind not in "biufSU" or dtype.itemsize == 0 or dtype == np.longdouble != np.double:
        raise InputError(f"{where}: holds entries of type {dtype}, but {_NEEDS}; save it as one of these")
    size, got = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if min(shape, default=0) < 0 or len(shape) > 32 or any(isinstance(length, bool) for length in shape):
        raise InputError(damage)
    if size != got:
        raise InputError(f"{where}: its head says {shape} of {dtype}, {size} bytes, but {got} follow; save it again")
    if 0 in shape:
        raise InputError(f"{where}: holds no entries (its shape is {shape}); save it again")
    array = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "U":
        codes = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder), offset=file.tell())
        if np.any((codes > _LAST_CHARACTER) | ((codes >= _HALVES[0]) & (codes <= _HALVES[1]))):
            raise InputError(damage)
    return array.copy(order="K")


def read_npz(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Those arrays of a `.npz` file whose names are wanted, and the names of all. Raises InputError."""
    damage = f"{path}: not a readable .npz file of plain arrays; save it with numpy.savez"
    with opened_zip(path, damage) as archive:
        inside = {name.removesuffix(".npy"): name for name in archive.namelist()}
        arrays = {
            key: parse_npy(zip_member(archive, name, str(path), damage), f"{path}: {key}")
            for key, name in inside.items()
            if wanted(key)
        }
        return arrays, list(inside)
