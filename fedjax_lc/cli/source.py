"""Which data a command is asked for, and how they are to be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from fedjax_lc.cli.options import Option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The options of `data.load`."""

    data: Annotated[str, Option("a data set's name, a file or a folder (fedjax-lc list data)", "data")] = (
        "breast_cancer"
    )
    data_dir: Annotated[
        Path | None,
        Option("folder of local data files (else the environment variable FEDJAX_LC_DATA)", "data", aside=True),
    ] = None
    labels: Annotated[list[str] | None, Option("label of the +1 class of multiclass data; may be repeated", "data")] = (
        None
    )
    scale: Annotated[
        str | None, Option("standard, minmax, maxabs, unit or none (default: standard for embedded data)", "data")
    ] = None
    target: Annotated[
        str | None,
        Option("the target's column of a table (default: target, label, class or y, else the last)", "data"),
    ] = None
    categories: Annotated[
        str | None, Option("what words in a table become (default: refused)", "data", choices=("onehot", "codes"))
    ] = None
    missing: Annotated[
        str | None,
        Option(
            "fill empty cells with their column's mean, or drop their rows (default: refused)",
            "data",
            choices=("mean", "drop"),
        ),
    ] = None
    allow: Annotated[
        list[str] | None,
        Option("read LIBSVM text with this irregularity: zero, unsorted, repeated or qid; may be repeated", "data"),
    ] = None

    def source(self, scale: str | None) -> dict[str, Any]:
        """The arguments of `data.load`, but for download."""
        labels = self.labels[0] if self.labels and len(self.labels) == 1 else self.labels
        reading = {name: getattr(self, name) for name in ("target", "categories", "missing", "allow")}
        given = {name: value for name, value in reading.items() if value is not None}
        return {"name_or_path": self.data, "data_dir": self.data_dir, "scale": scale, "labels": labels} | given
