"""`Dataset`: label mappings, scalings, notes, and the exact message of each refusal."""

from __future__ import annotations

import ast
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given

import fedjax_lc.data
from fedjax_lc.data import from_arrays, scaled, scalings

X = [[0.0, 1.0], [2.0, 5.0], [4.0, 4.0]]


@pytest.mark.parametrize("pair", [(-1, 1), (0, 1), (1, 2), (2, 4), (-1.5, 2.5), ("no", "yes")])
def test_two_labels_become_minus_and_plus_one(pair):
    low, high = pair
    labels = None if isinstance(low, str | int) else [high]
    data = from_arrays(X, [high, low, high], labels=labels)
    assert data.task == "binary"
    assert data.targets.dtype == np.float64
    assert data.targets.tolist() == [1.0, -1.0, 1.0]
    assert data.classes == pair


def test_task_is_guessed_from_the_targets():
    rows = np.arange(300.0)[:, None]
    assert from_arrays(rows, np.arange(300) % 3).task == "multiclass"
    assert from_arrays(rows, np.arange(300) % 3 + 0.5).task == "regression"
    assert from_arrays(rows, np.arange(300)).task == "regression"
    assert from_arrays(rows, np.arange(300) % 2, labels="regression").targets.tolist()[:2] == [0.0, 1.0]
    many = from_arrays(rows, np.arange(300) % 30)
    assert many.notes == ("targets are read as 30 classes; labels='regression' takes them as numbers",)


def test_multiclass_targets_are_places_in_classes():
    data = from_arrays(X, [7, 3, 5])
    assert data.classes == (3, 5, 7)
    assert data.targets.dtype == np.int64
    assert data.targets.tolist() == [2, 0, 1]


@pytest.mark.parametrize("positive", [5, 5.0, "5", [5], (5, "5")])
def test_one_class_against_the_rest(positive):
    assert from_arrays(X, [7, 3, 5], labels=positive).targets.tolist() == [-1, -1, 1]
    binary = from_arrays(X, [7, 3, 5]).binary(positive)
    assert binary.targets.tolist() == [-1, -1, 1]
    assert binary.classes == ("3|7", 5)
    assert binary.task == "binary"


def test_binary_of_binary_may_swap_the_sign():
    assert from_arrays(X, ["a", "b", "b"]).binary("a").targets.tolist() == [1, -1, -1]


def test_frames_sparse_matrices_and_columns_are_arrays_too():
    frame = pd.DataFrame(X, columns=["a", "b"])
    assert np.array_equal(from_arrays(frame, pd.Series([0, 1, 0])).features, X)
    assert np.array_equal(from_arrays(scipy.sparse.csr_matrix(X), [[0], [1], [0]]).features, X)


def test_data_already_split_keeps_its_clients():
    data = from_arrays(np.arange(24.0).reshape(2, 3, 4), [[0, 1, 0], [1, 1, 0]])
    assert data.features.shape == (6, 4)
    assert data.groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert from_arrays(X, [0, 1, 1], groups=["b", "a", "b"]).groups.tolist() == [1, 0, 1]


def test_constant_columns_are_noted():
    one = from_arrays([[1.0, 2.0], [1.0, 3.0]], [0, 1])
    assert one.notes == ("column 1 (counted from 1) is constant: 1 in every row",)
    seven = from_arrays(np.c_[np.ones((2, 7)), [1, 2]], [0, 1])
    assert seven.notes == ("7 columns are constant (counted from 1): 1, 2, 3, 4, 5, ...",)


