"""Text tables of results: aligned columns for the terminal, Markdown for files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lc.results.columns import is_accuracy
from fedjax_lc.results.trace import Trace

TARGETS = (1e-4, 1e-8, 1e-12)
WIDEST, NARROWEST = 70, 12  #: characters of a column on the terminal
GUTTER = 2  #: characters between two columns


def table(rows: Sequence[dict[str, Any]], *, style: str = "simple", width: int | None = None) -> str:
    """A text table of rows with equal keys, numbers aligned right.

    Args:
        style: "simple", or "github" for Markdown.
        width: of simple ones: characters of a line at most, as far as columns of words can be narrower.
    """
    from tabulate import tabulate

    align = ["right" if is_numeric(rows, name) else "left" for name in rows[0]]
    cells = {name: [str(row[name]) for row in rows] for name in rows[0]}
    if style == "github":
        fitted = {name: [cell.replace("|", r"\|") for cell in column] for name, column in cells.items()}
    else:
        most = _widths(cells, [name for name, side in zip(cells, align, strict=True) if side == "left"], width)
        fitted = {name: [textwrap.fill(cell, most[name]) for cell in column] for name, column in cells.items()}
    return tabulate(fitted, headers="keys", tablefmt=style, colalign=align, disable_numparse=True)


def _widths(cells: dict[str, list[str]], words: Sequence[str], width: int | None) -> dict[str, int]:
    """Characters of each column: WIDEST at most, and fewer for the widest columns of words until a line fits."""
    widths = {name: min(WIDEST, max(map(len, (*name.splitlines(), *column)))) for name, column in cells.items()}
    narrow = {name: max(NARROWEST, len(name)) for name in words}
    while width is not None and sum(widths.values()) + GUTTER * (len(widths) - 1) > width:
        wide = [name for name in words if widths[name] > narrow[name]]
        if not wide:
            break
        widths[max(wide, key=lambda name: widths[name])] -= 1
    return widths


def is_numeric(rows: Sequence[dict[str, Any]], name: str) -> bool:
    """Whether all cells of a column are numbers (thousands separators and per cent included) or dashes."""
    return all(_is_number(str(row[name])) for row in rows)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text == "-"
    return True


def summary(label: str, trace: Trace, targets: Sequence[float] = TARGETS) -> dict[str, str]:
    """One row of a run: rounds and uplink bits per client to each relative gap, last gap, and how it ended."""
    row = {"method": label}
    for target in targets:
        hit = trace.reach(target) if np.isfinite(trace.f_star) else None
        row[f"rounds to {target:.0e}"] = f"{hit['rounds']:,.0f}" if hit else "-"
        row[f"bits to {target:.0e}"] = f"{hit['bits_up']:.3e}" if hit else "-"
    last = trace.rel_gap[-1] if len(trace) else float("nan")
    return row | {"last rel. gap": f"{last:.1e}", "ended": ending(trace)}


def training(label: str, trace: Trace, targets: Sequence[float] = ()) -> dict[str, str]:
    """One row of a network's training: rounds, uplink and downlink bits per client, bits to each target accuracy,
    last losses and accuracy, the best accuracy and its round, and further metrics."""
    row = {"method": label, "rounds": _last(trace.rounds, ",.0f")}
    row |= {"bits up": _last(trace.bits_up, ".3e"), "bits down": _last(trace.bits_down, ".3e")}
    for target in targets:
        hit = trace.reach(test_accuracy=target)
        row[f"bits to {target:.0%}"] = f"{hit['bits_up']:.3e}" if hit else "-"
    row["train loss"] = _last(trace.value, ".4f")
    if "test_loss" in trace.metrics:
        row["test loss"] = _last(trace.metrics["test_loss"], ".4f")
    if "test_accuracy" in trace.metrics:
        accuracy = trace.metrics["test_accuracy"]
        row |= {"test accuracy": _last(accuracy, ".2%"), "best": _last(np.sort(accuracy), ".2%")}
        row["at round"] = f"{trace.rounds[np.argmax(accuracy)]:,.0f}" if len(trace) else "-"
    for name, series in trace.metrics.items():
        if name not in ("test_accuracy", "test_loss") and series.ndim == 1:
            row[name.replace("_", " ")] = _last(series, ".2%" if is_accuracy(name) else ".4g")
    return row | {"ended": ending(trace)}


def _last(series: np.ndarray, form: str) -> str:
    return f"{series[-1]:{form}}" if len(series) else "-"


def is_capped(trace: Trace) -> bool:
    """Whether the run ended by its steps or budget before it reached the relative gap asked for."""
    return trace.status == "finished" and trace.config.get("rel_gap") is not None


def ending(trace: Trace) -> str:
    """How a run ended, in one word: its status, or "capped" if steps or budget ended it before its target."""
    return "capped" if is_capped(trace) else trace.status
