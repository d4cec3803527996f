"""Groups of lanes that share a program: those whose hyperparameters have the same tree structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.sweeping.program import Lanes

TRIP_COUNTS = ("local_steps",)  #: loop lengths that all lanes of a group share, unless the field is masked


class Group(NamedTuple):
    """Lanes that run side by side.

    Attributes:
        lanes: their hyperparameters and keys.
        largest: size of the largest group with the same program.
        one_seed: whether all lanes have the same key.
    """

    lanes: Lanes
    largest: int
    one_seed: bool


def group(configurations: Sequence[Any], dtype: Any, seeds: Sequence[int], masked: Sequence[str] = ()) -> list[Group]:
    """The lanes of a sweep in groups, first configuration first; lane = configuration * len(seeds) + place of the seed.

    Configurations of one structure share a program. Those that differ in the length of a loop (`local_steps`) become
    groups that run one after the other, as lanes side by side would wait for the slowest, unless the field is masked.
    """
    configurations = _of_few_structures(configurations)
    alike: dict[Any, list[int]] = {}
    for number, hp in enumerate(configurations):
        alike.setdefault(_shape(hp), []).append(number)
    return [g for members in alike.values() for g in _of_one_structure(members, configurations, dtype, seeds, masked)]


def _of_few_structures(configurations: Sequence[Any]) -> list[Any]:
    """The configurations; a loop length in which otherwise alike ones differ becomes an array, which is not part of the
    structure."""
    if not any(pytree.has_counts(hp) for hp in configurations):
        return list(configurations)
    open_ = [pytree.opened(hp) for hp in configurations]
    alike = [_shape(hp) for hp in open_]
    closed: dict[Any, set[Any]] = {}
    for hp, shape in zip(configurations, alike, strict=True):
        closed.setdefault(shape, set()).add(_shape(hp))
    pairs = zip(configurations, open_, alike, strict=True)
    return [hp if len(closed[shape]) == 1 else opened for hp, opened, shape in pairs]


def _shape(hp: Any) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(hp)
    return structure, tuple(np.shape(leaf) for leaf in leaves)


def _of_one_structure(
    members: list[int], configurations: Sequence[Any], dtype: Any, seeds: Sequence[int], masked: Sequence[str]
) -> list[Group]:
    paths, structure = jax.tree_util.tree_flatten_with_path(configurations[members[0]])
    trips = [i for i, (path, _) in enumerate(paths) if _name(path) in TRIP_COUNTS and _name(path) not in masked]
    rows = [jax.tree.leaves(configurations[number]) for number in members]
    columns = [np.asarray(pytree.cast(np.stack(column), dtype)) for column in zip(*rows, strict=True)]
    together: dict[Any, list[int]] = {}
    for place in range(len(members)):
        together.setdefault(tuple(columns[i][place].tobytes() for i in trips), []).append(place)
    varies = tuple(
        any(np.any(column[places] != column[places[:1]]) for places in together.values()) for column in columns
    )
    keys = np.stack([np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in seeds])
    largest = len(seeds) * max(map(len, together.values()))
    groups = []
    for places in together.values():
        lanes = np.add.outer(len(seeds) * np.array(members)[places], np.arange(len(seeds))).ravel()
        each = np.repeat(places, len(seeds))
        leaves = [column[each] if v else column[places[0]] for column, v in zip(columns, varies, strict=True)]
        group_lanes = Lanes(lanes, leaves, varies, structure, np.tile(keys, (len(places), 1)))
        groups.append(Group(group_lanes, largest, len(seeds) == 1))
    return groups


def _name(path: Any) -> str:
    return str(getattr(path[-1], "name", "")) if path else ""
