"""The columns of a table, and the column name of a hyperparameter, setting or metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.problems.metric_names import unknown_metric
from fedjax_lc.results.ledger import COSTS

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("finished", "target", "diverged", "interrupted", "dropped")  #: how a run or a lane ended
PRICES = (*COSTS, "step", "seconds")  #: the price of reaching a target
METRICS = (*PRICES, "total_bits")  #: the costs that `Table.best` can compare
TARGETS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)  #: default relative gaps of `Table.summary`
HEAD, TAIL = ("method", "config", "seed"), ("status", "initial", "f_star", "seconds")  #: of `Table.lanes`
SERIES = ("lane", "step", *COSTS, "value")  #: of `Table.records`, before metrics and seconds
SPREAD = ("median", "low", "high", "seeds", "reached", "diverged")  #: columns that `Table.best` adds
OF_TABLE = ("methods", "metrics", "seeds", "axes", "merged")  #: in `Table.config`, not for one lane
RESERVED = frozenset({*HEAD, *TAIL, *SERIES, *SPREAD, "gap", "rel_gap", "record"})


def column(name: str, metrics: Collection[str] = ()) -> str:
    """The column of a hyperparameter, setting or metric: its name, or `name_` if another column is called so.

    For metrics leave out `metrics`; for hyperparameters and settings pass the names of all metrics.

    >>> column("gamma/theory"), column("seed"), column("p", metrics=["p"])
    ('gamma/theory', 'seed_', 'p_')
    """
    return f"{name}_" if name in RESERVED or name in metrics else name


def check_frames(lanes: pd.DataFrame, records: pd.DataFrame, others: Sequence[str]) -> None:
    """Raise InputError where a column has two meanings, or lanes or records are not in order.

    others: settings, hyperparameters and metrics.
    """
    names = [*HEAD, *others, *SERIES, *SPREAD]
    if len(set(names)) < len(names) or not lanes.columns.is_unique or not records.columns.is_unique:
        raise InputError("a column of this table has two meanings: name columns by columns.column")
    lane, step = records["lane"].to_numpy(), records["step"].to_numpy()
    forward = (np.diff(lane) > 0) | (np.diff(lane) == 0) & (np.diff(step) > 0)
    numbered = np.array_equal(lanes.index, np.arange(len(lanes)))
    if not (numbered and forward.all() and np.all((lane >= 0) & (lane < len(lanes)))):
        raise InputError("lanes must be numbered from 0, and records be sorted by lane (a row of lanes) and step")


def is_accuracy(name: str) -> bool:
    """Whether the metric is an accuracy, so that larger is better."""
    return "accuracy" in name and not name.endswith("_std")


class Series(dict[str, Any]):
    """Metrics by name; for one that was not measured an InputError says which are known."""

    def __missing__(self, name: str) -> Any:
        raise unknown_metric(name, self)


def best_record(name: str, series: np.ndarray) -> int | None:
    """The number of the first record at which a series (r,) is best; None where it holds no number."""
    signed = -series if is_accuracy(name) else series
    return None if np.all(np.isnan(signed)) else int(np.nanargmin(signed))


def summarised(columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The last value of series (r,), and for all but costs the best one and its step; {} without a record.

    Args:
        columns: step, costs, value and metrics by name; those of several numbers (r, k) are left out.
    """
    if not len(step := columns["step"]):
        return {}
    summary = {name: {"last": float(series[-1])} for name, series in columns.items() if series.ndim == 1}
    for name in summary.keys() - {"step", *COSTS}:
        if (row := best_record(name, columns[name])) is not None:
            summary[name] |= {"best": float(columns[name][row]), "step": float(step[row])}
    return {name: each for name, each in summary.items() if name != "step"}
