"""`heatmap`: the cost of a sweep as colour over two of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.plot import sweeps
from fedjax_lc.plot.style import (
    CELL_TEXT,
    ENDINGS,
    Page,
    check_names,
    finished,
    method_title,
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
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from fedjax_lc.results.table import Table

COLOUR_MAP = "viridis_r"  #: readable in grey print and by the colour-blind; the best cell is the lightest
CELL = (0.62, 0.46)  #: width and height of a cell in inches
MOST_COLUMNS = 15  #: with more columns, cells show no numbers


def heatmap(
    table: Table,
    x: str,
    y: str,
    metric: str = "bits_up",
    rel_gap: float | None = None,
    *,
    method: str | None = None,
    down_weight: float = 1.0,
    **page: Unpack[Page],
) -> Figure:
    """The median cost over seeds to the target as colour, over two axes of a sweep.

    Each cell shows the best configuration over all other axes. Colours are logarithmic. A cell whose median seed does
    not reach the target is grey and hatched, or crossed if most of the seeds that missed it diverged; a pair of values
    that no lane has stays white. The best cell is outlined. With at most 15 columns, a cell also shows its cost, and
    the share of seeds that reach the target unless all do.

    Args:
        table: a sweep with a known optimum.
        x, y: settings or hyperparameters ("gamma/theory", "compressor", ...), or "method".
        metric, rel_gap, down_weight: as in `best`.
        method: the method to show, if the table has several and neither x nor y is "method".
        page: path, title, note and size, as in `curves`; the default title is the method.

    Raises:
        InputError: the optimum is unknown, there is no target, a name is unknown, or no value of x or y repeats (random
            samples).

    Example:
        >>> fl.plot.heatmap(table, "gamma/theory", "compressor", rel_gap=1e-4, path="out/heat.pdf")
    """
    page = named("heatmap", page)
    sweeps.check_axes(table, (x, y))
    if x == y:
        raise InputError(f"x and y must be two different axes of the sweep, got {x!r} twice")
    methods = _methods(table, method, {x, y})
    cells = table.best(metric, rel_gap, by=list(dict.fromkeys(("method", x, y))), down_weight=down_weight)
    cells = sweeps.on_axes(table, cells[cells["method"].isin(methods)], (x, y))
    if cells.empty:
        has = f"{', '.join(methods)} has no value of {x} or none of {y}"
        raise InputError(f"{has}, so there is no map: choose other axes")
    columns, rows = sweeps.distinct(cells[x]), sweeps.distinct(cells[y])
    if len(cells) == max(len(columns), len(rows)) and min(len(columns), len(rows)) > 1:
        raise InputError(f"no value of {x} or {y} repeats, so their pairs make no map: use plot.sensitivity")
    bests = sweeps.best_over(table, table.lanes[table.lanes["method"].isin(methods)], (x, y))
    seeds = sweeps.over_seeds(cells["seeds"].max())
    figure = new_figure(*_size(columns, rows))
    axes = figure.add_subplot()
    cells = cells.assign(column=cells[x].map(columns.index), row=cells[y].map(rows.index))
    mesh = _draw(axes, cells, larger_is_better=is_accuracy(metric))
    note = sweeps.small_print(page["note"], seeds, f"each cell at its best {', '.join(bests)}" if bests else "")
    title = page["title"] or (method_title(methods[0]) if len(methods) == 1 else None)
    write(axes, sweeps.axis_words(x), sweeps.axis_words(y), title, note)
    if mesh is not None:
        _draw_scale(figure, axes, mesh, sweeps.metric_words(table, metric, rel_gap, down_weight))
    _name_cells(figure, axes, _names(x, columns), _names(y, rows))
    _draw_legend(figure, axes)
    return finished(figure, page)


def _methods(table: Table, method: str | None, axes: set[str]) -> list[str]:
    """The methods that a map shows."""
    known = table.lanes["method"].unique().tolist()
    if method is not None:
        check_names("method", [method], known)
        return [method]
    if len(known) > 1 and "method" not in axes:
        raise InputError(f"this table holds {len(known)} methods ({', '.join(known)}): choose one by method=")
    return known


def _names(axis: str, values: Sequence[Any]) -> list[str]:
    return [method_title(value) if axis == "method" else short(value) for value in values]


def _size(columns: Sequence[Any], rows: Sequence[Any]) -> tuple[float, float]:
    """Width and height in inches, with space for cells, scale and labels."""
    longest = max(len(short(value)) for value in rows)
    width = 2.0 + 0.08 * longest + CELL[0] * len(columns)
    return float(np.clip(width, 6.4, 13)), float(np.clip(2.2 + CELL[1] * len(rows), 3.4, 10))


def _draw(axes: Axes, cells: pd.DataFrame, larger_is_better: bool) -> QuadMesh | None:
    """Draw a cell for each row of `cells` (median, reached, seeds, diverged, column, row); None if all are grey."""
    shape = (cells["row"].max() + 1, cells["column"].max() + 1)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
    cost = np.full(shape, np.nan)
    cost[cells["row"], cells["column"]] = cells["median"].where(np.isfinite(cells["median"]))
    for cell in cells.to_dict("records"):
        if sweeps.missed(cell):
            _draw_missed(axes, cell["column"], cell["row"], sweeps.missed(cell))
    if np.isnan(cost).all():
        return None
    edges = [np.arange(size + 1) - 0.5 for size in shape[::-1]]
    colours = COLOUR_MAP.removesuffix("_r") if larger_is_better else COLOUR_MAP
    mesh = axes.pcolormesh(*edges, cost, cmap=colours, norm=_norm(cost), edgecolors="white", linewidth=1)
    if shape[1] <= MOST_COLUMNS:
        _write_numbers(axes, mesh, cells[np.isfinite(cells["median"])])
    _draw_box(axes, *divmod(int(np.nanargmin(-cost if larger_is_better else cost)), shape[1]))
    return mesh


def _norm(cost: np.ndarray) -> Normalize:
    """A logarithmic scale of colours (linear if a cost is <= 0), wide enough to be shown."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = np.nanmin(cost), np.nanmax(cost)
    if low <= 0:
        return Normalize(low, max(high, low + 1))
    return LogNorm(low, high) if high > 1.01 * low else LogNorm(low / 1.1, high * 1.1)


