"""Readers of data against files damaged at random, and against files written from a grammar of traps.

The property is `fault`: data, or one InputError of one printable line; see `tests.fuzz.readers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import arrays, idx, load, pickles
from tests.fuzz import readers

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDJAX_LC_DATA", raising=False)


# --- files that are damaged ---


@pytest.mark.parametrize("name", readers.FORMATS)
def test_files_are_good_before_they_are_damaged(tmp_path, name):
    made = readers.FORMATS[name]
    assert readers.tried(readers.Case(name, made.files, lambda folder: made.call(folder, Still())), tmp_path) == ""
    made.call(tmp_path, Still())  # and they load


class Still(readers.random.Random):
    """Chance that leaves options as they are."""

    def random(self):
        return 0.99


def test_some_damaged_files(tmp_path):
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert readers.tried(readers.case(0, number), folder) == "", f"case(0, {number})"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files_in_bounded_time_and_memory(tmp_path, seed):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FEDJAX_LC_CACHE": str(tmp_path / "cache")}
    environment.pop("FEDJAX_LC_DATA", None)
    command = [sys.executable, "-m", "tests.fuzz.readers", str(seed), "4000", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000)
    under_way = (tmp_path / "number").read_text()
    assert (done.returncode, done.stdout) == (0, ""), f"case({seed}, {under_way}) ended it: {done.stderr[-2000:]}"
    assert under_way == "3999"


# --- files from a grammar ---

NUMBERS = st.sampled_from(
    ["0", "1", "-1", "2.5", "1e308", "-1e308", "1e-320", "nan", "inf", "1e999", "9" * 25, "2147483648", "1j", "1_0", ""]
)
WORDS = (
    NUMBERS | st.text("ab1.,;:#'\"\t\r\x1b\0é٣\u2028\ufeff", max_size=4) | st.sampled_from(["a" * 2000, "no", "yes"])
)
SCALES = st.sampled_from([None, "standard", "minmax", "maxabs", "unit"])


def _lines(cell, between):
    return st.lists(st.lists(cell, min_size=1, max_size=4).map(between.join), max_size=6).map("\n".join)


def _written(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def cells(folder, text, scale):
    path = _written(folder, "a.csv", text.encode())
    filled = {"categories": "onehot", "missing": "mean"}
    for options in ({"scale": scale}, {"target": "a"}, {"labels": "regression"}, filled, filled | {"missing": "drop"}):
        yield lambda options=options: load(path, **options)


def indices_and_values(folder, text, scale):
    path = _written(folder, "a.txt", text.encode())
    yield lambda: load(path, scale=scale)
    yield lambda: load(path, n_features=3)
    yield lambda: load(path, allow=["zero", "unsorted", "repeated", "qid"])


def users(folder, content):
    _written(folder, "train/all.json", json.dumps(content).encode())
    yield lambda: load("leaf_shakespeare", data_dir=folder)
    yield lambda: load(folder)


def parts_of_matrices(folder, parts):
    element = b"".join(kind.to_bytes(4, "little") + size.to_bytes(4, "little") + body for kind, size, body in parts)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + (14).to_bytes(4, "little")
    path = _written(folder, "a.mat", head + len(element).to_bytes(4, "little") + element)
    yield lambda: load(path)


def operations(folder, content):
    plain = (dict, list, tuple, str, bytes, int, bool, type(None), pickles._Array, pickles._Name, object)

    def read():
        assert type(pickles.parse(content + b".", "toy")) in plain

    yield read


def heads_of_arrays(folder, descr, shape, fortran, more, body):
    head = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}{more}}}\n".encode("utf-8", "replace")
    content = b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + body
    yield lambda: arrays.parse_npy(content, "toy")


def axes_of_images(folder, axes, lengths, body):
    for count in (axes, len(lengths)):
        content = bytes([0, 0, 8, count]) + b"".join(n.to_bytes(4, "big") for n in lengths) + body
        yield lambda content=content: idx.parse(content, "toy")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "\ud800", "But so", "ñ"])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["users", "user_data", "x", "y", "A"]), inner, max_size=3)
    ),
    max_leaves=8,
)
LEAF = st.builds(
    lambda names, x, y: {"users": names, "user_data": {"A": {"x": x, "y": y}}}, JSON | st.just(["A"]), JSON, JSON
)
OPERATIONS = [*pickles._OPERATIONS, *(bytes([code]) for code in b"20GioPQ\x81\x84\x8b\x8f\x92")]
ARGUMENTS = st.sampled_from([
    b"", b"\0", b"\1", b"\xff", b"\xff" * 8, b"u1", b"1\n", b"1L\n", b"'a'\n", b"'\\x'\n", b"9" * 50 + b"\n", b"\x02u1",
    b"\x04data", b"numpy.core.multiarray\n_reconstruct\n", b"numpy\ndtype\n", b"numpy\nndarray\n", b"latin1\n",
    b"_codecs\nencode\n", b"numpy.core.numeric\n_frombuffer\n", b"builtins\neval\n",
])  # fmt: skip
TYPES = [
    "<f8",
    "|O",
    "<U0",
    "<U3",
    "|S2",
    "<c8",
    "|V4",
    "<M8[s]",
    ">i8",
    "|b1",
    "<f2",
    "<f16",
    "a" * 50,
    "O,f8",
    "",
    "8",
]
GRAMMARS = {
    cells: {"text": _lines(WORDS, ",") | _lines(NUMBERS, ";"), "scale": SCALES},
    indices_and_values: {
        "text": _lines(WORDS | st.tuples(NUMBERS, NUMBERS).map(":".join), " "),
        "scale": st.sampled_from([None, "maxabs", "unit"]),
    },
    users: {"content": JSON | LEAF},
    operations: {
        "content": st.lists(st.tuples(st.sampled_from(OPERATIONS), ARGUMENTS).map(b"".join), max_size=25).map(b"".join)
    },
    heads_of_arrays: {
        "descr": st.sampled_from(TYPES),
        "shape": st.lists(st.integers(-2, 10**13) | st.integers(0, 3), max_size=3).map(tuple)
        | st.sampled_from([(True,), 3, "a", (1.5,)]),
        "fortran": st.sampled_from([True, False, 2, None]),
        "more": st.sampled_from(["", ", 'a': 1", ")", "\0"]),
        "body": st.binary(max_size=64),
    },
    parts_of_matrices: {
        "parts": st.lists(
            st.tuples(
                st.sampled_from([1, 5, 6, 9, 14, 15, 1 << 16, (4 << 16) + 1, (8 << 16) + 1]),
                st.sampled_from([0, 1, 4, 8, 16, 2**31, 2**32 - 1]),
                st.sampled_from(
                    [b"\6\0\0\0" * 2, b"\5\0\0\0" * 2, b"\1\0\0\0" * 2, b"X\0\0\0\0\0\0\0", b"\xff" * 8, b""]
                ),
            ),
            max_size=7,
        )
    },
    axes_of_images: {
        "axes": st.integers(0, 255),
        "lengths": st.lists(st.sampled_from([0, 1, 2, 2**32 - 1]), max_size=6),
        "body": st.binary(max_size=8),
    },
}


@pytest.mark.parametrize("examples", [30, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reads", GRAMMARS, ids=lambda reads: reads.__name__)
def test_files_from_a_grammar(tmp_path, reads, examples):
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
    @given(**GRAMMARS[reads])
    def holds(**drawn):
        for call in reads(tmp_path, **drawn):
            assert readers.fault(call) == ""

    holds()


# --- the fuzzer sees what is wrong ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (InputError(""), "a message of no use"),
        (InputError("a does not fit into memory"), "a message of no use"),
        (readers.TooLong(), "TooLong"),
        (RuntimeWarning("overflow"), "RuntimeWarning: overflow"),
    ],
)
def test_what_a_reader_may_not_do(error, said):
    def call():
        raise error

    assert said in readers.fault(call)


def test_a_reader_may_not_write(tmp_path):
    case = readers.Case("toy", {"a": b"1"}, lambda folder: (folder / "b").write_bytes(b"2"))
    assert readers.tried(case, tmp_path) == "files changed: ['a', 'b']"
