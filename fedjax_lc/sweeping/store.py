"""The folder of a sweep while it runs: what determines its results, its finished lanes, and its lanes under way."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core import pytree, tensors
from fedjax_lc.core.digest import digest
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import remove_leftovers, replacing
from fedjax_lc.core.paths import read_json
from fedjax_lc.results.ledger import COSTS
from fedjax_lc.results.provenance import CODE, check_identity
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.running import checkpoints
from fedjax_lc.running.checkpoints import Checkpoint, Schedule
from fedjax_lc.sweeping.blocks import OUTCOME, Block, Ended, ended, outcomes

ABOUT = b"fedjax_lc lanes"  #: key of the lanes' rows in the metadata of a part's file
STATES = "states"  #: beginning of the names of the files with last states
Say = Callable[[str], None]


class Store:
    """The folder of a sweep: config.json, a file for each part that is done or under way, and in the end the table.

    Each file names its lanes and the sweep that it belongs to, so that a sweep may go on in other parts than it began
    with. Last states of lanes stay beside the table, for `fl.extend`. With folder=None nothing is written or read.

    Attributes:
        ended: the results of the parts that are done.
        done: the numbers of their lanes.

    Raises:
        InputError: the folder holds another sweep, other files or damaged ones, or cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        identity: dict[str, Any],
        say: Say,
        *,
        other_code: bool = False,
        every: float | str | None = None,
    ) -> None:
        self.folder, self.identity, self.every = folder, json.loads(json.dumps(identity)), every
        self.blocks: dict[str, int] = {}
        self.remarks: list[str] = []
        self.ended: list[Ended] = []
        Schedule(every)  # raises if it cannot be read
        if folder is not None:
            remove_leftovers(folder)
            if (folder / "config.json").exists():
                self._check(folder, say, other_code)
            elif any(folder.glob("part-*.parquet")):
                raise InputError(f"{folder} holds parts of a sweep without its config.json: choose another folder")
            else:
                self._write()
            self.ended = [] if is_table(folder) else list(read_parts(folder, self.name))
        self.done = {int(lane) for part in self.ended for lane in part.lanes.index}

    def _check(self, folder: Path, say: Say, other_code: bool) -> None:
        before, self.blocks, self.remarks = read_config(folder)
        finished = is_table(folder)
        remark = check_identity(folder, "sweep", before, self.identity, finished=finished, other_code=other_code)
        self.identity = before
        if remark is not None:
            say(f"note: {remark}")
            if not finished:
                self.remarks.append(remark)
                self._write()

    def _write(self) -> None:
        if self.folder is not None:
            with replacing(self.folder / "config.json") as path:
                path.write_text(json.dumps(self.config, indent=2) + "\n")

    @property
    def name(self) -> str:
        """The digest of the sweep."""
        return name_of(self.identity)

    @property
    def config(self) -> dict[str, Any]:
        """The entries that config.json keeps while the sweep runs."""
        remarks = {"other_code": self.remarks} if self.remarks else {}
        return {"identity": self.identity, "blocks": self.blocks, **remarks}

    def table(self) -> Table | None:
        """The table, if the sweep is finished, else None."""
        if self.folder is None or not is_table(self.folder):
            return None
        table = Table.load(self.folder)
        self._remove_parts()
        return table

    def block(self, group: int) -> int | None:
        """The number of lanes side by side with which this group began, or None."""
        return self.blocks.get(str(group))

    def begin(self, group: int, block: int) -> None:
        """Save the number of lanes side by side of this group; a continued sweep uses the same if it fits."""
        if self.blocks.get(str(group)) != block:
            self.blocks[str(group)] = block
            self._write()

    def add(self, part: Ended) -> None:
        """Keep the results of a part that is done; it is not under way any more."""
        self.ended.append(part)
        self.done |= {int(lane) for lane in part.lanes.index}
        if self.folder is not None:
            if part.last:
                write_states(self.folder, part, self.name)
            write_part(self.folder, part, self.name)
            checkpoints.remove(self.folder, _prefix(part.lanes.index))

    def finish(self, table: Table) -> None:
        """Write the table, then remove the files of the parts."""
        if self.folder is not None:
            table.save(self.folder)
            self._remove_parts()
            remove_leftovers(self.folder)

    def _remove_parts(self) -> None:
        for path in [*self.folder.glob("part-*.parquet"), *self._checkpoints()] if self.folder is not None else ():
            with contextlib.suppress(OSError):  # of a folder that can only be read
                path.unlink()

    # --- lanes under way ---

    def under_way(self, lanes: np.ndarray, block: int, devices: int, keeps: bool = False) -> UnderWay:
        """The lanes under way of the part with these lanes, `block` of them side by side on so many devices.

        Args:
            keeps: whether their last states are kept, too.
        """
        identity = {"sweep": self.name, "lanes": lanes.tolist(), "slots": [block, devices]}
        return UnderWay(self.folder, lanes, identity, self.every, keeps)

    def keep_finished(self, group: np.ndarray, parts: Sequence[np.ndarray], block: int, devices: int) -> None:
        """Keep the finished lanes of parts of a group that were under way otherwise than now; their others run again.

        Args:
            group: the numbers of the group's lanes.
            parts: those of the parts that are under way now, `block` lanes side by side on so many devices.
        """
        going, among = [lanes.tolist() for lanes in parts], {*group.tolist()}
        for path in self._checkpoints():
            try:
                stored = tensors.read(path)
                identity, facts = stored.facts["identity"], stored.facts["facts"]
                lanes = {*identity["lanes"]}
                same = identity["lanes"] in going and identity["slots"] == [block, devices]
                if same or identity["sweep"] != self.name or not lanes <= among:
                    continue
                if not self.done & lanes:
                    self._add_finished(stored, identity["lanes"], facts)
            except (InputError, KeyError, TypeError):
                continue  # `UnderWay.latest` says so where it is needed
            path.unlink(missing_ok=True)

    def _add_finished(self, stored: tensors.Stored, lanes: Sequence[int], facts: Mapping[str, Any]) -> None:
        import pandas as pd

        over = {place: row for place, row in outcomes(facts).items() if row["status"]}
        if over:
            tree = stored.rebuilt()
            log = pd.DataFrame(tree["log"])[facts["columns"]]
            last = pytree.unstacked(facts["last"], tree.get("last", ()))
            self.add(ended(log[log["lane"].isin(list(over))], over, np.array(lanes), facts["block"], last))

    def _checkpoints(self) -> list[Path]:
        """The files of parts under way, the last one of each part first."""
        return [] if self.folder is None else sorted(self.folder.glob("part-*.safetensors"), reverse=True)


