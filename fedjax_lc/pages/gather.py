"""What a report shows: curves, sweeps and figures from folders, files, traces and tables, problem by problem."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.paths import is_there, user_path
from fedjax_lc.pages.figures import Figure
from fedjax_lc.plot import sweeps
from fedjax_lc.plot.lines import default_label
from fedjax_lc.plot.style import method_title
from fedjax_lc.results import storage
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace

Result: TypeAlias = "Trace | Table | str | os.PathLike[str]"
Results: TypeAlias = "Result | Sequence[Result] | Mapping[str, Result | Sequence[Trace]]"

OF_PROBLEM = ("data", "partition", "kappa", "l2", "model", "scale")  #: settings of the command line that make a problem
MOST_LANES = 3000  #: of a sweep; of more, those of the best configurations are shown
MOST_WORDS = 3  #: hyperparameters that tell curves of one name apart
EXPECTED = "expected the --out of a run or a sweep, a folder of such, or the .json of a figure"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A configuration and its seeds.

    Attributes:
        traces: one per seed.
        settings: of a sweep: what distinguishes its configurations.
    """

    label: str
    traces: list[Trace]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.traces[0].method


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The configurations of a table.

    Attributes:
        axes: the settings with two values or more, by name.
        left_out: the number of configurations that are too many for a page.
    """

    label: str
    curves: list[Curve]
    axes: list[str]
    config: dict[str, Any]
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Group:
    """What was computed on one problem."""

    runs: list[Curve] = dataclasses.field(default_factory=list)
    sweeps: list[Sweep] = dataclasses.field(default_factory=list)

    def curves(self) -> list[Curve]:
        """All curves: of runs, then of sweeps."""
        return [*self.runs, *(curve for sweep in self.sweeps for curve in sweep.curves)]


def gather(results: Results) -> tuple[list[Group], list[Figure]]:
    """The curves and sweeps of each problem, and the figures, in the order given.

    Raises:
        InputError: there is nothing to show, or a folder or file cannot be read.
    """
    runs: list[Curve] = []
    tables: list[tuple[str, Table]] = []
    figures: list[Figure] = []
    for name, result in _named(results):
        if isinstance(result, Table):
            tables.append((name or f"Sweep {len(tables) + 1}", result))
        elif isinstance(result, Trace):
            runs.append(Curve(name, [result]))
        elif isinstance(result, Figure):
            figures.append(result)
        else:
            runs.append(Curve(name, result))
    if not (runs or tables or figures):
        raise InputError("nothing to report: give a trace, a table, or the folder of a run or a sweep")
    groups: dict[str, Group] = {}
    for curve in _labelled(_seeds_together(runs)):
        groups.setdefault(_problem(curve.traces[0].config), Group()).runs.append(curve)
    for name, table in tables:
        groups.setdefault(_problem(table.config), Group()).sweeps.append(_sweep(name, table))
    return list(groups.values()), figures


def _named(results: Results) -> Iterator[tuple[str, Trace | Table | Figure | list[Trace]]]:
    """Label (empty: to be made) and what it names."""
    if isinstance(results, Mapping):
        pairs: Iterable[tuple[str, Any]] = ((str(label), each) for label, each in results.items())
    elif isinstance(results, Trace | Table | str | os.PathLike):
        pairs = [("", results)]
    else:
        pairs = (("", each) for each in results)
    for label, each in pairs:
        if isinstance(each, Trace | Table):
            yield label, each
        elif isinstance(each, str | os.PathLike):
            yield from ((label or name, read) for name, read in _read(user_path(each)))
        elif isinstance(each, Sequence) and each and all(isinstance(seed, Trace) for seed in each):
            yield label, list(each)
        else:
            raise InputError("a report shows traces, tables, folders, and lists of traces (the seeds of one label), "
                             f"got {type(each).__name__} {label}".rstrip())  # fmt: skip


def _read(path: Path) -> list[tuple[str, Trace | Table | Figure]]:
    """What a folder or file holds."""
    if not is_there(path):
        raise InputError(f"{path}: no such folder or file: {EXPECTED}")
    if path.is_file():
        return [("", Figure.read(path))]
    if (path / "trace.parquet").exists():
        return [("", _trace(path))]
    if storage.is_table(path):
        return [(_name(path), _table(path))]
    inner: list[tuple[str, Trace | Table | Figure]] = []
    parts = sorted(each for each in path.iterdir() if each.is_dir())
    tables = [_table(part) for part in parts if storage.is_table(part)]
    by_problem: dict[str, list[Table]] = {}
    for table in tables:
        by_problem.setdefault(_problem(table.config), []).append(table)
    inner += [(_name(path), Table.merge(each)) for each in by_problem.values()]
    inner += [("", _trace(part)) for part in parts if (part / "trace.parquet").exists()]
    if not inner and not (path / "config.json").exists():
        inner += [("", Figure.read(file)) for file in sorted(path.glob("*.json"))]
    if not inner:
        raise InputError(f"{path} holds no results that are ready to be read: {EXPECTED}")
    return inner


def _trace(path: Path) -> Trace:
    """The trace of a folder, whose config is as `Trace.save` writes it."""
    trace = Trace.load(path)
    _check(path, trace.config, ("problem", "hyperparameters", "settings", "versions", "recipe"))
    return trace


def _check(path: Path, config: Mapping[str, Any], objects: Sequence[str]) -> None:
    """Raise InputError where entries of a config that anyone may have edited are not of their kind."""
    wrong = [name for name in objects if not isinstance(config.get(name) or {}, dict)]
    wrong += ["rel_gap"] * (not isinstance(config.get("rel_gap"), int | float | None))
    if wrong:
        raise InputError(f"{path}: {', '.join(wrong)} in config.json must be as fedjax_lc writes it: restore the file")


def _table(path: Path) -> Table:
    """The table of a folder; its config has what the command line that wrote it says of the problem, if one did."""
    table = Table.load(path)
    methods = table.config["methods"].values()
    for config in (table.config, *methods, *(each for facts in methods for each in facts.get("merged", ()))):
        _check(path, config if isinstance(config, dict) else {"versions": "none"}, ("problem", "versions"))
    for name in ("sweep.toml", "tune.toml"):
        with contextlib.suppress(OSError, ValueError):
            settings = tomllib.loads((path / name).read_text(encoding="utf-8"))
            table.config["asked"] = {name: settings[name] for name in OF_PROBLEM if name in settings}
    return table


def _name(path: Path) -> str:
    return path.resolve().name


def _problem(config: Mapping[str, Any]) -> str:
    """What tells problems apart."""
    facts = config.get("problem") or {}
    return json.dumps({name: fact for name, fact in facts.items() if name != "digest"}, sort_keys=True)


def _seeds_together(runs: Sequence[Curve]) -> list[Curve]:
    """Runs without a label that differ in nothing but their key are the seeds of one curve."""
    curves: dict[Any, Curve] = {}
    for place, curve in enumerate(runs):
        config, alike = curve.traces[0].config, (place, "")
        if not curve.label and len(curve.traces) == 1 and config.get("key") is not None:
            asked = [config.get(name) for name in ("hyperparameters", "problem", "every", "rel_gap", "budget")]
            alike = (-1, json.dumps([curve.method, *asked], sort_keys=True))
            same = curves.get(alike)
            if same is not None and config["key"] in [trace.config["key"] for trace in same.traces]:
                alike = (place, "")
        curves.setdefault(alike, Curve(curve.label, [])).traces.extend(curve.traces)
    return list(curves.values())


def _labelled(curves: Sequence[Curve]) -> list[Curve]:
    """Every curve with a label that no other has: method and compressor, then hyperparameters, folder, number."""
    labels = [curve.label or default_label(curve.traces[0]).removesuffix(" identity") for curve in curves]
    for words in (_differences, lambda same: [_folder(curve) for curve in same]):
        for label in {label for label in labels if labels.count(label) > 1}:
            places = [place for place, each in enumerate(labels) if each == label]
            for place, more in zip(places, words([curves[place] for place in places]), strict=True):
                labels[place] = ", ".join(filter(None, (label, more)))
    numbered = [label + (f" #{labels[:i].count(label) + 1}" if label in labels[:i] else "")
                for i, label in enumerate(labels)]  # fmt: skip
    return [dataclasses.replace(curve, label=label) for curve, label in zip(curves, numbered, strict=True)]


def _differences(curves: Sequence[Curve]) -> list[str]:
    """For each curve the hyperparameters in which they differ, in words."""
    hyperparameters = [curve.traces[0].config.get("hyperparameters") or {} for curve in curves]
    names = dict.fromkeys(name for each in hyperparameters for name in each)
    differ = [name for name in names if len({json.dumps(each.get(name)) for each in hyperparameters}) > 1]
    return [", ".join(sweeps.setting_text(name, _word(each.get(name))) for name in differ[:MOST_WORDS])
            for each in hyperparameters]  # fmt: skip


def _word(value: Any) -> Any:
    """A value as `setting_text` and JSON take it; what is no number or word as a word."""
    plain = isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else json.dumps(value)


def _folder(curve: Curve) -> str:
    folder = curve.traces[0].folder
    return "" if folder is None else _name(folder)


def _sweep(label: str, table: Table) -> Sweep:
    """The configurations of a table as curves."""
    curves, left_out = [], 0
    kept = _best(table)
    for (method, config), lanes in table.lanes.groupby(["method", "config"], sort=False):
        if (method, config) not in kept:
            left_out += 1
            continue
        row = lanes.iloc[[0]].to_dict("records")[0]
        settings = {name: _word(row[name]) for name in sweeps.settings(table, method)}
        swept = [name for name in table.config["methods"][method]["settings"] if name != "compressor"]
        title = (
            " ".join([method_title(method), str(settings.get("compressor") or "")]).removesuffix(" identity").strip()
        )
        words = [sweeps.setting_text(name, settings[name]) for name in swept]
        traces = [table.trace(lane) for lane in lanes.index]
        curves.append(Curve(", ".join([title, *words]), traces, settings))
    values: dict[str, set[str]] = {}
    for curve in curves:
        for name, value in curve.settings.items():
            values.setdefault(name, set()).add(json.dumps(value))
    return Sweep(label, curves, [name for name in values if len(values[name]) > 1], table.config, left_out)


def _best(table: Table) -> set[tuple[str, int]]:
    """Methods and numbers of the configurations that a page has room for: of each method the best, and as many more,
    by the median of the F that the seeds end with."""
    ends = table.records.groupby("lane")["value"].last().reindex(table.lanes.index)
    ends = ends.where(ends.notna() & (table.lanes["status"] != "diverged"), math.inf)
    lanes = table.lanes[["method", "config"]].assign(end=ends).groupby(["method", "config"], sort=False)["end"]
    ranked = lanes.agg(["median", "size"]).sort_values("median", kind="stable")
    first = ranked.groupby("method", sort=False).head(1).index
    return {*first, *ranked.index[ranked["size"].cumsum() <= MOST_LANES]}
