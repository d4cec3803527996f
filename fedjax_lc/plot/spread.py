"""`sensitivity`: the cost of a sweep against one hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.plot import sweeps
from fedjax_lc.plot.style import (
    COLOURS,
    ENDINGS,
    Page,
    finished,
    look,
    named,
    new_figure,
    scale_ticks,
    short,
    slant,
    write,
    write_legend,
)
from fedjax_lc.results.columns import is_accuracy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedjax_lc.results.table import Table

MISSED = {"capped": "target not reached", "diverged": "diverged"}
MOST_TICKS = 12


def sensitivity(
    table: Table,
    x: str,
    metric: str = "bits_up",
    rel_gap: float | None = None,
    *,
    by: Sequence[str] = ("method",),
    band: tuple[float, float] = (0.0, 1.0),
    down_weight: float = 1.0,
    log_x: bool | None = None,
    log_y: bool | None = None,
    **page: Unpack[Page],
) -> Figure:
    """The median cost over seeds to the target against one hyperparameter, at the best configuration of all others.

    One line per group, with a band over seeds that is open to the top where a seed misses the target. A value whose
    median seed misses the target has a mark above the dotted line at the top: a cross if most of the seeds that missed
    it diverged. A star marks the minimum of each line. Random samples of several hyperparameters are not connected.

    Args:
        table: a sweep with a known optimum.
        x: a setting or hyperparameter with at least two values; words such as compressors are evenly spaced.
        by: columns that define a line, always with method: ("method", "compressor") draws one for each compressor.
        metric, rel_gap, band, down_weight: as in `best`.
        log_x, log_y: log axes, of positive values only; default: x if it spans a decade, y if a factor of 3.
        page: path, title, note and size, as in `curves`.

    Raises:
        InputError: the optimum is unknown, there is no target, a name is unknown, or x has fewer than two values.

    Example:
        >>> fl.plot.sensitivity(table, "gamma/theory", rel_gap=1e-4, path="out/gamma.pdf")
    """
    page = named("sensitivity", page)
    sweeps.check_axes(table, [x])
    by = sweeps.with_method(table, by)
    if x in by:
        raise InputError(f"x={x!r} is also in by, so that each line would be a point: choose another of them")
    rows = table.best(metric, rel_gap, by=[*by, x], band=band, down_weight=down_weight)
    rows = sweeps.on_axes(table, rows, [x])
    values = sweeps.distinct(rows[x])
    if len(values) < 2:
        present = f"the one value {short(values[0])}" if values else "no value"
        raise InputError(f"sensitivity to {x} needs two or more values of it, and this table has {present}: sweep it")
    numeric = sweeps.are_numbers(values)
    ranks = -rows["median"] if is_accuracy(metric) else rows["median"]
    rows = rows.assign(value=rows[x], rank=ranks, place=rows[x] if numeric else rows[x].map(values.index))
    ordered = [group.sort_values("place") for _, group in rows.groupby(by, sort=False, dropna=False)]
    groups = {_label(group, by): group for group in ordered}
    bests = sweeps.best_over(table, table.lanes, [*by, x])
    costs = rows[["median", "low", "high"]].to_numpy()
    costs = costs[np.isfinite(costs)]
    log_x = numeric and _spans(values, 10 if log_x is None else 1) and log_x is not False
    log_y = _spans(costs, 3 if log_y is None else 1) and log_y is not False
    figure = new_figure(6.4, 4.2 + 0.12 * len(groups))
    axes = figure.add_subplot(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    edges = _set_limits(axes, rows["place"].unique(), costs, len(_missing(groups)))
    for place, (label, group) in enumerate(groups.items()):
        _draw(axes, label, group, place, edges[1], joined=bool(bests) or not _is_sample(table))
    _draw_missed(axes, groups, edges[1])
    _name_ticks(axes, rows["place"].unique(), None if numeric else [short(value) for value in values])
    note = sweeps.small_print(
        page["note"],
        sweeps.over_seeds(rows["seeds"].max(), band),
        f"each point at its best {', '.join(bests)}" if bests else "",
    )
    axes.grid(True, color="0.9", linewidth=0.7)
    write(axes, sweeps.axis_words(x), sweeps.metric_words(table, metric, rel_gap, down_weight), page["title"], note)
    _draw_legend(figure, axes)
    return finished(figure, page)


def _label(group: pd.DataFrame, by: Sequence[str]) -> str:
    """The label of a group: its columns and its best value."""
    reached = bool(np.isfinite(group["median"]).any())
    value = group["value"][group["rank"].idxmin()] if reached else None
    where = f"best at {short(value)}" if reached else "never at the target"
    return f"{sweeps.group_label(group.iloc[0].to_dict(), by)} ({where})"


def _is_sample(table: Table) -> bool:
    """Whether the table is a random sample of several settings, not a product grid."""
    facts = table.config["methods"].values()
    return any(not fact["axes"] and len(fact["settings"]) > 1 for fact in facts)


def _spans(values: Sequence[float] | np.ndarray, factor: float) -> bool:
    return len(values) > 0 and min(values) > 0 and max(values) >= factor * min(values)


def _missing(groups: dict[str, pd.DataFrame]) -> list[str]:
    """The labels of groups that miss the target at some value."""
    return [label for label, group in groups.items() if not np.isfinite(group["median"]).all()]


def _row(missing: int) -> float:
    """The height of each of `missing` rows of marks at the top, as a share of the axes."""
    return min(0.045, 0.3 / max(missing, 1))


def _set_limits(axes: Axes, places: np.ndarray, costs: np.ndarray, missing: int) -> tuple[float, float]:
    """Set limits for all x, finite costs, and a row of marks for each group that misses; returns those of costs."""
    axes.set_xlim(_padded(axes.get_xscale(), places))
    low, high = _padded(axes.get_yscale(), costs) if len(costs) else (0.0, 1.0)
    if not len(costs):
        axes.tick_params(axis="y", which="both", left=False, labelleft=False)
    to, back = (np.log, np.exp) if axes.get_yscale() == "log" else (float, float)
    axes.set_ylim(low, back(to(low) + (to(high) - to(low)) / (1 - _row(missing) * missing)))
    if len(costs):
        scale_ticks(axes.yaxis, low, high)
    return low, high


def _padded(scale: str, values: np.ndarray, pad: float = 0.05) -> tuple[float, float]:
    """Limits with a margin around the values, on their scale."""
    u = np.log([values.min(), values.max()]) if scale == "log" else np.array([values.min(), values.max()], float)
    u += pad * (u[1] - u[0] or 1) * np.array([-1, 1])
    low, high = np.exp(u) if scale == "log" else u
    return float(low), float(high)


def _draw(axes: Axes, label: str, group: pd.DataFrame, place: int, edge: float, joined: bool) -> None:
    """Draw the finite medians, the band (up to `edge` where it is open), and a star at the best value."""
    x, y, low = (group[name].to_numpy(float) for name in ("place", "median", "low"))
    high = np.minimum(group["high"], edge)
    colour, reached = COLOURS[place % len(COLOURS)], np.isfinite(y)
    y = np.where(reached, y, np.nan)
    (line,) = axes.plot(x, y, label=label, **look(place))
    lone = reached & ~(np.append(reached[1:], False) | np.append(False, reached[:-1]))
    if joined and group["seeds"].max() > 1:
        axes.fill_between(x, low, high, where=reached, color=colour, alpha=0.2, linewidth=0)
    elif not joined:
        line.set_linestyle("")
        lone = reached
    axes.vlines(x[lone], low[lone], high[lone], color=colour, linewidth=1.2, alpha=0.6)
    if reached.any():
        best = [np.nanargmin(np.where(np.isfinite(y), group["rank"], np.nan))]
        (star,) = axes.plot(x[best], y[best], "*", color=colour, zorder=6, gid="best")
        star.set(markersize=14, markeredgecolor="black", markeredgewidth=0.7)


def _draw_missed(axes: Axes, groups: dict[str, pd.DataFrame], edge: float) -> None:
    """Draw a dotted line, and above it a row of marks for each group that misses the target at some value."""
    missing = _missing(groups)
    if missing:
        axes.axhline(edge, color="0.4", linestyle=":", linewidth=1.1, gid="edge")
    for i, label in enumerate(missing):
        height = 1 - _row(len(missing)) * (i + 0.5)
        colour = COLOURS[list(groups).index(label) % len(COLOURS)]
        for row in groups[label].to_dict("records"):
            if how := sweeps.missed(row):
                (mark,) = axes.plot(row["place"], height, ENDINGS[how], color=colour, gid=how)
                mark.set(transform=axes.get_xaxis_transform(), markersize=6.5, markerfacecolor="white")


def _name_ticks(axes: Axes, places: np.ndarray, names: list[str] | None) -> None:
    """Draw a tick at each value if there are few and they are far enough apart."""
    places = np.sort(places)
    u = np.log(places) if axes.get_xscale() == "log" else places
    if names is None and np.diff(u).min() * MOST_TICKS < np.ptp(u):
        return
    names = [short(float(place)) for place in places] if names is None else names
    axes.set_xticks(places, names)
    axes.set_xticks([], minor=True)
    if max(map(len, names)) * len(names) > 80:
        slant(axes.xaxis)


def _draw_legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend: the lines, and the meaning of marks as far as there are any."""
    handles, labels = axes.get_legend_handles_labels()
    seen = {line.get_gid() for line in axes.lines}
    for how, words in MISSED.items():
        if how in seen:
            handles += axes.plot([], [], ENDINGS[how], color="0.4", markersize=6.5, markerfacecolor="white")
            labels.append(words)
    write_legend(figure, handles, labels)
