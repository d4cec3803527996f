"""The parts of a sweep's folder: checked against their lanes, cut anew where memory changed, and kept under way."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.running import loop
from fedjax_lc.sweeping import blocks
from fedjax_lc.sweeping.store import UnderWay
from tests.test_sweep_resume import hp, same, stopped, sweep, visible  # noqa: F401


@pytest.fixture(scope="module")
def plain(problem, hp):  # noqa: F811
    """The table of the sweep that nothing disturbs."""
    return sweep(problem, hp, None)


@pytest.mark.parametrize(
    "options", [{"block_size": 2}, {"block_size": 6}, {"block_size": None, "memory": 10**7}], ids=str
)
def test_other_blocks_go_on_with_the_lanes_that_are_left(problem, hp, stopped, plain, options, monkeypatch):  # noqa: F811
    ran, run = [], blocks.Block.run
    note = lambda self, lanes, *more: ran.extend(lanes.numbers) or run(self, lanes, *more)
    monkeypatch.setattr(blocks.Block, "run", note)
    table = sweep(problem, hp, stopped, **options)
    assert ran == [4, 5]
    same(table, plain)
    side_by_side = table.config["side_by_side"]
    assert side_by_side.pop("1") == ("0-5" if options["block_size"] is None else "0-3")
    assert list(side_by_side.values()) == ([] if options["block_size"] is None else ["4-5"])
    assert visible(stopped) == ["config.json", "lanes.parquet", "records.parquet"]


@pytest.mark.parametrize("block", [3, 1000])
def test_edited_numbers_of_blocks_give_the_same_table(problem, hp, stopped, plain, block):  # noqa: F811
    config = json.loads((stopped / "config.json").read_text())
    assert config["blocks"] == {"0": 1}
    (stopped / "config.json").write_text(json.dumps(config | {"blocks": {"0": block}}))
    same(sweep(problem, hp, stopped, block_size=None), plain)


@pytest.mark.parametrize("blocks", [{"0": 0}, {"0": "1"}, {"0": True}, {"0": 1.5}, [1], None], ids=str)
def test_blocks_that_are_no_numbers_are_one_line(problem, hp, stopped, blocks):  # noqa: F811
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps(config | {"blocks": blocks}))
    with pytest.raises(InputError, match=r"^.* holds something else than a sweep: choose another folder$"):
        sweep(problem, hp, stopped)


@pytest.mark.parametrize(
    "edit",
    [
        {"functions": 5},
        {"functions": ["m"]},
        {"versions": "0.1"},
        {"versions": {"jax": [[]]}},
        {"code": {}},
        {"a\nb": 1},
    ],
    ids=str,
)
def test_an_edited_identity_is_one_line(problem, hp, stopped, edit):  # noqa: F811
    config = json.loads((stopped / "config.json").read_text())
    config["identity"] |= edit
    (stopped / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"already holds (this|a different) sweep") as caught:
        sweep(problem, hp, stopped)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(problem, hp, tmp_path):  # noqa: F811
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match=r"holds something else than a sweep: choose another folder$"):
        sweep(problem, hp, tmp_path)


def test_parts_that_do_not_belong_are_one_line(problem, hp, stopped, tmp_path):  # noqa: F811
    """Lanes that are there twice, and a part of another sweep."""
    part, twice = stopped / "part-00000000.parquet", stopped / "part-00000004.parquet"
    shutil.copy(part, twice)
    with pytest.raises(InputError) as caught:
        sweep(problem, hp, stopped)
    assert str(caught.value) == f"{twice} holds lanes that another part holds: delete it, and its lanes run again"
    twice.unlink()
    other = tmp_path / "other"
    sweep(problem, hp, other, steps=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fl.Table, "save", lambda table, folder: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            sweep(problem, hp, tmp_path / "third", steps=50)
    shutil.copy(tmp_path / "third" / "part-00000004.parquet", twice)
    with pytest.raises(InputError) as caught:
        sweep(problem, hp, stopped)
    assert str(caught.value) == f"{twice} is a part of another sweep: delete it, and its lanes run again"


def test_what_killed_processes_left_is_removed(problem, hp, stopped):  # noqa: F811
    for name in (".part-00000004.4194304999.parquet", ".config.4194304999.json"):
        (stopped / name).write_text("half")
    sweep(problem, hp, stopped)
    assert visible(stopped) == ["config.json", "lanes.parquet", "records.parquet"]
    assert not any(stopped.glob(".*"))


# --- lanes under way ---


def interrupt_after(patch, chunks, number=signal.SIGINT):
    """A signal comes in that chunk; chunks are of one record."""
    made, advance = [0], blocks.Block._advance

    def press(block, count):
        made[0] += 1
        if made[0] == chunks:
            os.kill(os.getpid(), number)
        return advance(block, count)

    patch.setattr(blocks.Block, "_advance", press)
    patch.setattr(loop, "next_count", lambda count, capacity, seconds: 1)
    return made


def go_on(problem, hp, out, **options):  # noqa: F811
    """The table of a sweep that goes on, and the number of chunks of one record that it took."""
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, -1)
        return sweep(problem, hp, out, **options), made[0]


@pytest.fixture
def interrupted(problem, hp, tmp_path):  # noqa: F811
    """A folder whose first lane is done, in the part of four, and whose second one has three records of four."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 7)
        sweep(problem, hp, tmp_path / "out")
    assert visible(tmp_path / "out") == ["config.json", "part-00000000-000000000070.safetensors"]
    return tmp_path / "out"