def _draw_missed(axes: Axes, column: int, row: int, how: str) -> None:
    """Draw a grey cell, hatched if capped, crossed if diverged."""
    _draw_patch(axes, column, row, facecolor="0.88", edgecolor="white", linewidth=1, gid=how)
    if how == "capped":
        _draw_patch(axes, column, row, facecolor="none", edgecolor="0.65", linewidth=0, hatch="////")
    else:
        axes.plot(column, row, ENDINGS[how], color="0.25", markersize=8, markeredgewidth=1.6)


def _draw_patch(axes: Axes, column: int, row: int, **style: Any) -> Patch:
    from matplotlib.patches import Rectangle

    return axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))


def _draw_box(axes: Axes, row: int, column: int) -> None:
    """Draw a black box with a white border around the best cell."""
    for colour, width in (("white", 5), ("black", 2.5)):
        _draw_patch(
            axes, column, row, fill=False, edgecolor=colour, linewidth=width, zorder=4, gid="best", clip_on=False
        )


def _write_numbers(axes: Axes, mesh: QuadMesh, cells: pd.DataFrame) -> None:
    """Write each cell's cost, and the share of seeds that reach the target unless all do."""
    for cell in cells.to_dict("records"):
        share = f"\n{cell['reached']}/{cell['seeds']}" if cell["reached"] < cell["seeds"] else ""
        luminance = np.dot(np.power(mesh.to_rgba(cell["median"])[:3], 2.2), (0.2126, 0.7152, 0.0722))
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 8,
            "color": "black" if luminance > 0.18 else "white",
        }
        axes.text(cell["column"], cell["row"], _cost_text(cell["median"]) + share, gid=CELL_TEXT, **style)


def _cost_text(cost: float) -> str:
    """Two digits and an exponent (1.2e6), or three digits of a number of moderate size."""
    return short(float(f"{cost:.2g}")) if cost >= 1000 or cost < 0.01 else f"{cost:.3g}"


def _draw_scale(figure: Figure, axes: Axes, mesh: QuadMesh, words: str) -> None:
    scale = figure.colorbar(mesh, ax=axes, pad=0.02)
    scale.set_label(words, fontsize=10)
    scale.ax.tick_params(labelsize=9)
    scale_ticks(scale.ax.yaxis, *mesh.get_clim())
    scale.outline.set_visible(False)


def _name_cells(figure: Figure, axes: Axes, columns: list[str], rows: list[str]) -> None:
    """Label each value of an axis, or every second, third, ... if there are too many to read."""
    for axis, names, most in ((axes.xaxis, columns, 24), (axes.yaxis, rows, 24)):
        shown = range(0, len(names), -(-len(names) // most))
        axis.set_ticks(shown, [names[i] for i in shown])
        axis.set_tick_params(length=0)
    if 0.08 * max(map(len, columns)) * len(columns) > figure.get_figwidth() - 2.3:
        slant(axes.xaxis)
    axes.spines[:].set_visible(False)


def _draw_legend(figure: Figure, axes: Axes) -> None:
    """Explain outlines, hatches and crosses, as far as there are any."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seen = {patch.get_gid() for patch in axes.patches}
    marks = {
        "best": (Patch(facecolor="none", edgecolor="black", linewidth=2), "best"),
        "capped": (Patch(facecolor="0.88", edgecolor="0.65", hatch="////", linewidth=0), "target not reached"),
        "diverged": (
            Line2D([], [], linestyle="", marker=ENDINGS["diverged"], color="0.25", markeredgewidth=1.6),
            "diverged",
        ),
    }
    shown = [mark for name, mark in marks.items() if name in seen]
    handles, labels = zip(*shown, strict=True)
    write_legend(figure, handles, labels)
