"""Trackers: the numbers that each of them holds are those of the trace or table, also of what went on after a stop."""

from __future__ import annotations

import csv
import re
import struct
import sys

import numpy as np
import pandas as pd
import pytest
from tensorboardX.proto.event_pb2 import Event

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.running import loop
from tests.conftest import make_clients

STEPS = {"steps": 40, "every": 5, "progress": False}


@pytest.fixture(scope="module")
def problem():
    return fl.problems.logistic_regression(make_clients(), kappa=30)


def run(problem, out=None, **options):
    return fl.run("diana", problem, out=out, **(STEPS | {"measure": ["grad_norm"]} | options))


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def frame(path):
    """The rows as a frame, numbers with all their digits."""
    rows = read_csv(path)
    number = lambda text: float(text) if re.fullmatch(r"-?(\d.*|inf|nan)", text) else text
    return pd.DataFrame([{name: number(text) for name, text in row.items()} for row in rows])


def events(folder):
    """The records of a folder's event files, read as TensorFlow writes them: length, its check, bytes, their check."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return [event for event in found if event.HasField("summary")]


def scalars(folder):
    """Tag -> (steps, values), summaries apart."""
    series: dict[str, tuple[list, list]] = {}
    for event in events(folder):
        for value in event.summary.value:
            steps, values = series.setdefault(value.tag, ([], []))
            steps.append(event.step)
            values.append(value.simple_value)
    return series


def log_entries(data):
    """The entries of a log as LevelDB writes it, behind the seven bytes of W&B: blocks of 32 KB, with pieces of entries
    behind their check, length and kind (whole, first, middle or last)."""
    at, pieces = 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # too little room for a piece
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        pieces += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield pieces
            pieces = b""


def holds(trace, columns, dtype=np.float64):
    """Whether columns by name are those of the trace, bit for bit in this dtype."""
    for name, series in trace.columns().items():
        np.testing.assert_array_equal(np.array(columns[name], dtype), series.astype(dtype), err_msg=name)


def after(records):
    return lambda trace: len(trace) >= records


@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "stopped once"])
def test_csv_and_tensorboard_hold_the_numbers_of_the_trace(problem, tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(loop, "next_count", lambda *_: 3)
    seen = []
    options = {"track": ["csv", "tensorboard"], "checkpoint_every": "steps:10"}
    if stopped:
        there = lambda trace: seen.append(len(read_csv(tmp_path / "records.csv")) - len(trace))
        run(problem, tmp_path, on_chunk=there, **options)
        assert len(seen) > 3
        assert not any(seen)  # every record, while the run is under way
        (tmp_path / "config.json").unlink()
        for path in tmp_path.glob("*.safetensors"):
            path.unlink()
        (tmp_path / "trace.parquet").unlink()
        assert run(problem, tmp_path, on_chunk=after(4), **options).status == "interrupted"
    trace = run(problem, tmp_path, **options)
    rows = read_csv(tmp_path / "records.csv")
    assert [row["method"] for row in rows] == ["diana"] * len(trace)
    holds(trace, {name: [float(row[name]) for row in rows] for name in rows[0] if name != "method"})
    series = scalars(tmp_path / "tensorboard")
    steps = trace.step.tolist()
    assert all(each[0] == steps for name, each in series.items() if "/" not in name)
    holds(trace, {"step": steps} | {name: values for name, (_, values) in series.items()}, np.float32)
    summary = trace.summary()
    assert series["best/value"][1] == [np.float32(summary["value"]["best"])]
    assert series["last/bits_up"][1] == [summary["bits_up"]["last"]]


def test_weights_and_biases_offline_holds_the_numbers_of_the_trace(problem, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    from wandb.proto.wandb_internal_pb2 import Record

    trace = run(problem, tmp_path, track="wandb:things")
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(data) for data in log_entries(path.read_bytes())]
    names = lambda item: item.key or "/".join(item.nested_key)
    history = [{names(item): item.value_json for item in r.history.item} for r in records if r.HasField("history")]
    holds(trace, {name: [float(row[name]) for row in history] for name in trace.columns()})
    (begun,) = (record.run for record in records if record.HasField("run"))
    assert (begun.project, begun.display_name) == ("things", "diana")
    summary = {names(item): item.value_json for r in records if r.HasField("summary") for item in r.summary.update}
    assert float(summary["best/value"]) == trace.summary()["value"]["best"]
    assert summary["status"] == '"finished"'


def test_a_run_that_is_done_is_tracked_from_its_records(problem, tmp_path):
    trace = run(problem, tmp_path)
    run(problem, tmp_path, track="csv")
    holds(trace, frame(tmp_path / "records.csv"))


@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "stopped once"])
def test_lanes_of_a_sweep_are_tracked_as_they_go(problem, tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(loop, "next_count", lambda *_: 2)
    hp = fl.algorithms.get("diana").theory(problem)
    grid = fl.grid(hp, gamma=fl.times([1.0, 1e6, 0.5]))  # the second diverges

    def swept(track):
        options = {"seeds": 2, "block_size": 2, "out": tmp_path, "checkpoint_every": 0}
        return fl.sweep("diana", problem, grid, track=track, measure=["grad_norm"], **STEPS, **options)

    class Stops:
        """A tracker that presses Ctrl-C."""

        most, left = 100, 2

        def start(self, about):
            return self

        def add(self, columns):
            self.left -= 1
            if not self.left:
                import signal

                signal.raise_signal(signal.SIGINT)

        def end(self, status, summary):
            pass

    if stopped:
        assert (swept(["csv", Stops()]).lanes["status"] == "interrupted").any()
        assert 0 < len(read_csv(tmp_path / "records.csv")) < 32
    table = swept(["csv", "tensorboard"])
    assert len(table.diverged()) == 2
    rows = frame(tmp_path / "records.csv").sort_values(["lane", "step"])
    whole = table.to_pandas()
    for name in ("config", "seed", "gamma/theory", "step", "bits_up", "value", "gap", "rel_gap", "grad_norm"):
        np.testing.assert_array_equal(rows[name].to_numpy(), whole[name].to_numpy(), err_msg=name)
    series = scalars(tmp_path / "tensorboard" / "diana-4")
    np.testing.assert_array_equal(np.float32(series["value"][1]), np.float32(table.trace(4).value))
    assert series["best/value"][1] == [np.float32(table.trace(4).summary()["value"]["best"])]


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(problem, tmp_path, capsys):
    class Broken:
        most = 1

        def start(self, about):
            self.about = about
            return self

        def add(self, columns):
            raise RuntimeError("the network\nis down")

    class Unready:
        def start(self, about):
            raise RuntimeError("log in")

    with pytest.raises(InputError, match="track: Unready cannot begin: log in"):
        run(problem, track=[Unready()])
    broken = Broken()
    trace = run(problem, tmp_path, track=[broken, "csv"])
    assert trace.status == "finished"
    assert capsys.readouterr().err == "note: Broken is left out from here on: the network\\nis down\n"
    assert len(read_csv(tmp_path / "records.csv")) == len(trace)
    assert (broken.about.name, broken.about.folder, broken.about.config["every"]) == ("diana", tmp_path, 5)


def test_what_cannot_be_tracked_is_one_line_before_any_work(problem, tmp_path, monkeypatch):
    def says(words, track, **options):
        with pytest.raises(InputError) as caught:
            run(problem, track=track, **options)
        assert words in str(caught.value)

    says("track csv: there is no folder for its files: give out, or a path, as in csv:records.csv", "csv")
    says("track tensorboard: there is no folder", "tensorboard")
    says("unknown tracker 'tensorbord': did you mean 'tensorboard'?", "tensorbord")
    says("trackers with a method start(about), got int", [3])
    says(f"track csv: {tmp_path} is a folder: give a file", f"csv:{tmp_path}")
    says("is no folder: give one", f"tensorboard:{__file__}")
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, package, None)
        says(f"the package {package} is not installed: pip install 'fedjax_lc[{name}]'", name, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_lanes_than_a_tracker_takes(problem):
    class Few:
        most = 3

        def start(self, about):
            raise AssertionError

    with pytest.raises(InputError, match="Few logs every lane as a run, 3 at most, and this sweep has 4 lanes"):
        fl.sweep("diana", problem, seeds=4, track=[Few()], **STEPS)


def test_mlflow_is_given_the_numbers_of_the_trace(problem, monkeypatch):
    """By a client of its form: batches of few numbers, and one run for each identity."""
    from types import SimpleNamespace as Thing

    from fedjax_lc.tracking import to_mlflow

    class Client:
        def __init__(self):
            self.numbers, self.params, self.ended, self.deleted = [], {}, [], []

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return "1"

        def search_runs(self, experiments, words):
            return [Thing(info=Thing(run_id="old"))]

        def delete_run(self, run):
            self.deleted.append(run)

        def create_run(self, experiment, run_name, tags):
            return Thing(info=Thing(run_id="new"))

        def log_param(self, run, name, value):
            self.params[name] = value

        def log_batch(self, run, metrics):
            assert 0 < len(metrics) <= 7
            self.numbers += metrics

        def set_terminated(self, run, status):
            self.ended.append((run, status))

    client = Client()
    metric = lambda name, value, now, step: (name, value, step)
    mlflow = Thing(
        MlflowClient=lambda: client, entities=Thing(Metric=metric), exceptions=Thing(MlflowException=KeyError)
    )
    monkeypatch.setattr(to_mlflow, "BATCH", 7)
    trace = run(problem, track=[to_mlflow.Mlflow("things", mlflow)])
    of = lambda name: [value for named, value, _ in client.numbers if named == name]
    holds(trace, {name: of(name) for name in trace.columns()})
    assert (client.deleted, client.ended) == (["old"], [("new", "FINISHED")])
    assert client.params["every"] == "5"
    assert of("best/value") == [trace.summary()["value"]["best"]]


def test_the_command_line_tracks_keeps_the_best_and_starts_there(tmp_path, capsys, refused):
    from fedjax_lc.cli import main

    words = ["gd", "--data", "iris", "--labels", "setosa", "--clients", "2", "--steps", "20", "--quiet"]
    words += ["--keep-best", "value"]
    assert main(["run", *words, "--track", "csv", "--out", str(tmp_path / "run")]) == 0
    trace = fl.Trace.load(tmp_path / "run")
    holds(trace, frame(tmp_path / "run" / "records.csv"))
    np.testing.assert_array_equal(trace.best_x, trace.x)
    there, begun = str(tmp_path / "again"), str(tmp_path / "run" / "best.safetensors")
    assert main(["run", *words, "--start", begun, "--out", there]) == 0
    assert fl.Trace.load(there).initial["value"] == trace.value[-1]
    assert main(["extend", there, "--steps", "20", "--quiet", "--track", "csv"]) == 0
    assert len(read_csv(tmp_path / "again" / "records.csv")) == 4
    capsys.readouterr()
    assert refused("sweep", "gd", "diana", "--track", "csv:x").startswith("--track csv:FILE is for one method")
    assert refused("run", *words, "--start", "nosuch.npz").startswith("start: nosuch.npz is not there")
