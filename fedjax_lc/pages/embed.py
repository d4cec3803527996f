"""Curves as plain values that a page can hold: thinned, and with what each target costs.

Numbers of curves are float64 in base64, so that they are those of the trace, bit for bit. What a target costs is read
off all records before any is left out.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fedjax_lc.pages import made
from fedjax_lc.pages.gather import Curve, Group
from fedjax_lc.plot.lines import visible
from fedjax_lc.plot.style import OUTCOME_LABELS, method_title
from fedjax_lc.results import arrays
from fedjax_lc.results.columns import is_accuracy
from fedjax_lc.results.ledger import COSTS
from fedjax_lc.results.report import ending
from fedjax_lc.results.trace import Trace

Goal: TypeAlias = tuple[str, float]  #: a relative gap, or an accuracy, to be reached

PRICES = ("step", *COSTS)  #: what all costs of a page are made of
DECADES = tuple(float(f"1e-{exponent}") for exponent in range(1, 17))
SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)  #: targets of an accuracy
MOST_DRAWN = 240  #: lanes whose records are kept; of others only what they cost
MOST_NUMBERS = 300_000  #: in all records of a problem
FEWEST = 60  #: records of a lane that are kept in any case
TEX = {
    r"^\star": "*", r"\nabla ": "∇", r"\,": "", r"\|": "‖", "x^0": "x⁰", r"\bar{x}": "x̄", r"\times": "×", "x_i": "xᵢ",
    r"\mathrm{mean}_i": "mean over i of", r"\max_i": "max over i of", "^2": "²",
}  # fmt: skip


def group(each: Group, most: int) -> dict[str, Any]:
    """All that a page says of one problem; a lane keeps at most `most` records."""
    curves = each.curves()
    traces = [trace for curve in curves for trace in curve.traces]
    outcomes = _outcomes(traces)
    goals = _goals(traces, outcomes)
    hits = [np.array([_hits(trace, goal) for goal in goals]).reshape(-1, len(PRICES)) for trace in traces]
    ends = np.cumsum([0, *(len(curve.traces) for curve in curves)]).tolist()
    lanes = [list(range(*pair)) for pair in itertools.pairwise(ends)]
    medians = np.array([_median([hits[lane] for lane in lanes[i]], curve) for i, curve in enumerate(curves)])
    drawn = _drawn(curves, len(each.runs), medians)
    recorded = [trace for place in drawn for trace in curves[place].traces]
    per_lane = MOST_NUMBERS // max(1, len(recorded) * (len(PRICES) + len(outcomes)))
    per_lane = max(FEWEST, min(most, per_lane))
    place = {id(curve): i for i, curve in enumerate(curves)}
    return {
        "title": made.title(curves[0]),
        "facts": made.of_problem(curves[0]),
        "outcomes": [_words(name) | {"name": name, "up": is_accuracy(name)} for name in outcomes],
        "goals": [{"name": name, "value": value} for name, value in goals],
        "goal": _usual_goal(each, curves, goals, medians),
        "thinned": per_lane if any(len(trace) >= per_lane for trace in recorded) else 0,
        "left_out": sum(sweep.left_out for sweep in each.sweeps),
        "unshown": sorted({name for trace in traces for name, series in trace.metrics.items() if series.ndim > 1}),
        "curves": [
            {
                "label": curve.label,
                "method": method_title(curve.method),
                "settings": curve.settings,
                "lanes": [
                    _lane(trace, hits[lane], outcomes, per_lane if i in drawn else 0)
                    for trace, lane in zip(curve.traces, lanes[i], strict=True)
                ],
            }
            for i, curve in enumerate(curves)
        ],
        "runs": [{"curve": place[id(curve)], "made": made.of_run(curve)} for curve in each.runs],
        "sweeps": [
            {
                "label": sweep.label,
                "axes": sweep.axes,
                "curves": [place[id(curve)] for curve in sweep.curves],
                "made": made.of_sweep(sweep),
            }
            for sweep in each.sweeps
        ],
    }


def _words(outcome: str) -> dict[str, str]:
    """The label of an outcome, and its long form with a formula."""
    label = OUTCOME_LABELS.get(outcome, outcome)
    return {"label": plain(label.partition("  $")[0]), "long": plain(label)}


def plain(label: str) -> str:
    r"""A label of a picture without TeX.

    >>> plain(r"gap  $F(x) - F^\star$")
    'gap F(x) - F*'
    """
    if "$" in label:
        for tex, text in TEX.items():
            label = label.replace(tex, text)
        label = re.sub(r"\\[a-z]+|[\\${}^_]", "", label)
    return " ".join(label.split())


def encoded(numbers: np.ndarray) -> str:
    """float64, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(numbers, "<f8").tobytes()).decode("ascii")


def _outcomes(traces: Sequence[Trace]) -> list[str]:
    """What a y axis can show, the usual first: gaps where all optima are known, F, metrics of one number a record."""
    gaps = ["rel_gap", "gap"] if all(np.isfinite(trace.f_star) for trace in traces) else []
    metrics = dict.fromkeys(name for trace in traces for name, series in trace.metrics.items() if series.ndim == 1)
    names = [*gaps, "value", *(name for name in metrics if name not in ("value", "rel_gap", "gap", *PRICES))]
    return names if gaps else sorted(names, key=lambda name: name != "accuracy")


