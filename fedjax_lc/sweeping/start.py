"""Where lanes go on that another sweep has run to its end: they are under way at its last step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import PyTree
from fedjax_lc.results.ledger import COSTS
from fedjax_lc.results.provenance import check_identity
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.blocks import IDLE, Ended
from fedjax_lc.sweeping.shards import read_last
from fedjax_lc.sweeping.store import read_config

if TYPE_CHECKING:
    import pandas as pd


class Start(NamedTuple):
    """Chosen lanes of a finished sweep, or of one whose lanes had themselves gone on; they keep their numbers.

    Attributes:
        folder: that of the sweep.
        identity: what determines its results.
        blocks: its lanes side by side, by group.
        initial: F at the start, by lane.
        records: as `Table.records`.
        last: the leaves of `At` after its last step, by lane.
        lanes: the lanes' numbers, sorted.
        grows: what of the identity they have more of now: "steps" or "budget".
    """

    folder: Path
    identity: Mapping[str, Any]
    blocks: Mapping[str, int]
    initial: Mapping[int, float]
    records: pd.DataFrame
    last: Mapping[int, list[Any]]
    lanes: tuple[int, ...]
    grows: str = "steps"

    @classmethod
    def of(cls, table: Table, folder: Path, rows: Sequence[int], grows: str = "steps", states: bool = True) -> Start:
        """These rows of the table that a finished sweep left in its folder.

        Args:
            states: whether last states are read; without them the lanes cannot go on.
        """
        identity, blocks, _ = read_config(folder)
        whole = np.array(identity.get("lanes", range(len(table))))  # an extension's rows by the numbers of its lanes
        chosen = tuple(map(int, whole[list(rows)]))
        initial = dict(zip(chosen, map(float, table.lanes["initial"].iloc[list(rows)]), strict=True))
        records = table.records.assign(lane=whole[table.records["lane"]])
        last = read_last(folder, chosen) if states else {}
        return cls(folder, identity, blocks, initial, records, last, chosen, grows)

    @property
    def steps(self) -> int:
        """How far the lane that made the most steps has come."""
        return int(self.made.max()) * int(self.identity["every"])

    @property
    def made(self) -> pd.Series:
        """The records that each lane has made."""
        return self.records.groupby("lane").size().loc[list(self.lanes)]

    def check(self, identity: Mapping[str, Any], other_code: bool) -> None:
        """Raise InputError unless a sweep with this identity is, but for what grows, the one that the lanes are of."""
        before, now = ({name: fact for name, fact in each.items() if name != "lanes"}
                       for each in (self.identity, {**identity, self.grows: self.identity[self.grows]}))  # fmt: skip
        check_identity(self.folder, "sweep", before, now, other_code=other_code)

    def under_way(self, lanes: np.ndarray, block: int, devices: int, one: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """What `Block.under_way` gives where these lanes have come to their ends of the sweep side by side.

        Args:
            lanes: at most `block` numbers.
            one: the shapes of `At` for one lane.

        Raises:
            InputError: a lane's last state is of another kind.
        """
        of_devices = np.full((devices, block // devices), IDLE)
        for place in range(len(lanes)):
            of_devices[place % devices, place // devices] = place
        slots = of_devices.ravel()
        rows = [self.last[int(lanes[max(place, 0)])] for place in slots]  # what an idle slot holds is of no matter
        leaves, structure = jax.tree.flatten(one)
        kinds = [[(leaf.shape, leaf.dtype) for leaf in row] for row in (leaves, *rows)]
        if any(kind != kinds[0] for kind in kinds):
            raise InputError(f"{self.folder} keeps last states of another kind: sweep anew with more steps")
        log, made = self._log(lanes), self.made
        facts = {
            "lane": slots.tolist(),
            "made": [0 if place == IDLE else int(made[lanes[place]]) for place in slots],
            "waiting": [[] for _ in range(devices)],
            "outcomes": [[place, "", self.initial[int(lane)], 0.0] for place, lane in enumerate(lanes)],
            "columns": list(log),
            "records": len(log["lane"]),
            "last": [],
            "steps": self.steps,
            "block": block,
        }
        return {"at": jax.tree.unflatten(structure, pytree.stacked(rows)), "log": log, "last": []}, facts

    def _log(self, lanes: np.ndarray) -> dict[str, np.ndarray]:
        """The lanes' records as a block logs them: by place, with the costs since the record before. Costs are sums of
        float32, which float64 holds exactly up to 2^29 times the least of them: they add up to the same sums again."""
        place = {int(lane): number for number, lane in enumerate(lanes)}
        records = self.records[self.records["lane"].isin(lanes)]
        sums, lane = [*COSTS, "seconds"], records["lane"]
        since = records[sums] - records.groupby("lane")[sums].shift(fill_value=0.0)
        frame = records.assign(lane=lane.map(place), **{name: since[name] for name in sums})
        return {name: column.to_numpy(copy=True) for name, column in frame.items()}

    # --- the table of these lanes alone ---

    def outline(self, whole: Table) -> Table:
        """The rows of these lanes, numbered anew, of the table of all lanes without a record."""
        facts = {"extended": {"from": self.steps, "lanes": list(self.lanes)}}
        return Table(whole.lanes.iloc[list(self.lanes)].reset_index(drop=True), whole.records, whole.config | facts)

    def numbered(self, ended: Iterable[Ended]) -> list[Ended]:
        """Results with the numbers that these lanes have in that table."""
        number = {lane: row for row, lane in enumerate(self.lanes)}
        return [
            dataclasses.replace(
                part,
                records=part.records.assign(lane=part.records["lane"].map(number)),
                lanes=part.lanes.rename(index=number),
            )
            for part in ended
        ]
