"""What looks on while a part of a sweep runs, and trackers that see the records of every lane."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.progress import say
from fedjax_lc.results.columns import SERIES, summarised
from fedjax_lc.results.ledger import COSTS
from fedjax_lc.results.table import Table
from fedjax_lc.tracking.base import About, Tracking, parse

if TYPE_CHECKING:
    import pandas as pd

Outcomes = Mapping[int, Mapping[str, Any]]  #: status, initial and seconds by lane


@dataclasses.dataclass(frozen=True)
class Watch:
    """What looks on while a part runs.

    Attributes:
        advanced: called after each chunk with the number of records made (or not needed any more, as their lane ended
            early) and of lanes that ended.
        interrupted: whether to stop now.
        save: called after each chunk with the block and whether it stops; it keeps the lanes under way when it is time.
        keeps: whether the results hold the last state of lanes that make all steps or spend their budget.
        recorded: called with new records, as a block logs them, and the outcomes of lanes so far, by lanes' places.
    """

    advanced: Callable[[int, int], Any]
    interrupted: Callable[[], bool]
    save: Callable[[Any, bool], Any] = lambda block, stops: None
    keeps: bool = False
    recorded: Callable[[pd.DataFrame, Outcomes], Any] = lambda log, outcomes: None


class LaneLog:
    """One lane in all trackers, as far as its records have come."""

    def __init__(self, tracking: Tracking, f_star: float) -> None:
        self.tracking, self.f_star = tracking, f_star
        self.step, self.totals = 0, np.zeros(len(COSTS))

    def add(self, records: pd.DataFrame, initial: float) -> None:
        """Add those of these records, with cumulative costs, that it does not have."""
        rows = records[records["step"] > self.step]
        if not len(rows):
            return
        columns = {name: rows[name].to_numpy() for name in SERIES[1:]}
        self.step, self.totals = int(columns["step"][-1]), np.array([columns[name][-1] for name in COSTS])
        gap = columns["value"] - self.f_star
        with np.errstate(divide="ignore", invalid="ignore"):
            columns |= {"gap": gap, "rel_gap": gap / (initial - self.f_star)}
        others = [name for name in rows if name not in (*SERIES, "seconds")]
        self.tracking.add(columns | {name: rows[name].to_numpy() for name in others})

    def add_increments(self, log: pd.DataFrame, initial: float) -> None:
        """Add records with the costs since the record before."""
        rows = log[log["step"] > self.step].sort_values("step")
        for place, name in enumerate(COSTS):
            rows[name] = np.cumsum(np.concatenate([self.totals[place : place + 1], rows[name]]))[1:]
        self.add(rows, initial)


class Followed:
    """A sweep's lanes in trackers; a lane's log begins with its first record.

    Args:
        track: as in `fl.sweep`.
        table: the outline of the sweep, whose lanes have a row each.
        folder: of the results, or None.
        name: the digest of the sweep.

    Raises:
        InputError: a tracker cannot log so many lanes, or cannot begin.
    """

    def __init__(self, track: Any, table: Table, folder: Path | None, name: str) -> None:
        self.table, self.folder, self.name = table, folder, name
        self.trackers = parse(track, folder)
        self.logs: dict[int, LaneLog] = {}
        for tracker in self.trackers:
            if len(table) > (most := getattr(tracker, "most", len(table))):
                raise InputError(f"track: {type(tracker).__name__} logs every lane as a run, {most} at most, and this "
                                 f"sweep has {len(table)} lanes: track csv, or sweep fewer")  # fmt: skip
        if self.trackers and len(table):
            self.logs[0] = self._begun(0)

    def recorded(self, numbers: Sequence[int], log: pd.DataFrame, outcomes: Outcomes) -> None:
        """See records of a part, whose lanes have these numbers, as a block logs them."""
        if self.trackers:
            for place, rows in log.groupby("lane"):
                self._log(int(numbers[int(place)])).add_increments(rows, outcomes[int(place)]["initial"])

    def ended(self, records: pd.DataFrame, lanes: pd.DataFrame) -> None:
        """See all records of lanes, with cumulative costs, and how the lanes ended; they are over."""
        if not self.trackers:
            return
        of_lane = dict(iter(records.groupby("lane")))
        for lane, row in lanes.iterrows():
            rows = of_lane.get(lane, records.iloc[:0])
            log = self._log(int(lane))
            log.add(rows, row["initial"])
            names = [name for name in rows if name not in ("lane", "seconds")]
            log.tracking.end(row["status"], summarised({name: rows[name].to_numpy() for name in names}))
            log.tracking.logs.clear()

    def _log(self, lane: int) -> LaneLog:
        if lane not in self.logs:
            self.logs[lane] = self._begun(lane)
        return self.logs[lane]

    def _begun(self, lane: int) -> LaneLog:
        row = self.table.lanes.iloc[[lane]].to_dict("records")[0]
        labels = {"lane": lane, **{name: row[name] for name in ("method", "config", "seed", *self.table.names)}}
        config = {name: fact for name, fact in self.table.config.items() if name != "methods"}
        known = json.dumps([self.name, str(self.folder), lane])
        identity = hashlib.sha256(known.encode()).hexdigest()[:16]
        group = str(self.folder or row["method"])
        about = About(f"{row['method']}-{lane}", group, labels, config, self.folder, identity)
        try:
            tracking = Tracking.begun(self.trackers, about)
        except InputError as error:
            if not self.logs:  # the first lane
                raise
            say(f"note: lane {lane} is not tracked, {error}")
            tracking = Tracking(())
        return LaneLog(tracking, row["f_star"])
