"""Runs that stop anywhere go on with the same bits; torn, edited or foreign files are recognised by their contents."""

from __future__ import annotations

import collections
import errno
import itertools
import json
import os
import pickle
import random
import re
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import fedjax_lc as fl
from fedjax_lc.core import tensors
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.lock import locked
from fedjax_lc.running import checkpoints, loop
from fedjax_lc.running import folder as folders
from fedjax_lc.running.checkpoints import Schedule
from fedjax_lc.running.run import Run

State = collections.namedtuple("State", "x keys flag small row nothing inner empty")
METHOD = "locodl"
QUICK = {"steps": 120, "every": 5, "progress": False}


@pytest.fixture
def state():
    return State(
        x=jnp.arange(6.0).reshape(2, 3) / 7,
        keys=jax.random.split(jax.random.key(3), 4),
        flag=jnp.array(True),
        small=jnp.full((3, 2), 1.1, jnp.bfloat16),
        row=np.float32([np.nan, -0.0, np.inf]),
        nothing=None,
        inner={"counts": [np.int8(-3), jnp.uint32(2**32 - 1)], "step": 2**40},
        empty=jnp.zeros((0, 2)),
    )


def bits(tree):
    leaves, structure = jax.tree.flatten(tree)
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key) else x
    return [(str(x.dtype), x.shape, np.asarray(plain(x)).tobytes()) for x in map(as_array, leaves)], structure


def as_array(x):
    return x if hasattr(x, "dtype") else np.asarray(x)


# --- the file ---


def test_all_dtypes_and_keys_round_trip(state, tmp_path):
    checkpoints.save(tmp_path, state, {"total": 1 / 3, "nan": float("nan")}, step=7, identity="a run")
    saved = checkpoints.latest(tmp_path, state, "a run")
    assert bits(saved.tree) == bits(state)
    assert (saved.step, saved.facts["total"]) == (7, 1 / 3)
    assert np.isnan(saved.facts["nan"])
    np.testing.assert_array_equal(jax.random.bits(saved.tree.keys[1]), jax.random.bits(state.keys[1]))


def test_a_tree_is_rebuilt_without_its_classes(state, tmp_path):
    tensors.write(tmp_path / "file", state, {})
    rebuilt = tensors.read(tmp_path / "file").rebuilt()
    assert type(rebuilt) is not State
    assert rebuilt._fields == State._fields
    assert bits(rebuilt.inner["counts"]) == bits(state.inner["counts"])
    assert bits(jax.tree.leaves(rebuilt)) == bits(jax.tree.leaves(state))


def test_it_is_a_safetensors_file_that_others_may_read(state, tmp_path):
    tensors.write(tmp_path / "file", state, {})
    arrays = safetensors.numpy.load_file(tmp_path / "file")
    np.testing.assert_array_equal(arrays[".x"], state.x)
    assert (arrays[".flag"].dtype, arrays[".flag"].shape) == (bool, ())
    assert arrays[".inner['counts'][1]"] == 2**32 - 1
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_last_two_are_kept_and_those_beyond_are_not(tmp_path):
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, {"x": np.zeros(2)}, {}, step=step, identity=0)
        checkpoints.save(tmp_path, {"x": np.ones(2)}, {}, step=step, identity=0, prefix="lanes-0003")
    names = lambda: sorted(path.name for path in tmp_path.iterdir())
    assert names() == [f"{kind}-{step:012d}.safetensors" for kind in ("checkpoint", "lanes-0003") for step in (20, 30)]
    checkpoints.save(tmp_path, {"x": np.zeros(2)}, {}, step=25, identity=0)  # as one does whose last file was torn
    assert names()[:2] == ["checkpoint-000000000020.safetensors", "checkpoint-000000000025.safetensors"]
    checkpoints.remove(tmp_path)
    assert [name[:5] for name in names()] == ["lanes", "lanes"]


