"""Tables with columns, by CSV: header lines, the target, index columns, words and empty cells, and each refusal."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_lc.data import load
from fedjax_lc.data.asked import Reading

CATEGORIES = '--categories onehot or codes (in Python categories="onehot") makes numbers of words'
MISSING = '--missing mean or drop (in Python missing="mean") fills it or leaves the row out'


@pytest.fixture
def table(tmp_path):
    """table(text, **options): the data set of CSV text."""

    def call(text, name="toy.csv", **options):
        (tmp_path / name).write_text(text)
        return load(tmp_path / name, **options)

    return call


# --- the target and the header line ---


@pytest.mark.parametrize(
    ("head", "target", "said"),
    [
        ("label,a,b", None, "'label'"),
        ("a,Class,b", None, "'Class'"),
        ("y,a,label", None, "'label'"),
        ("target,y,label", None, "'target'"),
        ("a,b,c", None, "'c', the last column"),
        ("a,b,label", "a", "'a'"),
        ("a,b,label", 1, "'b'"),
        ("a,b,label", "-2", "'b'"),
    ],
)
def test_the_target_is_one_by_its_name_or_the_last(table, head, target, said):
    rows = np.array([[0, 1, 2], [1, 3, 0], [0, 5, 1], [1, 4, 2]])
    text = "\n".join([head, *(",".join(map(str, row)) for row in rows)])
    data = table(text, target=target, labels="multiclass")
    place = head.split(",").index(said.split("'")[1])
    assert data.features.tolist() == np.delete(rows, place, axis=1).tolist()
    assert data.targets.tolist() == np.unique(rows[:, place], return_inverse=True)[1].tolist()
    classes = f"{len(data.classes)} classes ({', '.join(map(str, data.classes))})"
    assert data.notes[0] == f"toy.csv: target {said}, 4 rows, 2 features, {classes}"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("p,x,e\np,s,e\nx,s,p\n", 3),  # words that stand in their columns again: no header
        ("a,b,label\n1,2,no\n3,4,yes\n", 2),
        ("0,1,2,label\n1,2,4,no\n3,4,4,yes\n", 2),  # pandas' columns without names
        ("0,1,2,y\n1,2,4,y\n3,5,4,n\n", 3),
        ("1,2,no\n3,4,yes\n", 2),
        ("colour,shape\nred,round\nblue,square\nred,square\n", 3),
    ],
)
def test_a_header_line_is_one_of_names(table, text, rows):
    assert len(table(text, categories="codes").targets) == rows


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id", "Index"])
def test_an_index_is_no_feature(table, name):
    data = table(f"{name},a,label\n0,1.5,0\n1,2.5,1\n2,0.5,1\n")
    assert data.features.tolist() == [[1.5], [2.5], [0.5]]
    shown = repr(name) if name else "1"
    assert data.notes[1:] == (f"column {shown} numbers the rows and is left out; under another name it is a feature",)


def test_an_index_that_numbers_nothing_and_one_without_a_name(table):
    data = table("id,a,label\n7,1.5,0\n7,2.5,1\n8,1,0\n")
    assert data.features.shape == (3, 2)
    assert data.notes[1] == "column 'id' is taken as a feature; take it out if it is an index"
    assert table("id,label\n1,0\n2,1\n").features.shape == (2, 1)
    data = table("".join(f"{k},{k % 3},{k % 2}\n" for k in range(10)))
    assert data.features.shape == (10, 2)
    assert data.notes[1] == "column 1 numbers the rows, but is taken as a feature; take it out if it is an index"


# --- words and empty cells ---

SHIRTS = "colour,size,price,label\nred,S,1,0\nblue,M,,1\nred,L,3,1\n,S,5,0\n"


def test_words_are_refused_or_become_numbers(table, complaint):
    rows = SHIRTS.splitlines()
    whole = "\n".join([*rows[:2], "blue,M,2,1", rows[3]])
    message = complaint(table, whole)
    assert message.endswith(f"toy.csv, line 2, column 1 ('colour'): 'red' is not a number; {CATEGORIES}")
    codes = table(whole, categories="codes")
    assert codes.features.tolist() == [[1, 2, 1], [0, 1, 2], [1, 0, 3]]
    assert codes.notes[1] == "words read as codes: 'colour' (2: blue, red); 'size' (3: L, M, S)"
    onehot = table(whole, categories="onehot")
    assert onehot.features.tolist() == [[0, 1, 0, 0, 1, 1], [1, 0, 0, 1, 0, 2], [0, 1, 1, 0, 0, 3]]


def test_empty_cells_are_refused_filled_or_left_out(table, complaint):
    message = complaint(table, SHIRTS, categories="codes")
    assert message.endswith(f"toy.csv, line 5, column 1 ('colour'): the cell is empty; {MISSING}")
    filled = table(SHIRTS, categories="codes", missing="mean")
    assert filled.features.tolist() == [[2, 2, 1], [1, 1, 3], [2, 0, 3], [0, 2, 5]]  # (empty), blue, red
    assert filled.notes[1:] == (
        "words read as codes: 'colour' (3: (empty), blue, red); 'size' (3: L, M, S)",
        "empty cells filled with the mean of their column: 1",
    )
    dropped = table(SHIRTS, categories="codes", missing="drop")
    assert dropped.features.tolist() == [[1, 2, 1], [1, 0, 3]]
    assert dropped.notes[2] == "rows with an empty cell, left out: 2 of 4"


def test_words_among_numbers_keep_their_letters(table):
    data = table("zip,label\n0123,0\n123,1\nA1,0\n", categories="codes")
    assert data.notes[1] == "words read as codes: 'zip' (3: 0123, 123, A1)"


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "?", "null"])
def test_what_an_empty_cell_is(table, complaint, cell):
    assert complaint(table, f"a,b\n1,0\n{cell},1\n").endswith(f"line 3, column 1 ('a'): the cell is empty; {MISSING}")
    assert table(f"a,b\n1,0\n{cell},1\n3,1\n4,0\n", missing="drop").features.tolist() == [[1], [3], [4]]


def test_empty_targets_and_columns(table, complaint):
    message = complaint(table, "a,label\n1,no\n2,\n3,yes\n", missing="mean")
    cure = '--missing drop (in Python missing="drop") leaves the row out'
    assert message.endswith(f"line 3, column 2 ('label'): the target is empty; {cure}")
    assert table("a,label\n1,no\n2,\n3,yes\n", missing="drop").targets.tolist() == [-1, 1]
    assert complaint(table, "a,b,label\n,1,0\n,2,1\n", missing="mean").endswith(
        "column 'a' holds no number; take it out"
    )
    assert complaint(table, "a,b,label\n,1,0\n,2,1\n", missing="drop").endswith(
        'every row has an empty cell; take --missing mean (in Python missing="mean")'
    )


def test_the_mean_is_of_training_rows(tmp_path):
    (tmp_path / "train.csv").write_text("a,word,label\n1,x,0\n3,y,1\n,x,1\n")
    (tmp_path / "test.csv").write_text("a,word,label\n,z,0\n9,x,1\n")
    data = load(tmp_path, missing="mean", categories="onehot")
    assert data.features.tolist() == [[1, 1, 0, 0], [3, 0, 1, 0], [2, 1, 0, 0]]
    assert data.test.features.tolist() == [[2, 0, 0, 1], [9, 1, 0, 0]]
    assert data.notes[0].endswith("target 'label', 3 + 2 test rows, 4 features, 2 classes (0, 1)")
    scaled = load(tmp_path, missing="mean", categories="onehot", scale="standard")
    np.testing.assert_allclose(scaled.test.features[:, 0], (data.test.features[:, 0] - 2) / np.sqrt(2 / 3))


def test_parts_with_other_columns(tmp_path, complaint):
    (tmp_path / "train.csv").write_text("a,label\n1,0\n3,1\n")
    (tmp_path / "test.csv").write_text("b,label\n1,0\n")
    assert complaint(load, tmp_path) == (
        f"{tmp_path / 'test.csv'}: has other columns than {tmp_path / 'train.csv'} (a, b differ): "
        "give all parts the same columns"
    )
    (tmp_path / "more.csv").write_text("a,label\n1,0\n3,1\n")
    assert complaint(load, tmp_path) == (
        f"{tmp_path}: holds several tables (more.csv, test.csv, train.csv); give one of them, or call the two parts of "
        "a data set train and test"
    )


def test_options_of_no_use(table, complaint):
    text = "a,label\n1,0\n2,1\n"
    assert complaint(table, text, allow=["zero"]) == "toy.csv: allow is for LIBSVM files only; leave it out"
    assert complaint(table, "1 1:2\n0 1:3\n", name="a.svm", missing="mean") == (
        "a.svm: missing is for tables and arrays of numbers; leave it out"
    )
    assert complaint(Reading, categories="one") == (
        "unknown categories 'one': did you mean 'onehot'? (known: codes, onehot)"
    )
    assert complaint(Reading, missing="x").startswith("unknown missing 'x'")
    assert complaint(Reading, allow="x").startswith("unknown irregularity to allow 'x'")
