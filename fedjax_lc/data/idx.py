"""Reading idx files: big-endian arrays of bytes, as MNIST and its relatives are stored."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError

_MOST_AXES = 4
_BYTES = b"\0\0\x08"  # two zeros, then the code of unsigned bytes


def parse(content: bytes, where: str) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes; `where` names the file in messages.

    Layout: 0, 0, the code of the type (8: bytes), the number of axes; their lengths as 4-byte big-endian numbers;
    then the entries, the last axis running fastest. Raises InputError for another start or length.

    Source: LeCun, Cortes & Burges, "The MNIST database" (the file formats at the page's end).

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "toy").tolist()
    [7, 9]
    """
    start = content[:4]
    if len(start) < 4 or start[:3] != _BYTES or not 1 <= start[3] <= _MOST_AXES:
        raise InputError(
            f"{where}: not an idx file of bytes (it starts with {start.hex(' ') or 'nothing'}, expected 00 00 08 and "
            f"the number of axes, 1 to {_MOST_AXES}); copy or download it again"
        )
    head = 4 + 4 * start[3]
    shape = tuple(np.frombuffer(content[4:head], ">u4", count=len(content[4:head]) // 4).tolist())
    expected = head + math.prod(shape)
    if len(shape) < start[3] or len(content) != expected:
        wanted = f"{expected} bytes for shape {shape}" if len(shape) == start[3] else f"at least {head} bytes"
        fault = "longer than its head says" if len(content) > expected else "cut off"
        raise InputError(f"{where}: the idx file is {fault} (expected {wanted}, got {len(content)}); copy it again")
    if 0 in shape:
        raise InputError(f"{where}: the idx file holds no entries (its shape is {shape}); copy or download it again")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
