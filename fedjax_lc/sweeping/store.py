"""The folder of a sweep while it runs: what determines its results, and the parts that are done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.results.provenance import check_identity
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.blocks import Ended

KEPT = b"fedjax_lc lanes"  #: key of the lanes' rows in the metadata of a part's file


class Store:
    """The folder of a sweep: config.json, part-GGGG-PPPP.parquet for each finished part, and in the end the table.

    With folder=None nothing is written or read.

    Raises:
        InputError: the folder holds another sweep or other files, or cannot be written.
    """

    def __init__(
        self, folder: Path | None, identity: dict[str, Any], say: Callable[[str], None], other_code: bool = False
    ) -> None:
        self.folder, self.identity = folder, json.loads(json.dumps(identity))
        self.blocks: dict[str, int] = {}
        if folder is None:
            return
        if (folder / "config.json").exists():
            self._check(folder, say, other_code)
        elif any(folder.glob("part-*.parquet")):
            raise InputError(f"{folder} holds parts of a sweep without its config.json: choose another folder")
        else:
            self._write()

    def _check(self, folder: Path, say: Callable[[str], None], other_code: bool) -> None:
        try:
            kept = json.loads((folder / "config.json").read_text())
            before, self.blocks = dict(kept["identity"]), kept["blocks"]
        except (ValueError, KeyError, TypeError, OSError):
            raise InputError(f"{folder} holds something else than a sweep: choose another folder") from None
        remark = check_identity(
            folder, "sweep", before, self.identity, finished=is_table(folder), other_code=other_code
        )
        if remark is not None:
            say(f"note: {remark}")

    def _write(self) -> None:
        if self.folder is not None:
            with replacing(self.folder / "config.json") as path:
                path.write_text(json.dumps(self.config, indent=2) + "\n")

    @property
    def config(self) -> dict[str, Any]:
        """The entries that config.json keeps while the sweep runs."""
        return {"identity": self.identity, "blocks": self.blocks}

    def table(self) -> Table | None:
        """The table, if the sweep is finished, else None."""
        if self.folder is None or not (self.folder / "lanes.parquet").exists():
            return None
        table = Table.load(self.folder)
        self._remove_parts()
        return table

    def block(self, group: int) -> int | None:
        """The number of lanes side by side with which this group began, or None."""
        return self.blocks.get(str(group))

    def begin(self, group: int, block: int) -> None:
        """Save the number of lanes side by side of this group; a continued sweep must use the same."""
        if self.blocks.get(str(group)) != block:
            self.blocks[str(group)] = block
            self._write()

    def part(self, group: int, part: int) -> Ended | None:
        """The results of a part, or None if it is not done."""
        import pandas as pd
        import pyarrow.parquet as pq

        path = self._path(group, part)
        if path is None or not path.exists():
            return None
        try:
            saved = pq.read_table(path)
            lanes = json.loads(saved.schema.metadata[KEPT])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}): delete it, and its lanes run again"
            ) from None
        return Ended(saved.to_pandas(), pd.DataFrame(lanes).set_index("lane"))

    def save(self, group: int, part: int, ended: Ended) -> None:
        """Write the results of a part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(group, part)
        if path is None:
            return
        records = pa.Table.from_pandas(ended.records, preserve_index=False)
        lanes = json.dumps(ended.lanes.reset_index().to_dict("list"), default=_plain).encode()
        with replacing(path) as temporary:
            pq.write_table(records.replace_schema_metadata({**(records.schema.metadata or {}), KEPT: lanes}), temporary)

    def finish(self, table: Table) -> None:
        """Write the table, then remove the files of the parts."""
        if self.folder is not None:
            table.save(self.folder)
            self._remove_parts()

    def _remove_parts(self) -> None:
        for path in self.folder.glob("part-*.parquet") if self.folder is not None else ():
            path.unlink()

    def _path(self, group: int, part: int) -> Path | None:
        return self.folder / f"part-{group:04d}-{part:04d}.parquet" if self.folder is not None else None


def _plain(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else str(number)
