"""The table of a sweep before anything has run, and the results of lanes entered into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.digest import digest
from fedjax_lc.results.columns import SERIES, column
from fedjax_lc.results.provenance import describe, describe_problem, environment
from fedjax_lc.results.table import Table
from fedjax_lc.running.options import Task
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.grid import Grid


def outline(algorithm: Algorithm, task: Task, grid: Grid, seeds: Sequence[int]) -> Table:
    """The table of all lanes without a record; every lane has the status "interrupted"."""
    import pandas as pd

    metrics = task.metrics.names
    number = np.arange(len(grid) * len(seeds))
    config, seed = np.divmod(number, len(seeds))
    settings, names, rows = _columns(grid, metrics)
    lanes = pd.DataFrame({"method": algorithm.name, "config": config, "seed": np.array(seeds)[seed]})
    for name in dict.fromkeys([*settings, *names]):
        lanes[name] = [rows[c].get(name) for c in config]
    lanes["status"], lanes["initial"], lanes["f_star"], lanes["seconds"] = (
        "interrupted",
        np.nan,
        task.problem.f_star,
        0.0,
    )
    series = [*SERIES, *(column(name) for name in metrics[1:]), "seconds"]
    types = {name: np.int64 if name in ("lane", "step") else np.float64 for name in series}
    axes = {column(name, metrics): list(values) for name, values in grid.axes.items()}
    config_of_table = {
        "methods": {algorithm.name: {"axes": axes, "settings": settings, "hyperparameters": names}},
        "problem": describe_problem(task.problem) | {"digest": digest(task.problem)},
        "steps": task.records * task.every,
        "every": task.every,
        "rel_gap": task.rel_gap,
        "budget": task.budget,
        "seeds": list(seeds),
        **environment(),
    }
    return Table(lanes, pd.DataFrame(columns=series).astype(types), config_of_table)


def _columns(grid: Grid, metrics: Sequence[str]) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """The columns of settings, those of hyperparameters, and the values of both for each configuration."""
    columns = lambda row: {column(name, metrics): value for name, value in row.items()}
    chosen = [columns(row) for row in grid.settings]
    described = [columns(describe(hp)) for hp in grid.hparams]
    names = [list(dict.fromkeys(name for row in rows for name in row)) for rows in (chosen, described)]
    return names[0], names[1], [one | other for one, other in zip(chosen, described, strict=True)]


def filled(outline: Table, ended: Iterable[Ended], facts: Mapping[str, Any]) -> Table:
    """The outline with the results of lanes, and further facts in its config.

    The config's "side_by_side" says how many lanes ran side by side: number -> the lanes for which it was so, as text.
    In float32 a lane's last bits may depend on it.
    """
    import pandas as pd

    ended = list(ended)
    lanes, records = outline.lanes.copy(), outline.records
    together: dict[int, list[int]] = {}
    if ended:
        outcomes = pd.concat([part.lanes for part in ended]).reindex(lanes.index)
        lanes["status"] = outcomes["status"].fillna("interrupted")
        lanes["initial"] = outcomes["initial"]
        lanes["seconds"] = outcomes["seconds"].fillna(0.0)
        records = pd.concat([part.records for part in ended], ignore_index=True)
        records = records.sort_values("lane", kind="stable").reset_index(drop=True)
    for part in ended:
        together.setdefault(part.block, []).extend(map(int, part.lanes.index))
    side_by_side = {str(block): _ranges(sorted(numbers)) for block, numbers in sorted(together.items())}
    return Table(lanes, records, outline.config | {"side_by_side": side_by_side} | dict(facts))


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers in short.

    >>> _ranges([0, 1, 2, 3, 7, 9, 10])
    '0-3, 7, 9-10'
    """
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    runs = np.split(np.asarray(numbers), breaks)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
