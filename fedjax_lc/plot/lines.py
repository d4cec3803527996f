"""`curves`: metrics of traces against costs, with log axes and bands over seeds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, Unpack

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.plot.style import (
    COLOURS,
    COST_LABELS,
    ENDINGS,
    OUTCOME_LABELS,
    Page,
    check_names,
    finished,
    look,
    method_title,
    named,
    new_figure,
    weights,
    write,
    write_legend,
)
from fedjax_lc.results import ledger
from fedjax_lc.results.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points: TypeAlias = tuple[np.ndarray, np.ndarray]  # x (r,) and y (r,)
Traces: TypeAlias = Trace | Sequence[Trace] | Mapping[str, Trace | Sequence[Trace]]

MAX_POINTS = 2000  #: largest number of points drawn per curve
X_LABELS = COST_LABELS | {"time": "simulated time (s)"}
TIME_MODEL = {
    "latency": "{:g} s a round",
    "up_bandwidth": "{:g} bit/s up",
    "down_bandwidth": "{:g} bit/s down",
    "seconds_per_gradient": "{:g} s a gradient",
}


def curves(
    traces: Traces,
    *,
    x: str = "bits_up",
    y: str | None = None,
    labels: Sequence[str] | None = None,
    band: tuple[float, float] = (0.0, 1.0),
    theory: Mapping[str, float] | bool = MappingProxyType({}),
    down_weight: float = 1.0,
    time_model: Mapping[str, float] = MappingProxyType({}),
    log_x: bool | None = None,
    log_y: bool | None = None,
    **page: Unpack[Page],
) -> Figure:
    """One curve per label: y against x, a cumulative cost per client.

    Several seeds are drawn as the line of their medians and a band. They are interpolated to one x grid, linearly in
    (x, log y), or in (x, y) on a linear y axis, and end where the shortest of them ends. Points that a log axis cannot
    show (a gap <= 0 is below float resolution) are left out, and the line connects their neighbours. A curve of more
    than 2000 points is reduced to its ends and the extremes in each of 1000 intervals of x. A run that ended by its
    steps or budget before its rel_gap is marked as capped at its end and in the legend; so are diverged and
    interrupted runs.

    Args:
        traces: a Trace, a list of Traces, or a dict from a label to a Trace or to a list of Traces (seeds).
        x: rounds, step, grads, bits_up, bits_down, total_bits (bits_up + down_weight * bits_down) or time (seconds,
            `ledger.simulated_time` with `time_model`).
        y: rel_gap, gap, value, or a metric that all traces have; default: rel_gap where the optimum is known, else
            accuracy if it was measured, else value.
        labels: one per curve; default: the keys of the dict, or method and compressor.
        band: quantiles over seeds that bound the band; (0, 1) is minimum to maximum.
        theory: label -> rate (factor per step) of a theorem, which bounds the mean over seeds; drawn as a dashed line
            from the start of the curve. True: the rates that runs with measure="lyapunov" keep; y then is lyapunov.
        down_weight: weight of bits_down in total_bits.
        time_model: latency, up_bandwidth, down_bandwidth, seconds_per_gradient; for x="time".
        log_x, log_y: log axes; default: x if it counts bits, y if it is positive and spans two decades.
        page: path, to write the figure to a file (`save`); title; note, small print under the title.

    Raises:
        InputError: there are no traces, or an axis is unknown or missing in a trace.

    Example:
        >>> fl.plot.curves({"GD": gd, "LoCoDL": [seed0, seed1]}, x="total_bits", down_weight=0.1, path="out/plot.pdf")
    """
    page, groups = named("curves", page), _groups(traces, labels)
    all_traces = [trace for group in groups.values() for trace in group]
    if theory is True:
        y, theory = y or "lyapunov", _proven(groups)
    rates = theory or {}
    y = _usual(all_traces) if y is None else y
    _check(all_traces, x, y)
    check_names("time_model entry", time_model, TIME_MODEL)
    check_names("theory label", rates, groups)
    cost = functools.partial(_cost, x=x, down_weight=down_weight, time_model=time_model)
    log_x = "bits" in x if log_x is None else log_x
    log_y = _spans_decades(all_traces, y) if log_y is None else log_y
    figure = new_figure(6.4, 4.2 + 0.12 * len(groups))
    axes = figure.add_subplot(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    for place, (label, group) in enumerate(groups.items()):
        seeds = [_on_axis(cost(trace), _series(trace, y), log_y) for trace in group]
        _draw(axes, label, _curve(seeds, band, log_x, log_y), [_ending(trace) for trace in group], place)
    for place, (label, (first, *_)) in enumerate(groups.items()):
        if label in rates:
            bound = _series(first, y)[0] * rates[label] ** np.concatenate([[0], first.step])
            _draw_theory(axes, cost(first), bound, place)
    model = ", ".join(TIME_MODEL[name].format(value) for name, value in time_model.items()) if x == "time" else ""
    small_print = "\n".join(filter(None, (page["note"], model)))
    axes.grid(True, color="0.9", linewidth=0.7)
    write(axes, X_LABELS[x] + weights(x, down_weight), OUTCOME_LABELS.get(y, y), page["title"], small_print)
    handles, names = axes.get_legend_handles_labels()
    if rates:
        handles += axes.plot([], [], "--", color="0.4", linewidth=1.1)
        names.append("rate of the theory")
    write_legend(figure, handles, names)
    return finished(figure, page)


def _groups(traces: Traces, labels: Sequence[str] | None) -> dict[str, list[Trace]]:
    """The traces (seeds) of each label."""
    if isinstance(traces, Trace):
        traces = [traces]
    named = traces if isinstance(traces, Mapping) else dict(zip(_default_labels(traces), traces, strict=True))
    groups = {label: [group] if isinstance(group, Trace) else list(group) for label, group in named.items()}
    if not groups or not all(groups.values()):
        raise InputError("nothing to plot: every label needs at least one trace, got none")
    if labels is None:
        return groups
    if len(set(labels)) != len(groups):
        raise InputError(f"labels must be {len(groups)} different names, one per curve, got {list(labels)}")
    return dict(zip(labels, groups.values(), strict=True))


def _proven(groups: Mapping[str, list[Trace]]) -> dict[str, float]:
    """The rate of each label whose runs keep one."""
    rates = {label: group[0].config.get("rate") for label, group in groups.items()}
    known = {label: float(rate) for label, rate in rates.items() if isinstance(rate, float)}
    if not known:
        raise InputError('theory=True needs a run with measure="lyapunov" of a method and hyperparameters '
                         "with a proven rate (fedjax-lc list methods --long), and there is none")  # fmt: skip
    return known


def _default_labels(traces: Sequence[Trace]) -> list[str]:
    """Method and compressor, with a number from the second trace of the same name on."""
    names = [default_label(trace) for trace in traces]
    return [name + (f" #{names[:i].count(name) + 1}" if name in names[:i] else "") for i, name in enumerate(names)]


def default_label(trace: Trace) -> str:
    """Method and compressor."""
    compressor = (trace.config.get("hyperparameters") or {}).get("compressor")
    title = method_title(trace.method)
    return f"{title} {compressor}" if compressor else title


def _usual(traces: list[Trace]) -> str:
    """The default y of these traces."""
    if all(np.isfinite(trace.f_star) for trace in traces):
        return "rel_gap"
    return "accuracy" if all("accuracy" in trace.metrics for trace in traces) else "value"


def _check(traces: list[Trace], x: str, y: str) -> None:
    check_names("x axis", [x], X_LABELS)
    check_names("y axis", [y], {"rel_gap", "gap", "value"}.union(set.intersection(*(set(t.metrics) for t in traces))))
    if any(np.ndim(trace.metrics.get(y, trace.value)) > 1 for trace in traces):
        raise InputError(f"y={y!r} has a number for each client, which is no curve: choose one of its columns")
    if y in ("rel_gap", "gap") and any(np.isnan(trace.f_star) for trace in traces):
        raise InputError(f"y={y!r} needs a known optimum, and a trace has none: use y='value'")


def _cost(trace: Trace, x: str, down_weight: float, time_model: Mapping[str, float]) -> np.ndarray:
    """(r + 1,) the cost x at the start, 0, and at each record."""
    if x == "time" and not time_model:
        raise InputError(f"x='time' needs time_model, a dict of {', '.join(TIME_MODEL)}")
    if x == "total_bits":
        cost = ledger.total_bits(trace, down_weight)
    else:
        cost = ledger.simulated_time(trace, **time_model) if x == "time" else getattr(trace, x)
    return np.concatenate([[0.0], cost])


def _series(trace: Trace, y: str) -> np.ndarray:
    """(r + 1,) the series y at the start x_0 and at each record."""
    if y in trace.metrics:
        return np.concatenate([[trace.initial.get(y, np.nan)], trace.metrics[y]])
    value = np.concatenate([[trace.initial["value"]], trace.value])
    gap = value - trace.f_star
    return {"value": value, "gap": gap, "rel_gap": gap / gap[0]}[y]


def _spans_decades(traces: list[Trace], y: str) -> bool:
    if y in ("rel_gap", "gap"):
        return True
    values = np.concatenate([_series(trace, y) for trace in traces])
    return bool(np.all(values > 0) and values.max() >= 100 * values.min())


def _on_axis(x: np.ndarray, y: np.ndarray, log_y: bool) -> Points:
    """The points that the y axis can show."""
    keep = np.isfinite(y) & ((y > 0) | (not log_y))
    return x[keep], y[keep]


def _curve(seeds: list[Points], band: tuple[float, float], log_x: bool, log_y: bool) -> np.ndarray:
    """(4, r): x, median, low and high of the band, reduced to visible points."""
    if len(seeds) == 1:
        curve = np.array([seeds[0][0], *(seeds[0][1],) * 3])
    else:
        x, values = _common(seeds, log_y)
        levels = np.quantile(values, (0.5, *band), axis=0)
        curve = np.array([x, *(np.exp(levels) if log_y else levels)])
    if log_x:
        curve = curve[:, curve[0] > 0]
    return curve[:, visible(np.log(curve[0]) if log_x else curve[0], curve[1])]


def _common(seeds: list[Points], log_y: bool) -> Points:
    """(r,) all x of points in the range that all seeds cover, and (seeds, r) y there (log y if log_y)."""
    if not all(len(x) for x, _ in seeds):
        return np.zeros(0), np.zeros((len(seeds), 0))
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    grid = grid[(grid >= max(x[0] for x, _ in seeds)) & (grid <= min(x[-1] for x, _ in seeds))]
    rows = []
    for x, y in seeds:
        last = np.append(x[1:] > x[:-1], True)  # of records that cost nothing, the latest
        rows.append(np.interp(grid, x[last], np.log(y[last]) if log_y else y[last]))
    return grid, np.array(rows)


def visible(u: np.ndarray, y: np.ndarray, most: int = MAX_POINTS) -> np.ndarray:
    """Indices of at most `most` points: the first and last, and the lowest and highest y of each interval of u."""
    if len(u) <= most:
        return np.arange(len(u))
    edges = np.searchsorted(u, np.linspace(u[0], u[-1], most // 2)[1:-1])
    parts = [part for part in np.split(np.arange(len(u)), edges) if len(part)]
    extremes = [part[pick(y[part])] for part in parts for pick in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(u) - 1])


def _ending(trace: Trace) -> str:
    """How a run failed its target, a key of ENDINGS; empty if it did not."""
    if trace.status == "finished" and trace.config.get("rel_gap") is not None:
        return "capped"
    return trace.status if trace.status in ENDINGS else ""


def _endings_text(endings: list[str]) -> str:
    """ " (capped)", or " (1 of 3 capped)" if not all seeds did."""
    counts = {name: endings.count(name) for name in ENDINGS if name in endings}
    parts = [name if count == len(endings) else f"{count} of {len(endings)} {name}" for name, count in counts.items()]
    return f" ({', '.join(parts)})" if parts else ""


def _draw(axes: Axes, label: str, curve: np.ndarray, endings: list[str], place: int) -> None:
    x, y, low, high = curve
    colour = COLOURS[place % len(COLOURS)]
    if len(endings) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
    (line,) = axes.plot(x, y, label=label + _endings_text(endings), **look(place))
    line.set_markevery(_marked(axes, x, y, place))
    for ending in sorted({*endings} - {""}):
        (end,) = axes.plot(x[-1:], y[-1:], ENDINGS[ending], color=colour, clip_on=False, zorder=5, gid=ending)
        end.set(markersize=9, markerfacecolor="white", markeredgewidth=1.6)


def _marked(axes: Axes, x: np.ndarray, y: np.ndarray, place: int) -> list[int]:
    """Indices of eight markers, evenly spaced along the curve and shifted for each place in the legend."""
    along = np.zeros(len(x))
    for values, scale in ((x, axes.get_xscale()), (y, axes.get_yscale())):
        u = np.log(values) if scale == "log" else values
        way = np.maximum.accumulate(np.abs(u - u[:1]))
        along += way / max(way[-1:].sum(), 1e-300)
    shift = 0.2 + 0.6 * (0.618 * place % 1)
    return np.unique(np.searchsorted(along, along[-1:].sum() * (np.arange(8) + shift) / 8))[: len(x)].tolist()


def _draw_theory(axes: Axes, cost: np.ndarray, bound: np.ndarray, place: int) -> None:
    """Draw the bound of a theorem, down to the lowest point drawn."""
    keep = (bound >= axes.dataLim.ymin) & ((cost > 0) | (axes.get_xscale() == "linear"))
    cost, bound = cost[keep], bound[keep]
    seen = visible(np.log(cost) if axes.get_xscale() == "log" else cost, bound)
    axes.plot(cost[seen], bound[seen], "--", color=COLOURS[place % len(COLOURS)], linewidth=1.1, gid="theory")
