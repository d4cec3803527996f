"""Data that live in Python: frames, mappings, PyTorch's and Hugging Face's data sets, one for all or one a client."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pyarrow
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

import fedjax_lc as fl
from fedjax_lc.data import Reading, from_object

FRAME = pd.DataFrame({"a": [0.5, 2, 4, 1], "word": ["u", "v", "u", "v"], "label": ["no", "yes", "no", "yes"]})
ROWS = [[0.5, 0], [2, 1], [4, 0], [1, 1]]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


class Torch:
    """As a data set of PyTorch: rows (features, target), by place."""

    def __init__(self, rows, labels):
        self.rows, self.labels = rows, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return Tensor(self.rows[i]), int(self.labels[i])


class Tensor:
    """As a tensor of PyTorch, on another device and in a graph."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return types.SimpleNamespace(cpu=lambda: self.array)


class HuggingFace:
    """As a data set of Hugging Face."""

    def __init__(self, columns, **classes):
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: types.SimpleNamespace(names=classes.get(name)) for name in columns}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def with_format(self, kind):
        assert kind is None
        return self

    def __getitem__(self, rows):
        return {name: column[rows] for name, column in self.columns.items()}


# --- frames ---


@pytest.mark.parametrize("kind", ["pandas", "arrow", "polars", "mapping", "extension"])
def test_frames(kind):
    made = {
        "pandas": lambda: FRAME.set_index(np.arange(5, 9)),
        "arrow": lambda: pyarrow.Table.from_pandas(FRAME),
        "polars": lambda: pytest.importorskip("polars").from_pandas(FRAME),
        "mapping": lambda: FRAME.to_dict("list"),
        "extension": lambda: FRAME.convert_dtypes().astype({"word": "category"}),
    }[kind]()
    data = from_object(made, name="toy", how=Reading(categories="codes"))
    assert (data.features.tolist(), data.targets.tolist(), data.classes) == (ROWS, [-1, 1, -1, 1], ("no", "yes"))
    assert data.notes == (
        "toy: target 'label', 4 rows, 2 features, 2 classes (no, yes)",
        "words read as codes: 'word' (2: u, v)",
    )


def test_frames_with_gaps_and_other_targets(complaint):
    gaps = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [True, False, True], "y": [0.5, 1.5, 2.5]})
    assert complaint(from_object, gaps) == (
        "dataframe: row 2, column 'a': the cell is empty; --missing mean or drop (in Python missing=\"mean\") fills it "
        "or leaves the row out"
    )
    data = from_object(gaps, how=Reading(missing="mean"))
    assert (data.task, data.features.tolist()) == ("regression", [[1, 1], [2, 0], [3, 1]])
    assert from_object(gaps, labels="regression", how=Reading(target="b", missing="drop")).targets.tolist() == [1, 1]
    when = pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2020-01-02"]), "y": [0, 1]})
    assert complaint(from_object, when) == "dataframe: column 'when': holds dates; make numbers of them"


def test_a_problem_takes_a_frame_as_the_command_line_takes_a_file(tmp_path):
    frame = pd.concat([FRAME] * 4, ignore_index=True).assign(a=np.arange(16.0) % 7)
    frame.to_csv(tmp_path / "a.csv", index=False)
    reading = {"target": "label", "categories": "onehot", "clients": 2, "kappa": 20}
    one, other = fl.problem(frame, **reading), fl.problem(tmp_path / "a.csv", **reading)
    np.testing.assert_array_equal(one.features.array, other.features.array)
    assert other.recipe["data"]["categories"] == "onehot"
    with pytest.raises(fl.InputError, match="dataframe: row 1, column 'word': 'u' is not a number; --categories"):
        fl.problem(frame, clients=2)
    with pytest.raises(fl.InputError, match="iris: target is for tables with columns"):
        fl.problem(fl.data.load("iris"), target="label")
    assert fl.problem("iris", labels="setosa", clients=2).dim == 4


# --- pairs, parts and clients ---


def test_parts_for_training_and_testing():
    pair = ((PIXELS[:4], [0, 1, 0, 2]), (PIXELS[4:], [1, 3]))  # as Keras loads them
    for data in (from_object(pair), from_object({"train": pair[0], "test": pair[1]})):
        assert (data.shape, data.classes, data.targets.tolist()) == ((5, 7, 3), (0, 1, 2, 3), [0, 1, 0, 2])
        assert np.array_equal(data.test.features, PIXELS[4:].reshape(2, -1))
        assert data.test.targets.tolist() == [1, 3]
    one = from_object((csr_matrix(np.eye(4)), [0, 1, 1, 0]))
    assert (one.name, one.features.tolist()) == ("arrays", np.eye(4).tolist())


def test_clients_with_test_rows_of_their_own():
    split = [{"train": FRAME, "test": FRAME[:1]}, {"train": FRAME[1:3]}, {"train": FRAME, "test": FRAME[2:]}]
    data = from_object(split, how=Reading(categories="codes"))
    assert (data.name, data.groups.tolist()) == ("clients", [0] * 4 + [1] * 2 + [2] * 4)
    assert (data.test.groups.tolist(), data.test.features.tolist()) == ([0, 2, 2], [ROWS[0], *ROWS[2:]])
    assert data.notes[0].endswith("10 + 3 test rows, 2 features, 2 classes (no, yes), 3 clients")
    problem = fl.problem(split, categories="codes", model="linear")
    assert np.asarray(problem.test.owners).tolist() == [0, 2, 2]


