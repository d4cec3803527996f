"""Tables of sweeps on the terminal: the target, each method's best configuration, what diverged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lc.results.columns import is_accuracy

DECADES = tuple(float(f"1e-{exponent}") for exponent in range(1, 16))
FEW = 5  #: diverged configurations that are listed in full
UNITS = {"bits_up": "bits", "bits_down": "downlink bits", "seconds": "s"}


def target(table: Any, rel_gap: float | None, metric: str, by: Sequence[str] = ("method",)) -> tuple[float, str]:
    """The relative gap to compare at, and a line that says where it comes from.

    The one given, else that of the sweep, else the finest decade that the best configuration of every group reaches.
    """
    if rel_gap is not None:
        return rel_gap, f"target: relative gap {rel_gap:g}"
    swept = table.config.get("rel_gap")
    if swept is not None:
        return swept, f"target: relative gap {swept:g}, as the sweep had it"
    reached = None
    for decade in DECADES:
        reach = np.isfinite(table.best(metric, rel_gap=decade, by=by)["median"]).all()
        if not reach or decade < _resolved(table):
            break
        reached = decade
    if reached is None:
        return DECADES[0], f"target: relative gap {DECADES[0]:g}, which not every best configuration reaches"
    return reached, f"target: relative gap {reached:g}, the finest decade that every best configuration reaches"


def terms(
    table: Any, rel_gap: float | None, metric: str, by: Sequence[str] = ("method",)
) -> tuple[float | None, str, str]:
    """The relative gap to compare at (None without one), the metric, and a line that says so.

    A sweep whose optimum is not known is compared by its last test accuracy, or else its last F.
    """
    if metric in table.outcomes:
        return None, metric, f"compared by {metric} at the end"
    if not table.lanes["f_star"].isna().all():
        gap, line = target(table, rel_gap, metric, by)
        return gap, metric, line
    metric = "test_accuracy" if "test_accuracy" in table.metrics else "value"
    return None, metric, f"no optimum is known: compared by {metric} at the end"


def _resolved(table: Any) -> float:
    """The least relative gap that the numbers of every lane tell from 0, as `fl.run` allows it for a target."""
    initial, f_star = (table.lanes[name].to_numpy(float) for name in ("initial", "f_star"))
    eps = np.finfo(table.config.get("problem", {}).get("dtype", "float64")).eps
    return float(np.nanmax(2 * eps * np.fmax(abs(initial), abs(f_star)) / np.fmax(initial - f_star, 1e-300)))


def rows(table: Any, best: Any, metric: str, by: Sequence[str] = ("method",)) -> list[dict[str, str]]:
    """One row per group of `Table.best`: its best configuration, and the metric's median and band over seeds."""
    unit = UNITS.get(metric, metric)
    number = _percent if is_accuracy(metric) else _number
    lost = (table.lanes["status"] == "diverged").groupby([table.lanes[name] for name in by], sort=False, dropna=False)
    return [
        {name: _label(row[name]) for name in by}
        | {
            "best configuration": configuration(table, row, leave=by),
            unit: number(row["median"]),
            "over seeds": f"{number(row['low'])} .. {number(row['high'])}",
            "reached": f"{row['reached']} of {row['seeds']}",
            "diverged": f"{count} of {size} lanes",
        }
        for row, count, size in zip(best.to_dict("records"), lost.sum(), lost.size(), strict=True)
    ]


def edges(table: Any, best: Any) -> list[str]:
    """Notes on axes of numbers whose best value is their least or greatest: a wider grid may hold a better one."""
    notes = []
    for row in best.to_dict("records"):
        for name, labels in table.config["methods"][row["method"]]["axes"].items():
            is_numeric = all(isinstance(label, int | float) for label in labels)
            if is_numeric and len(labels) > 1 and row[name] in (min(labels), max(labels)):
                end = "least" if row[name] == min(labels) else "greatest"
                notes.append(f"note: {row['method']}'s best {name}, {row[name]:.4g}, is the {end} of its grid")
    return notes


def configuration(table: Any, row: Any, leave: Sequence[str] = ()) -> str:
    """The settings of a row in words: `gamma/theory=2, compressor=natural`; `theory` where nothing was swept."""
    names = table.config["methods"][row["method"]]["settings"] if "method" in row else []
    return ", ".join(f"{name}={_label(row[name])}" for name in names if name not in leave) or "theory"


def diverged(table: Any) -> list[str]:
    """Lines on the configurations that diverged: how many lanes, and the first few with their seeds."""
    lost = table.diverged()
    if not len(lost):
        return []
    groups = list(lost.groupby(["method", "config"], sort=False))
    lines = [f"diverged: {len(lost)} of {len(table)} lanes, in {len(groups)} configurations"]
    for (method, _), group in groups[:FEW]:
        words = configuration(table, group.iloc[0].to_dict())
        lines.append(f"  {method}: {words} (seeds {', '.join(map(str, group['seed']))})")
    return lines + ([f"  ... and {len(groups) - FEW} more"] if len(groups) > FEW else [])


def _label(value: Any) -> str:
    """A value of a setting; a dash where the method has none."""
    if isinstance(value, float):
        return f"{value:.4g}" if np.isfinite(value) else "-"
    return "-" if value is None else str(value)


def _number(value: float) -> str:
    return f"{value:.3e}" if np.isfinite(value) else "-"


def _percent(value: float) -> str:
    return f"{value:.2%}" if np.isfinite(value) else "-"
