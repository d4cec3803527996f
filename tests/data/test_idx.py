"""idx files: arrays come back, and the exact message of each refusal."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given

from fedjax_lc.data.idx import parse
from tests.data.formats import idx


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=5)))
def test_what_is_written_is_read(array):
    assert np.array_equal(parse(idx(array), "toy"), array)


GOOD = idx(np.arange(6).reshape(2, 3))
START = (
    "toy: not an idx file of bytes (it starts with {}, expected 00 00 08 and the number of axes, 1 to 4); "
    "copy or download it again"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", START.format("nothing")),
        (b"\0\0", START.format("00 00")),
        (b"\0\0\x0d\x02" + GOOD[4:], START.format("00 00 0d 02")),
        (b"\0\0\x08\0", START.format("00 00 08 00")),
        (
            bytes([0, 0, 8, 3, 0, 0, 0, 0]) + b"\xff" * 8,
            "toy: the idx file holds no entries (its shape is (0, 4294967295, 4294967295)); copy or download it again",
        ),
        (GOOD[:7], "toy: the idx file is cut off (expected at least 12 bytes, got 7); copy it again"),
        (GOOD[:-1], "toy: the idx file is cut off (expected 18 bytes for shape (2, 3), got 17); copy it again"),
        (
            GOOD + b"\0",
            "toy: the idx file is longer than its head says (expected 18 bytes for shape (2, 3), got 19); "
            "copy it again",
        ),
    ],
)
def test_damaged_files(complaint, content, message):
    assert complaint(parse, content, "toy") == message