@pytest.mark.parametrize("turned", [False, True])
def test_data_sets_of_pytorch(turned):
    rows = np.moveaxis(PIXELS, -1, 1) if turned else PIXELS
    data = from_object(Torch(rows, [0, 1, 2, 0, 1, 2]))
    assert (data.shape, data.features.dtype) == ((5, 7, 3), np.uint8)
    assert np.array_equal(data.features, PIXELS.reshape(6, -1))
    clients, test = [Torch(rows[:2], [7, 5]), Torch(rows[2:5], [5, 5, 9])], Torch(rows[5:], [9])
    problem = fl.problems.neural("linear", clients, test)
    assert (problem.n, problem.table.features.shape) == (2, (5, 5, 7, 3))
    assert np.asarray(problem.table.targets).tolist() == [1, 0, 0, 0, 2]  # classes count alike in all of them
    assert (np.asarray(problem.test.targets).tolist(), problem.test.owners) == ([2], None)
    each = fl.problems.neural("linear", [{"train": c, "test": test} for c in clients])
    assert np.asarray(each.test.owners).tolist() == [0, 1]


def test_data_sets_of_hugging_face():
    pictures = [Image.fromarray(picture) for picture in PIXELS]
    made = HuggingFace(
        {"image": pictures, "digit": [2, 0, 1, 2, 0, 1], "writer": list("aabbcc")}, digit=["x", "z", "q"]
    )
    data = from_object(made)
    assert (data.shape, data.classes, data.targets.tolist()) == ((5, 7, 3), ("q", "x", "z"), [0, 1, 2, 0, 1, 2])
    assert data.notes == (
        "huggingface: read as arrays, 6 rows, 5x7x3 features, 3 classes (q, x, z)",
        "pictures are column 'image', target 'digit', the last column",
        "columns writer are left out beside the pictures",
    )
    table = HuggingFace({"label": [0, 1, 1], "v": [[1, 2], [3, 4], [5, 6]], "b": [None, 1.0, 2.0]})
    data = from_object({"train": table, "test": table}, how=Reading(missing="mean"))
    assert data.features.tolist() == [[1, 2, 1.5], [3, 4, 1], [5, 6, 2]]
    assert data.test.targets.tolist() == [-1, 1, 1]


def test_real_data_sets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(picture) for picture in PIXELS], "label": [0, 1] * 3}
    parts = datasets.Dataset.from_dict(rows, features=kinds).train_test_split(test_size=2, seed=0)
    data = from_object([parts, parts])
    assert (data.shape, data.classes, data.groups.tolist()) == ((5, 7, 3), ("cat", "dog"), [0] * 4 + [1] * 4)
    assert data.test.groups.tolist() == [0, 0, 1, 1]


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (3, "data are a name, a file or folder, a Dataset, a pair (features, targets), a frame, "),
        ([], "clients: an empty list; give one data set for each client"),
        ([[FRAME]], "client 0: lists within a list; give one data set for each client"),
        ([(np.eye(2), 3)], "client 0: needs rows of features and as many targets, got int"),
        ([FRAME, (np.eye(2), [0, 1])], "some parts are tables of columns, others arrays; give all parts alike"),
        (
            [FRAME, FRAME.rename(columns={"a": "c"})],
            "client 1: has other columns than client 0 (a, c differ): give all",
        ),
        (
            [(np.eye(2), [0, 1]), (np.eye(3), [0, 1, 1])],
            "client 1: features of shape (3,) a row, but client 0 has (2,)",
        ),
        ([fl.data.from_arrays(np.eye(2), [0, 1])], "client 0: a Dataset is checked already; give it alone"),
        (Torch([], []), "torch: has no rows; leave such a client out"),
        (
            Torch([np.eye(2), np.eye(3)], [0, 1]),
            "torch: row 1 has shape (3, 3), but row 0 has (2, 2): make all rows alike",
        ),
        (np.eye(3), "got ndarray"),
        ("abc", "got str"),
        (types.SimpleNamespace(dataset=1, batch_size=2), "is a loader of batches; give its data set (loader.dataset)"),
        ({"a": [1, 2]}, "data: needs at least one row of data and two columns, the features and the target"),
        ({"X": np.eye(2)}, "data: needs arrays 'features' and 'targets'"),
    ],
)
def test_what_is_no_data(complaint, made, words):
    assert words in complaint(from_object, made)


def test_options_of_no_use(complaint):
    assert complaint(from_object, (np.eye(2), [0, 1]), how=Reading(target="a")) == (
        "arrays: target is for tables with columns (CSV, Parquet, Arrow, frames); leave it out"
    )
    assert complaint(from_object, FRAME, how=Reading(allow="qid")) == (
        "data: allow is for LIBSVM files only; leave it out"
    )
