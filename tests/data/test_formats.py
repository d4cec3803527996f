"""Files and folders of every format that is read, each made here; and those that are not, each named with its cure."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image
from scipy.sparse import csc_array

import fedjax_lc as fl
from fedjax_lc.data import axes, folders, formats, load, named

FRAME = pd.DataFrame({"a": [0.5, 2, 4, 1], "b": [1, 3, 4, 2], "label": ["no", "yes", "no", "yes"]})
X, Y = FRAME[["a", "b"]].to_numpy(), np.array([-1.0, 1, -1, 1])
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
KNOWN = ", ".join(formats.KNOWN)


def assert_frame(data, name):
    assert (data.name, data.features.tolist(), data.targets.tolist()) == (name, X.tolist(), Y.tolist())
    assert data.notes == (f"{name}: target 'label', 4 rows, 2 features, 2 classes (no, yes)",)


def packed(content, name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"in/{name}", content)
        archive.writestr("__MACOSX/._x", b"\0\5\7")
    return out.getvalue()


# --- tables ---

TABLES = {
    "csv": lambda path: FRAME.to_csv(path, index=False),
    "tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "txt": lambda path: FRAME.to_csv(path, index=False, sep=";"),
    "data": lambda path: FRAME.to_csv(path, index=False),
    "parquet": lambda path: FRAME.to_parquet(path),
    "feather": lambda path: FRAME.to_feather(path),
}


@pytest.mark.parametrize("ending", TABLES)
def test_tables_packed_or_not(tmp_path, ending):
    name = f"toy.{ending}"
    TABLES[ending](tmp_path / name)
    assert_frame(load(tmp_path / name), name)
    content = (tmp_path / name).read_bytes()
    for end, pack in {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():
        (tmp_path / f"{name}.{end}").write_bytes(pack(content))
        assert_frame(load(tmp_path / f"{name}.{end}"), f"{name}.{end}")
    (tmp_path / "toy.zip").write_bytes(packed(content, name))
    assert_frame(load(tmp_path / "toy.zip"), "toy.zip")
    (tmp_path / "unnamed").write_bytes(gzip.compress(content))  # known by its bytes alone
    assert_frame(load(tmp_path / "unnamed"), "unnamed")


def test_a_table_beside_a_picture_is_the_table(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "plot.png").write_bytes(picture())
    assert_frame(load(tmp_path), tmp_path.name)


def test_an_arrow_stream_words_as_codes_and_gaps(tmp_path, complaint):
    words = pyarrow.array(["yes", "no", "no", None]).dictionary_encode()
    table = pyarrow.table({"a": [1, None, 3, 4], "label": words})
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    cell = f"{tmp_path / 'a.arrow'}: row 2, column 'a': the cell is empty; "
    assert complaint(load, tmp_path / "a.arrow").startswith(cell)
    data = load(tmp_path / "a.arrow", missing="drop")
    assert (data.features.tolist(), data.targets.tolist()) == ([[1], [3]], [1, -1])
    assert data.notes[1] == "rows with an empty cell, left out: 2 of 4"


def test_pictures_and_lists_in_parquet(tmp_path):
    files = [{"bytes": picture("PNG", k), "path": None} for k in range(4)]
    table = pyarrow.table({"image": files, "split": ["s"] * 4, "label": [0, 1, 2, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    assert (data.shape, data.features.dtype) == ((8, 8, 3), np.uint8)
    assert np.array_equal(data.features, PICTURES[:4].reshape(4, -1))
    assert data.notes[1:] == (
        "pictures are column 'image', target 'label'",
        "columns split are left out beside the pictures",
    )
    table = pyarrow.table({"v": [[1.0, 2], [3, 5]], "y": [0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    assert load(tmp_path / "b.parquet").features.tolist() == [[1, 2], [3, 5]]


def test_cells_of_other_kinds_are_refused(tmp_path, complaint):
    path = tmp_path / "a.parquet"
    for column, what in (
        (
            pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "holds a datetime, which is no number or word; make columns of it",
        ),
        ([{"x": 1}, {"x": 2}], "holds a dict, which is no number or word; make columns of it"),
        ([[1], [1, 2]], "lists of several lengths, or not of numbers; make columns of them"),
    ):
        pd.DataFrame({"a": column, "y": [0, 1]}).to_parquet(path)
        assert complaint(load, path) == f"{path}: column 'a'{' ' if what.startswith('is') else ': '}{what}"


# --- LIBSVM ---


@pytest.mark.parametrize(
    ("text", "allow", "rows"),
    [
        ("1 0:5 2:7\n0 1:3\n", "zero", [[5, 0, 7], [0, 3, 0]]),
        ("1 3:7 1:5\n0 2:3\n", "unsorted", [[5, 0, 7], [0, 3, 0]]),
        ("1 1:2 1:3 3:7\n0 2:3\n", "repeated", [[5, 0, 7], [0, 3, 0]]),
        ("1 qid:4 1:5 3:7\n0 qid:2 2:3\n", "qid", [[5, 0, 7], [0, 3, 0]]),
        ("1 2:7 0:2 0:3\n0 1:3\n", ("zero", "unsorted", "repeated"), [[5, 0, 7], [0, 3, 0]]),
    ],
)
def test_irregular_libsvm_is_read_on_request(tmp_path, complaint, text, allow, rows):
    path = tmp_path / "a.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        complaint(load, path)
        data = load(path, allow=allow)
        assert data.features.tolist() == rows
        assert (data.groups is None) == (allow != "qid")
        assert data.notes[0].startswith("a.txt: read as LIBSVM, 2 rows, 3 features, 2 classes (0, 1)")
    if allow == "qid":
        assert data.groups.tolist() == [1, 0]
        path.write_text(text.replace("qid:4 ", ""))
        assert complaint(load, path, allow=allow).endswith(
            "some rows have a qid, others none; give one to each row, or to none"
        )


def test_libsvm_in_utf16_without_a_mark_says_so(tmp_path, complaint):
    path = tmp_path / "a.libsvm"
    path.write_bytes("1 1:2\n0 1:3\n".encode("utf-16-be"))
    assert complaint(load, path) == f"{path}: is in UTF-16 without a byte order mark; save it as UTF-8"


# --- arrays ---


@pytest.mark.parametrize(
    ("names", "test"),
    [
        (("features", "targets"), None),
        (("images", "labels"), None),
        (("data", "target"), None),
        (("x_train", "y_train"), ("x_test", "y_test")),
        (("X_train", "Y_train"), ("X_test", "Y_test")),
        (("train_images", "train_labels"), ("test_images", "test_labels")),
        (("Xtr", "ytr"), ("Xte", "yte")),
    ],
)
@pytest.mark.parametrize("form", ["npz", "npy", "mat", "dict"])
def test_arrays_with_names(tmp_path, names, test, form):
    held = dict(zip(names, (X, Y), strict=True)) | (dict(zip(test, (X[:3], Y[:3]), strict=True)) if test else {})
    held |= {"theta": np.ones(7)}
    path = tmp_path / f"toy.{form}"
    if form == "npz":
        np.savez(path, **held)
    elif form == "mat":
        scipy.io.savemat(path, held, do_compression=bool(test))
    elif form == "npy":
        path = tmp_path / "toy"
        path.mkdir()
        for name, array in held.items():
            np.save(path / f"{name}.npy", array)
    data = fl.data.from_object(held) if form == "dict" else load(path)
    assert (data.features.tolist(), data.targets.tolist()) == (X.tolist(), Y.tolist())
    assert (data.test is None) == (test is None)
    if test:
        assert (data.test.features.tolist(), data.test.targets.tolist()) == (X[:3].tolist(), Y[:3].tolist())
    if form != "dict":
        rows = "4 + 3 test rows" if test else "4 rows"
        assert data.notes[0] == f"{path.name}: read as arrays, {rows}, 2 features, 2 classes (-1, 1)"


@pytest.mark.parametrize("names", [("X.npy", "y.npy"), ("toy_X.npy", "toy_y.npy"), ("x_train.npy", "y_train.npy")])
def test_npy_files_beside_each_other(tmp_path, complaint, names):
    np.save(tmp_path / names[0], X)
    cure = "put the targets beside it (X.npy and y.npy), or both into one file by numpy.savez(path, X=..., y=...)"
    alone = f"{tmp_path / names[0]}: holds one array of shape (4, 2); {cure}"
    assert complaint(load, tmp_path / names[0]) == alone
    np.save(tmp_path / names[1], Y)
    for name in names:
        data = load(tmp_path / name)
        assert (data.features.tolist(), data.targets.tolist()) == (X.tolist(), Y.tolist())
    np.save(tmp_path / "theta.npy", X)
    assert complaint(load, tmp_path / "theta.npy").endswith(cure)


def test_names_that_are_not_there(tmp_path, complaint):
    needed = "needs arrays 'features' and 'targets' (or 'X' and 'y', 'x_train' and 'y_train', 'images' and 'labels')"
    np.save(tmp_path / "theta.npy", X)
    assert complaint(load, tmp_path) == f"{tmp_path}: {needed}, got 'theta'"
    scipy.io.savemat(tmp_path / "a.mat", {"theta": X})
    assert complaint(load, tmp_path / "a.mat") == f"{tmp_path / 'a.mat'}: {needed}, got 'theta'"
    assert [named.role(name) for name in ("theta", "training", "test", "xylem")] == [None] * 4
    assert folders.beside(PurePosixPath("theta.npy"), ["theta.npy", "X.npy"]) == {}


def test_one_hot_targets_gaps_and_clients(tmp_path):
    classes = np.array([2, 0, 1, 2, 0, 1])
    np.savez(tmp_path / "a.npz", images=PICTURES, labels=np.eye(3)[classes], groups=[5, 5, 3, 3, 3, 5])
    data = load(tmp_path / "a.npz")
    assert (data.shape, data.features.dtype, data.targets.tolist()) == ((8, 8, 3), np.uint8, classes.tolist())
    assert (data.groups.tolist(), data.notes[1]) == ([1, 1, 0, 0, 0, 1], "targets are read as one-hot, of 3 classes")
    gaps = X.copy()
    gaps[1, 0] = np.nan
    np.savez(tmp_path / "b.npz", X=gaps, y=Y)
    assert load(tmp_path / "b.npz", missing="mean").features[1, 0] == pytest.approx(gaps[[0, 2, 3], 0].mean())
    assert load(tmp_path / "b.npz", missing="drop").features.tolist() == X[[0, 2, 3]].tolist()


def test_matrices_of_matlab(tmp_path, complaint):
    scipy.io.savemat(tmp_path / "a.mat", {"X": csc_array(X), "y": Y[None, :], "info": "words", "c": [{"a": 1}]})
    data = load(tmp_path / "a.mat")
    assert (data.features.tolist(), data.targets.tolist()) == (X.tolist(), Y.tolist())
    last = np.moveaxis(PICTURES, 0, -1)
    scipy.io.savemat(tmp_path / "b.mat", {"X": last, "y": np.arange(6)[:, None] % 3 + 1}, do_compression=True)
    data = load(tmp_path / "b.mat")
    assert np.array_equal(data.features, PICTURES.reshape(6, -1))
    assert (data.shape, data.classes) == ((8, 8, 3), (1, 2, 3))
    assert data.notes[1] == "rows of features are along their last axis"
    scipy.io.savemat(tmp_path / "c.mat", {"X": X * 1j, "y": Y})
    cure = "X holds complex numbers; save real and imaginary parts as columns"
    assert complaint(load, tmp_path / "c.mat") == f"{tmp_path / 'c.mat'}: {cure}"


# --- pictures ---


def picture(kind="PNG", k=0, mode="RGB"):
    out = io.BytesIO()
    Image.fromarray(PICTURES[k]).convert(mode).save(out, kind)
    return out.getvalue()


def write_pictures(folder, labels, kind="PNG", mode="RGB"):
    for k, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{k}.{kind.lower()}").write_bytes(picture(kind, k, mode))


def test_a_folder_of_pictures_a_class(tmp_path):
    write_pictures(tmp_path / "a", ["cat", "dog", "cat", "eel"])
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "readme.txt").write_bytes(b"x")
    data = load(tmp_path / "a")
    assert (data.classes, data.targets.tolist(), data.shape) == (("cat", "dog", "eel"), [0, 0, 1, 2], (8, 8, 3))
    assert np.array_equal(data.features, PICTURES[[0, 2, 1, 3]].reshape(4, -1))
    assert data.notes == (
        "a: read as arrays, 4 rows, 8x8x3 features, 3 classes (cat, dog, eel)",
        "files that are no pictures, left out: 1",
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (tmp_path / "a").rglob("*.png"):
            archive.write(path, f"all/{path.relative_to(tmp_path / 'a')}")
    assert np.array_equal(load(tmp_path / "a.zip").features, data.features)


def test_pictures_for_training_and_testing(tmp_path):
    write_pictures(tmp_path / "train", ["cat", "dog"], "BMP", "L")
    write_pictures(tmp_path / "test", ["dog"], "JPEG", "L")
    write_pictures(tmp_path / "val", ["cat"])
    data = load(tmp_path)
    assert (data.shape, len(data.targets), data.test.targets.tolist()) == ((8, 8, 1), 2, [1])
    grey = np.array(Image.fromarray(PICTURES[0]).convert("L"))
    assert np.array_equal(data.features[0], grey.ravel())
    assert data.notes[1:] == ("folders of neither part, left out: val",)
    (tmp_path / "test" / "dog" / "0.jpeg").unlink()
    assert load(tmp_path).test.targets.tolist() == [-1]  # without a test folder that of validation


def test_pictures_that_do_not_fit(tmp_path, complaint):
    write_pictures(tmp_path, ["cat", "dog"])
    (tmp_path / "cat" / "5.png").write_bytes(picture(mode="L"))
    assert load(tmp_path).shape == (8, 8, 3)  # grey among colours
    out = io.BytesIO()
    Image.fromarray(PICTURES[0][:5]).save(out, "PNG")
    (tmp_path / "dog" / "6.png").write_bytes(out.getvalue())
    assert complaint(load, tmp_path) == (
        f"{tmp_path / 'dog' / '6.png'}: the picture is 5 x 8, but {tmp_path / 'cat' / '0.png'} is 8 x 8: resize "
        "them all to one size"
    )
    (tmp_path / "dog" / "6.png").write_bytes(b"spam")
    kinds = "PNG, JPEG, BMP, GIF, PPM, WEBP"
    assert complaint(load, tmp_path) == (
        f"{tmp_path / 'dog' / '6.png'}: not a picture that can be read ({kinds}); save it again as PNG"
    )
    (tmp_path / "6.png").write_bytes(picture())
    assert complaint(load, tmp_path) == (
        f"{tmp_path / '6.png'}: a picture outside of the folders of classes; put it into one, as in cat/1.png"
    )


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((3, 8, 8), (8, 8, 3)), ((8, 8, 3), (8, 8, 3)), ((1, 6, 5), (6, 5, 1)), ((4, 6, 3), (4, 6, 3)),
        ((3, 4, 4), (4, 4, 3)), ((3, 3, 3), (3, 3, 3)), ((16, 8, 8), (8, 8, 16)), ((8, 8, 16), (8, 8, 16)),
    ],
)  # fmt: skip
def test_channels_come_last(shape, kept):
    pictures = np.random.default_rng(0).random((4, *shape))
    data = fl.data.from_arrays(pictures, [0, 1, 2, 0])
    turned = pictures if shape == kept else np.moveaxis(pictures, 1, -1)
    assert data.shape == kept
    assert np.array_equal(data.features.reshape(turned.shape), turned)
    size = ["x".join(map(str, each)) for each in (shape, kept)]
    note = (f"pictures of {size[0]} are read with channels first, and kept as {size[1]}",)
    assert data.notes == (() if shape == kept else note)
    made = fl.data.from_images((pictures * 255).astype(np.uint8), [0, 1, 2, 0])
    assert (made.shape, made.notes) == (kept, data.notes)


def test_a_network_by_name_refuses_channels_first():
    rows = [(np.random.rand(4, 3, 8, 8), np.arange(4) % 2)] * 2
    with pytest.raises(fl.InputError, match=r"shape \(3, 8, 8\), channels first: give np.moveaxis\(X, 1, -1\)"):
        fl.problems.neural("cnn", rows)


# --- LEAF ---


def write_leaf(path, users):
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {user: {"x": x, "y": y} for user, (x, y) in users.items()}
    path.write_text(json.dumps({"users": list(users), "num_samples": [1] * len(users), "user_data": told}))


@pytest.mark.parametrize("inside", ["", "data"])
def test_leaf_with_test_rows_of_each_client(tmp_path, inside):
    rows = np.random.default_rng(0).random((6, 784)).round(3)
    write_leaf(
        tmp_path / inside / "train" / "a.json", {"f3": (rows[:2].tolist(), [3, 7]), "f1": (rows[2:3].tolist(), [3])}
    )
    write_leaf(
        tmp_path / inside / "test" / "a.json", {"f1": (rows[3:5].tolist(), [9, 7]), "f0": (rows[5:].tolist(), [3])}
    )
    write_leaf(tmp_path / inside / "all_data" / "a.json", {"f0": (rows.tolist(), [1] * 6)})
    data = load(tmp_path)
    assert (data.shape, data.classes, data.targets.tolist()) == ((28, 28, 1), (3, 7, 9), [0, 1, 0])
    assert np.array_equal(data.features, rows[:3])
    assert (data.groups.tolist(), data.test.groups.tolist()) == ([0, 0, 1], [1, 1, 2])
    assert np.array_equal(data.test.features, rows[3:])
    assert data.notes[0].endswith("3 + 3 test rows, 28x28x1 features, 3 classes (3, 7, 9), 2 clients")
    problem = fl.problem(tmp_path, model="linear")
    assert np.bincount(np.asarray(problem.test.owners), minlength=2).tolist() == [0, 2]
    accuracy = problem.measure(problem.x0, ("client_test_accuracy",))["client_test_accuracy"]
    assert np.isnan(accuracy).tolist() == [True, False]  # the first has no test rows


def test_leaf_files_of_other_kinds(tmp_path, complaint):
    path = tmp_path / "a.json"
    write_leaf(path, {"A": (["But so", "ut sof"], ["f", "t"])})
    assert load(path).task == "sequence"
    write_leaf(path, {"A": ([[0.5, 1], [2, 3]], ["no", "yes"]), "B": ([[4, 5]], ["no"])})
    data = load(path)
    assert (data.features.tolist(), data.groups.tolist()) == ([[0.5, 1], [2, 3], [4, 5]], [0, 0, 1])
    before, after = f"{path}: not a JSON file of LEAF (", "); make it again by LEAF's preprocess.sh"
    for x, y, fault in (
        ([[1], [1, 2]], [0, 1], "user 'A': x holds what is no number, or rows of several lengths"),
        ([[1], [2]], [0], "user 'A': 2 rows of x need as many numbers or words in y"),
        ([[1]], [None], "user 'A': 1 rows of x need as many numbers or words in y"),
        ("ab", [0], "a user's x or y is no list"),
    ):
        write_leaf(path, {"A": (x, y)})
        assert complaint(load, path) == before + fault + after
    path.write_text('{"a": 1}')
    assert complaint(load, path) == before + "it is cut off, or has another form" + after
    write_leaf(path, {"A": ([], [])})
    assert complaint(load, path) == "a.json: no user has rows; make the files again by LEAF's preprocess.sh"


# --- what is not read ---

NPZ, CSV = "save the arrays by numpy.savez(path, X=..., y=...)", "save the table as CSV or Parquet"


@pytest.mark.parametrize(
    ("content", "what", "cure"),
    [
        (b"\x89HDF\r\n\x1a\n\0", "HDF5 (or MATLAB 7.3)", f"{NPZ}; MATLAB: save -v7"),
        (pickle.dumps({"X": [1]}), "a pickle, which could run any program", NPZ),
        (b"\x28\xb5\x2f\xfd\0\0", "a .zst file", "unpack it first"),
        (b"SQLite format 3\0", "an SQLite database", CSV),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel file", CSV),
        (b"%PDF-1.7\n", "PDF", CSV),
        (b"<!DOCTYPE html>\n<html>", "a web page", "download the file itself"),
        (b"% x\n@RELATION iris\n", "ARFF", CSV),
        (
            b"But soft what light\n",
            "text (its first line is 'But soft what light')",
            "put commas or tabs between the cells",
        ),
        (b"\0" * 257 + b"ustar\0" + b"\0" * 300, "a .tar archive", "unpack it and give the folder"),
    ],
)
def test_other_formats_are_named_with_their_cure(tmp_path, complaint, content, what, cure):
    path = tmp_path / "toy"
    path.write_bytes(content)
    assert complaint(load, path) == f"{path}: is {what}, which is not read; {cure} (read are {KNOWN})"


def test_a_picture_and_archives_of_other_programs(tmp_path, complaint):
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    assert complaint(load, path).startswith(f"{path}: is one picture, which is not read; give the folder that holds")
    for name, what in (
        ("model/data.pkl", f"is a file of PyTorch, a pickle that could run any program; {NPZ}"),
        ("xl/workbook.xml", f"is an Excel file; {CSV}"),
    ):
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr(name, b"x")
        assert complaint(load, tmp_path / "a.pt") == f"{tmp_path / 'a.pt'}: {what}"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.doc", b"x")
        archive.writestr("b.doc", b"x")
    assert complaint(load, tmp_path / "a.zip") == (
        f"{tmp_path / 'a.zip'}: holds no data that are known (a.doc, b.doc); read are {KNOWN}"
    )


def test_the_formats_are_listed(capsys):
    from fedjax_lc.cli import main

    assert main(["list", "data"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in formats.KNOWN)
    assert axes.ENDINGS[0] in formats.KNOWN["pictures"][0]
