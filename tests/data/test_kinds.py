"""Images, sequences and test parts: types and shapes, splits, scalings, partitions, and the message of each refusal."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_lc.data import (
    PartitionReport,
    clients,
    from_arrays,
    from_images,
    from_sequences,
    load,
    partition,
    scaled,
)

LABELS = np.repeat(np.arange(5), [40, 30, 20, 10, 4])
PIXELS = np.random.default_rng(0).integers(0, 256, (len(LABELS), 4, 6, 3), dtype=np.uint8)


def test_images_stay_bytes_in_row_major_order():
    data = from_images(PIXELS, LABELS, name="toy", classes="abcde", notes=["n"])
    assert (data.task, data.shape, data.classes, data.notes) == ("multiclass", (4, 6, 3), tuple("abcde"), ("n",))
    assert (data.features.dtype, data.targets.dtype) == (np.uint8, np.int64)
    assert np.array_equal(data.features.reshape(-1, *data.shape), PIXELS)
    assert np.array_equal(data.targets, LABELS)
    grey = from_images(PIXELS[..., 0], LABELS, groups=LABELS % 2 * 7)
    assert (grey.shape, grey.classes, np.unique(grey.groups).tolist()) == ((4, 6, 1), (0, 1, 2, 3, 4), [0, 1])


def test_sequences_are_ids_of_characters():
    data = from_sequences([[0, 2], [1, 1]], [[2, 1], [1, 0]], "abc")
    assert (data.task, data.classes, data.shape) == ("sequence", ("a", "b", "c"), ())
    assert (data.features.dtype, data.targets.dtype, data.targets.shape) == (np.int32, np.int32, (2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: from_images(PIXELS / 255, LABELS),
            "images: images must be uint8 of shape (N, height, width) or (N, height, width, channels), "
            "got float64 of shape (104, 4, 6, 3)",
        ),
        (
            lambda: from_images(PIXELS, LABELS[1:]),
            "images: 104 images need as many whole numbers as targets, got int64 of shape (103,)",
        ),
        (
            lambda: from_images(PIXELS, LABELS, classes="abcd"),
            "images: targets must be in 0..3 for 4 classes, got 0..4",
        ),
        (
            lambda: from_images(PIXELS, LABELS, groups=[1]),
            "images: 104 rows need one group each, got groups of shape (1,)",
        ),
        (
            lambda: from_sequences([[0, 1]], [[1]], "ab"),
            "text: needs ids of one shape (windows, characters) as features and targets, "
            "got int64 of shape (1, 2) and int64 of shape (1, 1)",
        ),
        (
            lambda: from_sequences([[0, 1]], [[1, 2]], "ab"),
            "text: targets must be in 0..1 for 2 classes, got 1..2",
        ),
        (
            lambda: from_arrays([[1.0, 2.0], [3.0, 5.0]], [0, 1], shape=(3, 1, 1)),
            "arrays: rows of shape (3, 1, 1) have 3 features, got 2",
        ),
        (
            lambda: from_sequences([[0, 1]], [[1, 0]], "ab").binary("a"),
            "text: sequence targets have no classes to make binary targets from",
        ),
        (
            lambda: from_sequences([[0, 1]], [[1, 0]], "ab").scaled("unit"),
            "text: scale 'unit' is for numbers, but features are characters; leave it out",
        ),
    ],
)
def test_bad_images_and_sequences_are_refused(complaint, make, message):
    assert complaint(make) == message


def test_digits_are_images_of_real_numbers():
    data = load("digits")
    assert (data.shape, data.features.dtype, data.features.max()) == ((8, 8, 1), np.float64, 16)


# --- test parts ---


def test_a_split_is_stratified_by_class_and_loses_no_row():
    data = from_images(PIXELS, LABELS).split(0.25, seed=3)
    assert np.bincount(data.test.targets).tolist() == [10, 8, 5, 2, 1]
    assert np.bincount(data.targets).tolist() == [30, 22, 15, 8, 3]
    both = np.concatenate([data.features, data.test.features])
    assert np.array_equal(np.unique(both, axis=0), np.unique(PIXELS.reshape(len(PIXELS), -1), axis=0))
    assert (data.test.shape, data.test.classes, data.test.test) == (data.shape, data.classes, None)
    same, other = (from_images(PIXELS, LABELS).split(0.25, seed=seed) for seed in (3, 4))
    assert np.array_equal(data.features, same.features)
    assert not np.array_equal(data.features, other.features)


def test_a_split_of_clients_takes_from_each_and_empties_none():
    groups = np.repeat([0, 1, 2], [50, 53, 1])
    data = from_images(PIXELS, LABELS, groups=groups).split(0.5)
    assert np.bincount(data.groups).tolist() == [25, 27, 1]
    assert np.bincount(data.test.groups).tolist() == [25, 26]
    assert len(partition(data)) == 3


def test_a_split_of_real_targets_takes_rows_at_random():
    data = from_arrays(np.arange(100.0)[:, None], np.arange(100) / 7).split(0.3)
    assert (len(data.targets), len(data.test.targets)) == (70, 30)
    assert np.all(np.sort(np.r_[data.targets, data.test.targets]) == np.arange(100) / 7)


@pytest.mark.parametrize(
    ("share", "seed", "message"),
    [
        (0.0, 0, "images: the share of the test part must be between 0 and 1, got 0.0"),
        (1.0, 0, "images: the share of the test part must be between 0 and 1, got 1.0"),
        (0.5, -1, "images: the split seed must be 0 or more, got -1"),
        (0.001, 0, "images: a share of 0.001 leaves the test part empty; use a larger one"),
    ],
)
def test_splits_out_of_range(complaint, share, seed, message):
    assert complaint(from_images(PIXELS, LABELS).split, share, seed) == message


def test_a_second_split_is_refused(complaint):
    data = from_images(PIXELS, LABELS).split(0.25)
    assert complaint(data.split, 0.25) == "images: has a test part of 26 rows already; use that one"
    assert repr(data) == "Dataset('images', multiclass, 78 x 72 + 26 test rows, classes=(0, 1, 2, 3, 4))"


def test_the_test_part_follows_labels_and_scale():
    data = from_images(PIXELS, LABELS).split(0.25)
    odd = data.binary([1, 3])
    assert odd.test.targets.tolist() == [1.0 if label in (1, 3) else -1.0 for label in data.test.targets]
    assert odd.test.classes == odd.classes == ("0|2|4", "1|3")
    assert odd.features.dtype == np.uint8
    for scale in ("standard", "minmax", "maxabs", "unit"):
        made = data.scaled(scale)
        whole = scaled(np.concatenate([data.features] * 2 + [data.test.features]), scale, data.features)
        np.testing.assert_allclose(np.concatenate([made.features] * 2 + [made.test.features]), whole)
        assert made.features.dtype == np.float64
    mean, deviation = data.features.mean(axis=0), data.features.std(axis=0)
    np.testing.assert_allclose(data.scaled("standard").test.features, (data.test.features - mean) / deviation)
    assert data.scaled("none").features is data.features


# --- partitions ---


@pytest.mark.parametrize("how", ["iid", "power_law:1", "sorted", "shards:2", "dirichlet:0.5", "main_class:0.5"])
def test_partitions_of_images_keep_their_bytes(how):
    data = from_images(PIXELS, LABELS)
    for features, targets in clients(data, partition(data, 5, how)):
        assert (features.dtype, features.shape) == (np.uint8, (len(targets), 72))


def test_partitions_of_sequences():
    ids = np.arange(60).reshape(20, 3) % 4
    data = from_sequences(ids, (ids + 1) % 4, "ab\n ", groups=np.arange(20) % 5)
    for how, count in (("natural", 5), ("iid", 4), ("power_law:1", 4)):
        parts = clients(data, partition(data, count, how))
        assert sum(len(targets) for _, targets in parts) == 20
        assert {(a.shape[1:], b.shape[1:], a.dtype) for a, b in parts} == {((3,), (3,), np.dtype(np.int32))}


@pytest.mark.parametrize("how", ["sorted", "shards", "dirichlet", "main_class"])
def test_partitions_by_label_need_one_label_per_row(complaint, how):
    data = from_sequences([[0, 1]] * 4, [[1, 0]] * 4, "ab")
    assert complaint(partition, data, 2, how) == (
        f"{how} needs one target per row, but these rows are sequences; use natural, iid or power_law"
    )


def test_a_report_names_the_labels_that_occur():
    data = from_images(PIXELS[:4], [4, 1, 1, 4], classes="abcde")
    assert PartitionReport.of(data, [np.array([0, 3]), np.array([1, 2])]).table().splitlines()[2:4] == [
        "client  rows      b      e",
        "     0     2   0.00   1.00",
    ]
    text = from_sequences([[0, 1]], [[1, 0]], " \nz")
    assert PartitionReport.of(text, [np.array([0])]).table().splitlines()[2:] == [
        r"client  rows    ' '   '\n'",
        "     0     1   0.50   0.50",
        "   all     1   0.50   0.50",
    ]
