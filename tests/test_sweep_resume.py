"""A sweep's folder: killed at any moment and started again, it ends with the same table; other sweeps are refused."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError

ROOT = Path(__file__).parents[1]

# 12 parts of four lanes. The second argument is empty, "slow" for a pause before each chunk, or a moment at which the
# process kills itself: a part half written, the table but for the last rename, its parts before they are removed.
SCRIPT = """
import os, pathlib, signal, sys, time
import numpy as np
import fedjax_lc as fl
from fedjax_lc.sweeping import blocks
import pandas, pyarrow.parquet

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "part":
    write = pyarrow.parquet.write_table
    def half(table, path, **options):
        write(table, path, **options)
        whole = pathlib.Path(path).read_bytes()
        if pathlib.Path(path).name.startswith(".part-"):
            pathlib.Path(path).write_bytes(whole[: len(whole) // 2])
            die()
    pyarrow.parquet.write_table = half
elif moment == "table":
    store = pandas.DataFrame.to_parquet
    def to_parquet(frame, path, **options):
        store(frame, path, **options)
        if "lanes" in pathlib.Path(path).name:
            die()
    pandas.DataFrame.to_parquet = to_parquet
elif moment == "parts":
    unlink = pathlib.Path.unlink
    pathlib.Path.unlink = lambda path, **options: die() if path.name.startswith("part-") else unlink(path, **options)

advance = blocks.Block._advance
def slowly(self, count):
    time.sleep(0.1 if moment == "slow" else 0)
    return advance(self, count)
blocks.Block._advance = slowly

rng = np.random.default_rng(0)
clients = [(rng.normal(size=(4, 3)), rng.choice([-1.0, 1.0], size=4)) for _ in range(3)]
problem = fl.problems.logistic_regression(clients, kappa=30)
theory = fl.algorithms.get("diana").theory
base = theory(problem, compressor="rand_k:1")
grid = fl.grid(base, gamma=fl.times([0.3, 1, 1e4, 0.6]), compressor=["rand_k:2", "natural"])
print("running", flush=True)
options = {"steps": 120, "every": 3, "rel_gap": 1e-3, "block_size": 1, "checkpoint_every": "steps:30"}
table = fl.sweep("diana", problem, grid, seeds=6, out=folder, progress=False, **options)
if (table.lanes["status"] == "interrupted").any():
    sys.exit(130)
print("finished", flush=True)
"""


class Sweeping:
    """The sweep of SCRIPT in processes of their own, which share compiled programs."""

    def __init__(self, folder):
        self.script, self.cache = folder / "script.py", folder / "cache"
        self.script.write_text(SCRIPT)

    def start(self, out, moment="slow"):
        settings = {
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.Popen(
            [sys.executable, str(self.script), str(out), moment],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, out, moment=""):
        process = self.start(out, moment)
        said, errors = process.communicate(timeout=120)
        return process.returncode, said.split(), errors


@pytest.fixture(scope="module")
def sweeping(tmp_path_factory):
    return Sweeping(tmp_path_factory.mktemp("sweeping"))


@pytest.fixture(scope="module")
def expected(sweeping, tmp_path_factory):
    """The folder of the sweep that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, said, errors = sweeping.finish(out)
    assert (code, said[-1:]) == (0, ["finished"]), errors
    return out


def visible(out):
    """The files of a folder, without those of the lanes' last states."""
    names = sorted(path.name for path in out.glob("[!.]*")) if out.exists() else []
    return [name for name in names if not name.startswith("states-")]


def parts(out):
    return [name for name in visible(out) if name.startswith("part-") and name.endswith(".parquet")]


def under_way(out):
    return [name for name in visible(out) if name.endswith(".safetensors")]


def check_equal(out, expected):
    """Bit for bit, in every column but seconds."""
    for name in ("records", "lanes"):
        frames = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, expected))
        ours, theirs = (frame.drop(columns="seconds") for frame in frames)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
        for column in ours.select_dtypes("float"):
            assert ours[column].to_numpy().tobytes() == theirs[column].to_numpy().tobytes()
    assert fl.Table.load(out).lanes["status"].value_counts().to_dict().keys() == {"target", "finished", "diverged"}


ENDS = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {-signal.SIGTERM}, signal.SIGINT: {130, -signal.SIGINT}}


