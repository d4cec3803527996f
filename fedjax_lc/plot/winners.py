"""`best`: the best configuration of each method of a sweep, as curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fedjax_lc.plot import lines, sweeps
from fedjax_lc.plot.style import COLOURS, Page, finished, named
from fedjax_lc.results.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedjax_lc.results.table import Table

MOST_TUNED = 3  #: a label shows up to this many tuned values


def best(
    table: Table,
    metric: str = "bits_up",
    rel_gap: float | None = None,
    *,
    by: Sequence[str] = ("method",),
    x: str | None = None,
    y: str | None = None,
    band: tuple[float, float] = (0.0, 1.0),
    down_weight: float = 1.0,
    time_model: Mapping[str, float] = MappingProxyType({}),
    **page: Unpack[Page],
) -> Figure:
    """The best configuration of each method (`Table.best`) as one curve: median and band over its seeds.

    Seeds, capped and diverged runs are drawn as by `curves`. For a method that never reaches the target, the
    configuration that came closest is drawn. A dotted line marks the target; if x is the metric, a star on it marks the
    median cost by which the configuration was chosen (the curve may end earlier, with its first seed). A label consists
    of method, compressor, and tuned settings.

    Args:
        table: a sweep with a known optimum.
        metric: the criterion: bits_up, bits_down, grads, rounds, step, seconds or total_bits to the target; or
            test_accuracy, value or another metric at the last record, which needs no optimum and no target.
        rel_gap: the target; default: the sweep's rel_gap.
        by: columns that define a curve, always with method: ("method", "compressor") draws one for each compressor.
        x, y, time_model: as in `curves`; default: the metric (step for seconds) and rel_gap, or rounds and the metric
            if that is one at the last record.
        band: quantiles over seeds that bound the band; (0, 1) is minimum to maximum.
        down_weight: weight of bits_down in total_bits.
        page: path, title, note and size, as in `curves`; the note precedes facts about the figure.

    Raises:
        InputError: the optimum is unknown, there is no target, or a name is unknown.

    Example:
        >>> fl.plot.best(table, "total_bits", rel_gap=1e-6, down_weight=0.1, path="out/best.pdf")
    """
    page, by = named("best", page), sweeps.with_method(table, by)
    winners = table.best(metric, rel_gap, by=by, down_weight=down_weight).to_dict("records")
    at_end = metric in table.outcomes
    y = y or (metric if at_end else "rel_gap")
    x = x or {"seconds": "step"}.get(metric, "rounds" if at_end else metric)
    chosen = {_label(table, row, by): table.traces(row["config"], method=row["method"]) for row in winners}
    starred = y == "rel_gap" and x == metric
    words = f"{metric} at the end"
    if not at_end:
        target = sweeps.target_of(table, rel_gap)
        words = sweeps.metric_words(table, metric, rel_gap, down_weight).replace("\n", " ")
        chosen = {label: [_asked(trace, target) for trace in traces] for label, traces in chosen.items()}
    figure = lines.curves(
        chosen,
        x=x,
        y=y,
        band=band,
        down_weight=down_weight,
        time_model=time_model,
        title=page["title"],
        note=sweeps.small_print(
            page["note"],
            f"each tuned for {words}" + (" (star: its median)" if starred else ""),
            sweeps.over_seeds(winners[0]["seeds"], band),
        ),
    )
    if y == "rel_gap" and not at_end:
        _draw_target(figure.axes[0], target, [row["median"] for row in winners] if starred else [])
        _cut_bands(figure.axes[0])
    return finished(figure, page)


def _draw_target(axes: Axes, target: float, medians: Sequence[float]) -> None:
    """Draw the target, and on it the median cost of each curve."""
    axes.axhline(target, color="0.4", linestyle=":", linewidth=1.1, zorder=1, gid="target")
    for place, median in enumerate(medians):
        (star,) = axes.plot(median, target, "*", color=COLOURS[place % len(COLOURS)], zorder=6, gid="median")
        star.set(markersize=12, markeredgecolor="black", markeredgewidth=0.6)


def _cut_bands(axes: Axes) -> None:
    """Limit y to three times the highest median, so that the band of a diverged seed does not flatten the curves."""
    heights = np.concatenate([np.atleast_1d(np.asarray(line.get_ydata(), float)) for line in axes.lines])
    axes.set_ylim(top=min(3 * heights.max(), axes.get_ylim()[1]))


def _label(table: Table, row: dict[str, Any], by: Sequence[str]) -> str:
    """The label of a curve, such as "LoCoDL rand_k:1|natural, gamma = 2 × theory": the group and tuned settings."""
    lanes = table.lanes[table.lanes["method"] == row["method"]]
    compressor = isinstance(row.get("compressor"), str) and row["compressor"] != "identity"
    tuned = [name for name in sweeps.settings(table, row["method"]) if lanes[name].nunique() > 1 and name not in by]
    shown = [name for name in tuned if not (compressor and name.startswith("compressor"))]
    words = [sweeps.setting_text(name, row[name]) for name in shown[:MOST_TUNED]]
    group = sweeps.group_label(row, [*by, "compressor"] if compressor else by)
    return ", ".join([group, *words, *(["\N{HORIZONTAL ELLIPSIS}"] if len(shown) > MOST_TUNED else [])])


def _asked(trace: Trace, target: float) -> Trace:
    """The trace with `target` as its rel_gap (None if it was reached), so that `curves` marks it as capped or not."""
    return dataclasses.replace(trace, config=trace.config | {"rel_gap": None if trace.reach(target) else target})
