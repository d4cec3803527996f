"""Own files: `.npz` and `.csv`, by `load`, with the exact message of each refusal."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_lc.data import load

ROWS = "0.5,1,no\n2,3,yes\n4,4,no\n"


def written(folder, text, name="toy.csv"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("keys", [("features", "targets"), ("X", "y"), ("X", "Y")])
def test_npz(tmp_path, keys):
    path = tmp_path / "toy.npz"
    np.savez(path, **{keys[0]: [[1.0], [2.0]], keys[1]: [0, 1]})
    data = load(path)
    assert (data.name, data.targets.tolist()) == ("toy.npz", [-1, 1])


def test_npz_with_groups(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, X=[[1.0], [2.0], [3.0]], y=[0, 1, 1], groups=[5, 5, 2])
    assert load(path).groups.tolist() == [1, 1, 0]


def test_npz_that_cannot_be_used(tmp_path, complaint):
    path = tmp_path / "toy.npz"
    np.savez(path, A=[1.0])
    assert complaint(load, path) == (
        f"{path}: needs arrays 'features' and 'targets' (or 'X' and 'y', 'x_train' and 'y_train', 'images' and "
        "'labels'), got 'A'"
    )
    plain = f"{path}: not a readable .npz file of plain arrays; save it with numpy.savez"
    np.savez(path, X=np.array([{}]), y=[0])
    assert complaint(load, path) == (
        f"{path}: X: holds entries of type object, but needs real numbers, whole numbers or words; "
        "save it as one of these"
    )
    path.write_bytes(path.read_bytes()[:40])
    assert complaint(load, path) == plain
    path.write_bytes(b"")
    assert complaint(load, path) == plain
    with path.open("wb") as out:
        np.save(out, np.ones(3))
    assert complaint(load, path) == plain


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (ROWS, None),
        (ROWS, -1),
        (ROWS, "2"),
        ("a,b,label\n" + ROWS, None),
        ("a,b,label\n" + ROWS, "label"),
        (ROWS.replace(",", ";"), None),
        (ROWS.replace(",", "\t"), 2),
        (ROWS.replace("\n", "\r\n"), None),
        ("\ufeff" + ROWS.replace("0.5,", " 0.5 , ") + "\n\n", None),
        ("label,a,b\n" + "no,0.5,1\nyes,2,3\nno,4,4\n", "label"),
        ("no,0.5,1\nyes,2,3\nno,4,4\n", 0),
    ],
)
def test_csv(tmp_path, text, target):
    data = load(written(tmp_path, text), target=target)
    assert data.features.tolist() == [[0.5, 1], [2, 3], [4, 4]]
    assert data.targets.tolist() == [-1, 1, -1]
    assert data.classes == ("no", "yes")


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, ": the file is empty"),
        ("a,b\n", None, ": needs at least one row of data and two columns, the features and the target"),
        ("1\n2\n", None, ": needs at least one row of data and two columns, the features and the target"),
        ("1,2\n\n3\n", None, ", line 3: 1 columns, but the first line has 2"),
        (
            "a,b\n1,2\n\nx,3\n",
            None,
            ", line 4, column 1 ('a'): 'x' is not a number; --categories onehot or codes "
            '(in Python categories="onehot") makes numbers of words',
        ),
        (
            "1,2\n,3\n",
            None,
            ', line 2, column 1: the cell is empty; --missing mean or drop (in Python missing="mean") fills it or '
            "leaves the row out",
        ),
        (
            "1;2\n0,5;3\n",
            None,
            ", line 2, column 1: '0,5' is not a number; write decimals with a point, or --categories onehot or codes "
            '(in Python categories="onehot") makes numbers of words',
        ),
        ("a,b\n1,2\n", "c", ": no target column 'c'; name one of the columns: a, b"),
        ("1,2\n", "c", ": no target column 'c'; name one of the columns: 0 to 1"),
        ("1,2\n", 2, ": target column 2 is out of range; there are 2 columns"),
        ("1,2\n", -3, ": target column -3 is out of range; there are 2 columns"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path, complaint, text, target, message):
    path = written(tmp_path, text)
    assert complaint(load, path, target=target) == f"{path}{message}"


def test_csv_in_another_encoding(tmp_path, complaint):
    path = tmp_path / "toy.csv"
    path.write_bytes("1,1\né,1\n".encode("latin-1"))
    assert complaint(load, path) == f"{path}: not a text file in UTF-8 (line 2 has the byte e9); save it as UTF-8"


def test_a_non_finite_cell_names_its_place(tmp_path, complaint):
    path = written(tmp_path, "1,2,0\n3,inf,1\n")
    assert complaint(load, path) == (
        "toy.csv: feature in row 2, column 2 (counted from 1) is inf; features must be finite numbers"
    )