def kill_at_random(sweeping, out, delays, number, part):
    """A signal some time after the sweep began (it then loads its program) or, for `part`, after its next part came.
    False if the sweep had ended before the signal came."""
    had, process = len(parts(out)), sweeping.start(out, "slow")
    assert process.stdout.readline() == "running\n", process.stderr.read()
    while part and len(parts(out)) == had and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delays.uniform(0, 0.3 if part else 0.7))
    process.send_signal(number)
    said, _ = process.communicate()
    if process.returncode == 0:
        assert said.split()[-1:] == ["finished"]
        return False
    assert process.returncode in ENDS[number]
    return True


MOMENTS = ("part", "table", "parts")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "seed", "moments"), [(1, 0, ["table"]), *((24, seed, MOMENTS) for seed in (1, 2, 3))]
)
def test_killed_many_times_it_is_the_same_table(sweeping, expected, tmp_path, kills, seed, moments):
    """At random so often, by all three signals, and within writes: of a part, of the table, and before its parts are
    removed. Asked to end, it keeps the lanes under way."""
    out, delays, seen = tmp_path / "out", random.Random(seed), [0]
    for count in range(kills):
        number = list(ENDS)[count % 3]
        if seen[-1] > 9:  # the moments below come within the last parts
            break
        kill_at_random(sweeping, out, delays, number, part=count % 2 == 0)
        seen.append(len(parts(out)))
        assert set(visible(out)) <= {"config.json", *parts(out), *under_way(out)}
    assert seen == sorted(seen)  # what is done stays done
    assert 1 <= seen[-1] < 12
    for moment in moments:
        code, said, errors = sweeping.finish(out, moment)
        assert (code, said) == (-signal.SIGKILL, ["running"]), errors
        for name in parts(out):
            pd.read_parquet(out / name)  # whole
        assert (out / "lanes.parquet").exists() == (moment == "parts")
    code, said, errors = sweeping.finish(out)
    assert (code, said[-1:]) == (0, ["finished"]), errors
    assert visible(out) == ["config.json", "lanes.parquet", "records.parquet"]
    assert not any(out.glob(".*"))
    check_equal(out, expected)


# --- in this process ---


@pytest.fixture(scope="module")
def hp(problem):
    return fl.algorithms.get("gd").theory(problem)


FACTORS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)


def sweep(problem, hp, out, factors=FACTORS, **options):
    """Six lanes: parts of four and of two."""
    options = {"steps": 40, "every": 10, "block_size": 1, "progress": False} | options
    return fl.sweep("gd", problem, fl.grid(hp, gamma=fl.times(list(factors))), out=out, **options)


def same(ours, theirs):
    pd.testing.assert_frame_equal(ours.records.drop(columns="seconds"), theirs.records.drop(columns="seconds"))
    pd.testing.assert_frame_equal(ours.lanes.drop(columns="seconds"), theirs.lanes.drop(columns="seconds"))


@pytest.fixture
def stopped(problem, hp, tmp_path, monkeypatch):
    """A folder with one part that is done, of two."""
    from fedjax_lc.sweeping.store import Store

    add = Store.add

    def fail(store, part):
        if store.ended:
            raise KeyboardInterrupt
        add(store, part)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", fail)
        with pytest.raises(KeyboardInterrupt):
            sweep(problem, hp, tmp_path / "out")
    assert visible(tmp_path / "out") == ["config.json", "part-00000000.parquet"]
    return tmp_path / "out"


def count_lanes(monkeypatch):
    """A list that grows by the number of lanes of each part that is computed."""
    from fedjax_lc.sweeping import blocks

    ran, run = [], blocks.Block.run
    note = lambda self, lanes, *more: ran.append(len(lanes.numbers)) or run(self, lanes, *more)
    monkeypatch.setattr(blocks.Block, "run", note)
    return ran


def test_only_parts_that_are_not_done_run_again(problem, hp, stopped, monkeypatch):
    ran = count_lanes(monkeypatch)
    table = sweep(problem, hp, stopped)
    assert ran == [2]
    assert visible(stopped) == ["config.json", "lanes.parquet", "records.parquet"]
    same(table, sweep(problem, hp, None))
    assert ran == [2, 4, 2]


def test_a_finished_sweep_is_returned(problem, hp, tmp_path, monkeypatch, capfd):
    first = sweep(problem, hp, tmp_path / "out")
    ran = count_lanes(monkeypatch)
    again = sweep(problem, hp, tmp_path / "out", progress=True)
    assert not ran
    assert capfd.readouterr().err == f"{tmp_path / 'out'} holds this sweep, finished\n"
    same(again, first)
    same(fl.Table.load(tmp_path / "out"), first)