class Trap:
    def __reduce__(self):
        return os._exit, (3,)


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "a number edited": lambda data: flip(data, len(data) - 3),
    "a fact edited": lambda data: data.replace(b"step", b"stap", 1),
    "its digest edited": lambda data: flip(data, data.index(b'"digest": "') + 12),
    "a header of 2^60 bytes": lambda data: (2**60).to_bytes(8, "little") + data[8:],
    "another safetensors file": lambda data: safetensors.numpy.save({"x": np.zeros(3)}),
    "a pickle": lambda data: pickle.dumps(Trap()),
    "no JSON": lambda data: resaved(data, about="[" * 100_000),
    "no leaves": lambda data: resaved(data, about="{}"),
    "other kinds": lambda data: resaved(data, about='{"leaves": [{"name": []}], "facts": 3}'),
}


def resaved(data, about):
    """With other facts, and the digest that they have."""
    arrays = safetensors.numpy.load(data)
    metadata = {"form": tensors.FORM, "about": about, "digest": tensors._digest(about, arrays)}
    return safetensors.numpy.save(arrays, metadata)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_of_a_damaged_file_one_line_is_said_and_the_one_before_is_used(tmp_path, damage, capsys):
    like = {"x": np.arange(3.0), "y": np.float32(2)}
    checkpoints.save(tmp_path, like, {}, step=1, identity="a")
    last = checkpoints.save(tmp_path, {"x": np.arange(3.0), "y": np.float32(3)}, {}, step=2, identity="a")
    last.write_bytes(damage(last.read_bytes()))
    saved = checkpoints.latest(tmp_path, like, "a")
    assert (saved.step, saved.tree["y"]) == (1, 2)
    line = capsys.readouterr().err
    assert line.startswith(f"note: {last} cannot be used, it ")
    assert line.endswith(": going on from checkpoint-000000000001.safetensors\n")
    assert line.count("\n") == 1


def test_every_flipped_byte_and_every_end_too_early_is_seen(tmp_path):
    path = tmp_path / "file"
    tensors.write(path, {"x": np.arange(3.0)}, {"a": 1})
    data = path.read_bytes()
    for place in range(len(data)):
        for damaged in (flip(data, place), data[:place]):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"^it "):
                tensors.read(path)


def test_what_is_no_file_is_not_waited_for(problem, tmp_path, capsys):
    """A pipe has no end until somebody writes into it."""
    last = checkpoints.save(tmp_path, {"x": np.zeros(3)}, {}, step=1, identity="a")
    last.unlink()
    os.mkfifo(last)
    assert checkpoints.latest(tmp_path, {"x": np.zeros(3)}, "a") is None
    assert "it is no file" in capsys.readouterr().err
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match="holds something else than a run"):
        run(problem, tmp_path)
    with pytest.raises(InputError, match="holds no readable trace"):
        fl.Trace.load(tmp_path)


@pytest.mark.parametrize(
    ("tree", "identity", "why"),
    [
        ({"x": np.zeros(3)}, "b", "it is of something else"),
        ({"y": np.zeros(3)}, "a", r"it holds another tree: expected \['y'\], got \['x'\]"),
        ({"x": np.zeros(4)}, "a", r"it holds another tree: \['x'\] must be float64 \(4,\), got float64 \(3,\)"),
        ({"x": np.zeros(3, np.float32)}, "a", r"it holds another tree: \['x'\] must be float32 \(3,\)"),
        ({"x": jax.random.split(jax.random.key(0), 3)}, "a", "it holds another tree"),
    ],
    ids=["identity", "names", "shape", "dtype", "key"],
)
def test_another_tree_is_not_taken(tmp_path, tree, identity, why, capsys):
    path = checkpoints.save(tmp_path, {"x": np.zeros(3)}, {}, step=1, identity="a")
    assert checkpoints.latest(tmp_path, tree, identity) is None
    assert re.match(f"note: {path} cannot be used, {why}.*: going on from the start\n$", capsys.readouterr().err)


# --- the schedule ---