@pytest.mark.parametrize(
    ("features", "targets", "options", "message"),
    [
        (
            [[1.0, 2.0], [3.0, np.nan]],
            [0, 1],
            {},
            "arrays: feature in row 2, column 2 (counted from 1) is nan; features must be finite numbers",
        ),
        (
            [[-np.inf, 2.0], [3.0, 1.0]],
            [0, 1],
            {},
            "arrays: feature in row 1, column 1 (counted from 1) is -inf; features must be finite numbers",
        ),
        (
            [[1.0, 2.0], [1.0, 2.0]],
            [0, 1],
            {},
            "arrays: all 2 feature columns are constant, so there is nothing to learn from",
        ),
        (
            X,
            [1, 1, 1],
            {},
            "arrays: all 3 targets are 1, but classification needs two classes; "
            "labels='regression' takes targets as numbers",
        ),
        (X, [0, np.nan, 1], {}, "arrays: target in row 2 (counted from 1) is nan; targets must be finite"),
        (X, [0, 1], {}, "arrays: 3 rows of features need targets of shape (3,), got (2,)"),
        (X, [0, 1, 1], {"groups": [0, 1]}, "arrays: 3 rows need one group each, got groups of shape (2,)"),
        ([1.0, 2.0], [0, 1], {}, "arrays: features must be a non-empty (rows, columns) table, got shape (2,)"),
        (np.ones((0, 2)), [], {}, "arrays: features must be a non-empty (rows, columns) table, got shape (0, 2)"),
        ([["a"], ["b"]], [0, 1], {}, "arrays: features must be a table of numbers; encode words as numbers first"),
        (
            X,
            ["a", "b", "a"],
            {"labels": "regression"},
            "arrays: labels='regression' needs numbers as targets, got 'a'",
        ),
        (X, [1, 2, 3], {"labels": 4}, "unknown label of arrays '4': did you mean '3'? (known: 1, 2, 3)"),
        (X, [1, 2, 3], {"labels": [1, 2, 3]}, "arrays: positive labels 1, 2, 3 leave no row of the other class"),
        (X, [1, 2, 3], {"labels": []}, "arrays: positive labels (none) leave no row of the other class"),
        (
            X,
            [0, 1, 1],
            {"scale": "standart"},
            "unknown scale 'standart': did you mean 'standard'? (known: maxabs, minmax, none, standard, unit)",
        ),
    ],
)
def test_bad_data_is_refused(complaint, features, targets, options, message):
    assert complaint(from_arrays, features, targets, **options) == message


def test_regression_has_no_classes(complaint):
    data = from_arrays(X, [0.5, 1.5, 2.5])
    assert complaint(data.binary, 1) == "arrays: regression targets have no classes to make binary targets from"


TABLES = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.integers(-50, 50))


@given(TABLES)
def test_scalings_do_what_they_say(table):
    varies = np.ptp(table, axis=0) > 0
    standard = scaled(table, "standard")
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(axis=0), varies, atol=1e-12)
    minmax = scaled(table, "minmax")
    np.testing.assert_allclose(minmax.max(axis=0), varies, atol=1e-12)
    np.testing.assert_allclose(minmax.min(axis=0), -1.0 * varies, atol=1e-12)
    np.testing.assert_allclose(np.abs(scaled(table, "maxabs")).max(axis=0), np.any(table != 0, axis=0))
    np.testing.assert_allclose(np.linalg.norm(scaled(table, "unit"), axis=1), np.any(table != 0, axis=1))
    assert np.array_equal(scaled(table, None), table)


def test_standard_scaling_leaves_a_constant_column_of_awkward_value_at_zero():
    table = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    assert np.abs(scaled(table, "standard")[:, 0]).max() < 1e-15
    assert scalings() == ["none", "standard", "minmax", "maxabs", "unit"]


def test_the_layer_needs_numpy_only():
    """Heavy packages (scikit-learn, SciPy, pandas, matplotlib) are imported inside functions; JAX never."""
    allowed = {"numpy", "fedjax_lc"}
    heavy = {"jax", "flax", "sklearn", "scipy", "pandas", "matplotlib"}
    for path in Path(fedjax_lc.data.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        everywhere = {name for node in ast.walk(tree) for name in _imported(node)}
        at_import = {name for node in tree.body for name in _imported(node)}
        assert not everywhere & {"jax", "flax"}, path
        assert not (at_import & heavy) - allowed, path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0]]
    return []


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
def test_images_come_as_arrays_too(shape):
    images = np.random.default_rng(0).random((6, *shape))
    found = from_arrays(images, [0, 1, 2, 0, 1, 2])
    assert found.shape == (*shape, *(1,) * (3 - len(shape)))
    np.testing.assert_array_equal(found.features, images.reshape(6, -1))