def test_parts_left_beside_a_finished_table_are_removed(problem, hp, stopped):
    """As a kill between the table and the removal leaves them."""
    part = (stopped / "part-00000000.parquet").read_bytes()
    sweep(problem, hp, stopped)
    (stopped / "part-00000000.parquet").write_bytes(part)
    sweep(problem, hp, stopped)
    assert visible(stopped) == ["config.json", "lanes.parquet", "records.parquet"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"factors": [0.3, *FACTORS[1:]]}, "hyperparameters"),
        ({"factors": FACTORS[:5]}, "hyperparameters"),
        ({"seeds": [1]}, "seeds"),
        ({"seeds": 2}, "seeds"),
        ({"steps": 50}, "steps"),
        ({"every": 5}, "every"),
        ({"steps": 80, "every": 20}, "every, steps"),
        ({"rel_gap": 1e-3}, "rel_gap"),
        ({"budget": {"rounds": 10}}, "budget"),
        ({"measure": ["grad_norm"]}, "metrics"),
        ({"x0": np.ones(5)}, "problem"),
    ],
    ids=str,
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_another_sweep_is_refused(problem, hp, stopped, options, names, when):
    """Also once it is finished; the folder stays as it is."""
    if when == "after":
        sweep(problem, hp, stopped)
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(InputError) as caught:
        sweep(problem, hp, stopped, **options)
    assert str(caught.value) == (
        f"{stopped} already holds a different sweep (other {names}): choose another folder, or delete it"
    )
    assert before == {path: path.read_bytes() for path in stopped.iterdir()}


def test_another_problem_or_method_is_refused(problem, hp, stopped):
    other = problem.replace(given_f_star=0.0)
    with pytest.raises(InputError, match=r"already holds a different sweep \(other problem\)"):
        sweep(other, hp, stopped)
    with pytest.raises(InputError, match=r"already holds a different sweep \(other hyperparameters, method\)"):
        fl.sweep("agd", problem, out=stopped, steps=40, every=10, block_size=1, progress=False)


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense", "half", "bare"])
def test_a_damaged_part_is_one_line(problem, hp, stopped, damage):
    """Then, deleted as the line says, it is computed again."""
    part = stopped / "part-00000000.parquet"
    whole = part.read_bytes()
    if damage == "bare":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    else:
        part.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    with pytest.raises(InputError, match="is damaged") as caught:
        sweep(problem, hp, stopped)
    assert str(caught.value).startswith(f"{part} is damaged")
    assert "\n" not in str(caught.value)
    part.unlink()
    same(sweep(problem, hp, stopped), sweep(problem, hp, None))


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"identity": 5, "blocks": {}}', '{"method": "gd"}'])
def test_a_damaged_config_is_one_line(problem, hp, stopped, text):
    (stopped / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        sweep(problem, hp, stopped)
    assert str(caught.value) == f"{stopped} holds something else than a sweep: choose another folder"


@pytest.mark.parametrize("name", ["lanes.parquet", "records.parquet"])
def test_a_damaged_table_is_one_line(problem, hp, tmp_path, name):
    sweep(problem, hp, tmp_path)
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"^the table in .* is damaged") as caught:
        sweep(problem, hp, tmp_path)
    assert "\n" not in str(caught.value)


def test_parts_without_their_config_are_not_taken_for_ones_own(problem, hp, stopped):
    """They may be another sweep's: an error, or lanes of this sweep, but never that one's records."""
    (stopped / "config.json").unlink()
    factors = [0.3, *FACTORS[1:]]
    try:
        table = sweep(problem, hp, stopped, factors)
    except InputError:
        return
    same(table, sweep(problem, hp, None, factors))


def test_a_folder_that_cannot_be_written_is_one_line(problem, hp, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write .*: .*; choose a folder you may write to$"):
        sweep(problem, hp, tmp_path / "file" / "out")


def test_lanes_without_records_survive_the_folder(problem, hp, tmp_path):
    """All diverge before their first record: an empty part, and an empty table."""
    out = tmp_path / "lost"
    table = sweep(problem, hp, out, factors=[1e8, 2e8], every=20)
    again = sweep(problem, hp, out, factors=[1e8, 2e8], every=20)
    same(again, table)
    assert list(again.lanes["status"]) == ["diverged"] * 2
    assert len(again.records) == 0
