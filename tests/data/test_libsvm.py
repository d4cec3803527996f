"""The LIBSVM reader: formats, round trips against scikit-learn, and the exact message for each kind of damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given

from fedjax_lc.data import files, libsvm, load

GOOD = b"+1 1:0.5 3:-2\n-1\n-1 2:1e-3 # a remark\n\n+1  3:4 \n"
TABLE = [[0.5, 0, -2], [0, 0, 0], [0, 1e-3, 0], [0, 0, 4]]


def allowed(word, what):
    return f'--allow {word} (in Python allow="{word}") {what}'


def written(folder, content, name="toy"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("breaks", [b"\n", b"\r\n"])
def test_reads_empty_rows_remarks_blank_lines_and_both_line_breaks(tmp_path, breaks):
    table = libsvm.read(written(tmp_path, GOOD.replace(b"\n", breaks)))
    assert table.features.tolist() == TABLE
    assert table.targets.tolist() == [1, -1, -1, 1]
    assert table.notes == ()


@pytest.mark.parametrize(
    ("ending", "pack"), [(".bz2", bz2.compress), (".gz", gzip.compress), (".xz", lzma.compress), (".txt", bytes)]
)
def test_reads_packed_files(tmp_path, ending, pack):
    assert load(written(tmp_path, pack(GOOD), "toy" + ending)).features.tolist() == TABLE


def test_n_features_widens_the_table(tmp_path):
    path = written(tmp_path, GOOD)
    assert libsvm.read(path, 5).features.shape == (4, 5)
    assert load(path, n_features="5").features.shape == (4, 5)
    assert load(path, n_features="file").features.shape == (4, 3)


def test_a_missing_last_line_break_is_noted(tmp_path):
    table = libsvm.read(written(tmp_path, b"1 1:2\n0 1:3"))
    assert table.notes == ("the file does not end in a line break, so it may be cut off",)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-1e6, 1e6) | st.just(0.0),
    )
)
def test_reads_what_scikit_learn_writes(tmp_path_factory, table):
    table[0, -1] = 1.0
    buffer = io.BytesIO()
    labels = np.arange(len(table)) % 3
    sklearn.datasets.dump_svmlight_file(table, labels, buffer, zero_based=False)
    path = written(tmp_path_factory.mktemp("written"), buffer.getvalue())
    read = libsvm.read(path)
    np.testing.assert_allclose(read.features, table, rtol=1e-14)
    assert read.targets.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file has no rows"),
        (b"\n  \n", "the file has no rows"),
        (b"1\n-1\n", "no row has a feature"),
        (b"1 1:2\n-1 3:1 12:", "line 2: '12:' has no value; the line may be cut off"),
        (b"1 1:2\n\n-1 3", "line 3: '3' is not index:value"),
        (b"1 1:2\nspam 1:3\n", "line 2: label 'spam' is not a number"),
        (b"1 1:2\n1:2 2:3\n", "line 2: label '1:2' is not a number"),
        (b"1,2 1:2\n", "line 1: label '1,2' is not a number"),
        (b"\xf0\xfe 1:2\n", "line 1: label '\\\\xf0\\\\xfe' is not a number"),
        (b"inf 1:2\n", "line 1: label inf is not finite"),
        (b"1 1:2 2:x\n", "line 1: '2:x' is not index:value"),
        (b"1 1:2 b:1\n", "line 1: 'b:1' is not index:value"),
        (b"1 1:2:3\n", "line 1: '1:2:3' is not index:value"),
        (b"1 1.5:2\n", "line 1: '1.5:2' is not index:value"),
        (b"1 1:2\n0 2:nan\n", "line 2: value of index 2 is nan; features must be finite numbers"),
        (
            b"1 1:2\n0 0:1\n",
            f"line 2: index 0 is below 1; LIBSVM counts features from 1; {allowed('zero', 'counts them from 0')}",
        ),
        (b"1 1:2\n0 -3:1\n", "line 2: index -3 is below 1; LIBSVM counts features from 1"),
        (
            b"1 1:2\n\n0 4:1 2:1\n",
            f"line 3: index 2 comes after index 4; indices must increase, {allowed('unsorted', 'sorts them')}",
        ),
        (b"1 4:1 4:1\n", f"line 1: index 4 comes twice; {allowed('repeated', 'sums their values')}"),
        (b"1 qid:3 4:1\n", f"line 1: 'qid:3' numbers a query; {allowed('qid', 'makes it a client')}"),
        (b"1 qid:x 4:1\n", "line 1: 'qid:x' is not index:value"),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path, complaint, content, message):
    path = written(tmp_path, content)
    separator = ", " if message.startswith("line") else ": "
    assert complaint(libsvm.read, path) == f"{path}{separator}{message}"


def test_an_index_above_the_declared_number(tmp_path, complaint):
    path = written(tmp_path, b"1 1:2\n0 7:1\n")
    advice = "pass n_features=7 or n_features='file'"
    assert complaint(libsvm.read, path, 6) == f"{path}, line 2: index 7 is above n_features=6; {advice}"


@pytest.mark.parametrize(("ending", "pack"), [(".bz2", bz2.compress), (".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"BZ" + b[5:], lambda b: b""])
def test_truncated_and_corrupt_packed_files(tmp_path, complaint, ending, pack, damage):
    path = written(tmp_path, damage(pack(GOOD * 50)), "toy" + ending)
    if path.read_bytes() == b"":
        expected = f"{path}: the file has no rows"
    else:
        expected = f"{path}: the {ending} file is truncated or corrupt; copy or download it again"
    assert complaint(libsvm.read, path) == expected


def test_missing_file_and_folder(tmp_path, complaint):
    assert complaint(libsvm.read, tmp_path / "none") == f"{tmp_path / 'none'}: no such file"
    assert complaint(libsvm.read, tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_dense_table_larger_than_memory(tmp_path, complaint, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda: 1000.0)
    path = written(tmp_path, b"1 1:1\n0 100:1\n")
    assert complaint(libsvm.read, path) == (
        f"{path}: holding 2 x 100 float64 features and a working copy needs 3.2 kB and 1 kB are free: "
        "keep fewer rows or columns"
    )


def test_a_large_and_sparse_table_stays_sparse(tmp_path):
    path = written(tmp_path, b"1 1:1 7:-2\n0\n0 1000000000:3\n")
    table = libsvm.read(path)
    assert table.features.shape == (3, 1_000_000_000)
    assert table.features.indices.tolist() == [0, 6, 999_999_999]
    assert table.features.data.tolist() == [1, -2, 3]
    assert table.features.indptr.tolist() == [0, 2, 2, 3]
    assert table.targets.tolist() == [1, 0, 0]
