"""Shards: together they are the sweep of one process, bit for bit, and what is missing or foreign is one line."""

import shutil

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.cli import main
from fedjax_lc.core.errors import InputError
from fedjax_lc.sweeping.shards import Shard
from tests.test_cli_sweep import file, quick  # noqa: F401
from tests.test_sweep_parts import interrupt_after
from tests.test_sweep_resume import same

OPTIONS = {"seeds": 3, "steps": 30, "every": 10, "block_size": 2, "progress": False}


@pytest.fixture(scope="module")
def grid(problem):
    """Two structures and numbers of local steps, so several groups of lanes."""
    theory = fl.algorithms.get("fedavg").theory
    return [theory(problem, local_steps=k) for k in (2, 2, 3)]


def sweep(problem, grid, out=None, **options):
    return fl.sweep("fedavg", problem, grid, out=out, **(OPTIONS | options))


@pytest.fixture(scope="module")
def whole(problem, grid):
    return sweep(problem, grid)


@pytest.fixture(scope="module")
def shards(problem, grid, tmp_path_factory):
    """The folder of two shards, which are done."""
    out = tmp_path_factory.mktemp("shards") / "out"
    for number in (2, 1):
        table = sweep(problem, grid, out, shard=f"{number}/2")
        done = table.lanes["status"] != "interrupted"
        assert list(np.flatnonzero(done)) == list(range(number - 1, 9, 2))
    return out


@pytest.fixture
def copied(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "out")
    return tmp_path / "out"


def refusal(folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        fl.merge(folder)
    assert sorted(folder.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_is_that_of_one_process(problem, grid, copied, whole):
    table = fl.merge(copied)
    for ours in (table, fl.Table.load(copied), fl.merge(copied), sweep(problem, grid, copied)):
        same(ours, whole)
        for name in whole.records.columns.drop("seconds"):
            assert ours.records[name].to_numpy().tobytes() == whole.records[name].to_numpy().tobytes()
    assert table.config["methods"] == whole.config["methods"]
    assert table.config["side_by_side"] == whole.config["side_by_side"] == {"2": "0-8"}
    assert table.config["shards"] == 2


def test_a_shard_that_is_done_runs_nothing(problem, grid, copied, monkeypatch):
    monkeypatch.setattr("fedjax_lc.sweeping.blocks.Block.__init__", lambda *a: 1 / 0)
    sweep(problem, grid, copied, shard="1/2")


def test_a_missing_shard_is_named(copied):
    shutil.rmtree(copied / "shard-2-of-2")
    assert refusal(copied) == f"{copied} lacks shard 2/2: run them with --shard"


def test_a_shard_that_is_not_finished_is_named_and_goes_on(problem, grid, copied, whole):
    shutil.rmtree(copied / "shard-2-of-2")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 4)
        sweep(problem, grid, copied, shard=(2, 2))
    assert refusal(copied) == f"{copied}: not finished: shard 2/2 (4 lanes): repeat the command"
    sweep(problem, grid, copied, shard=(2, 2))
    same(fl.merge(copied), whole)


def test_shards_of_other_sweeps_are_refused(problem, grid, copied):
    shutil.rmtree(copied / "shard-2-of-2")
    sweep(problem, grid, copied, shard="2/2", steps=60)
    assert refusal(copied) == (
        f"{copied / 'shard-2-of-2'} already holds a different sweep (other steps): choose another folder, or delete it"
    )
    sweep(problem, grid, copied, shard="1/3")
    assert "shards of different numbers (2, 3)" in refusal(copied)


def test_a_renamed_shard_is_refused(copied):
    shutil.rmtree(copied / "shard-2-of-2")
    shutil.copytree(copied / "shard-1-of-2", copied / "shard-2-of-2")
    assert refusal(copied) == f"{copied / 'shard-2-of-2'} is not that of shard 2/2: it has been renamed"


def test_no_shards(tmp_path):
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no shards: expected folders such as shard-1-of-8, as --shard 1/8 writes them"
    )


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", (1, 0)])
def test_shards_that_cannot_be(text):
    with pytest.raises(InputError, match=r"^a shard must be i/N with i = 1\.\.N, such as 2/8, got "):
        Shard.of_text(text)


def test_a_shard_needs_a_folder(problem, grid):
    with pytest.raises(InputError, match="a shard needs a folder for its share of the lanes: give out"):
        sweep(problem, grid, shard="1/2")


def test_the_command_line(quick, tmp_path, capsys, refused):  # noqa: F811
    words = ["sweep", "diana", "gd", *quick, "--grid", "gamma=theory*0.5, 1, 400", "--seeds", "2", "--block-size", "3"]
    assert refused(*words, "--shard", "1/2").startswith("a shard needs a folder")
    out, one = tmp_path / "out", tmp_path / "one"
    assert main([*words, "--out", str(out), "--shard", "1/2"]) == 0
    assert f"shard 1/2: its 6 of 12 lanes are done; when all shards are: fedjax-lc merge {out}\n" in (
        capsys.readouterr().out
    )
    assert refused("merge", out) == f"{out / 'diana'} lacks shard 2/2: run them with --shard"
    assert main([*words, "--out", str(out), "--shard", "2/2"]) == main([*words, "--out", str(one)]) == 0
    said = capsys.readouterr().out
    assert main(["merge", str(out)]) == 0
    merged = capsys.readouterr().out.replace(str(out), str(one))
    assert said.endswith(merged)
    same(fl.Table.load(out), fl.Table.load(one))
    assert (out / "plot.png").stat().st_size > 10_000
    assert refused("merge", one) == f"{one} holds no shards: expected the --out of fedjax-lc sweep ... --shard I/N"
