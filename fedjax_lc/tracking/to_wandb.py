"""`wandb:PROJECT`: every record to Weights & Biases, or to its files on this machine with WANDB_MODE=offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.tracking.base import About, flat_summary, needed, tag

PROJECT = "fedjax_lc"


def make(argument: str, folder: Path | None) -> Wandb:
    return Wandb(argument or PROJECT, needed("wandb", "wandb"))


class Wandb:
    """A project; a run is one of its runs, and each lane of a sweep too, in a group."""

    most = 64

    def __init__(self, project: str, wandb: Any) -> None:
        self.project, self.wandb = project, wandb

    def start(self, about: About) -> WandbLog:
        if about.folder is not None:
            about.folder.mkdir(parents=True, exist_ok=True)
        return WandbLog(
            self.wandb.init(
                project=self.project,
                name=about.name,
                group=about.group or None,
                config={**about.config, **about.labels},
                dir=None if about.folder is None else str(about.folder),
                id=about.identity,
                resume="allow",  # records that it has are not taken twice, as each has its step
                reinit="create_new",
                settings=self.wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True),
            )
        )


class WandbLog:
    """One run of W&B."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        for row, step in enumerate(columns["step"]):
            self.run.log({tag(name): float(column[row]) for name, column in columns.items()}, step=int(step))

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        self.run.summary.update({**flat_summary(summary), "status": status})
        self.run.finish()