def _goals(traces: Sequence[Trace], outcomes: Sequence[str]) -> list[Goal]:
    """The targets that some lane reaches, easy ones first: relative gaps, or accuracies where no optimum is known."""
    if "rel_gap" in outcomes:
        asked = [trace.config.get("rel_gap") for trace in traces]
        levels = sorted({*DECADES, *(float(gap) for gap in asked if gap is not None and 0 < gap < 1)}, reverse=True)
        least = min((np.nanmin(trace.rel_gap, initial=np.inf) for trace in traces), default=np.inf)
        return [("rel_gap", level) for level in levels if level >= least]
    series = [trace.metrics["accuracy"] for trace in traces if "accuracy" in trace.metrics]
    most = max((np.nanmax(each, initial=0) for each in series if each.ndim == 1), default=0)
    return [("accuracy", share) for share in SHARES if share <= most]


def _hits(trace: Trace, goal: Goal) -> list[float]:
    """The prices at the first record that reaches a target; inf where none does."""
    name, value = goal
    asked = {name: value} if name in ("rel_gap", *trace.metrics) else {}
    hit = trace.reach(**asked) if asked else None
    return [np.inf if hit is None else hit[price] for price in PRICES]


def _median(hits: Sequence[np.ndarray], curve: Curve) -> np.ndarray:
    """(goals, prices) medians over seeds; one that diverged reached nothing, as in `Table.best`."""
    diverged = np.array([trace.status == "diverged" for trace in curve.traces])
    costs = np.where(diverged[:, None, None], np.inf, np.stack(hits))
    one = np.zeros(len(costs), int)
    medians = [arrays.quantiles(column, one, [0.5])[0][0] for column in costs.reshape(len(costs), -1).T]
    return np.array(medians).reshape(costs.shape[1:])


def _end(curve: Curve) -> float:
    """The median of the F that the seeds end with."""
    ends = [trace.value[-1] if len(trace) and trace.status != "diverged" else np.inf for trace in curve.traces]
    return float(arrays.quantiles(np.nan_to_num(ends, nan=np.inf), np.zeros(len(ends), int), [0.5])[0][0])


def _drawn(curves: Sequence[Curve], runs: int, medians: np.ndarray) -> list[int]:
    """The places of the curves whose records are kept: the first `runs`; of each method of the others the best at the
    end; and as far as there is room the best by every price of every target, and then by the end."""
    order = sorted(range(runs, len(curves)), key=lambda i: _end(curves[i]))
    drawn, wanted = [*range(runs)], []
    for method in dict.fromkeys(curves[i].method for i in order):
        same = [i for i in order if curves[i].method == method]
        drawn.append(same[0])
        wanted += [same[i] for i in medians[same].argmin(axis=0).ravel()]
    room = MOST_DRAWN - sum(len(curves[i].traces) for i in drawn[runs:])
    for i in dict.fromkeys([*wanted, *order]):
        if i not in drawn and (room := room - len(curves[i].traces)) >= 0:
            drawn.append(i)
    return drawn


def _usual_goal(each: Group, curves: Sequence[Curve], goals: Sequence[Goal], medians: np.ndarray) -> int:
    """The place of the target shown first: that of a sweep, else the finest that of every method some curve reaches."""
    for sweep in each.sweeps:
        if (goal := ("rel_gap", sweep.config.get("rel_gap"))) in goals:
            return [*goals].index(goal)  # type: ignore[arg-type]
    methods = np.array([curve.method for curve in curves])
    for place in reversed(range(len(goals))):
        if {*methods[np.isfinite(medians[:, place, 0])]} == {*methods}:
            return place
    return len(goals) - 1


def _lane(trace: Trace, hits: np.ndarray, outcomes: Iterable[str], most: int) -> dict[str, Any]:
    """A lane: how it ended, what targets cost, its last record, and at most `most` of its records."""
    series = _series(trace, outcomes)
    known = bool(np.isfinite(trace.f_star))
    last = {name: values[-1] for name, values in series.items() if name not in PRICES}
    last |= {"gap": last["value"] - trace.f_star} if known else {}
    last |= {"rel_gap": trace.rel_gap[-1] if len(trace) else 1.0} if known else {}
    lane: dict[str, Any] = {
        "seed": trace.config.get("seed", (trace.config.get("settings") or {}).get("seed")),
        "ended": ending(trace),
        "f_star": trace.f_star if known else None,
        "records": len(trace),
        "hits": [[_number(cost) for cost in row] if np.isfinite(row).all() else None for row in hits],
        "last": {name: _number(value) for name, value in last.items()},
    }
    if most:
        kept = _thinned(series["value"], most)
        lane |= {"series": {name: encoded(values[kept]) for name, values in series.items()}}
    return lane


def _series(trace: Trace, outcomes: Iterable[str]) -> dict[str, np.ndarray]:
    """Prices, F and metrics at the start x_0 and at each record, by name."""
    series = {name: np.concatenate([[0.0], getattr(trace, name)]) for name in PRICES}
    series["value"] = np.concatenate([[trace.initial["value"]], trace.value])
    for name in outcomes:
        if name in trace.metrics and name != "value":
            series[name] = np.concatenate([[trace.initial.get(name, np.nan)], trace.metrics[name]])
    return series


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Places of at most `most` records: half are spread evenly, half evenly over decades, and among neighbours the
    lowest and highest F are taken."""
    place, values = np.arange(len(values)), np.nan_to_num(values)
    if len(place) <= most:
        return place
    return np.union1d(visible(place, values, most // 2), visible(np.log1p(place), values, most // 2))


def _number(value: Any) -> float | int | None:
    """A number as JSON has it: whole ones without a point, None where there is none."""
    if not np.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
