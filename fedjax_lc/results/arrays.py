"""Tables as arrays on named axes, and quantiles for each group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def to_xarray(lanes: pd.DataFrame, series: pd.DataFrame, config: dict[str, Any], names: Sequence[str]) -> xr.Dataset:
    """The data set that `Table.to_xarray` returns.

    Args:
        lanes, config: as in `Table`.
        series: one row per record, with the columns lane and step.
        names: columns of `lanes` that become coordinates.
    """
    import xarray as xr

    axes, along = _axes(lanes, config)
    lane = series["lane"].to_numpy()
    steps, record = np.unique(series["step"].to_numpy(), return_inverse=True)
    columns = series.drop(columns=["lane", "step"])
    data = _place(columns, axes | {"record": steps}, [*(place[lane] for place in along), record])
    several = "lane" in axes
    before_seed = axes if several else {name: labels for name, labels in axes.items() if name != "seed"}
    described = [name for name in (*(("method", "config", "seed") if several else ()), *names) if name not in axes]
    coordinates = _place(lanes[described], before_seed, along[: len(before_seed)])
    coordinates |= {name: ((name,), labels) for name, labels in axes.items()} | {"step": (("record",), steps)}
    return xr.Dataset(data | _place(lanes[["status"]], axes, along), coordinates)


def _axes(lanes: pd.DataFrame, config: dict[str, Any]) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """The named axes with their labels, and for each axis the places (lanes,) of the lanes along it."""
    if lanes["method"].nunique() != 1 or lanes.duplicated(["config", "seed"]).any():
        numbers = np.arange(len(lanes))
        return {"lane": numbers}, (numbers,)
    axes = config["methods"][lanes["method"].iloc[0]].get("axes", {})
    axes = {name: np.array(labels, object if any(isinstance(label, str) for label in labels) else None)
            for name, labels in axes.items()}  # fmt: skip
    sizes, places = tuple(map(len, axes.values())), lanes["config"].to_numpy()
    seeds, seed = np.unique(lanes["seed"].to_numpy(), return_inverse=True)
    if axes and places.max() < math.prod(sizes):
        return axes | {"seed": seeds}, (*np.unravel_index(places, sizes), seed)
    configs, place = np.unique(places, return_inverse=True)
    return {"config": configs, "seed": seeds}, (place, seed)


def _place(frame: pd.DataFrame, axes: Mapping[str, np.ndarray], along: Sequence[np.ndarray]) -> dict[str, Any]:
    """Column -> (axes, array); row i is at (along[0][i], along[1][i], ...), the first if several; NaN elsewhere."""
    sizes = tuple(map(len, axes.values()))
    full = frame.set_axis(np.ravel_multi_index(tuple(along), sizes))
    full = full[~full.index.duplicated()].reindex(range(math.prod(sizes)))
    return {name: (tuple(axes), full[name].to_numpy().reshape(sizes)) for name in full}


def quantiles(values: np.ndarray, group: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """For each share the quantiles (groups,), interpolated linearly between values, which may be inf."""
    ordered, count = values[np.lexsort((values, group))], np.bincount(group)
    start, quantiles = np.cumsum(count) - count, []
    for share in shares:
        place = np.round(share * (count - 1), 9)
        part, below = place % 1, start + place.astype(int)
        with np.errstate(invalid="ignore"):  # 0 * inf, not chosen
            between = (1 - part) * ordered[below] + part * ordered[below + (part > 0)]
        quantiles.append(np.where(part > 0, between, ordered[below]))
    return quantiles
