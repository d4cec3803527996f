"""Shards: shares of a sweep's lanes that separate processes run, and the table that they make together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.lock import locked
from fedjax_lc.results.provenance import check_identity
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.outline import filled
from fedjax_lc.sweeping.store import Store, name_of, read_config, read_states

OUTLINE = "outline"  #: the folder of the table without results in that of a shard
FOLDER = re.compile(r"shard-(\d{1,6})-of-(\d{1,6})")


class Shard(NamedTuple):
    """Share `number` = 1..`of` of the lanes of a sweep: lanes number - 1, number - 1 + of, ..."""

    number: int
    of: int

    @classmethod
    def of_text(cls, text: str | tuple[int, int]) -> Shard:
        """Read "i/N".

        Raises:
            InputError: it is no such text.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text if isinstance(text, str) else "{}/{}".format(*text))
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"a shard must be i/N with i = 1..N, such as 2/8, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"shard-{self.number}-of-{self.of}"

    def holds(self, lanes: np.ndarray) -> np.ndarray:
        """(lanes,) whether it runs the lanes with these numbers."""
        return lanes % self.of == self.number - 1

    def count(self, lanes: int) -> int:
        """How many of so many lanes it runs."""
        return len(range(self.number - 1, lanes, self.of))

    def save(self, outline: Table, folder: Path) -> None:
        """Keep the table without results in the shard's folder, so that `merge` needs neither problem nor method."""
        if not is_table(folder / OUTLINE):
            outline.save(folder / OUTLINE)


def merge(folder: str | Path) -> Table:
    """Make the table of a sweep whose shards have run, and write it to `folder`, which holds them.

    It is bit for bit the table of the sweep in one process with the same lanes side by side (block_size). A folder that
    holds it already is only read.

    Raises:
        InputError: there are no shards, one is missing or not finished, or they are not of one sweep.

    Example:
        >>> for i in (1, 2):  # each in a process of its own, on a machine of its own
        ...     fl.sweep("locodl", problem, grid, seeds=8, out="out", shard=f"{i}/2")
        >>> table = fl.merge("out")
    """
    folder = Path(folder)
    shards = _shards(folder)
    identity = _identity(folder, shards)
    if is_table(folder):
        check_identity(folder, "sweep", read_config(folder)[0], identity, finished=True)
        return Table.load(folder)
    with locked(folder):
        stores = [_store(folder / shard.folder, shard) for shard in shards]
        outline = Table.load(folder / shards[0].folder / OUTLINE)
        lanes = np.arange(len(outline))
        lack = [{*lanes[shard.holds(lanes)].tolist()} - store.done for shard, store in zip(shards, stores, strict=True)]
        if any(lack):
            names = [f"{shard} ({len(left)} lanes)" for shard, left in zip(shards, lack, strict=True) if left]
            listed = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
            raise InputError(f"{folder}: not finished: shard{'s' * (len(names) > 1)} {listed}: repeat the command")
        ended = [part for store in stores for part in store.ended]
        remarks = sorted({remark for store in stores for remark in store.remarks})
        side_by_side = [store.blocks for store in stores]
        same = side_by_side[0] if all(blocks == side_by_side[0] for blocks in side_by_side) else {}
        facts = {"identity": identity, "blocks": same} | ({"other_code": remarks} if remarks else {})
        table = filled(outline, ended, facts | {"shards": shards[0].of})
        table.save(folder)
    return table


def read_last(folder: Path, lanes: Sequence[int]) -> dict[int, list[Any]]:
    """The last states of these lanes of a sweep that is done, merged or not, as `Ended.last`.

    Raises:
        InputError: some are not there, or their file cannot be used.
    """
    identity, _, _ = read_config(folder)
    if "shards" not in Table.load(folder).config:
        return read_states(folder, name_of(identity), lanes)
    last: dict[int, list[Any]] = {}
    for shard in _shards(folder):
        there = [lane for lane in lanes if shard.holds(np.array(lane))]
        if there:
            last |= read_states(folder / shard.folder, name_of(identity | {"shard": str(shard)}), there)
    return last


def _shards(folder: Path) -> list[Shard]:
    """All shards of the folder, in order.

    Raises:
        InputError: there is none, one is missing, or they are of different numbers.
    """
    matches = map(FOLDER.fullmatch, (path.name for path in folder.glob("shard-*")))
    there = sorted(Shard(int(match[1]), int(match[2])) for match in matches if match)
    if not there:
        raise InputError(f"{folder} holds no shards: expected folders such as shard-1-of-8, as --shard 1/8 writes them")
    if len({shard.of for shard in there}) > 1:
        several = ", ".join(map(str, sorted({shard.of for shard in there})))
        raise InputError(f"{folder} holds shards of different numbers ({several}): remove those that do not belong")
    missing = sorted({*range(1, there[0].of + 1)} - {shard.number for shard in there})
    if missing:
        listed = ", ".join(f"{number}/{there[0].of}" for number in missing[:10]) + ", ..." * (len(missing) > 10)
        raise InputError(f"{folder} lacks shard{'s' * (len(missing) > 1)} {listed}: run them with --shard")
    return there


def _identity(folder: Path, shards: list[Shard]) -> dict[str, Any]:
    """What all shards have in common.

    Raises:
        InputError: they are not of one sweep; the line says which one differs in what.
    """
    first, *others = ({**read_config(folder / shard.folder)[0], "shard": None} for shard in shards)
    for shard, other in zip(shards[1:], others, strict=True):
        check_identity(folder / shard.folder, "sweep", other, first)
    return {name: fact for name, fact in first.items() if name != "shard"}


def _store(folder: Path, shard: Shard) -> Store:
    identity = read_config(folder)[0]
    if identity.get("shard") != str(shard):
        raise InputError(f"{folder} is not that of shard {shard}: it has been renamed")
    with locked(folder):
        return Store(folder, identity, lambda line: None)
