"""Which configuration is best, and how a target is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedjax_lc.results.arrays import quantiles

if TYPE_CHECKING:
    import pandas as pd


def best_of_groups(
    lanes: pd.DataFrame,
    by: Sequence[str],
    costs: np.ndarray,
    ends: np.ndarray,
    *,
    band: tuple[float, float],
    sign: float,
) -> pd.DataFrame:
    """For each group the configuration with the least median cost, as `Table.best` says.

    Args:
        lanes: method, config, what groups and describes configurations, and diverged, by lane.
        by: columns that make a group.
        costs: (lanes,) with inf where the target was not reached.
        ends: (lanes,) how close each came, which decides where every median is inf.
        band: quantiles of low and high.
        sign: -1 where the costs are negatives of what is shown.
    """
    number = lanes.groupby(["method", "config"], sort=False).ngroup().to_numpy()
    rows = lanes.loc[~lanes.duplicated(["method", "config"])].drop(columns="diverged")
    seeds = {"seeds": 1, "reached": np.isfinite(costs)}
    counts = lanes[["diverged"]].assign(**seeds).groupby(number)[["seeds", "reached", "diverged"]].sum()
    low, median, high = quantiles(costs, number, (band[0], 0.5, band[1]))
    shown = {"median": sign * median, "low": sign * low, "high": sign * high}
    if sign < 0:
        shown |= {"low": shown["high"], "high": shown["low"]}
    rows = rows.reset_index(drop=True).assign(**shown).join(counts)
    (closest,) = quantiles(ends, number, (0.5,))
    group = rows.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy() if by else np.zeros(len(rows), int)
    order = np.lexsort((rows["config"], np.where(np.isfinite(median), 0.0, closest), median, group))
    first = np.unique(group[order], return_index=True)[1]
    return rows.iloc[order[first]].reset_index(drop=True)


def text_of(target: float) -> str:
    """1e-04, or all digits where these are more."""
    text = f"{target:.0e}"
    return text if float(text) == target else f"{target!r}"
