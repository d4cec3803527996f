"""Common parts of figures of sweeps: labels, axes and groups of a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.plot.style import COST_LABELS, OUTCOME_LABELS, check_names, method_title, short, weights

if TYPE_CHECKING:
    import pandas as pd

    from fedjax_lc.results.table import Table

METRIC_LABELS = COST_LABELS | {"seconds": "wall time (s)"}
NOTE_WIDTH = 84  #: letters of small print in a row


def target_of(table: Table, rel_gap: float | None) -> float:
    """The target: `rel_gap`, or that of the sweep if it is None."""
    return float(table.config["rel_gap"] if rel_gap is None else rel_gap)


def gap_text(rel_gap: float) -> str:
    """A relative gap in words, such as 1e-4 or 2.5e-5."""
    return np.format_float_scientific(rel_gap, precision=3, trim="-", exp_digits=1)


def metric_words(table: Table, metric: str, rel_gap: float | None, down_weight: float = 1.0) -> str:
    """An axis label in two lines: the metric with its unit, and the target."""
    if metric in table.outcomes:
        return f"{OUTCOME_LABELS.get(metric, metric)}\nat the end"
    counted = METRIC_LABELS[metric] + weights(metric, down_weight)
    return f"{counted}\nto relative gap {gap_text(target_of(table, rel_gap))}"


def axis_words(name: str) -> str:
    """The axis label of a hyperparameter or setting; multiples of theory's value are named as such."""
    return f"{name.removesuffix('/theory')}  (multiples of the theory's)" if name.endswith("/theory") else name


def settings(table: Table, method: str) -> list[str]:
    """The columns that distinguish a method's configurations: its settings, or its hyperparameters if it has none."""
    facts = table.config["methods"][method]
    return facts["settings"] or facts["hyperparameters"]


def check_axes(table: Table, names: Iterable[str]) -> None:
    """Raise InputError for a name that is no setting or hyperparameter of the table, nor "method"."""
    facts = table.config["methods"].values()
    known = {name for fact in facts for name in (*fact["settings"], *fact["hyperparameters"])}
    check_names("axis", names, {"method"} | known)


def with_method(table: Table, by: Sequence[str]) -> list[str]:
    """The columns that define a group, the method first."""
    by = [by] if isinstance(by, str) else by
    check_axes(table, by)
    return list(dict.fromkeys(("method", *by)))


def group_label(row: dict[str, Any], by: Sequence[str]) -> str:
    """The label of a group, such as "LoCoDL natural, p = 0.1": method, compressor, other columns of the group."""
    has = [name for name in by if row[name] is not None and row[name] == row[name]]
    words = [setting_text(name, row[name]) for name in has if name not in ("method", "compressor")]
    start = [method_title(row["method"]), *([row["compressor"]] if "compressor" in has else [])]
    return ", ".join([" ".join(start), *words])


def setting_text(name: str, value: Any) -> str:
    """A setting in words: "gamma = 2 × theory", "p = 0.1"."""
    if name.endswith("/theory"):
        return f"{name.removesuffix('/theory')} = {short(value)} \N{MULTIPLICATION SIGN} theory"
    return f"{name} = {short(value)}"


def on_axes(table: Table, rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The rows of `Table.best` whose methods have these axes, with the word "None" in place of None."""
    has = {
        method: {"method", *fact["settings"], *fact["hyperparameters"]}
        for method, fact in table.config["methods"].items()
    }
    for name in names:
        rows = rows[[name in has[method] for method in rows["method"]]]
        if rows[name].isna().any():
            rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "None")})
    return rows


def distinct(column: pd.Series) -> list[Any]:
    """The values of an axis: numbers in increasing order, then words in the order of the table."""
    values = column.unique().tolist()
    words = [value for value in values if not are_numbers([value])]
    return [*sorted(value for value in values if are_numbers([value])), *words]


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all values are numbers (truths are none)."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def best_over(table: Table, lanes: pd.DataFrame, cell: Sequence[str]) -> list[str]:
    """The settings that vary among lanes which agree in the columns `cell`: the best of them is shown."""
    names = dict.fromkeys(name for method in lanes["method"].unique() for name in settings(table, method))
    cells = lanes.groupby(list(cell), sort=False)
    return [name for name in names if name not in cell and cells[name].nunique().max() > 1]


def missed(row: dict[str, Any]) -> str:
    """How a row of `Table.best` missed the target: "capped", or "diverged" if most such seeds did; else empty."""
    if np.isfinite(row["median"]):
        return ""
    return "diverged" if 2 * row["diverged"] >= row["seeds"] - row["reached"] else "capped"


def small_print(note: str | None, *facts: str) -> str:
    """The user's note, followed by facts about the figure."""
    joined = "; ".join(filter(None, facts))
    rows = [joined] if len(joined) <= NOTE_WIDTH else [textwrap.fill(fact, NOTE_WIDTH) for fact in facts if fact]
    return "\n".join(filter(None, (note, *rows)))


def over_seeds(seeds: int, band: tuple[float, float] | None = None) -> str:
    """The statistic over seeds in words: "median of 5 seeds, band: least to most"."""
    if seeds == 1:
        return "1 seed"
    if band is None:
        return f"median of {seeds} seeds"
    edges = "least to most" if tuple(band) == (0, 1) else f"quantiles {band[0]:g} to {band[1]:g}"
    return f"median of {seeds} seeds, band: {edges}"