def test_lanes_under_way_go_on_from_where_they_stopped(problem, hp, interrupted, plain):  # noqa: F811
    table, chunks = go_on(problem, hp, interrupted)
    assert chunks == 4 * 6 - 7
    same(table, plain)
    for name in ("value", "bits_up"):
        assert table.records[name].to_numpy().tobytes() == plain.records[name].to_numpy().tobytes()
    assert visible(interrupted) == ["config.json", "lanes.parquet", "records.parquet"]


def test_finished_lanes_are_kept_where_the_others_cannot_go_on(problem, hp, interrupted, plain):  # noqa: F811
    """In blocks of three the part is another one."""
    table, chunks = go_on(problem, hp, interrupted, block_size=3)
    assert chunks == 2 * 4
    same(table, plain)
    assert table.config["side_by_side"] == {"1": "0", "3": "1-5"}


def test_a_torn_file_is_one_line_and_the_one_before_goes_on(problem, hp, tmp_path, plain, capfd):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 7)
        sweep(problem, hp, tmp_path, checkpoint_every="steps:20")
    before, last = sorted(tmp_path.glob("*.safetensors"))
    assert [path.stem[-3:] for path in (before, last)] == ["060", "070"]
    last.write_bytes(last.read_bytes()[:-9])
    table, chunks = go_on(problem, hp, tmp_path)
    assert f"note: {last} cannot be used, it is damaged (SafetensorError): going on from {before.name}" in (
        capfd.readouterr().err
    )
    assert chunks == 4 * 6 - 6
    same(table, plain)


def test_files_of_lanes_under_way_travel(interrupted, tmp_path):
    """As between a sweep's folder and a worker on another machine."""
    here = UnderWay(interrupted, np.arange(4), {}, None)
    there = here.elsewhere(tmp_path / "other")
    assert list(here.files()) == ["part-00000000-000000000070.safetensors"]
    there.take(here.files())
    assert there.files() == here.files()
    there.take({"part-00000000-000000000080.safetensors": b"later"})
    assert there.files() == {"part-00000000-000000000080.safetensors": b"later"}
    assert list(here.files()) == ["part-00000000-000000000070.safetensors"]
    assert here.elsewhere(None).files() == {}


def test_many_slots_and_early_ends_go_on_bit_for_bit(problem, tmp_path):
    """Lanes that diverge, reach the target or wait for a slot; stopped again and again by both signals."""
    alg = fl.algorithms.get("diana")
    grid = fl.grid(alg.theory(problem, compressor="rand_k:1"), gamma=fl.times([0.3, 1, 1e4, 0.6, 0.8]))
    options = {"seeds": 2, "steps": 60, "every": 3, "rel_gap": 0.5, "block_size": 3, "progress": False}
    expected = fl.sweep("diana", problem, grid, **options)
    for stop in range(4):
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(patch, 5 + stop)
            table = fl.sweep("diana", problem, grid, out=tmp_path, **options)
    assert (table.lanes["status"] == "interrupted").any()
    table = fl.sweep("diana", problem, grid, out=tmp_path, **options)
    same(table, expected)
    for name in table.records.columns.drop("seconds"):
        assert table.records[name].to_numpy().tobytes() == expected.records[name].to_numpy().tobytes()
    assert set(table.lanes["status"]) >= {"diverged", "target"}


def test_a_sweep_without_a_folder_keeps_nothing(problem, hp, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        sweep(problem, hp, None)
    assert list(tmp_path.iterdir()) == []


# --- a full disk, an archive ---


def test_a_finished_sweep_is_read_where_nothing_can_be_written(problem, hp, tmp_path, plain, monkeypatch):  # noqa: F811
    sweep(problem, hp, tmp_path)

    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("open", "mkdir", "unlink"):
        monkeypatch.setattr(os, name, fail)
    same(sweep(problem, hp, tmp_path), plain)


def test_a_full_disk_is_one_line_and_loses_nothing(problem, hp, stopped, plain, monkeypatch):  # noqa: F811
    import pyarrow.parquet as pq

    def full(table, path, **options):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(InputError) as caught:
            sweep(problem, hp, stopped)
    assert str(caught.value) == (
        f"cannot write {stopped / 'part-00000004.parquet'}: No space left on device; make room, and repeat the command"
    )
    assert {path: path.read_bytes() for path in before} == before
    same(sweep(problem, hp, stopped), plain)
