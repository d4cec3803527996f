"""Partitions: properties for any size and seed, the law of each, the string form, and exact messages."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from fedjax_lc.data import clients, from_arrays, parse, partition, partitions

LABELS = np.arange(120) % 4
ALL = ["iid", "iid:keep", "sorted", "shards:2", "dirichlet:0.3", "main_class:0.7", "power_law:1.5"]


@st.composite
def splits(draw):
    """(targets, num_clients, seed) with at least two rows per client and class."""
    count = draw(st.integers(2, 5))
    num_clients = draw(st.integers(1, 12))
    rows = draw(st.integers(2 * max(count, num_clients), 200))
    targets = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.arange(rows) % count)
    return targets, num_clients, draw(st.integers(0, 2**32))


@given(splits(), st.sampled_from([*ALL, "dirichlet:1e-6", "dirichlet:1e9", "power_law:0", "shards:1", "shards"]))
@settings(max_examples=150)
def test_parts_are_disjoint_cover_all_rows_and_repeat_with_the_seed(split, how):
    targets, num_clients, seed = split
    parts = parse(how)(targets, num_clients, seed)
    every = np.concatenate(parts)
    dropped = len(targets) % num_clients if how == "iid" else 0
    assert len(parts) == num_clients
    assert min(map(len, parts)) >= 1
    assert len(np.unique(every)) == len(every) == len(targets) - dropped
    again = parse(how)(targets, num_clients, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("how", ALL)
def test_another_seed_is_another_split(how):
    one, two = (np.concatenate(parse(how)(LABELS, 5, seed)) for seed in (0, 1))
    assert not np.array_equal(one, two)


@given(splits(), st.floats(1e-300, 1e300), st.data())
def test_dirichlet_ends_and_honours_the_minimum_for_any_alpha(split, alpha, data):
    targets, num_clients, seed = split
    minimum = data.draw(st.integers(1, len(targets) // num_clients))
    parts = partitions.dirichlet(targets, num_clients, alpha, minimum, seed=seed)
    assert min(map(len, parts)) >= minimum


def test_dirichlet_with_small_alpha_gives_each_class_to_one_client():
    parts = partitions.dirichlet(np.repeat(np.arange(10), 100), 4, 1e-6, seed=3)
    labels = np.repeat(np.arange(10), 100)
    holders = [sum(np.any(labels[part] == c) for part in parts) for c in range(10)]
    # A client that got no class is filled up with one row.
    assert sum(holders) <= 10 + 4
    assert partitions.dirichlet(labels, 4, 5e-324, seed=3)[0].size > 0


def test_dirichlet_shares_have_the_right_mean_and_variance():
    """Each share is Beta(alpha, (n-1) alpha): mean 1/n, variance (1/n)(1-1/n)/(n alpha + 1)."""
    labels = np.repeat(np.arange(2000), 50)
    n, alpha = 4, 0.7
    parts = partitions.dirichlet(labels, n, alpha, seed=0)
    shares = np.array([np.bincount(labels[part], minlength=2000) / 50 for part in parts])
    variance = (1 / n) * (1 - 1 / n) / (n * alpha + 1)
    tolerance = 4 * np.sqrt(variance / 2000)
    assert np.abs(shares.mean(axis=1) - 1 / n).max() < tolerance
    assert np.abs(shares.var() - variance) < 0.04 * variance


def test_dirichlet_with_large_alpha_is_even():
    parts = partitions.dirichlet(LABELS, 5, 1e12)
    assert all(np.array_equal(np.bincount(LABELS[part]), [6, 6, 6, 6]) for part in parts)


def test_iid_drops_or_keeps_the_remainder():
    assert [len(part) for part in partitions.iid(100, 7)] == [14] * 7
    assert sorted(len(part) for part in partitions.iid(100, 7, "keep")) == [14] * 5 + [15] * 2
    assert not np.array_equal(partitions.iid(100, 1)[0], np.arange(100))


def test_sorted_and_shards_limit_the_labels_of_a_client():
    for seed in range(5):
        assert all(len(set(LABELS[part])) == 1 for part in partitions.sorted_(LABELS, 8, seed=seed))
        assert all(len(set(LABELS[part])) <= 2 for part in partitions.shards(LABELS, 10, 2, seed=seed))
    real = np.random.default_rng(0).normal(size=50)
    parts = partitions.sorted_(real, 5)
    assert all(real[a].max() <= real[b].min() for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("num_clients", [4, 8])
def test_main_class_has_its_share(share, num_clients):
    labels = np.random.default_rng(1).permutation(np.arange(4000) % 4)
    parts = partitions.main_class(labels, num_clients, share)
    for client, part in enumerate(parts):
        counts = np.bincount(labels[part], minlength=4)
        assert abs(len(part) - 4000 / num_clients) <= 4
        assert abs(counts[client % 4] / len(part) - share) < 0.01
        assert np.ptp(np.delete(counts, client % 4)) <= 2


def test_main_class_with_fewer_clients_than_classes():
    parts = partitions.main_class(LABELS, 2, 1.0)
    assert [np.bincount(LABELS[part], minlength=4).tolist() for part in parts] == [[30, 0, 15, 15], [0, 30, 15, 15]]


@given(st.integers(1, 20), st.floats(0, 5), st.integers(20, 500))
def test_power_law_sizes(num_clients, exponent, rows):
    sizes = np.array([len(part) for part in partitions.power_law(rows, num_clients, exponent)])
    weights = np.arange(1.0, num_clients + 1) ** -exponent
    assert np.all(np.diff(sizes) <= 0)
    assert np.abs(sizes - 1 - weights / weights.sum() * (rows - num_clients)).max() <= 1


def test_clusters(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([9, 3, 9, 3, 5], dtype=np.uint8))
    parts = parse(f"clusters:{tmp_path / 'ids.npy'}")(5, 3)
    assert [part.tolist() for part in parts] == [[1, 3], [4], [0, 2]]


def test_clusters_rebalance_moves_the_first_half_of_the_largest(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([0] * 9 + [1] + [2] * 3))
    parts = parse(f"clusters:file={tmp_path / 'ids.npy'},rebalance=4")(13, 3)
    assert [part.tolist() for part in parts] == [[4, 5, 6, 7, 8], [9, 0, 1, 2, 3], [10, 11, 12]]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.floats(2, 20))
def test_clusters_rebalance_always_ends(tmp_path_factory, sizes, factor):
    path = tmp_path_factory.mktemp("ids") / "ids.npy"
    np.save(path, np.repeat(np.arange(len(sizes)), sizes))
    parts = partitions.clusters(sum(sizes), len(sizes), str(path), factor)
    assert max(map(len, parts)) <= factor * min(map(len, parts))


def test_natural_is_the_default_of_data_already_split():
    data = from_arrays(np.arange(12.0).reshape(6, 2), [0, 1, 0, 1, 0, 1], groups=[1, 0, 1, 0, 2, 2])
    assert [part.tolist() for part in partition(data)] == [[1, 3], [0, 2], [4, 5]]
    assert [part.tolist() for part in partition(data, 3, "natural")] == [[1, 3], [0, 2], [4, 5]]
    assert len(partition(data, 2, "iid")) == 2
    again = partitions.as_groups(partition(data), 6)
    assert again.tolist() == data.groups.tolist()


def test_clients_are_rows_of_the_table(complaint):
    data = from_arrays(np.arange(8.0).reshape(4, 2), [0, 1, 0, 1])
    (a, b), (c, _) = clients(data, [np.array([2, 0]), np.array([1])])
    assert a.tolist() == [[4, 5], [0, 1]]
    assert b.tolist() == [-1, -1]
    assert c.tolist() == [[2, 3]]
    empty = np.array([], dtype=int)
    assert complaint(clients, data, [np.array([0]), empty]) == (
        "partition: client 1 of 2 has no rows; use fewer clients"
    )
    assert complaint(clients, data, [np.array([0, 4])]) == "partition: row indices must be in 0..3, got 0..4"
    assert complaint(clients, data, [np.array([0]), np.array([0])]) == (
        "partition: a row belongs to more than one client"
    )


def test_the_string_form_is_kept():
    how = parse("dirichlet:0.1,min_partition_size=3")
    assert str(how) == "dirichlet:0.1,min_partition_size=3"
    assert how.options == {"alpha": 0.1, "min_partition_size": 3}
    assert parse("main_class").options == {}
    assert set(partitions.names()) >= {"iid", "sorted", "shards", "dirichlet", "clusters", "natural"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "dirichet:0.1",
            "unknown partition 'dirichet': did you mean 'dirichlet'? "
            "(known: clusters, dirichlet, iid, main_class, natural, power_law, shards, sorted)",
        ),
        ("dirichlet:x", "partition 'dirichlet:x': alpha must be a number, got 'x'"),
        ("shards:1.5", "partition 'shards:1.5': shards_per_client must be a whole number, got '1.5'"),
        ("shards:1,2", "partition 'shards:1,2' has too many arguments: shards takes at most 1 (shards_per_client)"),
        (
            "dirichlet:beta=1",
            "unknown option of dirichlet 'beta': did you mean 'alpha'? (known: alpha, min_partition_size)",
        ),
        (
            "dirichlet:seed=1",
            "unknown option of dirichlet 'seed': did you mean 'min_partition_size'? (known: alpha, min_partition_size)",
        ),
        ("clusters", "partition 'clusters' needs file: write clusters:FILE"),
        ("natural:3", "partition 'natural:3' has too many arguments: natural takes none"),
    ],
)
def test_malformed_strings(complaint, how, message):
    assert complaint(parse, how) == message


@pytest.mark.parametrize(
    ("how", "num_clients", "message"),
    [
        ("iid", 121, "121 clients for 120 rows: every client needs a row; use fewer clients"),
        ("iid", 0, "the number of clients must be at least 1, got 0"),
        ("iid:some", 5, "unknown remainder 'some': did you mean 'keep'? (known: drop, keep)"),
        (
            "dirichlet:0",
            5,
            "dirichlet: alpha must be above 0 and finite (small = more heterogeneous), got 0.0",
        ),
        (
            "dirichlet:nan",
            5,
            "dirichlet: alpha must be above 0 and finite (small = more heterogeneous), got nan",
        ),
        (
            "dirichlet:1,25",
            5,
            "dirichlet: min_partition_size must be between 1 and 24 (120 rows, 5 clients), got 25",
        ),
        (
            "power_law:1,0",
            5,
            "power_law: min_partition_size must be between 1 and 24 (120 rows, 5 clients), got 0",
        ),
        ("power_law:-1", 5, "power_law: exponent must be 0 or more and finite, got -1.0"),
        ("main_class:0.1", 5, "main_class: share must be in [1/4, 1] for 4 classes, got 0.1"),
        (
            "shards:30",
            5,
            "shards: 5 clients x 30 shards need between 1 and 120 shards in all (one row each), got 150",
        ),
    ],
)
def test_impossible_splits(complaint, how, num_clients, message):
    assert complaint(parse(how), LABELS, num_clients) == message


def test_a_split_that_would_leave_a_client_empty(complaint):
    """30 rows of class 0 for its 60 main clients 0, 2, 4, ..."""
    labels = np.repeat([0, 1], [30, 90])
    message = "main_class: client 60 of 120 has no rows; use fewer clients"
    assert complaint(parse("main_class:1"), labels, 120) == message


def test_other_refusals(complaint, tmp_path):
    real = np.linspace(0, 1, 50)
    assert complaint(parse("dirichlet"), real, 5) == (
        "dirichlet needs class labels, but the targets are real numbers; use iid, sorted or power_law"
    )
    assert complaint(parse("main_class"), np.ones(9), 3) == "main_class needs at least two classes, got 1"
    assert complaint(parse("sorted"), 50, 5) == "sorted needs the targets of the rows, not only their number"
    assert complaint(parse("iid"), 50, 5, seed=-1) == "the split seed must be 0 or more, got -1"
    data = from_arrays([[0.0], [1.0], [2.0]], [0, 1, 1], groups=[0, 1, 1])
    assert complaint(partition, data, 3) == "natural: the data has 2 groups, but 3 clients were asked for"
    plain = from_arrays([[0.0], [1.0], [2.0]], [0, 1, 1])
    assert complaint(partition, plain, 3, "natural") == (
        "natural: arrays does not come already split; "
        "choose one of iid, power_law, sorted, shards, dirichlet, main_class, clusters"
    )


def test_cluster_files_that_cannot_be_used(complaint, tmp_path):
    path = tmp_path / "ids.npy"
    how = parse(f"clusters:{path}")
    assert complaint(how, 5, 2) == f"clusters: {path}: no such file"
    path.write_bytes(b"spam")
    assert (
        complaint(how, 5, 2) == f"clusters: {path}: not a readable .npy file of plain arrays; save it with numpy.save"
    )
    np.save(path, np.array([0, 1, 1]))
    assert complaint(how, 5, 2) == f"clusters: {path}: needs one id for each of 5 rows, got shape (3,)"
    assert complaint(how, 3, 3) == f"clusters: {path} has 2 groups, but 3 clients were asked for"
    assert complaint(parse(f"clusters:{path},1.5"), 3, 2) == "clusters: rebalance must be at least 2, got 1.5"
