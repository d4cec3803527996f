"""The trace of one run: metrics and costs at every record, and how they were computed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.files import replacing
from fedjax_lc.results.ledger import COSTS

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("finished", "target", "diverged", "interrupted")


@dataclasses.dataclass
class Trace:
    """The results of a run. All series are NumPy float64 (step: int64) with one entry per record; costs are cumulative.

    Attributes:
        method: the name of the method.
        status: finished, target (the gap asked for was reached), diverged, or interrupted. A diverged trace ends with
            its last finite record.
        step: (r,) number of steps at each of the r records.
        value: (r,) F(x).
        bits_up, bits_down, grads, rounds: (r,) means over clients.
        metrics: further metrics by name, (r,), or (r, k) for a metric of k numbers.
        initial: value and metrics at x_0.
        f_star: the optimal value; NaN if unknown.
        config: versions, device, command, hyperparameters and problem, as written to config.json.
        notes: remarks of one line each, for example that steps were cut to a multiple of `every`.
        state, x: the last state and point of the method, on the host; None in a loaded trace. If a budget ended the run
            they may be some steps past the last record.
    """

    method: str
    status: str
    step: np.ndarray
    value: np.ndarray
    bits_up: np.ndarray
    bits_down: np.ndarray
    grads: np.ndarray
    rounds: np.ndarray
    metrics: dict[str, np.ndarray]
    initial: dict[str, float]
    f_star: float
    config: dict[str, Any]
    notes: list[str] = dataclasses.field(default_factory=list)
    state: Any = None
    x: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.step)

    @property
    def gap(self) -> np.ndarray:
        """(r,) F(x) - f_star."""
        return self.value - self.f_star

    @property
    def rel_gap(self) -> np.ndarray:
        """(r,) gap / (F(x_0) - f_star)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a start at the optimum has no relative gap
            return self.gap / (self.initial["value"] - self.f_star)

    def reach(self, rel_gap: float | None = None, **at_least: float) -> dict[str, float] | None:
        """The first record with a relative gap of at most `rel_gap` and metrics of at least the given values.

        Returns its step, costs, and the relative gap or these metrics by name; None if no record qualifies.

        Raises:
            InputError: a metric was not measured.

        Example:
            >>> trace.reach(1e-6)["rounds"], trace.reach(accuracy=0.9)["bits_up"]
        """
        there, shown = np.ones(len(self), bool), {}
        if rel_gap is not None:
            there &= self.gap <= rel_gap * (self.initial["value"] - self.f_star)
            shown["rel_gap"] = self.rel_gap
        for name, least in at_least.items():
            if name not in self.metrics:
                raise unknown("metric", name, self.metrics)
            there &= self.metrics[name] >= least
            shown[name] = self.metrics[name]
        hits = np.flatnonzero(there)
        if not len(hits):
            return None
        row = {name: float(getattr(self, name)[hits[0]]) for name in ("step", *COSTS)}
        return row | {name: float(series[hits[0]]) for name, series in shown.items()}

    def columns(self) -> dict[str, np.ndarray]:
        """All series by name, gaps included; a series (r, k) becomes k series name[0], name[1], ..."""
        columns = {name: getattr(self, name) for name in ("step", *COSTS, "value", "gap", "rel_gap")}
        for name, series in self.metrics.items():
            if series.ndim == 1:
                columns[name] = series
            else:
                columns |= {f"{name}[{i}]": entries for i, entries in enumerate(series.T)}
        return columns

    def to_pandas(self) -> pd.DataFrame:
        """A tidy frame: one row per record; columns method, step, costs, value, gap, rel_gap and every metric."""
        import pandas as pd

        frame = pd.DataFrame(self.columns())
        frame.insert(0, "method", self.method)
        return frame

    def save(self, folder: str | Path) -> Path:
        """Write `trace.parquet` and `config.json` into `folder`, each under a temporary name that is then renamed."""
        folder = Path(folder)
        with replacing(folder / "trace.parquet") as path:
            self.to_pandas().to_parquet(path, index=False)
        facts = {"status": self.status, "f_star": self.f_star, "initial": self.initial, "notes": self.notes}
        with replacing(folder / "config.json") as path:
            path.write_text(json.dumps(self.config | facts, indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Trace:
        """Read the trace that `save` wrote.

        Raises:
            InputError: the folder holds no trace, or a damaged one.
        """
        import pandas as pd

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            frame = pd.read_parquet(folder / "trace.parquet")
            facts = {name: config.pop(name) for name in ("status", "f_star", "initial", "notes")}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} holds no readable trace ({type(error).__name__}): expected config.json and "
                             "trace.parquet as Trace.save writes them") from None  # fmt: skip
        known = ("step", "value", *COSTS)
        columns = [name for name in frame.columns if name not in {*known, "method", "gap", "rel_gap"}]
        return cls(
            method=config["method"],
            config=config,
            metrics=_gathered({name: frame[name].to_numpy() for name in columns}),
            **{name: frame[name].to_numpy() for name in known},
            **facts,
        )


def _gathered(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Series by name; those called name[0], name[1], ... become one of shape (r, k)."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, series in columns.items():
        parts.setdefault(name.partition("[")[0], []).append(series)
    return {name: series[0] if name in columns else np.stack(series, axis=1) for name, series in parts.items()}
