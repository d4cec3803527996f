"""Where lanes go on that another sweep has run to its end: they are under way at its last step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
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
    """

    folder: Path
    identity: Mapping[str, Any]
    blocks: Mapping[str, int]
    initial: Mapping[int, float]
    records: pd.DataFrame
    last: Mapping[int, list[Any]]
    lanes: tuple[int, ...]

    @property
    def steps(self) -> int:
        """How far the lanes have come."""
        return int(self.identity["steps"])

    def check(self, identity: Mapping[str, Any], other_code: bool) -> None:
        """Raise InputError unless a sweep with this identity is, but for its length, the one that the lanes are of."""
        before, now = ({name: fact for name, fact in each.items() if name != "lanes"}
                       for each in (self.identity, {**identity, "steps": self.identity["steps"]}))  # fmt: skip
        check_identity(self.folder, "sweep", before, now, other_code=other_code)

    def under_way(self, lanes: np.ndarray, block: int, devices: int, one: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """What `Block.under_way` gives where these lanes have made the sweep's last step side by side.

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
        log = self._log(lanes)
        facts = {
            "lane": slots.tolist(),
            "made": np.where(slots == IDLE, 0, self.steps // self.identity["every"]).tolist(),
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
