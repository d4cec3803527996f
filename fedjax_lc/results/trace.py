"""The trace of one run: metrics and costs at every record, and how they were computed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lc.core import tensors
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.core.paths import read_json
from fedjax_lc.core.progress import say
from fedjax_lc.models.files import BEST, MODEL
from fedjax_lc.problems.metric_names import CLIENTS, COHORT, unknown_metric
from fedjax_lc.results.columns import STATUSES, Series, summarised
from fedjax_lc.results.ledger import COSTS

if TYPE_CHECKING:
    import pandas as pd

STATE = "state.safetensors"  #: the file of the last state and point


@dataclasses.dataclass
class Trace:
    """The results of a run. All series are NumPy float64 (step: int64) with one entry per record; costs are cumulative.

    Attributes:
        method: the name of the method.
        status: finished, target (the gap asked for was reached), diverged, or interrupted (also of a run that goes on
            elsewhere while its folder is read). A diverged trace ends with its last finite record.
        step: (r,) number of steps at each of the r records.
        value: (r,) F(x).
        bits_up, bits_down, grads, rounds: (r,) means over clients.
        metrics: further metrics by name, (r,), or (r, k) for a metric of k numbers.
        initial: value and metrics at x_0.
        f_star: the optimal value; NaN if unknown.
        config: versions, device, command, hyperparameters and problem, as written to config.json.
        notes: remarks of one line each, for example that steps were cut to a multiple of `every`.
        state, x: the last state and point (d,) of the method, on the host; of a run under way, those of its last
            checkpoint. A loaded state has named tuples, dictionaries and lists in place of the method's classes, with
            the same names. None if they are not kept.
        best_x: (d,) the point at the best record, where `keep_best` asked for it.
        spent: (2, 4) what the compiled loop compares with budgets, for a run that goes on; None as for state.
        folder: where it was saved, or loaded from; None if it is in memory alone.
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
    best_x: np.ndarray | None = None
    spent: np.ndarray | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        self.metrics = Series(self.metrics)

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
            >>> trace.reach(1e-6)["rounds"], trace.reach(test_accuracy=0.9)["bits_up"]
        """
        there, shown = np.ones(len(self), bool), {}
        if rel_gap is not None:
            there &= self.gap <= rel_gap * (self.initial["value"] - self.f_star)
            shown["rel_gap"] = self.rel_gap
        for name, least in at_least.items():
            if name not in self.metrics:
                raise unknown_metric(name, self.metrics)
            there &= self.metrics[name] >= least
            shown[name] = self.metrics[name]
        hits = np.flatnonzero(there)
        if not len(hits):
            return None
        row = {name: float(getattr(self, name)[hits[0]]) for name in ("step", *COSTS)}
        return row | {name: float(series[hits[0]]) for name, series in shown.items()}

    def head(self, records: int) -> Trace:
        """The first records, without a state."""
        series = {name: getattr(self, name)[:records] for name in ("step", "value", *COSTS)}
        metrics = {name: each[:records] for name, each in self.metrics.items()}
        return dataclasses.replace(self, **series, metrics=metrics, state=None, x=None, best_x=None, spent=None)

    def params(self, x: np.ndarray | None = None) -> dict[str, Any]:
        """The parameters of a network as nested dictionaries of arrays, as flax has them; `problem.params` gives the
        tree of the model.

        Args:
            x: (d,) a model; None for the last one, `trace.best_x` for the best.

        Raises:
            InputError: there was no network, or no model is kept.

        Example:
            >>> module.apply({"params": fl.Trace.load("runs/a").params()}, images)
        """
        tree: dict[str, Any] = {}
        for name, leaf in self._leaves(self.x if x is None else x).items():
            *path, last = name.split("/")
            place = tree
            for step in path:
                place = place.setdefault(step, {})
            place[last] = leaf
        return tree

    def _leaves(self, x: np.ndarray | None) -> dict[str, np.ndarray]:
        """The parameters of the model x by name, in the dtype of the run."""
        shapes = self.config.get("parameters")
        if shapes is None:
            raise InputError(f"this run of {self.method} trained no network: its model is the vector trace.x")
        if x is None:
            raise InputError("this trace has no model: load it from the folder of its run (out=), or run it")
        dtype, start, leaves = self.config["problem"]["dtype"], 0, {}
        for name, shape in shapes.items():
            end = start + math.prod(shape)
            leaves[name] = np.asarray(x[start:end], dtype).reshape(shape)
            start = end
        return leaves

    def clients(self, cohort: bool = False) -> pd.DataFrame:
        """The metrics by client, of a run with measure="clients": one row for each record, client and kind of rows.

        Columns: step, client, rows (train or test: what it was measured on), n_rows, loss, accuracy (NaN where it is
        not measured, or the client has no such rows).

        Args:
            cohort: only the clients of the last round before each record.

        Raises:
            InputError: no metric by client was measured, or it is not known who took part.

        Example:
            >>> trace.clients().query("rows == 'test'").groupby("client")["accuracy"].max()
        """
        import pandas as pd

        counts = self.config.get("client_rows")
        if counts is None:
            raise InputError(f"this run of {self.method} measured nothing by client: run it with measure={CLIENTS!r}")
        if cohort and COHORT not in self.metrics:
            raise InputError(f"it is not known who took part: run a method with cohorts with measure={CLIENTS!r}")
        frames = []
        for rows, count in counts.items():
            shape = (len(self), len(count))
            step, client = np.broadcast_to(self.step[:, None], shape), np.broadcast_to(np.arange(len(count)), shape)
            columns = {
                "step": step,
                "client": client,
                "rows": np.full(shape, rows),
                "n_rows": np.broadcast_to(count, shape),
            }
            for name in ("loss", "accuracy"):
                columns[name] = self.metrics.get(f"client_{rows}_{name}", np.full(shape, np.nan))
            chosen = self.metrics[COHORT] > 0 if cohort else np.full(shape, True)
            frames.append(pd.DataFrame({name: column[chosen] for name, column in columns.items()}))
        return pd.concat(frames).sort_values(["step", "client"], kind="stable", ignore_index=True)

    def summary(self) -> dict[str, dict[str, float]]:
        """The last and the best value of F and of every metric that is one number, and the step of the best record.

        The best accuracy is the largest, the best of any other series the least. Costs have a last value only.

        Example:
            >>> trace.summary()["test_accuracy"]
            {'last': 0.93, 'best': 0.95, 'step': 80.0}
        """
        series = {name: getattr(self, name) for name in ("step", *COSTS, "value")}
        return summarised(series | self.metrics)

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

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a run needs to go on from here: a tree of arrays, and facts as plain values."""
        totals = [float(getattr(self, name)[-1]) if len(self) else 0.0 for name in COSTS]
        facts = {"records": len(self), "digest": self.digest(), "totals": totals, "initial": self.initial}
        facts |= {name: self.config.get(name) for name in ("identity", "key", "key_impl", "seconds")}
        best = {} if self.best_x is None else {"best": self.best_x}
        return {"state": self.state, "spent": self.spent, "x": self.x, **best}, facts

    def digest(self, records: int | None = None) -> str:
        """A hash of all bits of the first records (None: of all)."""
        state = hashlib.sha256()
        for name in ("step", *COSTS, "value", *sorted(self.metrics)):
            series = self.metrics[name] if name in self.metrics else getattr(self, name)
            state.update(name.encode() + np.ascontiguousarray(series[:records], np.float64).tobytes())
        return state.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write `trace.parquet`, `state.safetensors` (state and point, if they are known), `model.safetensors` (the
        point as a network's parameters by name, else x; `best.safetensors` that of the best record) and, last,
        `config.json` into `folder`, each under a temporary name that is then renamed.

        Raises:
            InputError: a file cannot be written; those that were there are kept.
        """
        folder = Path(folder)
        self.save_records(folder)
        if self.state is None:
            (folder / STATE).unlink(missing_ok=True)
        else:
            tensors.write(folder / STATE, *self.end())
        for name, x in ((MODEL, self.x), (BEST, self.best_x)):
            if x is None:
                (folder / name).unlink(missing_ok=True)
            else:
                leaves = self._leaves(x) if "parameters" in self.config else {"x": x}
                tensors.write_plain(folder / name, leaves, {"method": self.method, "written by": "fedjax_lc"})
        self.save_config(folder)
        self.folder = folder
        return folder

    def save_records(self, folder: Path) -> None:
        """Write `trace.parquet`, as `save` does."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"method": np.full(len(self), self.method, object), **self.columns()}
        types = {"method": pa.string()}
        # not by way of pandas, which would not keep the bits of NaN
        table = pa.table({name: pa.array(each, types.get(name, pa.float64())) for name, each in columns.items()})
        with replacing(folder / "trace.parquet") as path:
            pq.write_table(table, path)

    def save_config(self, folder: Path) -> None:
        """Write `config.json`, as `save` does."""
        facts = {"status": self.status, "f_star": self.f_star, "initial": self.initial, "notes": self.notes}
        facts |= {"summary": self.summary()}
        with replacing(folder / "config.json") as path:
            path.write_text(json.dumps(self.config | facts, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Trace:
        """Read the trace that `save` wrote, or the records so far of a run that writes to `folder`.

        Raises:
            InputError: the folder holds no trace, or a damaged one.
        """
        import pandas as pd

        folder = Path(folder)
        known = ("step", "value", *COSTS)
        try:
            config = read_json(folder / "config.json")
            if not (folder / "trace.parquet").is_file():
                raise FileNotFoundError
            frame = pd.read_parquet(folder / "trace.parquet")
            facts = {name: config.pop(name) for name in ("status", "f_star", "initial", "notes")}
            _check_facts(config["method"], **facts)
            config.pop("summary", None)
            series = {name: frame[name].to_numpy(np.float64) for name in frame.columns if name != "method"}
            metrics = _gathered({name: series[name] for name in series if name not in {*known, "gap", "rel_gap"}})
            costs = {name: series[name] for name in known}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{folder} holds no readable trace ({type(error).__name__}): expected config.json and "
                             "trace.parquet as Trace.save writes them") from None  # fmt: skip
        trace = cls(method=config["method"], config=config, metrics=metrics, folder=folder, **costs, **facts)
        trace._load_end(folder)
        return trace

    def _load_end(self, folder: Path) -> None:
        """Read state and point, of a run under way from its last checkpoint. Of a run that is done, one line says so if
        they are not this trace's."""
        done = self.status != "interrupted"
        path = folder / STATE if done else max(folder.glob("checkpoint-*.safetensors"), default=folder / STATE)
        if not path.exists():
            return
        try:
            stored = tensors.read(path)
            facts = stored.facts if done else stored.facts["facts"]
            if facts.get("digest") != self.digest():
                raise InputError("it is of other records")
        except (InputError, KeyError, AttributeError) as error:
            if done:
                say(f"note: {path} cannot be used, {error}: the trace is loaded without its state")
            return
        tree = stored.rebuilt()
        spread = not done and stored.facts.get("spread")  # a state that lies beside the checkpoint
        self.state, self.spent = (None if spread else tree.get(name) for name in ("state", "spent"))
        self.x, self.best_x = tree.get("x"), tree.get("best")


def _check_facts(method: Any, status: Any, f_star: Any, initial: Any, notes: Any) -> None:
    """Raise TypeError for facts of a file that are not what `Trace.save` writes."""
    plain = isinstance(method, str) and status in STATUSES and isinstance(f_star, float | int)
    start = isinstance(initial, dict) and isinstance(initial.get("value"), float | int)
    if not (plain and start and isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise TypeError


def _gathered(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Series by name; those called name[0], name[1], ... become one of shape (r, k)."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, series in columns.items():
        parts.setdefault(name.partition("[")[0], []).append(series)
    return {name: series[0] if name in columns else np.stack(series, axis=1) for name, series in parts.items()}
