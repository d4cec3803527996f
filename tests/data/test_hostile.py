"""Files made to do harm: each is refused in one line that says what is wrong, before it takes memory or time."""

from __future__ import annotations

import ast
import bz2
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import tracemalloc
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image
from scipy.sparse import csr_array

import fedjax_lc
from fedjax_lc.core.errors import InputError
from fedjax_lc.data import arrays, arrow, download, files, from_arrays, load, parse, pickles, scaled
from fedjax_lc.data.catalogue import Entry
from tests.data.formats import cifar10_files

PACKAGE = Path(fedjax_lc.__file__).parent


def npy(head, body=b"", version=1):
    """A `.npy` file of a given head."""
    head = head.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(head).to_bytes(2 * version, "little") + head + body


def head(shape, descr="'<f8'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def write_zip(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


GOOD = {"X.npy": npy(head("(2, 1)"), np.array([1.0, 2.0]).tobytes()), "y.npy": npy(head("(2,)"), b"\0" * 8 + b"\1" * 8)}
UNREADABLE = "not a readable .npy file of plain arrays; save it with numpy.save"


def peak(call):
    """The most memory that Python and NumPy held in a call, above what they held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- .npz and .npy ---


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_of_the_two_methods(tmp_path, method):
    assert load(write_zip(tmp_path / "a.npz", GOOD, method)).features.tolist() == [[1], [2]]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_packed_by_another_method(tmp_path, complaint, method):
    path = write_zip(tmp_path / "a.npz", GOOD, method)
    name = zipfile.compressor_names[method]
    message = f"{path}: X.npy is packed by the zip method {name}; pack it by deflate, or not at all"
    assert complaint(load, path) == message
    content = bytearray(path.read_bytes())
    content[60:90] = os.urandom(30)  # a corrupt member of such a method is not unpacked at all
    path.write_bytes(content)
    assert complaint(load, path) == message


def test_an_npz_that_is_encrypted(tmp_path, complaint):
    path = write_zip(tmp_path / "a.npz", GOOD)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(content)
    assert complaint(load, path) == f"{path}: X.npy is encrypted; save it without a password"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (npy(head("(10**12,)"), b"1"), UNREADABLE),
        (npy(head("(2, __import__('os'))"), b"1"), UNREADABLE),
        (npy("{'descr': " + "(" * 400, b"1"), UNREADABLE),
        (npy("-" * 900 + "1", b"1"), UNREADABLE),
        (npy("[" * 5000, b"1"), UNREADABLE),
        (npy("spam\0"), UNREADABLE),
        (npy("'"), UNREADABLE),
        (npy(head("(-1, -2)"), b"\0" * 16), UNREADABLE),
        (npy(head("(" + "1," * 40 + ")"), b"\0" * 8), UNREADABLE),
        (npy(head("(1,)", "'<U1'"), b"\xff" * 4), UNREADABLE),
        (npy(head("(1,)", "'<U1'"), b"\0\xd8\0\0"), UNREADABLE),
        (npy(head("(1,)"), b"\0" * 8, version=3), UNREADABLE),
        (b"PK\3\4", UNREADABLE),
        (b"", UNREADABLE),
        (
            npy(head("(1000000000000, 1)"), b"12345678"),
            "its head says (1000000000000, 1) of float64, 8000000000000 bytes, but 8 follow; save it again",
        ),
        (npy(head(f"(0, {2**60}, {2**60})")), f"holds no entries (its shape is (0, {2**60}, {2**60})); save it again"),
        (npy(head("(2,)"), b"\0" * 17), "its head says (2,) of float64, 16 bytes, but 17 follow; save it again"),
        (
            npy(head("(1,)", "'|O'"), b"\0" * 8),
            "holds entries of type object, but needs real numbers, whole numbers or words; save it as one of these",
        ),
        (
            npy(head("(1,)", "[('a', '|O')]"), b"\0" * 8),
            "holds entries of type [('a', 'O')], but needs real numbers, whole numbers or words; "
            "save it as one of these",
        ),
        (
            npy(head("(1000000000000,)", "'|V0'")),
            "holds entries of type |V0, but needs real numbers, whole numbers or words; save it as one of these",
        ),
        (
            npy(head("(1,)", "'<c16'"), b"\0" * 16),
            "holds complex numbers, but needs real numbers, whole numbers or words; "
            "save real and imaginary parts as columns",
        ),
    ],
)
def test_npy_files_and_members_that_cannot_be_used(tmp_path, complaint, content, fault):
    assert peak(lambda: complaint(arrays.parse_npy, content, "toy")) < 2**20
    assert complaint(arrays.parse_npy, content, "toy") == f"toy: {fault}"
    path = write_zip(tmp_path / "a.npz", GOOD | {"X.npy": content})
    assert complaint(load, path) == f"{path}: X: {fault}"
    ids = tmp_path / "ids.npy"
    ids.write_bytes(content)
    assert complaint(parse(f"clusters:{ids}"), 4, 2) == f"clusters: {ids}: {fault}"


def test_a_member_that_claims_more_than_deflate_can_hold(tmp_path, complaint):
    path = write_zip(tmp_path / "a.npz", GOOD, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    assert complaint(load, path) == f"{path}: not a readable .npz file of plain arrays; save it with numpy.savez"


def test_a_member_larger_than_memory(tmp_path, complaint, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda: 100.0)
    path = write_zip(tmp_path / "a.npz", GOOD)
    assert complaint(load, path).startswith(f"{path}: X.npy: holding its content and a copy needs ")


def test_a_clusters_file_that_is_an_archive_or_without_end(tmp_path, complaint):
    ids = tmp_path / "ids.npy"
    np.savez(tmp_path / "ids.npz", [0, 1])
    os.replace(tmp_path / "ids.npz", ids)
    assert complaint(parse(f"clusters:{ids}"), 2, 2) == f"clusters: {ids}: {UNREADABLE}"
    np.save(ids, [0.0, np.nan])
    assert (
        complaint(parse(f"clusters:{ids}"), 2, 2)
        == f"clusters: {ids}: the ids must be finite; give every row a cluster"
    )
    os.remove(ids)
    os.mkfifo(ids)
    assert complaint(parse(f"clusters:{ids}"), 2, 2) == f"clusters: {ids}: no such file"
    assert complaint(files.read_bytes, ids) == f"{ids}: cannot be read (it is a device or a pipe)"


# --- numbers that a table cannot hold ---


def test_complex_numbers_are_refused_wherever_they_come_from(tmp_path, complaint):
    rows, labels = [[1.0], [2.0]], [0, 1]
    wrong = "arrays: features must be real numbers, got complex numbers; give each part as a column of its own"
    assert complaint(from_arrays, np.array(rows) * 1j, labels) == wrong
    assert complaint(from_arrays, [[1.0], [2j]], labels) == wrong
    for what, given in (("targets", {"targets": [1j, 2.0]}), ("groups", {"targets": labels, "groups": [1j, 2.0]})):
        assert complaint(from_arrays, rows, **given) == (
            f"arrays: {what} must be real numbers or words, got entries of type complex128"
        )
    for A in (np.array(rows) * 1j, csr_array(np.array(rows) * 1j)):
        with pytest.raises(InputError, match="complex"):
            fedjax_lc.problems.logistic_regression([(A, np.array([-1.0, 1.0]))], l2=0.1)
    real, wrong = np.array(rows), [np.array([1.0, 1j])]
    for make in (
        lambda: fedjax_lc.problems.least_squares([(real, wrong[0])], l2=0.1),
        lambda: fedjax_lc.problems.quadratic([[[1j]]], [[1.0]]),
        lambda: fedjax_lc.problems.neural("mlp:hidden=2", [(real * 1j, np.array([0, 1]))], classes=2),
    ):
        with pytest.raises(InputError, match="must be real, got complex numbers"):
            make()
    with pytest.raises(InputError, match="complex"):
        from_arrays(csr_array(np.array(rows) * 1j), labels)


@pytest.mark.parametrize("shape", [(0, 3, 3), (0, 3), (3, 0), (0,), (2, 0, 3), (2, 3, 0), (1, 2, 3, 4, 5)])
def test_arrays_of_no_use(complaint, shape):
    for targets in (np.zeros(shape[:1]), np.zeros(shape[:2])):
        assert complaint(from_arrays, np.zeros(shape), targets).startswith("arrays: features must be a non-empty (rows")


def test_lists_of_unequal_lengths(complaint):
    assert complaint(from_arrays, [[1.0], [1.0, 2.0]], [0, 1]).startswith("arrays: features must be a table of numbers")
    assert complaint(from_arrays, [[1.0], [2.0]], [[0], [1, 2]]) == (
        "arrays: targets must be one number or word per row, got lists of unequal lengths"
    )


def test_classes_that_float64_cannot_tell_apart(complaint):
    assert complaint(from_arrays, [[1.0], [2.0], [3.0]], [2**60, 2**60 + 1, 5]) == (
        "arrays: targets beyond 2**53 are not told apart as float64; number the classes from 0"
    )
    assert from_arrays([[1.0], [2.0]], [2**53, 2**53 + 2]).classes == (2**53, 2**53 + 2)


def test_bytes_are_words():
    assert from_arrays([[1.0], [2.0]], np.array([b"\xff", b"yes"])).classes == ("yes", "\ufffd")


@pytest.mark.parametrize("size", [1e160, 1e300, 1e-160, 1e-300])
def test_scalings_of_extreme_numbers_are_those_of_ordinary_ones(size):
    table = np.array([[1.0, -3.0], [2.0, 5.0], [4.0, 5.5]])
    extreme = table * [size, 1.0]
    for scale in ("standard", "minmax", "maxabs"):
        np.testing.assert_allclose(scaled(extreme, scale), scaled(table, scale), rtol=1e-14)
    np.testing.assert_allclose(scaled(table * size, "unit"), scaled(table, "unit"), rtol=1e-14)
    sparse = scaled(csr_array(table * size), "unit")
    np.testing.assert_allclose(sparse.toarray(), scaled(table, "unit"), rtol=1e-14)


# --- text ---


TABLE = "0.5,1,no\n2,3,yes\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_texts_with_a_byte_order_mark_are_read(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_text(TABLE, encoding=encoding)
    assert load(path).features.tolist() == [[0.5, 1], [2, 3]]
    path = tmp_path / "a.libsvm"
    path.write_text("1 1:2\n0 1:3\n", encoding=encoding)
    assert load(path).features.tolist() == [[2], [3]]


@pytest.mark.parametrize("ending", ["csv", "libsvm"])
def test_texts_in_another_encoding(tmp_path, complaint, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(TABLE.encode("utf-16-le"))
    assert complaint(load, path) == f"{path}: is in UTF-16 without a byte order mark; save it as UTF-8"
    path.write_bytes(b"\xff\xfea")
    assert complaint(load, path) == f"{path}: not a text file in UTF-16, as its first bytes say; save it as UTF-8"


def test_a_cell_that_never_ends(tmp_path, complaint):
    path = tmp_path / "a.csv"
    path.write_text('1,2\n3,"' + "4" * 140_000)
    assert complaint(load, path) == (
        f"{path}, line 2: not a row of cells (field larger than field limit (131072)); "
        "a quotation mark may not be closed"
    )


def test_one_long_label_costs_its_own_length_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{k},no\n" for k in range(2000)) + "1," + "y" * 100_000 + "\n")
    assert peak(lambda: load(path)) < 10 * 2**20  # as one array of equal widths it would be 1.6 GB
    assert load(path).classes[0] == "no"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"1 {2**63}:1\n", f", line 1: index {2**63} is beyond 2147483647, the most columns there can be"),
        (f"1 1:1\n1 {2**31}:1\n", f", line 2: index {2**31} is beyond 2147483647, the most columns there can be"),
        (f"1 {'9' * 5000}:1\n", f", line 1: '{'9' * 40}' is not index:value"),
        (f"1 -{2**64}:1\n", f", line 1: index -{2**64} is beyond 2147483647, the most columns there can be"),
    ],
)
def test_libsvm_indices_without_bound(tmp_path, complaint, text, message):
    path = tmp_path / "a"
    path.write_text(text)
    assert complaint(load, path) == f"{path}{message}"


def test_a_billion_columns_cost_the_entries_only(tmp_path):
    path = tmp_path / "a"
    path.write_text("1 1:2\n0 7:1 1000000000:3\n1 7:1\n")
    data = load(path, scale="maxabs")
    assert peak(lambda: (load(path), load(path, scale="maxabs"), load(path, scale="unit"))) < 2**20
    assert data.features.data.tolist() == [1, 1, 1, 1]
    assert data.notes[1:] == ("999999997 columns are constant (counted from 1): 2, 3, 4, 5, 6, ...",)
    path.write_text("1 1:2 1000000000:3\n")
    with pytest.raises(InputError, match="all 1000000000 feature columns are constant"):
        load(path)


def test_a_line_of_words_larger_than_memory(tmp_path, complaint, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda: 50.0 * 2**20)
    for name, text in (("a.csv", "1," * 2**20), ("a.libsvm", "1 " * 2**20)):
        (tmp_path / name).write_text(text)
        assert complaint(load, tmp_path / name) == (
            f"{tmp_path / name}: holding the words of a line of {2**21} characters needs 126 MB and 52.4 MB are free: "
            "keep fewer rows or columns"
        )


def test_small_numbers_that_become_large_ones(complaint, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda: 1000.0)
    assert complaint(from_arrays, np.zeros((10, 10), bool), np.zeros(10)).startswith(
        "arrays: holding 100 features as float64 and a working copy needs "
    )


def test_a_text_larger_than_memory(tmp_path, complaint, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda: 100.0)
    for name, text in (("a.csv", TABLE), ("a.libsvm", "1 1:2\n0 1:3\n")):
        (tmp_path / name).write_text(text)
        assert complaint(load, tmp_path / name).startswith(f"{tmp_path / name}: holding its 3 rows of float64 needs")


# --- packed files and archives ---


BOMB = b" " * 15_000_000


@pytest.mark.parametrize(
    ("ending", "pack"), [("bz2", bz2.compress), ("xz", functools.partial(lzma.compress, preset=0))]
)
def test_a_file_that_unpacks_without_end(tmp_path, complaint, ending, pack):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(pack(BOMB))
    assert path.stat().st_size < 10_000
    message = f"{path}: unpacks to more than 1032 times its size; copy or download it again"
    assert peak(lambda: complaint(load, path)) < len(BOMB)
    assert complaint(load, path) == message


def test_streams_one_after_the_other_and_padding(tmp_path):
    for ending, pack in (("bz2", bz2.compress), ("gz", gzip.compress), ("xz", lzma.compress)):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(pack(b"1 1:2\n") + pack(b"0 1:3\n") + b"\0" * 8)
        assert load(path).features.tolist() == [[2], [3]]


def test_many_short_streams_are_not_fed_the_whole_file_each():
    fed = []

    class Counted:
        def __init__(self):
            self.stream = bz2.BZ2Decompressor()

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def decompress(self, feed, most):
            fed.append(len(feed))
            return self.stream.decompress(feed, most)

    content = bz2.compress(b"1 1:2\n") + bz2.compress(b"") * 2000
    assert b"".join(files._stream_pieces(Counted)(content)) == b"1 1:2\n"
    assert sum(fed) <= 2001 * files._FIRST_FEED < 2001 * len(content) / 10


def test_a_window_larger_than_the_file(tmp_path, complaint):
    path = tmp_path / "a.xz"
    path.write_bytes(lzma.compress(b"1 1:2\n", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**28}]))
    assert complaint(load, path) == f"{path}: the .xz file is truncated or corrupt; copy or download it again"


def write_members(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))


def member(name, kind=tarfile.REGTYPE, size=0, link="", pax=None):
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname, made.pax_headers = kind, size, link, pax or {}
    return made


def cifar(folder):
    return lambda: load("cifar10", data_dir=folder, download=False)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_tar_members_that_are_no_files(tmp_path, complaint, kind):
    path = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    write_members(path, [(member("data_batch_1", kind, link="data_batch_1"), b"")])
    assert complaint(cifar(tmp_path)) == f"{path}: the archive has no file data_batch_1; copy or download it again"


def test_tar_heads_that_nest_without_end(tmp_path, complaint):
    path = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    one = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, 1).tobuf() + b"a".ljust(512, b"\0")
    digits = b"1" * 500_000  # in which tarfile looks for a character set, for hours
    two = member("x", tarfile.XHDTYPE, len(digits)).tobuf() + digits.ljust(-(-len(digits) // 512) * 512, b"\0")
    path.parent.mkdir()
    for heads in (one * 5000, two * 2):
        path.write_bytes(gzip.compress(heads))
        assert complaint(cifar(tmp_path)) == f"{path}: the archive has no file data_batch_1; copy or download it again"


@pytest.mark.parametrize("pax", [None, {"size": "8000000000"}, {"GNU.sparse.size": "8000000000"}])
def test_tar_members_that_claim_what_is_not_there(tmp_path, complaint, pax):
    path = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    made = member("data_batch_1", size=0 if pax else 2**33 - 1, pax=pax)
    path.parent.mkdir()
    path.write_bytes(gzip.compress(made.tobuf(tarfile.PAX_FORMAT) + b"\0" * 512))
    assert peak(lambda: complaint(cifar(tmp_path))) < 4 * files._PIECE
    assert complaint(cifar(tmp_path)).startswith(f"{path}: the archive ")


def test_archives_write_nothing_anywhere(tmp_path):
    inside = tmp_path / "in" / "cifar10"
    names = ["../data_batch_1", "/data_batch_2", "../../../data_batch_3"]
    made = dict(zip(names, cifar10_files().values(), strict=False)) | dict(list(cifar10_files().items())[3:])
    members = [(member(name, size=len(content)), content) for name, content in made.items()]
    write_members(inside / "cifar-10-python.tar.gz", members)
    before = sorted(tmp_path.rglob("*"))
    assert load("cifar10", data_dir=tmp_path / "in", download=False).features.shape == (30, 3072)
    assert sorted(tmp_path.rglob("*")) == before


# --- pickles ---


def test_nothing_in_the_house_unpickles():
    """No module reads pickles by a pickle machine, and numpy.load is told so each time."""
    machines = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "experiments").rglob("*.py")]:
        text = path.read_text()
        if not any(word in text for word in (*machines, ".load(")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {name.partition(".")[0] for name in names} & machines, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("read_pickle", "allow_pickle"), path
                if node.func.attr == "load" and getattr(node.func.value, "id", "") in ("np", "numpy"):
                    assert ("allow_pickle", False) in [(k.arg, getattr(k.value, "value", 0)) for k in node.keywords], (
                        path
                    )


SMALL = np.zeros((2, 3), np.uint8)
PICKLES = {
    "nested without end": b"\x80\x02" + b")" + b"\x85" * 200_000 + b".",
    "nested as a key": b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u.",
    "twice itself forty times": b"\x80\x02]" + b"".join(b"q\x00(h\x00h\x00l" for _ in range(40)) + b".",
    "one string encoded again and again": b"\x80\x02X" + (10_000).to_bytes(4, "little") + b"a" * 10_000 + b"q\x000"[:2]
    + b"(" + b"c_codecs\nencode\n(h\x00Vlatin1\ntR" * 2000 + b"t.",
    "more operations than a set has": b"\x80\x02(" + b"]" * 300_000 + b"t.",
    "bytes that are not there": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "a string that is not there": b"T\xff\xff\xff\x7f.",
    "a place far away": b"\x80\x02]r\xff\xff\xff\xff.",
    "an array larger than its bytes": pickle.dumps({b"data": SMALL}, 2).replace(b"K\x02K\x03", b"K\xffK\xff"),
    "an array that holds itself": b"cnumpy.core.multiarray\n_reconstruct\n(tRq\x00(K\x01)h\x00I00\nh\x00tb.",
}  # fmt: skip


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_pickles_that_take_memory_or_time(tmp_path, complaint, content, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_OPERATIONS", 250_000)
    files = cifar10_files() | {"data_batch_1": content}
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, each in files.items():
        (folder / name).write_bytes(each)
    assert complaint(cifar(tmp_path)).startswith(f"{folder / 'data_batch_1'}: ")  # without the bounds some never end


# --- downloads ---


def test_parts_that_killed_downloads_left_are_swept(tmp_path, complaint, monkeypatch):
    cache = tmp_path / "cache"
    old, new = cache / "libsvm" / "part.old.bz2", cache / "mnist" / "part.new.gz"
    kept = cache / "libsvm" / "a9a"
    for path in (old, new, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        os.utime(path, (0, 0))
    os.utime(new)
    entry = Entry("toy", "binary", features=2, rows=2)
    complaint(download.locate, entry, None, False)
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == ["a9a", "part.new.gz"]


@pytest.mark.parametrize(("old", "new", "followed"), [("https", "https", 1), ("http", "http", 1), ("https", "http", 0)])
def test_no_redirection_leaves_https(old, new, followed):
    follow = download._NeverLess().redirect_request
    arguments = urllib.request.Request(f"{old}://a/x"), io.BytesIO(), 302, "", {}, f"{new}://b/x"
    if followed:
        assert follow(*arguments).full_url == f"{new}://b/x"
    else:
        with pytest.raises(OSError, match="redirects from https to http://b/x"):
            follow(*arguments)


# --- what would take all memory ---


@pytest.mark.parametrize("size", [10**9, 10**18])
def test_synthetic_data_larger_than_memory(complaint, size):
    for name in ("synthetic_logistic", "synthetic_least_squares"):
        message = complaint(load, f"{name}:num_clients={size},rows=1000,dim=100")
        assert message.startswith("synthetic data: holding 10")
        assert message.endswith("GB are free: keep fewer rows or columns")


# --- paths ---


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a" * 300, "a\0b", "x/" + "b" * 300 + ".csv"])
def test_paths_that_no_file_can_have(tmp_path, complaint, monkeypatch, name):
    for call in (
        lambda: load(name),
        lambda: load("a9a", data_dir=name),
        lambda: parse(f"clusters:{name}")(10, 2),
    ):
        message = complaint(call)
        assert message.isprintable()
    monkeypatch.setenv("FEDJAX_LC_DATA", "~nosuchuser/x")
    assert complaint(load, "a9a").startswith("FEDJAX_LC_DATA: ~nosuchuser/x: not a path that can be read (")


def test_messages_are_one_printable_line_whatever_they_quote(complaint):
    assert str(InputError("a\nb\x1b[31m\udc80 é")) == "a\\nb\\x1b[31m\\udc80 é"
    assert len(str(InputError("x" * 10**6))) < 2000
    assert complaint(load, "no\nsuch\x1b[0m.csv") == "no\\nsuch\\x1b[0m.csv: no such file"


def test_json_of_any_encoding(tmp_path):
    content = {"users": ["A"], "user_data": {"A": {"x": ["ab"], "y": ["c"]}}}
    (tmp_path / "train").mkdir()
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "train" / "all.json").write_text(json.dumps(content), encoding=encoding)
        assert load("leaf_shakespeare", data_dir=tmp_path).features.shape == (1, 2)


# --- tables, matrices and pictures that claim more than they hold ---


def write_frame(path, rows, **options):
    frame = pd.DataFrame({"a": np.zeros(rows), "y": np.zeros(rows)})
    frame.to_parquet(path, **options) if path.suffix == ".parquet" else frame.to_feather(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_columns_that_unpack_without_end(tmp_path, complaint, monkeypatch, name):
    rows = 200_000
    path = write_frame(tmp_path / name, rows, compression="zstd")
    size = path.stat().st_size
    assert size < rows / 50
    monkeypatch.setattr(arrow, "_LEAST_LIMIT", 0)
    monkeypatch.setattr(arrow, "MOST_UNPACKED", 50)
    before = pyarrow.default_memory_pool().max_memory()
    claims = f"{rows} rows of 2 columns" if name == "a.parquet" else f"{2 * rows} rows of 1 columns"
    assert complaint(load, path) == f"{path}: claims {claims} in {size} bytes; save it again"
    assert pyarrow.default_memory_pool().max_memory() - before < 2**20
    monkeypatch.setattr(arrow, "MOST_UNPACKED", 1000)
    assert complaint(load, path).startswith(f"{name}: all 1 feature columns are constant")


def test_one_long_word_in_many_rows(tmp_path):
    codes = pyarrow.array([*[0] * 2000, 1], pyarrow.int32())
    words = pyarrow.DictionaryArray.from_arrays(codes, ["x" * 2**20, "y"])
    pyarrow.parquet.write_table(pyarrow.table({"a": words, "y": np.arange(2001) % 2}), tmp_path / "a.parquet")
    before = pyarrow.default_memory_pool().max_memory()
    assert load(tmp_path / "a.parquet", categories="codes").features.sum() == 1
    assert pyarrow.default_memory_pool().max_memory() - before < 2**26


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: c[:40] + b"\xff" * 30 + c[70:], lambda c: c[:8]])
def test_damaged_tables_and_matrices(tmp_path, complaint, damage):
    for name in ("a.parquet", "a.feather"):
        path = write_frame(tmp_path / name, 100)
        path.write_bytes(damage(path.read_bytes()))
        what = "Parquet" if name == "a.parquet" else "Arrow"
        assert complaint(load, path) == f"{path}: the {what} file is truncated or corrupt; copy or download it again"


def mat(element, kind=14):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", kind, len(element)) + element


def test_matrices_that_claim_what_is_not_there(tmp_path, complaint):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": np.zeros((2, 3)), "y": np.arange(2.0)})
    good = path.read_bytes()
    bomb = mat(zlib.compress(struct.pack("<II", 14, 5_000_000) + b"\0" * 5_000_000, 9), 15)
    for content in (
        good.replace(struct.pack("<ii", 2, 3), struct.pack("<ii", 20_000, 30_000)),
        good.replace(struct.pack("<ii", 2, 3), struct.pack("<ii", -2, -3)),
        good[:-30],
        good[:128] + b"\xff" * 64,
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01XX",
        b"MATLAB 5.0",
        mat(b"", 15),
        bomb,
    ):
        path.write_bytes(content)
        what = "the .mat file is truncated or corrupt; copy it again, or save it with -v7"
        assert complaint(load, path) == f"{path}: {what}"
        assert peak(lambda: complaint(load, path)) < 2**24


def test_pictures_that_claim_what_is_not_there(tmp_path, complaint):
    (tmp_path / "cat").mkdir()
    path = tmp_path / "cat" / "1.png"
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(out, "PNG")
    content = out.getvalue()
    start = content.index(b"IHDR")
    head = b"IHDR" + struct.pack(">II", 8_000, 8_000) + content[start + 12 : start + 17]
    path.write_bytes(content[:start] + head + struct.pack(">I", zlib.crc32(head)) + content[start + 21 :])
    assert complaint(load, tmp_path) == (
        f"{path}: claims 8000 x 8000 pixels in {len(content)} bytes; save it again as PNG"
    )
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path, "PNG")
    message = complaint(load, tmp_path)
    assert message.startswith(f"{path}: has pixels of kind I")
    assert message.endswith(", not of 8 bits; save it as 8-bit grey or RGB")


def test_a_zip_of_a_table_that_unpacks_without_end(tmp_path, complaint):
    path = write_zip(tmp_path / "a.zip", {"a.csv.bz2": bz2.compress(BOMB)}, zipfile.ZIP_DEFLATED)
    assert (
        complaint(load, path)
        == f"{path}: a.csv.bz2: unpacks to more than 1032 times its size; copy or download it again"
    )


def test_json_of_leaf_that_nests_without_end(tmp_path, complaint):
    path = tmp_path / "a.json"
    for content in ("[" * 100_000, '{"users": ' * 50_000, '{"users": [1], "user_data": {"1": {"x": 1e400, "y": 2}}}'):
        path.write_text(content)
        assert complaint(load, path).startswith(f"{path}: not a JSON file of LEAF (")
