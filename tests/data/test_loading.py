"""`load` by name: embedded and known sets, folders, and the exact message of each refusal."""

from __future__ import annotations

import bz2

import numpy as np
import pytest
import sklearn.datasets

from fedjax_lc.data import load, names
from fedjax_lc.data.catalogue import CATALOGUE, Entry
from fedjax_lc.data.libsvm import content_sha256

TOY = b"2 1:0.5\n1 2:3\n2 1:1 2:2\n"


@pytest.fixture
def toy(monkeypatch):
    entry = Entry("toy", "binary", features=3, rows=3, sha256=content_sha256(TOY))
    monkeypatch.setitem(CATALOGUE, "toy", entry)
    return entry


@pytest.mark.parametrize(
    ("name", "task", "shape", "classes"),
    [
        ("breast_cancer", "binary", (569, 30), 2),
        ("digits", "multiclass", (1797, 64), 10),
        ("wine", "multiclass", (178, 13), 3),
        ("iris", "multiclass", (150, 4), 3),
        ("diabetes_regression", "regression", (442, 10), 0),
    ],
)
def test_embedded_sets(name, task, shape, classes):
    data = load(name)
    assert (data.name, data.task, data.features.shape, len(data.classes)) == (name, task, shape, classes)
    assert name in names()


def test_embedded_targets_are_those_of_scikit_learn():
    expected = sklearn.datasets.load_breast_cancer().target
    data = load("breast_cancer")
    assert data.targets.tolist() == (2.0 * expected - 1).tolist()
    assert data.classes == ("malignant", "benign")
    assert load("digits").targets.tolist() == sklearn.datasets.load_digits().target.tolist()
    assert load("diabetes_regression").targets.tolist() == sklearn.datasets.load_diabetes().target.tolist()


def test_labels_and_scale():
    data = load("iris", labels="versicolor", scale="standard")
    assert data.classes == ("setosa|virginica", "versicolor")
    assert np.flatnonzero(data.targets > 0).tolist() == list(range(50, 100))
    np.testing.assert_allclose(data.features.std(axis=0), 1)
    assert load("digits", labels=range(5, 10)).targets.sum() == 896 - 901


def test_synthetic_sets_by_name():
    data = load("synthetic_logistic:num_clients=3,rows=20,dim=4,seed=2", scale="minmax")
    assert data.features.shape == (60, 4)
    assert np.abs(data.features).max() == 1
    assert len(set(data.groups.tolist())) == 3
    assert load("synthetic_least_squares").task == "regression"


def test_a_known_set_in_a_folder(toy, tmp_path, monkeypatch):
    (tmp_path / "own" / "libsvm").mkdir(parents=True)
    (tmp_path / "own" / "libsvm" / "toy.bz2").write_bytes(bz2.compress(TOY.replace(b"\n", b" \r\n")))
    data = load("toy", data_dir=tmp_path / "own")
    assert data.features.tolist() == [[0.5, 0, 0], [0, 3, 0], [1, 2, 0]]
    assert (data.name, data.classes, data.targets.tolist()) == ("toy", (1, 2), [1, -1, 1])
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path / "own"))
    assert load("toy", n_features="file").features.shape == (3, 2)


def test_a_wrong_checksum_in_a_folder(toy, tmp_path, complaint):
    path = tmp_path / "toy"
    path.write_bytes(TOY.replace(b"0.5", b"0.6"))
    found = content_sha256(path.read_bytes())
    assert complaint(load, "toy", data_dir=tmp_path) == (
        f"{path}: wrong checksum for 'toy' (expected sha256 {toy.sha256[:12]}..., got {found[:12]}...); "
        "delete the file to fetch it again, or give its path to load it as your own data"
    )
    assert load(path).features[0, 0] == 0.6


def test_a_wrong_number_of_rows(toy, tmp_path, complaint, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "toy", Entry("toy", "binary", features=3, rows=4))
    path = tmp_path / "toy.txt"
    path.write_bytes(TOY)
    assert complaint(load, "toy", data_dir=tmp_path) == (
        f"{path}: 3 rows, but 'toy' has 4; the file is cut off or another set: "
        "delete it to fetch it again, or give its path to load it as your own data"
    )


def test_any_file_of_the_folder_loads_by_its_name(tmp_path):
    (tmp_path / "mine.txt").write_bytes(TOY)
    assert load("mine", data_dir=tmp_path).name == "mine.txt"


def test_unknown_names_missing_files_and_folders(tmp_path, complaint):
    known = len(names())
    assert complaint(load, "a55a") == f"unknown data set 'a55a': did you mean 'a5a'? ({known} are known)"
    assert complaint(load, "none.csv") == "none.csv: no such file"
    assert complaint(load, "no/where") == "no/where: no such file"
    assert complaint(load, tmp_path) == (
        f"{tmp_path}: holds no files; give a file, or a folder of CSV, Parquet, Arrow, LIBSVM, NumPy, MATLAB, LEAF, "
        "pictures"
    )
    assert complaint(load, "a5a", data_dir=tmp_path / "x") == f"data_dir: {tmp_path / 'x'} is not a folder"


def test_the_folder_variable_must_name_a_folder(tmp_path, complaint, monkeypatch):
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path / "x"))
    assert complaint(load, "a5a") == f"FEDJAX_LC_DATA: {tmp_path / 'x'} is not a folder"


def test_options_that_do_not_apply(tmp_path, complaint):
    assert complaint(load, "iris", n_features=3) == "iris: n_features is for LIBSVM files only; leave it out"
    assert complaint(load, "iris", target=3) == (
        "iris: target is for tables with columns (CSV, Parquet, Arrow, frames); leave it out"
    )
    (tmp_path / "mine").write_bytes(TOY)
    for bad in (0, "many"):
        assert complaint(load, tmp_path / "mine", n_features=bad) == (
            f"n_features must be a number in 1..2147483647 or 'file', got {bad!r}"
        )


def test_names_are_unique_and_the_catalogue_is_consistent():
    assert len(set(names())) == len(names())
    assert [CATALOGUE[f"a{i}a"].rows + CATALOGUE[f"a{i}a.t"].rows for i in range(1, 9)] == [32561] * 8
    assert [CATALOGUE[f"w{i}a"].rows + CATALOGUE[f"w{i}a.t"].rows for i in range(1, 8)] == [49749] * 7
    assert all(len(entry.sha256) in (0, 64) for entry in CATALOGUE.values())