@pytest.mark.parametrize(
    ("every", "seconds", "steps"), [(5, 300, None), ("0.5", 30, None), ("minutes:2", 120, None), (0, 0, None)]
)
def test_a_schedule_in_minutes(every, seconds, steps, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    schedule = Schedule(every)
    assert schedule.due(5) == (seconds == 0)
    now[0] += seconds
    assert schedule.due(5)
    schedule.written(5, 1e6)
    assert schedule.due(6) == (seconds == 0)


def test_a_schedule_in_steps():
    schedule = Schedule("steps:100")
    schedule.begin(20)
    assert [schedule.due(step) for step in (20, 119, 120, 130)] == [False, False, True, True]
    assert [schedule.records(step, 30) for step in (20, 60, 119, 130)] == [4, 2, 1, 1]


def test_by_default_writing_takes_a_hundredth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    schedule, written, step = Schedule(None), [], 0
    while now[0] < 10_000:
        now[0], step = now[0] + 1, step + 1
        if schedule.due(step):
            now[0] += 3  # to write it
            schedule.written(step, 3)
            written.append(now[0])
    assert written[0] == 63
    assert min(np.diff(written)) >= 300


@pytest.mark.parametrize(
    "every", ["x", "steps:0", "steps:1.5", "nan", -1, "steps:(", "1,2", "inf", "days:1", "steps:1,2"]
)
def test_no_schedule(problem, every, tmp_path):
    with pytest.raises(InputError, match=r"^checkpoint_every"):
        fl.run("gd", problem, out=tmp_path / "out", checkpoint_every=every)
    assert not (tmp_path / "out").exists()


# --- runs ---


def run(problem, out=None, **options):
    method, hp, key = (options.pop(name, usual) for name, usual in (("method", METHOD), ("hp", None), ("key", 0)))
    return fl.run(method, problem, hp, key, out=out, **(QUICK | options))


def same(ours, theirs):
    """Bit for bit: records, state, point, and what budgets are compared with."""
    assert ours.status == theirs.status
    assert ours.initial == theirs.initial
    assert ours.digest() == theirs.digest()
    assert ours.columns().keys() == theirs.columns().keys()
    assert bits(jax.tree.leaves(ours.state)) == bits(jax.tree.leaves(theirs.state))
    assert bits([ours.x, ours.spent]) == bits([theirs.x, theirs.spent])


def after(*chunks):
    """As `on_chunk`: stops at the end of these chunks, counted over all calls."""
    count = itertools.count(1)
    return lambda trace: next(count) in chunks


@pytest.fixture(scope="module")
def whole(problem):
    return run(problem)


def visible(out):
    return sorted(path.name for path in out.iterdir())


DONE = ["config.json", "model.safetensors", "state.safetensors", "trace.parquet"]


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 2), (7,)], ids=str)
@pytest.mark.parametrize("every", [0, "steps:35", None], ids=str)
def test_continued_equals_uninterrupted(problem, whole, tmp_path, monkeypatch, sizes, every):
    """However it is cut into chunks, and wherever it stops."""
    lengths, out, stop = itertools.cycle(sizes), tmp_path / "out", after(2, 3, 5)
    monkeypatch.setattr(loop, "next_count", lambda count, capacity, seconds: next(lengths))
    trace, calls = run(problem, out, on_chunk=stop, checkpoint_every=every), 1
    while trace.status == "interrupted":
        assert visible(out)[0].startswith("checkpoint-")
        trace, calls = run(problem, out, on_chunk=stop, checkpoint_every=every), calls + 1
    assert calls == 4
    same(trace, whole)
    assert visible(out) == DONE
    same(fl.Trace.load(out), whole)


LIMITS = {
    "a target": {"rel_gap": 1e-3},
    "a budget": {"budget": {"bits_up": 3000.5, "rounds": 1e9}},
    "metrics": {"measure": {"lyapunov": lambda problem, hp, state: state.x[0, 0], "two": lambda p, hp, s: s.y[:2]}},
}


@pytest.mark.parametrize("options", LIMITS.values(), ids=LIMITS)
def test_a_continued_run_ends_where_the_uninterrupted_does(problem, tmp_path, monkeypatch, options):
    monkeypatch.setattr(loop, "next_count", lambda count, capacity, seconds: 1)
    once = run(problem, **options)
    assert run(problem, tmp_path, on_chunk=after(2), **options).status == "interrupted"
    same(run(problem, tmp_path, **options), once)
    same(run(problem, tmp_path, **options), once)  # read


def test_a_continued_run_diverges_where_the_uninterrupted_does(clients, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "next_count", lambda count, capacity, seconds: 1)
    squares = fl.problems.least_squares(clients, l2=0.1)
    options = {"method": "gd", "hp": fl.algorithms.get("gd").Hparams(gamma=1.0)}
    once = run(squares, **options)
    assert once.status == "diverged"
    assert run(squares, tmp_path, on_chunk=after(2), **options).status == "interrupted"
    same(run(squares, tmp_path, **options), once)
    same(run(squares, tmp_path, **options), once)


