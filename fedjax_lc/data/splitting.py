"""Splitting a data set over clients: the partition is spelled as text, on the command line and in result files.

`iid`, `iid:keep`, `sorted`, `shards:2`, `dirichlet:0.1`, `main_class:0.5`, `power_law:1.5`, `clusters:FILE`, and
`natural` for data that comes already split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.partitions import PARTITIONERS, Indices, Targets, validate


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A partition by name with its options; call it as `(targets, num_clients, seed=0)`."""

    text: str
    name: str
    options: dict[str, Any]

    def __call__(self, targets: Targets, num_clients: int, seed: int = 0) -> Indices:
        return PARTITIONERS[self.name](targets, num_clients, seed=seed, **self.options)

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Partitioner:
    """The partitioner of a string such as `dirichlet:0.1` or `dirichlet:0.1,min_partition_size=10`.

    Raises InputError for an unknown name (with the nearest one), an unknown option and a malformed value.

    >>> [len(part) for part in parse("iid")(10, 2)]
    [5, 5]
    """
    name, options = spec.call("partition", text, PARTITIONERS, hidden=("targets", "groups", "num_clients", "seed"))
    return Partitioner(text, name, options)


def partition(dataset: Dataset, num_clients: int | None = None, how: str | None = None, *, seed: int = 0) -> Indices:
    """Row indices of each client: `how` is text (see the module), `seed` the split seed.

    Default: data that comes already split keeps its split ("natural", as many clients as groups); other data is
    shuffled and split equally over 10 clients ("iid"). Raises InputError as the partitioners do.

    >>> from fedjax_lc.data import from_arrays
    >>> [len(p) for p in partition(from_arrays([[0.0], [1.0], [2.0], [3.0]], [0, 1, 1, 0]), 2)]
    [2, 2]
    """
    if how is None:
        how = "iid" if dataset.groups is None else "natural"
    partitioner = parse(how)
    if partitioner.name != "natural":
        return partitioner(dataset.targets, 10 if num_clients is None else num_clients, seed)
    if dataset.groups is None:
        others = ", ".join(name for name in PARTITIONERS if name != "natural")
        raise InputError(f"natural: {dataset.name} does not come already split; choose one of {others}")
    return partitioner(dataset.groups, int(dataset.groups.max()) + 1 if num_clients is None else num_clients, seed)


def clients(dataset: Dataset, indices: Indices) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """One (features (m_i, d), targets (m_i,)) pair per client, from the row indices of a partition.

    Types stay as they are in the data set; targets of sequences are (m_i, d).

    Raises InputError for an empty client, rows out of range and rows that two clients share.

    >>> from fedjax_lc.data import from_arrays
    >>> data = from_arrays([[0.0], [1.0], [2.0]], [0, 1, 1])
    >>> [a.shape for a, b in clients(data, [[0, 2], [1]])]
    [(2, 1), (1, 1)]
    """
    validate(indices, len(dataset.targets))
    return [*Clients(dataset, indices)]


class Clients(Sequence[tuple[Any, Any]]):
    """The pairs of `clients`, each copied from the data set when it is asked for."""

    def __init__(self, dataset: Dataset, indices: Indices) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        rows = self.indices[i]
        return self.dataset.features[rows], self.dataset.targets[rows]
