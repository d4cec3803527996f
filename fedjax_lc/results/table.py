"""The table of a sweep: lanes and records, first records at a target, best configurations, arrays on named axes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.problems.metric_names import unknown_metric
from fedjax_lc.results import arrays, ranking, storage
from fedjax_lc.results.columns import HEAD, METRICS, OF_TABLE, PRICES, SERIES, TAIL, TARGETS, check_frames, is_accuracy
from fedjax_lc.results.ledger import COSTS, total_bits
from fedjax_lc.results.trace import Trace

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclasses.dataclass(eq=False)
class Table:
    """The results of a sweep. Do not change its frames in place.

    A record *reaches* a relative gap g if F(x) - f_star <= g (F(x_0) - f_star), as in `Trace.reach`. Costs are
    cumulative means per client, bits in bits, grads in full local gradients, seconds in the lane's share of wall time.

    Attributes:
        lanes: one row per lane, row i = lane i: method, config (number of the configuration, from 0 for each method),
            seed, settings ("gamma/theory"), hyperparameters, status (as of a Trace; dropped by `fl.tune`),
            initial = F(x_0), f_star (NaN where unknown), seconds. A setting and a hyperparameter of one name share one.
        records: one row per lane and record, sorted by both: lane, step, bits_up, bits_down, grads, rounds,
            value = F(x), metrics, seconds. A diverged lane ends with its last finite record, if it has one.
        config: plain JSON. "methods": name -> {"axes": {setting: [labels]}, "settings": [columns], "hyperparameters":
            [columns]}, where a product grid has axes, the last one fastest; "rel_gap", "steps", "every", "problem", ...

    Raises:
        InputError: the frames are not as above, or two columns have one name (see `column`).

    Example:
        >>> table = fl.sweep("locodl", problem, fl.grid(hp, gamma=[0.1, 0.3, 1.0]), seeds=8, rel_gap=1e-6)
        >>> table.best("bits_up")[["gamma", "median", "low", "high"]]
    """

    lanes: pd.DataFrame
    records: pd.DataFrame
    config: dict[str, Any]

    def __post_init__(self) -> None:
        self.config = json.loads(json.dumps(self.config))
        self.records = self.records.reset_index(drop=True)
        missing = {*HEAD, *TAIL} - {*self.lanes} | {*SERIES, "seconds"} - {*self.records}
        missing |= {*self.lanes.get("method", ())} - {*self.config.get("methods", ())}
        if missing:
            raise InputError(f"not a table: lanes, records or config['methods'] lack {', '.join(sorted(missing))}")
        check_frames(self.lanes, self.records, [*self.names, *self.metrics])

    def __len__(self) -> int:
        """The number of lanes."""
        return len(self.lanes)

    @property
    def names(self) -> list[str]:
        """Columns of settings and hyperparameters."""
        return [name for name in self.lanes if name not in (*HEAD, *TAIL)]

    @property
    def metrics(self) -> list[str]:
        """Columns of further metrics."""
        return [name for name in self.records if name not in (*SERIES, "seconds")]

    @functools.cached_property
    def gap(self) -> np.ndarray:
        """(records,) F(x) - f_star."""
        return self.records["value"].to_numpy() - self._of_lane(self.lanes["f_star"].to_numpy())

    @functools.cached_property
    def rel_gap(self) -> np.ndarray:
        """(records,) gap / (F(x_0) - f_star)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a start at the optimum has no relative gap
            return self.gap / self._of_lane(self._span())

    def to_pandas(self) -> pd.DataFrame:
        """A tidy frame, one row per lane and record.

        Columns: method, config, seed, settings, hyperparameters, status, step, costs, value, gap, rel_gap, metrics,
        seconds.

        Example:
            >>> table.to_pandas().query("status == 'target'").groupby("gamma")["bits_up"].max()
        """
        import pandas as pd

        lanes = self.lanes[[*HEAD, *self.names, "status"]].take(self.records["lane"].to_numpy())
        frames = (lanes.reset_index(drop=True), self.records[["step"]], self._series())
        return pd.concat(frames, axis=1)

    def summary(self, targets: Sequence[float] | None = None) -> pd.DataFrame:
        """One row per lane: its settings, how it ended, and the costs at the first record that reaches each target.

        Columns: method, config, seed, settings, hyperparameters, status, diverged, rel_gap (the last; NaN without
        records), and for each target columns such as "bits_up to 1e-04": bits_up, bits_down, grads, rounds, step,
        seconds; NaN where the lane does not reach the target. Targets that a lane reached before it diverged count
        here, but not in `best`.

        Args:
            targets: relative gaps; default: the sweep's rel_gap and those of 1e-2, 1e-4, ..., 1e-12 above it, as far as
                some lane reaches them.

        Raises:
            InputError: targets are given, but the optimum is unknown.

        Example:
            >>> table.summary([1e-4])["bits_up to 1e-04"].median()
        """
        import pandas as pd

        of_sweep = [] if self.config.get("rel_gap") is None else [self.config["rel_gap"]]
        usual = [*(t for t in TARGETS if t > max(of_sweep, default=0)), *of_sweep]
        usual = [] if self.lanes["f_star"].isna().any() else usual
        hits = {target: self._hits(target) for target in (usual if targets is None else targets)}
        start = self.lanes[[*HEAD, *self.names, "status"]].assign(diverged=self._diverged, rel_gap=self._last_rel_gap())
        parts = [self._at(rows).add_suffix(f" to {ranking.text_of(target)}") for target, rows in hits.items()
                 if targets is not None or rows.max(initial=-1) >= 0]  # fmt: skip
        return pd.concat([start, *parts], axis=1)

    def best(
        self,
        metric: str = "bits_up",
        rel_gap: float | None = None,
        by: str | Sequence[str] = ("method",),
        *,
        band: tuple[float, float] = (0.0, 1.0),
        down_weight: float = 1.0,
        **at_least: float,
    ) -> pd.DataFrame:
        """The best configuration of each group: that with the least median over seeds of the cost to a target.

        The target is a relative gap, or a value of a metric such as test_accuracy=0.9. Alternatively configurations are
        compared by the median of a metric at the last record.

        A seed that does not reach the target, or diverges at any time, costs inf; so the median is inf if half of the
        seeds or more do so. Ties go to the lowest configuration number. If all medians of a group are inf, the
        configuration with the least median of the last relative gap (or of F) is shown; a diverged seed counts as inf.

        Args:
            metric: the cost to the target: bits_up, bits_down, grads, rounds, step, seconds, or total_bits = bits_up +
                down_weight * bits_down; or value or a metric of the sweep at the last record, of which an accuracy
                is to be large and any other small.
            rel_gap: the target gap; default: the sweep's rel_gap, unless `at_least` gives the target.
            by: columns that define a group: method, config, settings, hyperparameters.
            band: quantiles over seeds for the columns low and high; (0, 1) is minimum and maximum.
            down_weight: weight of bits_down in total_bits.
            at_least: the target as least values of metrics, such as test_accuracy=0.9.

        Returns:
            One row per group, in the table's order, with the columns: those of `by`, method, config, settings,
            hyperparameters, median, low, high, and the numbers of seeds: seeds (all), reached (those that reached the
            target and did not diverge), diverged.

        Raises:
            InputError: the optimum is unknown, there is no target, or band, metric or a column is not valid.

        Example:
            >>> table.best("total_bits", rel_gap=1e-6, by=("method", "compressor"), down_weight=0.1)
            >>> table.best("test_accuracy"), table.best("bits_up", test_accuracy=0.9)
        """
        by = [by] if isinstance(by, str) else list(by)
        columns = ["method", "config", *self.names]
        for name in by:
            if name not in columns:
                raise unknown("column", name, columns)
        if metric not in (*METRICS, *self.outcomes):
            raise unknown_metric(metric, (*METRICS, *self.outcomes))
        if not 0 <= band[0] <= band[1] <= 1:
            raise InputError(f"band must be two quantiles 0 <= low <= high <= 1, got {tuple(band)}")
        sign = -1.0 if is_accuracy(metric) else 1.0
        dropped = (self.lanes["status"] == "dropped").to_numpy()  # ended before others: their last values mean less
        if metric in self.outcomes:
            values = np.where(dropped, np.nan, sign * self._last(metric))
        else:
            prices = self._at(self._hits(rel_gap, at_least))
            prices["total_bits"] = total_bits(prices, down_weight)
            values = prices[metric].to_numpy()
        costs = np.where(self._diverged | np.isnan(values), np.inf, values)
        last = self._last("value") if self.lanes["f_star"].isna().any() else self._last_rel_gap()
        ends = np.where(self._diverged | dropped | np.isnan(last), np.inf, last)
        lanes = self.lanes[list(dict.fromkeys([*by, *columns]))].assign(diverged=self._diverged)
        return ranking.best_of_groups(lanes, by, costs, ends, band=band, sign=sign)

    def diverged(self) -> pd.DataFrame:
        """The lanes that diverged: method, config, seed, settings, hyperparameters, step of the last record or 0.

        Example:
            >>> table.diverged().groupby("method").size()
        """
        steps = self.records.groupby("lane")["step"].last().reindex(self.lanes.index, fill_value=0)
        return self.lanes[[*HEAD, *self.names]].assign(step=steps)[self._diverged]

    def trace(self, lane: int) -> Trace:
        """One lane as a Trace, without state and x; its `initial` has only "value".

        Raises:
            InputError: there is no such lane.

        Example:
            >>> fl.plot.curves({"first": table.trace(0)})
        """
        if not 0 <= lane < len(self):
            raise InputError(f"this table has no lane {lane}: it has {len(self)}, numbered from 0")
        row = self.lanes.iloc[[lane]].to_dict("records")[0]
        series = self.records.iloc[self._starts[lane] : self._starts[lane + 1]]
        facts = self.config | self.config["methods"][row["method"]]
        names = {kind: {name: row[name] for name in facts.get(kind, ())} for kind in ("settings", "hyperparameters")}
        facts = {name: fact for name, fact in facts.items() if name not in OF_TABLE}
        return Trace(
            status=row["status"],
            metrics={name: series[name].to_numpy(copy=True) for name in self.metrics},
            initial={"value": row["initial"]},
            f_star=row["f_star"],
            config=facts | names | {name: row[name] for name in (*HEAD, "seconds")},
            method=row["method"],
            **{name: series[name].to_numpy(copy=True) for name in SERIES[1:]},
        )

    def traces(self, config: int, method: str | None = None) -> list[Trace]:
        """The traces of one configuration, one per seed; give `method` if several methods have that configuration.

        Raises:
            InputError: there is no such configuration or method, or there are several.

        Example:
            >>> for row in table.best("bits_up", rel_gap=1e-6).to_dict("records"):
            ...     seeds = table.traces(row["config"], row["method"])
        """
        if method is not None and method not in self.config["methods"]:
            raise unknown("method", method, self.config["methods"])
        lanes = self.lanes[(self.lanes["config"] == config) & (method is None or self.lanes["method"] == method)]
        if lanes.empty:
            raise InputError(f"this table has no configuration {config}{f' of {method}' if method else ''}")
        if lanes["method"].nunique() > 1:
            raise InputError(f"configuration {config}: give its method= ({', '.join(lanes['method'].unique())})")
        return [self.trace(lane) for lane in lanes.index]

    def to_xarray(self) -> xr.Dataset:
        """The series on named axes: value, gap, rel_gap, costs, metrics, seconds; and status, without the record axis.

        Axes: for one method those of the product grid, seed and record, or config, seed and record if the
        configurations are no product grid; for several methods lane and record. Coordinates: the labels of the axes,
        step along record (all steps at which a lane has a record), and settings and hyperparameters along the axes
        before seed. Missing entries are NaN.

        Example:
            >>> table.to_xarray().rel_gap.sel({"gamma/theory": 2.0}).median("seed")
        """
        return arrays.to_xarray(
            self.lanes, self.records[["lane", "step"]].join(self._series()), self.config, self.names
        )

    def save(self, folder: str | Path) -> Path:
        """Write config.json, records.parquet and, last, lanes.parquet into `folder`, and return the folder.

        Each file is written under a temporary name and renamed. An earlier lanes.parquet is removed first, so a folder
        with lanes.parquet holds a complete table.

        Raises:
            InputError: the folder cannot be written.

        Example:
            >>> fl.Table.load(table.save("out/locodl"))
        """
        folder = Path(folder)
        storage.write(folder, (self.lanes, self.records, self.config), self.names)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Table:
        """Read the table that `save` wrote into `folder`, or merge the tables in its direct subfolders, in name order.

        Subfolders without a complete table are ignored.

        Raises:
            InputError: there is no table, or a damaged one, or tables of different problems.

        Example:
            >>> fl.Table.load("out").best("bits_up", rel_gap=1e-6)
        """
        folder = Path(folder)
        if storage.is_table(folder):
            return cls._read(folder)
        return cls.merge([cls._read(path) for path in storage.tables_in(folder)])

    @classmethod
    def _read(cls, folder: Path) -> Table:
        parts = storage.read(folder)
        try:
            return cls(*parts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise storage.damaged(folder, error) from None

    @classmethod
    def merge(cls, tables: Sequence[Table]) -> Table:
        """Merge tables on one problem: lanes are renumbered; columns that a method lacks are NaN for it.

        Configurations keep their numbers; if a method is in several tables, later ones are numbered on and the axes
        of its product grid are dropped. In `config`, steps is the largest and rel_gap the loosest of the tables; other
        entries in which the tables differ are listed for each method, those of its later tables under "merged".

        Raises:
            InputError: there are no tables, or they are of different problems.

        Example:
            >>> fl.Table.merge([fl.sweep(name, problem, rel_gap=1e-6) for name in ("gd", "locodl")]).best("bits_up")
        """
        tables = list(tables)
        if not tables:
            raise InputError("merge needs at least one table, got none")
        if len({json.dumps(table.config.get("problem"), sort_keys=True) for table in tables}) > 1:
            raise InputError("tables of different problems (config['problem']) cannot be merged: merge those of one")
        lanes, records, config = storage.joined([(table.lanes, table.records, table.config) for table in tables])
        settings = [name for facts in config["methods"].values() for name in facts["settings"]]
        names = dict.fromkeys([*settings, *(name for table in tables for name in table.names)])
        metrics = dict.fromkeys(name for table in tables for name in table.metrics)
        return cls(lanes[[*HEAD, *names, *TAIL]], records[[*SERIES, *metrics, "seconds"]], config)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """(lanes + 1,) row of each lane's first record."""
        return np.searchsorted(self.records["lane"].to_numpy(), np.arange(len(self) + 1))

    @property
    def _diverged(self) -> np.ndarray:
        return (self.lanes["status"] == "diverged").to_numpy()

    def _of_lane(self, values: np.ndarray) -> np.ndarray:
        """(records,) the value (lanes,) of each record's lane."""
        return np.repeat(values, np.diff(self._starts))

    def _span(self) -> np.ndarray:
        """(lanes,) F(x_0) - f_star."""
        return (self.lanes["initial"] - self.lanes["f_star"]).to_numpy()

    def _series(self) -> pd.DataFrame:
        """(records,) costs, value, gap, rel_gap, metrics, seconds."""
        gaps = self.records[[*COSTS, "value"]].assign(gap=self.gap, rel_gap=self.rel_gap)
        return gaps.join(self.records[[*self.metrics, "seconds"]])

    def _last_rel_gap(self) -> np.ndarray:
        """(lanes,) the relative gap at the last record; NaN without a record."""
        last = np.where(np.diff(self._starts) > 0, self._starts[1:] - 1, -1)
        return np.append(self.rel_gap, np.nan)[last]

    @property
    def outcomes(self) -> list[str]:
        """The columns that `best` can compare at the last record: value, and every metric."""
        return ["value", *self.metrics]

    def _last(self, name: str) -> np.ndarray:
        """(lanes,) a column of the records at the last record; NaN without a record."""
        last = np.where(np.diff(self._starts) > 0, self._starts[1:] - 1, -1)
        return np.append(self.records[name].to_numpy(float), np.nan)[last]

    def _hits(self, target: float | None, at_least: Mapping[str, float] = MappingProxyType({})) -> np.ndarray:
        """(lanes,) row of the first record that reaches the relative gap and these metrics, -1 without one."""
        there = np.ones(len(self.records), bool)
        if target is not None or not at_least:
            there &= self.gap <= self._of_lane(self._target(target) * self._span())
        for name, least in at_least.items():
            if name not in self.metrics:
                raise unknown_metric(name, self.metrics)
            there &= self.records[name].to_numpy() >= least
        rows = np.flatnonzero(there)
        lanes, first = np.unique(self.records["lane"].to_numpy()[rows], return_index=True)
        hits = np.full(len(self), -1)
        hits[lanes] = rows[first]
        return hits

    def _at(self, rows: np.ndarray) -> pd.DataFrame:
        """The costs at one row of the records for each lane; NaN where the row is -1."""
        return self.records[list(PRICES)].reindex(rows).set_axis(self.lanes.index)

    def _target(self, rel_gap: float | None) -> float:
        """The target `rel_gap`, or that of the sweep, after checks."""
        if self.lanes["f_star"].isna().any():
            raise InputError(
                "a target gap needs a known optimum, and this problem has none: give it f_star=, sweep again"
            )
        target = self.config.get("rel_gap") if rel_gap is None else rel_gap
        if target is None or not 0 <= target < np.inf:
            raise InputError(f"rel_gap must be a number >= 0, got {target}: give rel_gap=, such as 1e-4")
        return float(target)