class Died(BaseException):
    pass


def test_it_may_die_before_any_rename(problem, whole, tmp_path, monkeypatch):
    replace = os.replace
    for moment in itertools.count(1):
        out, count = tmp_path / str(moment), itertools.count(1)

        def dying(old, new, moment=moment, count=count):
            if next(count) == moment:
                raise Died
            replace(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            patch.setattr(loop, "next_count", lambda *_: 16)
            try:
                run(problem, out, checkpoint_every=0)
                break
            except Died:
                pass
        same(run(problem, out), whole)
        assert visible(out) == DONE
    assert moment == 13


def test_the_one_before_is_used_or_the_start(problem, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "next_count", lambda *_: 4)
    for spoiled in (1, 2):
        out = tmp_path / str(spoiled)
        run(problem, out, checkpoint_every=0, on_chunk=after(4))
        for path in sorted(out.glob("checkpoint-*"))[-spoiled:]:
            path.write_bytes(path.read_bytes()[:-1])
        capsys.readouterr()
        same(run(problem, out, checkpoint_every=0), whole)
        lines = capsys.readouterr().err.splitlines()
        ends = ["checkpoint-000000000045.safetensors", "the start"]
        assert [line.rpartition("going on from ")[2] for line in lines] == ends[:spoiled]
        assert visible(out) == DONE


def test_a_run_under_way_has_the_point_and_state_of_its_last_checkpoint(problem, tmp_path):
    """And the best model so far, with which it goes on as if it had never stopped."""
    options = {"measure": {"m": lambda problem, hp, state: jnp.sin(40 * state.y[0])}, "keep_best": "m"}
    whole = run(problem, **options)
    best = int(np.argmin(whole.metrics["m"]))
    at_best = run(problem, steps=int(whole.step[best]))
    np.testing.assert_array_equal(whole.best_x, at_best.x)
    assert len(whole) - 1 > best > 0  # neither the first nor the last
    stopped = run(problem, tmp_path, on_chunk=after(best + 2), **options)
    loaded = fl.Trace.load(tmp_path)
    assert (loaded.status, len(loaded)) == ("interrupted", len(stopped))
    for name in ("x", "best_x"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(stopped, name))
    assert bits(jax.tree.leaves(loaded.state)) == bits(jax.tree.leaves(stopped.state))
    done = run(problem, tmp_path, **options)
    same(done, whole)
    np.testing.assert_array_equal(fl.Trace.load(tmp_path).best_x, whole.best_x)
    with pytest.raises(InputError, match="other keep_best"):
        run(problem, tmp_path, **(options | {"keep_best": "value"}))
    with pytest.raises(InputError, match="unknown metric 'speed'"):
        run(problem, keep_best="speed")


def test_records_are_read_and_drawn_while_it_runs(problem, whole, tmp_path, monkeypatch, capsys):
    from fedjax_lc.cli import main

    out, lengths = tmp_path / "out", []
    monkeypatch.setattr(loop, "next_count", lambda *_: 8)

    def look(trace):
        so_far = fl.Trace.load(out)
        lengths.append(len(so_far))
        assert so_far.status == "interrupted"
        assert so_far.value.tobytes() == whole.value[: len(so_far)].tobytes()
        assert main(["plot", str(out)]) == 0

    run(problem, out, on_chunk=look, checkpoint_every=0)
    assert lengths == [0, 1, 9, 17]
    assert (out / "plot.png").exists()


def test_a_finished_run_is_read(problem, whole, tmp_path, monkeypatch, capsys):
    same(run(problem, tmp_path), whole)
    monkeypatch.setattr(Run, "_go", None)
    again = run(problem, tmp_path, progress=True)
    same(again, whole)
    assert again.state._fields == whole.state._fields
    assert again.folder == tmp_path
    assert capsys.readouterr().err == f"{tmp_path} holds this run, finished after 120 steps\n"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


OTHERS = {
    "steps": ({"steps": 125}, "other steps"),
    "every": ({"every": 10}, "other every"),
    "key": ({"key": 1}, "other key"),
    "hyperparameters": ({"method": "gd"}, "other hyperparameters, method"),
    "start": ({"x0": np.ones(5)}, "other problem"),
    "target": ({"rel_gap": 1e-3, "budget": {"rounds": 5}}, "other budget, rel_gap"),
    "metrics": ({"measure": ["grad_norm"]}, "other metrics"),
    "function": ({"measure": {"m": lambda problem, hp, state: state.x[0, 1]}}, "another function m"),
}


@pytest.mark.parametrize("done", [True, False], ids=["done", "under way"])
def test_another_run_is_refused_and_nothing_touched(problem, tmp_path, done):
    options = {"measure": {"m": lambda problem, hp, state: state.x[0, 0]}}
    run(problem, tmp_path, on_chunk=None if done else after(2), **options)
    before = contents(tmp_path)
    for other, words in OTHERS.values() if done else [OTHERS["steps"]]:
        with pytest.raises(InputError) as caught:
            run(problem, tmp_path, **(options | other))
        line = str(caught.value)
        assert line.startswith(f"{tmp_path} already holds ")
        assert words in line
        assert "\n" not in line
        assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", "{", "", '{"identity": 5}', "[" * 100_000])
def test_a_foreign_config_is_left_alone(problem, tmp_path, text, refused):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        run(problem, tmp_path)
    assert str(caught.value) == f"{tmp_path} holds something else than a run: choose another folder"
    assert refused("run", "gd", "--out", tmp_path) == str(caught.value)
    assert contents(tmp_path) == {"config.json": text.encode()}


def test_records_without_their_config_are_left_alone(problem, tmp_path):
    run(problem, tmp_path, on_chunk=after(2))
    (tmp_path / "config.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds a run without its config.json"):
        run(problem, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", ["edited", "shorter", "torn", "missing"])
def test_records_that_are_not_the_checkpoints(problem, tmp_path, change, monkeypatch):
    import pandas as pd

    run(problem, tmp_path, on_chunk=after(3))
    path = tmp_path / "trace.parquet"
    frame = pd.read_parquet(path)
    if change == "edited":
        frame.loc[0, "bits_up"] += 1
        frame.to_parquet(path)
    elif change == "shorter":
        frame[:-1].to_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[:-100]) if change == "torn" else path.unlink()
    before = contents(tmp_path)
    with pytest.raises(
        InputError, match=r"holds no readable trace|trace.parquet does not hold the records of the check"
    ):
        run(problem, tmp_path)
    assert contents(tmp_path) == before


def test_a_state_of_other_records_is_not_loaded(problem, whole, tmp_path, capsys):
    whole.save(tmp_path / "a")
    run(problem, steps=60).save(tmp_path / "b")
    os.replace(tmp_path / "b" / "state.safetensors", tmp_path / "a" / "state.safetensors")
    loaded = fl.Trace.load(tmp_path / "a")
    assert loaded.digest() == whole.digest()
    assert (loaded.state, loaded.x) == (None, None)
    assert "cannot be used, it is of other records: the trace is loaded without its state" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", 3),
        ("status", "done"),
        ("f_star", "0"),
        ("initial", [1]),
        ("initial", {}),
        ("notes", "no"),
        ("method", 1),
    ],
)
def test_an_edited_trace_is_one_line(whole, tmp_path, name, value):
    whole.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(InputError, match=r"holds no readable trace \(TypeError\)"):
        fl.Trace.load(tmp_path)


# --- what may go wrong ---


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_the_run_goes_on(problem, whole, tmp_path, monkeypatch, capsys):
    """The results are in memory, and what was on disk stays; with room again, it goes on from there."""
    monkeypatch.setattr(loop, "next_count", lambda *_: 4)
    run(problem, tmp_path, on_chunk=after(3))
    before = contents(tmp_path)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        trace = run(problem, tmp_path, checkpoint_every=0)
    same(trace, whole)
    assert trace.folder is None
    line = f"note: cannot write {tmp_path}/trace.parquet: No space left on device; make room, and repeat the command\n"
    assert capsys.readouterr().err == 2 * line  # of the first checkpoint, and of the end
    assert contents(tmp_path) == before
    same(run(problem, tmp_path), whole)


@pytest.mark.parametrize("limit", [100, 2500])
def test_a_file_that_cannot_grow(problem, whole, tmp_path, limit, capsys):
    run(problem, tmp_path / "out", on_chunk=after(3))
    before = contents(tmp_path / "out")
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        trace = run(problem, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    same(trace, whole)
    assert "File too large; make room, and repeat the command" in capsys.readouterr().err
    left = contents(tmp_path / "out")
    assert {name: left[name] for name in before if name.startswith("checkpoint")}.items() <= before.items()
    same(run(problem, tmp_path / "out"), whole)


def test_a_folder_that_cannot_be_written_is_one_line(problem, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out", ""):
        with pytest.raises(InputError, match=r"^(out must be a folder|cannot write)") as caught:
            run(problem, out)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
        run(problem, tmp_path / "new")


def test_a_folder_in_use_is_refused(problem, whole, tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="is in use by process"):
        run(problem, tmp_path)
    assert not contents(tmp_path)
    run(problem, tmp_path)
    with locked(tmp_path):
        same(run(problem, tmp_path), whole)  # it is only read
        with pytest.raises(InputError, match="is in use by process"):
            fl.extend(tmp_path, 60, problem=problem)


def test_leftovers_of_killed_processes_are_removed(problem, tmp_path):
    dead = 2**22 + 1  # no process has such a number
    (tmp_path / f".plot.{dead}.png").touch()
    (tmp_path / f".trace.{os.getppid()}.parquet").touch()
    (tmp_path / ".notes.txt").touch()
    run(problem, tmp_path)
    assert visible(tmp_path) == sorted([f".trace.{os.getppid()}.parquet", ".notes.txt", *DONE])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_for_the_checkpoint(problem, whole, tmp_path, monkeypatch, number, capsys):
    monkeypatch.setattr(loop, "next_count", lambda *_: 3)
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(visible(tmp_path)))
    try:
        trace = run(problem, tmp_path, on_chunk=lambda trace: len(trace) == 4 and signal.raise_signal(number))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (trace.status, len(trace)) == ("interrupted", 4)
    saved = ["checkpoint-000000000020.safetensors", "config.json", "trace.parquet"]
    assert came == ([[".lock", *saved]] if number == signal.SIGTERM else [])
    assert capsys.readouterr().err == f"interrupted at step 20 of 120: {tmp_path} keeps it, and the same call goes on\n"
    same(run(problem, tmp_path), whole)


def test_a_second_ctrl_c_acts_at_once(problem, whole, tmp_path):
    def press_twice(trace):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(problem, tmp_path, on_chunk=press_twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    same(run(problem, tmp_path), whole)


# --- extend ---


def test_extended_equals_the_longer_run(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "next_count", lambda *_: 4)
    longer = run(problem, steps=300)
    run(problem, tmp_path)
    halfway = fl.extend(tmp_path, 180, problem=problem, progress=False, on_chunk=after(2))
    assert halfway.status == "interrupted"
    with pytest.raises(InputError, match=r"holds a run that is not done: let it go on to step 300"):
        fl.extend(tmp_path, 100, problem=problem, progress=False)
    same(fl.extend(tmp_path, 180, problem=problem, progress=False), longer)
    same(run(problem, tmp_path, steps=300), longer)  # the folder is the longer run's
    with pytest.raises(InputError, match="other steps"):
        run(problem, tmp_path)
    assert len(fl.extend(tmp_path, 13, problem=problem, progress=False)) == 62


def test_an_extension_may_die_at_any_rename(problem, tmp_path, monkeypatch):
    replace, longer = os.replace, run(problem, steps=240)
    for moment in itertools.count(1):
        out, count = tmp_path / str(moment), itertools.count(1)
        run(problem, out)

        def dying(old, new, moment=moment, count=count):
            replace(old, new)
            if next(count) == moment:
                raise Died

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            try:
                fl.extend(out, 120, problem=problem, progress=False)
                break
            except Died:
                pass
        status = json.loads((out / "config.json").read_text())["identity"]["steps"], fl.Trace.load(out).status
        if status != (240, "finished"):
            same(fl.extend(out, 120, problem=problem, progress=False), longer)
        same(run(problem, out, steps=240), longer)
    assert moment == 7


def test_a_network_goes_on_and_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "next_count", lambda *_: 1)
    made = fl.problem("iris", clients=3, partition="dirichlet:1", model="mlp:hidden=4", test_share=0.3, split_seed=1)
    options = {"method": "gd", "hp": fl.algorithms.get("gd").Hparams(gamma=0.03), "key": 3, "every": 1}
    once = run(made, steps=6, **options)
    assert run(made, tmp_path, steps=4, on_chunk=after(3), **options).status == "interrupted"
    assert len(run(made, tmp_path, steps=4, **options)) == 4
    same(fl.extend(tmp_path, 2, progress=False), once)


def test_what_cannot_be_extended(problem, tmp_path):
    extend = lambda **options: fl.extend(tmp_path, 60, progress=False, **options)
    with pytest.raises(InputError, match="holds no run"):
        extend()
    run(problem, tmp_path, measure={"m": lambda problem, hp, state: state.x[0, 0]})
    before = contents(tmp_path)
    with pytest.raises(InputError, match="does not say how its problem was made: give problem="):
        extend()
    with pytest.raises(InputError, match=r"has metrics that are functions \(value, m\): give measure="):
        extend(problem=problem)
    with pytest.raises(InputError, match=r"already holds .* another function m"):
        extend(problem=problem, measure={"m": lambda problem, hp, state: state.x[0, 1]})
    with pytest.raises(InputError, match="other problem"):
        extend(problem=problem.replace(x0=jnp.ones(5)), measure={"m": lambda problem, hp, state: state.x[0, 0]})
    with pytest.raises(InputError, match="steps must be a whole number >= every = 5"):
        fl.extend(tmp_path, 2, problem=problem)
    assert contents(tmp_path) == before


KINDS = [None, -1, 2**70, 1.5, float("nan"), "x", "", [], [[1]], {}, {"x": 1}, True]


@pytest.mark.parametrize("values", [1, pytest.param(len(KINDS), marks=pytest.mark.slow)])
def test_an_edited_config_is_one_line_or_no_matter(problem, tmp_path, values, capsys):
    """Wherever it is edited, and whatever stands there: the results are those of the run, or none."""
    longer = run(problem, steps=180)
    run(problem, tmp_path / "done")
    run(problem, tmp_path / "under way", on_chunk=after(3))
    goes_on = {
        "done": lambda: fl.extend(tmp_path / "done", 60, problem=problem, progress=False),
        "under way": lambda: run(problem, tmp_path / "under way"),
    }
    choose, refusals = random.Random(0), []
    for name, call in goes_on.items():
        kept = contents(tmp_path / name)
        config = json.loads(kept["config.json"])
        for entry in [*config, *(f"identity.{inner}" for inner in config["identity"])]:
            for value in choose.sample(KINDS, values):
                edited = json.loads(kept["config.json"])
                where = edited["identity"] if "." in entry else edited
                where[entry.rpartition(".")[2]] = value
                (tmp_path / name / "config.json").write_text(json.dumps(edited))
                try:
                    trace = call()
                except InputError as error:
                    refusals.append(str(error))
                else:
                    expected = longer.head(24) if len(trace) == 24 else longer
                    assert trace.digest() == expected.digest(), (entry, value)
                for path in (tmp_path / name).iterdir():
                    path.unlink()
                for file, data in kept.items():
                    (tmp_path / name / file).write_bytes(data)
    assert len(refusals) > 20
    assert not any("\n" in line for line in refusals)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"rel_gap": 0.1}, "reached its target"), ({"budget": {"rounds": 3}}, "spent its budget")],
    ids=["target", "budget"],
)
def test_a_run_that_ended_early_stays_as_it_is(problem, tmp_path, options, why):
    run(problem, tmp_path, **options)
    with pytest.raises(InputError, match=f"holds a run that {why} at step"):
        fl.extend(tmp_path, 60, problem=problem)


def test_extend_needs_the_last_state(problem, tmp_path):
    run(problem, tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"state.safetensors cannot be used, it is damaged .*: run it anew"):
        fl.extend(tmp_path, 60, problem=problem, progress=False)
    assert contents(tmp_path) == before
    assert folders.read(tmp_path)["status"] == "finished"
