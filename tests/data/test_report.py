"""The partition report: exact tables, and pictures in each format."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fedjax_lc.data
from fedjax_lc.data import PartitionReport, from_arrays, load, parse, partition


def test_table_of_labels():
    data = from_arrays(np.arange(6.0)[:, None], ["cat", "dog", "dog", "cat", "dog", "dog"])
    report = PartitionReport.of(data, [np.array([0, 3]), np.array([1, 2, 4])], "toy")
    assert report.table() == (
        "toy\n"
        "2 clients, 5 of 6 rows; sizes min 2, median 2.5, max 3\n"
        "distance of a client's label shares from those of all rows (total variation): mean 0.50, max 0.67\n"
        "client  rows    cat    dog\n"
        "     0     2   1.00   0.00\n"
        "     1     3   0.00   1.00\n"
        "   all     6   0.33   0.67"
    )
    assert str(report) == report.table()
    assert report.shares().tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(report.distances(), [2 / 3, 1 / 3])


def test_table_of_many_clients_and_classes_stays_short():
    labels = np.arange(1000) % 20
    table = PartitionReport(partition_of(labels), labels).table(limit=2)
    assert table.splitlines()[2:] == [
        "client  rows  classes  main class  its share",
        "     0    10       10           0       0.10",
        "     1    10       10          10       0.10",
        "... 98 more clients",
        "   all  1000       20           0       0.05",
    ]


def partition_of(labels):
    return np.split(np.arange(len(labels)), 100)


def test_table_of_regression():
    targets = np.array([0.5, 1.5, 3.0, 5.0])
    report = PartitionReport([np.array([0, 1]), np.array([2, 3])], targets)
    assert report.table() == (
        "2 clients, 4 of 4 rows; sizes min 2, median 2, max 2\n"
        "client  rows   mean  deviation\n"
        "     0     2      1        0.5\n"
        "     1     2      4          1\n"
        "   all     4    2.5      1.696"
    )


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_pictures(tmp_path, ending, start):
    data = load("digits")
    report = PartitionReport.of(data, partition(data, 30, "dirichlet:0.2"), "digits")
    path = report.plot(tmp_path / f"split{ending}")
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_pictures_of_regression_and_of_many_classes(tmp_path):
    data = load("diabetes_regression")
    assert PartitionReport.of(data, partition(data, 100, "power_law:1")).plot(tmp_path / "a.svg").exists()
    labels = np.arange(900) % 30
    assert PartitionReport(parse("shards:2")(labels, 9), labels).plot(tmp_path / "b.svg").exists()


def test_picture_bars_are_the_shares(tmp_path):
    from matplotlib.figure import Figure

    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    report = PartitionReport([np.array([0, 3]), np.array([1, 2, 4, 5, 6, 7])], labels)
    figure = Figure()
    report._draw(figure)
    top, bottom = figure.axes
    assert [bar.get_height() for bar in top.containers[0]] == [2, 6]
    zero, one = ([bar.get_height() for bar in bars] for bars in bottom.containers)
    np.testing.assert_allclose(zero, [1 / 2, 1 / 3])
    np.testing.assert_allclose(one, [1 / 2, 2 / 3])


def test_pictures_that_cannot_be_written(tmp_path, complaint):
    report = PartitionReport([np.array([0]), np.array([1])], np.array([0, 1]))
    spam = tmp_path / "a.spam"
    assert complaint(report.plot, spam) == f"{spam}: unknown picture format; end the name in .png, .pdf or .svg"
    (tmp_path / "file").touch()
    lost = tmp_path / "file" / "a.png"
    assert complaint(report.plot, lost) == f"cannot write {lost}: File exists; choose a folder you may write to"


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(fedjax_lc.data.__path__)])
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"fedjax_lc.data.{module}"))
    assert result.failed == 0