class UnderWay:
    """The lanes under way of a part: kept on a schedule while they run, and read when the sweep goes on."""

    def __init__(
        self,
        folder: Path | None,
        lanes: np.ndarray,
        identity: dict[str, Any],
        every: float | str | None,
        keeps: bool = False,
    ) -> None:
        self.folder, self.identity, self.prefix, self.keeps = folder, identity, _prefix(lanes), keeps
        self.schedule = Schedule(every)

    def latest(self, like: Callable[[Mapping[str, Any]], Any]) -> Checkpoint | None:
        """What was kept last, or None; `like` gives the shapes for its facts."""
        if self.folder is None:
            return None
        kept = checkpoints.latest(self.folder, like, self.identity, prefix=self.prefix)
        self.schedule.begin(0 if kept is None else kept.step)
        return kept

    def save(self, block: Block, stops: bool) -> None:
        """Keep the lanes of the block, if it is time or the block stops."""
        if self.folder is not None and (stops or self.schedule.due(block.steps)):
            started = time.monotonic()
            self.put(*block.under_way(), block.steps)
            self.schedule.written(block.steps, time.monotonic() - started)

    def put(self, tree: Any, facts: Mapping[str, Any], step: int) -> None:
        """Keep what `Block.under_way` gave, or would give, at this step."""
        if self.folder is not None:
            checkpoints.save(self.folder, tree, facts, step=step, identity=self.identity, prefix=self.prefix)

    def files(self) -> dict[str, bytes]:
        """The files that are kept now, by name."""
        files = {}
        for path in [] if self.folder is None else self.folder.glob(f"{self.prefix}-*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # a later one has replaced it
                files[path.name] = path.read_bytes()
        return files

    def take(self, files: Mapping[str, bytes]) -> None:
        """Keep these files instead of those that are kept now."""
        if self.folder is None:
            return
        for name, content in files.items():
            with replacing(self.folder / name) as path:
                path.write_bytes(content)
        for name in self.files().keys() - files.keys():
            (self.folder / name).unlink(missing_ok=True)

    def elsewhere(self, folder: Path | None) -> UnderWay:
        """The same for another folder."""
        other = copy.copy(self)
        other.folder = folder
        return other

    def forget(self) -> None:
        """Remove what was kept."""
        if self.folder is not None:
            checkpoints.remove(self.folder, self.prefix)


def name_of(identity: Mapping[str, Any]) -> str:
    """The digest of a sweep that its files hold; what `other_code` admits does not enter it."""
    return digest({key: fact for key, fact in identity.items() if key not in CODE})


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """The identity, the blocks and the remarks on other code in the config.json of a sweep.

    Raises:
        InputError: it is not that of a sweep, or has been edited.
    """
    try:
        kept = read_json(folder / "config.json")
        identity, blocks, remarks = dict(kept["identity"]), dict(kept["blocks"]), list(kept.get("other_code", []))
        if not all(type(block) is int and block >= 1 for block in blocks.values()):
            raise ValueError(blocks)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        raise InputError(f"{folder} holds something else than a sweep: choose another folder") from None
    return identity, blocks, remarks


def write_part(folder: Path, part: Ended, name: str) -> None:
    """Write the results of a part of the sweep with that name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = pa.Table.from_pandas(part.records, preserve_index=False)
    rows = part.lanes[list(OUTCOME)].reset_index().to_dict("list")
    about = json.dumps({"sweep": name, "block": part.block, "lanes": rows}, default=_plain).encode()
    with replacing(folder / f"{_prefix(part.lanes.index)}.parquet") as path:
        pq.write_table(records.replace_schema_metadata({**(records.schema.metadata or {}), ABOUT: about}), path)


def write_states(folder: Path, part: Ended, name: str) -> None:
    """Write the last states of a part's lanes of the sweep with that name."""
    path = folder / f"{STATES}-{int(part.lanes.index[0]):08d}.safetensors"
    tensors.write(path, pytree.stacked([*part.last.values()]), {"sweep": name, "lanes": list(part.last)})


def read_states(folder: Path, name: str, lanes: Sequence[int]) -> dict[int, list[Any]]:
    """The last states of these lanes of the sweep with that name, as `Ended.last`.

    Raises:
        InputError: some are not there, or their file cannot be used.
    """
    last: dict[int, list[Any]] = {}
    trouble = ""
    for path in sorted(folder.glob(f"{STATES}-*.safetensors")):
        try:
            stored = tensors.read(path)
            if stored.facts.get("sweep") != name:
                raise InputError("it is of another sweep")
            last |= pytree.unstacked(stored.facts["lanes"], list(stored.leaves.values()))
        except (InputError, KeyError, TypeError, IndexError) as error:
            trouble = f" ({path.name} cannot be used, {error})"
    if missing := [lane for lane in lanes if lane not in last]:
        raise InputError(f"{folder} keeps no last state of lane {missing[0]}{trouble}: sweep anew with more steps")
    return {lane: last[lane] for lane in lanes}


def read_parts(folder: Path, name: str) -> Iterator[Ended]:
    """The parts of the sweep with that name in a folder, checked against their lanes.

    Raises:
        InputError: a part is damaged, of another sweep, or holds a lane that another one holds.
    """
    seen: set[int] = set()
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            part = _read_part(path, name)
            if seen & {*part.lanes.index}:
                raise InputError("holds lanes that another part holds")
        except InputError as error:
            raise InputError(f"{path} {error}: delete it, and its lanes run again") from None
        seen |= {*part.lanes.index}
        yield part


def _read_part(path: Path, name: str) -> Ended:
    import pandas as pd
    import pyarrow.parquet as pq

    try:
        saved = pq.read_table(path)
        about = json.loads(saved.schema.metadata[ABOUT])
        records, lanes = saved.to_pandas(), pd.DataFrame(about["lanes"]).set_index("lane")[list(OUTCOME)]
        order, block = records[["lane", "step", *COSTS, "value", "seconds"]], int(about["block"])
        ordered = order[["lane", "step"]].apply(tuple, axis=1).is_monotonic_increasing if len(order) else True
        fits = ordered and lanes.index.is_unique and records["lane"].isin(lanes.index).all()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"is damaged ({type(error).__name__})") from None
    if about.get("sweep") != name:
        raise InputError("is a part of another sweep")
    if not fits:
        raise InputError("is damaged (its records are not those of its lanes)")
    return Ended(records, lanes, block)


def _prefix(lanes: Any) -> str:
    """The beginning of the names of a part's files."""
    return f"part-{int(lanes[0]):08d}"


def _plain(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else str(number)
