"""Seeded partitions of N rows over clients: who holds which rows.

Every partitioner is `f(targets, num_clients, ..., seed=0) -> [row indices of client 0, of client 1, ...]`, where
targets is the (N,) array of labels, or N itself where labels play no part. Parts are disjoint and none is empty;
all rows are used unless the docstring says otherwise. `splitting` calls them by name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.paths import user_path
from fedjax_lc.data.arrays import parse_npy
from fedjax_lc.data.files import read_bytes
from fedjax_lc.data.targets import is_real

Indices = list[NDArray[np.intp]]
Targets = NDArray[Any] | int

PARTITIONERS: dict[str, Callable[..., Indices]] = {}  #: by name


def names() -> list[str]:
    """Names of all partitions."""
    return list(PARTITIONERS)


def _partitioner(function: Callable[..., Indices]) -> Callable[..., Indices]:
    """Registers a partitioner and checks what it is given and what it returns."""
    name = function.__name__.rstrip("_")  # sorted_ leaves the builtin alone

    @functools.wraps(function)
    def checked(targets: Targets, num_clients: int, *args: Any, seed: int = 0, **options: Any) -> Indices:
        rows = _count(targets)
        if num_clients < 1:
            raise InputError(f"the number of clients must be at least 1, got {num_clients}")
        if num_clients > rows:
            raise InputError(f"{num_clients} clients for {rows} rows: every client needs a row; use fewer clients")
        if seed < 0:
            raise InputError(f"the split seed must be 0 or more, got {seed}")
        parts = function(targets, num_clients, *args, seed=seed, **options)
        validate(parts, rows, name)
        return parts

    PARTITIONERS[name] = checked
    return checked


def validate(parts: Indices, rows: int, name: str = "partition") -> None:
    """Raises InputError unless the parts are non-empty, disjoint and within 0..rows-1."""
    for client, part in enumerate(parts):
        if len(part) == 0:
            raise InputError(f"{name}: client {client} of {len(parts)} has no rows; use fewer clients")
    every = np.concatenate(parts)
    if every.min() < 0 or every.max() >= rows:
        raise InputError(f"{name}: row indices must be in 0..{rows - 1}, got {every.min()}..{every.max()}")
    if len(np.unique(every)) != len(every):
        raise InputError(f"{name}: a row belongs to more than one client")


# --- partitions that look at sizes only ---


@_partitioner
def iid(targets: Targets, num_clients: int, remainder: str = "drop", *, seed: int = 0) -> Indices:
    """Rows shuffled and split equally; the N mod num_clients rows left over are dropped (the default) or kept.

    remainder: "drop" gives every client floor(N / num_clients) rows; "keep" gives the first clients one more.

    >>> [len(part) for part in iid(11, 3)], [len(part) for part in iid(11, 3, "keep")]
    ([3, 3, 3], [4, 4, 3])
    """
    if remainder not in ("drop", "keep"):
        raise unknown("remainder", remainder, ["drop", "keep"])
    order = np.random.default_rng(seed).permutation(_count(targets))
    used = len(order) - len(order) % num_clients if remainder == "drop" else len(order)
    return np.array_split(order[:used], num_clients)


@_partitioner
def power_law(
    targets: Targets, num_clients: int, exponent: float = 1.5, min_partition_size: int = 1, *, seed: int = 0
) -> Indices:
    """Shuffled rows with sizes that fall as k^(-exponent), k = 1..num_clients; client 0 is the largest.

    exponent: 0 gives equal sizes; larger is more unequal. Every client first gets min_partition_size rows, the rest
    is shared out by the law. Raises InputError for a negative exponent or a minimum that cannot be met.

    >>> [len(part) for part in power_law(100, 4, 1.0)]
    [47, 24, 16, 13]
    """
    if not 0 <= exponent < math.inf:
        raise InputError(f"power_law: exponent must be 0 or more and finite, got {exponent}")
    rows = _count(targets)
    _check_minimum("power_law", rows, num_clients, min_partition_size)
    weights = np.arange(1.0, num_clients + 1) ** -exponent
    free = rows - num_clients * min_partition_size
    ends = np.round(np.cumsum(weights / weights.sum()) * free).astype(int)
    # Rounding may put a size before a larger one; sorting keeps the sum.
    sizes = np.sort(np.diff(ends, prepend=0))[::-1] + min_partition_size
    return np.split(np.random.default_rng(seed).permutation(rows), np.cumsum(sizes)[:-1])


# --- partitions by label ---


@_partitioner
def sorted_(targets: NDArray[Any], num_clients: int, *, seed: int = 0) -> Indices:
    """Rows sorted by target and cut into equal runs, so that a client sees one or two labels.

    Rows of equal target are shuffled first. Works for regression targets as well.

    >>> y = np.array([1, 0, 1, 0])
    >>> [y[part].tolist() for part in sorted_(y, 2)]
    [[0, 0], [1, 1]]
    """
    return np.array_split(_sorted_rows("sorted", targets, np.random.default_rng(seed)), num_clients)


@_partitioner
def shards(targets: NDArray[Any], num_clients: int, shards_per_client: int = 2, *, seed: int = 0) -> Indices:
    """Rows sorted by target, cut into num_clients * shards_per_client shards, dealt at random.

    Fewer shards per client is more heterogeneous. Raises InputError for more shards than rows.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arXiv 1602.05629, section 3 (two shards per client).

    >>> sorted(len(part) for part in shards(np.arange(12) % 3, 3, 2))
    [4, 4, 4]
    """
    total = num_clients * shards_per_client
    if shards_per_client < 1 or total > _count(targets):
        raise InputError(
            f"shards: {num_clients} clients x {shards_per_client} shards need between 1 and {_count(targets)} shards "
            f"in all (one row each), got {total}"
        )
    rng = np.random.default_rng(seed)
    pieces = np.array_split(_sorted_rows("shards", targets, rng), total)
    deal = rng.permutation(total).reshape(num_clients, shards_per_client)
    return [np.concatenate([pieces[shard] for shard in hand]) for hand in deal]


@_partitioner
def dirichlet(
    targets: NDArray[Any], num_clients: int, alpha: float = 0.5, min_partition_size: int = 1, *, seed: int = 0
) -> Indices:
    """Each class is shared out over the clients in proportions drawn from Dirichlet(alpha, ..., alpha).

    alpha: any number above 0; SMALL alpha is MORE heterogeneous (1e-6: each class goes to one client), large alpha
    tends to equal shares. Sizes differ between clients. A client below min_partition_size is filled up with random
    rows of the largest client, so the draw is done once and always ends. Raises InputError for alpha <= 0, for
    regression targets and for a minimum that cannot be met.

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", arXiv 1905.12022
    (label proportions per class); the filling up is ours.

    >>> sum(len(part) for part in dirichlet(np.arange(100) % 10, 5, 0.1))
    100
    """
    if not 0 < alpha < math.inf:
        raise InputError(f"dirichlet: alpha must be above 0 and finite (small = more heterogeneous), got {alpha}")
    _check_minimum("dirichlet", _count(targets), num_clients, min_partition_size)
    rng = np.random.default_rng(seed)
    shares: list[list[NDArray[np.intp]]] = [[] for _ in range(num_clients)]
    for rows in _rows_by_class("dirichlet", targets):
        ends = np.round(np.cumsum(_dirichlet_draw(rng, alpha, num_clients)) * len(rows)).astype(int)
        for share, piece in zip(shares, np.split(rng.permutation(rows), ends[:-1]), strict=True):
            share.append(piece)
    return _filled_up([np.concatenate(share) for share in shares], min_partition_size, rng)


def _dirichlet_draw(rng: np.random.Generator, alpha: float, size: int) -> NDArray[np.float64]:
    """One draw of Dirichlet(alpha, ..., alpha), through logarithms so that no alpha > 0 underflows to 0/0.

    Gamma(alpha) has the law of Gamma(alpha + 1) * U^(1/alpha).
    """
    uniform = 1.0 - rng.random(size)  # in (0, 1]
    # Below 1e-300 the exponent would overflow, and the draw is one-hot long before.
    logs = np.log(rng.standard_gamma(alpha + 1.0, size)) + np.log(uniform) / max(alpha, 1e-300)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _filled_up(parts: Indices, minimum: int, rng: np.random.Generator) -> Indices:
    """Moves random rows from the currently largest client until all have the minimum.

    Ends: while one client is below the minimum and the mean is not, the largest is above it.
    """
    hands = [rng.permutation(part).tolist() for part in parts]
    sizes = np.array([len(hand) for hand in hands])
    for client in np.flatnonzero(sizes < minimum):
        while sizes[client] < minimum:
            donor = int(np.argmax(sizes))
            hands[client].append(hands[donor].pop())
            sizes[client] += 1
            sizes[donor] -= 1
    return [np.array(hand, dtype=np.intp) for hand in hands]


@_partitioner
def main_class(targets: NDArray[Any], num_clients: int, share: float = 0.5, *, seed: int = 0) -> Indices:
    """Each client has a main class that makes up about `share` of its rows; the rest is spread evenly.

    Client i's main class is i mod C. Of every class the part r = (share C - 1)/(C - 1) is split over the clients
    that have it as main class, and what remains is dealt evenly to all, so that for classes of equal size (and
    num_clients a multiple of C) the main class has exactly `share` up to rounding; 1/C is iid, 1 is one class per
    client. Unequal classes give unequal clients. With fewer clients than classes, a class without a main client
    is dealt evenly to all. Raises InputError for a share outside [1/C, 1] and for regression targets.

    >>> y = np.repeat([0, 1], 100)
    >>> [float(np.mean(y[part] == k)) for k, part in enumerate(main_class(y, 2, 0.8))]
    [0.8, 0.8]
    """
    classes = _rows_by_class("main_class", targets)
    count = len(classes)
    if count < 2:
        raise InputError("main_class needs at least two classes, got 1")
    if not 1 / count <= share <= 1:
        raise InputError(f"main_class: share must be in [1/{count}, 1] for {count} classes, got {share}")
    rng = np.random.default_rng(seed)
    reserved = (share * count - 1) / (count - 1)
    mine: list[list[NDArray[np.intp]]] = [[] for _ in range(num_clients)]
    rest = []
    for c, rows in enumerate(classes):
        owners = range(c, num_clients, count)
        mixed = rng.permutation(rows)
        cut = round(reserved * len(rows)) if owners else 0
        for place, client in enumerate(owners):
            mine[client].append(mixed[:cut][place :: len(owners)])
        rest.append(mixed[cut:])
    # Dealt like cards while still sorted by class: every client gets the same mix up to one row per class.
    common = np.concatenate(rest)
    return [np.concatenate([*mine[client], common[client::num_clients]]) for client in range(num_clients)]


# --- partitions that are given ---


@_partitioner
def clusters(targets: Targets, num_clients: int, file: str, rebalance: float = math.inf, *, seed: int = 0) -> Indices:
    """Client i holds the rows with the i-th smallest cluster id, in file order; ids are one number per row (`.npy`).

    rebalance: while the largest client has more than `rebalance` times the rows of the smallest, the first half
    (rounded down) of the largest moves to the end of the smallest; at least 2; default: never. The seed has no
    effect. Raises InputError for a missing or unreadable file, a wrong length, or another number of clusters.

    Source of the rebalancing rule: the code of Philippenko & Dieuleveut, "Preserved central model for faster
    bidirectional compression in distributed settings", arXiv 2102.12528 (there with 10).

    >>> clusters(4, 2, "ids.npy")  # doctest: +SKIP
    """
    if not rebalance >= 2:
        raise InputError(f"clusters: rebalance must be at least 2, got {rebalance}")
    ids = _cluster_ids(user_path(file, "clusters: "), _count(targets))
    parts = _by_id(ids, num_clients, f"clusters: {file}")
    while True:
        sizes = [len(part) for part in parts]
        small, large = int(np.argmin(sizes)), int(np.argmax(sizes))
        if sizes[large] <= rebalance * sizes[small]:
            return parts
        moved, parts[large] = np.split(parts[large], [sizes[large] // 2])
        parts[small] = np.concatenate([parts[small], moved])


def _cluster_ids(path: Path, rows: int) -> NDArray[Any]:
    if not path.is_file():
        raise InputError(f"clusters: {path}: no such file")
    ids = parse_npy(read_bytes(path), f"clusters: {path}")
    if ids.shape != (rows,):
        raise InputError(f"clusters: {path}: needs one id for each of {rows} rows, got shape {ids.shape}")
    if ids.dtype.kind == "f" and not np.isfinite(ids).all():
        raise InputError(f"clusters: {path}: the ids must be finite; give every row a cluster")
    return ids


@_partitioner
def natural(groups: NDArray[Any], num_clients: int, *, seed: int = 0) -> Indices:
    """Client i holds the rows with the i-th smallest of the (N,) group ids, in order; the seed has no effect.

    This is the split of data that comes already split: `partition` passes `Dataset.groups` instead of the targets.
    Raises InputError if the number of groups differs from num_clients.

    >>> [part.tolist() for part in natural(np.array([7, 3, 7]), 2)]
    [[1], [0, 2]]
    """
    return _by_id(groups, num_clients, "natural: the data")


def _by_id(ids: NDArray[Any], num_clients: int, source: str) -> Indices:
    distinct, place = np.unique(ids, return_inverse=True)
    if len(distinct) != num_clients:
        raise InputError(f"{source} has {len(distinct)} groups, but {num_clients} clients were asked for")
    return np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])


def as_groups(parts: Indices, rows: int) -> NDArray[np.int64]:
    """The client of each row, (rows,); the inverse of `natural` for parts that cover all rows."""
    groups = np.empty(rows, dtype=np.int64)
    for client, part in enumerate(parts):
        groups[part] = client
    return groups


# --- helpers ---


def _count(targets: Targets) -> int:
    return int(targets) if np.ndim(targets) == 0 else len(np.asarray(targets))


def _labels(name: str, targets: Targets) -> NDArray[Any]:
    if np.ndim(targets) == 0:
        raise InputError(f"{name} needs the targets of the rows, not only their number")
    labels = np.asarray(targets)
    if labels.ndim != 1:
        raise InputError(
            f"{name} needs one target per row, but these rows are sequences; use natural, iid or power_law"
        )
    return labels


def _sorted_rows(name: str, targets: Targets, rng: np.random.Generator) -> NDArray[np.intp]:
    labels = _labels(name, targets)
    shuffle = rng.permutation(len(labels))
    return shuffle[np.argsort(labels[shuffle], kind="stable")]


def _rows_by_class(name: str, targets: Targets) -> Indices:
    labels = _labels(name, targets)
    if is_real(labels):
        raise InputError(f"{name} needs class labels, but the targets are real numbers; use iid, sorted or power_law")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _check_minimum(name: str, rows: int, num_clients: int, minimum: int) -> None:
    if minimum < 1 or num_clients * minimum > rows:
        raise InputError(
            f"{name}: min_partition_size must be between 1 and {rows // num_clients} "
            f"({rows} rows, {num_clients} clients), got {minimum}"
        )
