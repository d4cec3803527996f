"""Chosen lanes of a sweep that is done go on: bit for bit as in the sweep of the total length, into a table of their
own."""

import json
import shutil

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.cli.__main__ import main
from fedjax_lc.core.errors import InputError
from fedjax_lc.sweeping import sweep as sweeps
from tests.test_sweep_parts import interrupt_after

STEPS, MORE = 40, 30


@pytest.fixture(scope="module")
def grid(problem):
    """Four configurations of two structures, each a group: a compressor that draws, and one that does not."""
    base = fl.algorithms.get("diana").theory(problem, compressor="rand_k:1")
    return fl.grid(base, gamma=fl.times([0.5, 1.0]), compressor=["rand_k:2", "natural"])


def sweep(problem, grid, out=None, steps=STEPS, **options):
    """Twelve lanes, six of each group, four of them side by side."""
    options = {"seeds": 3, "every": 5, "block_size": 4, "progress": False} | options
    return fl.sweep("diana", problem, grid, out=out, steps=steps, **options)


@pytest.fixture(scope="module")
def longer(problem, grid):
    return sweep(problem, grid, steps=STEPS + MORE)


@pytest.fixture(scope="module")
def done(problem, grid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "out"
    sweep(problem, grid, folder)
    return folder


@pytest.fixture
def out(done, tmp_path):
    return shutil.copytree(done, tmp_path / "out")


def extend(problem, grid, out, lanes, steps=MORE, **options):
    return fl.extend(out, steps, lanes=lanes, problem=problem, hp=grid, **{"progress": False} | options)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(table, longer, lanes):
    """Bit for bit these lanes of the longer sweep, but for seconds."""
    assert table.config["extended"] == {"from": STEPS, "lanes": lanes}
    columns = [name for name in longer.lanes if name != "seconds"]
    assert table.lanes[columns].equals(longer.lanes[columns].iloc[lanes].reset_index(drop=True))
    for row, lane in enumerate(lanes):
        assert table.trace(row).digest() == longer.trace(lane).digest()
    assert (table.lanes["seconds"] > 0).all()


def test_lanes_of_several_groups_equal_the_longer_sweep(problem, grid, longer, out):
    """Of either group, begun together and in a slot that became free; more of a group than run side by side."""
    before = contents(out)
    lanes = [0, 1, 2, 6, 7, 8, 10]
    table = extend(problem, grid, out, list(reversed(lanes)))
    same(table, longer, lanes)
    assert {path: data for path, data in contents(out).items() if path.parts[0] == path.name} == before
    into = out / f"extended-{STEPS + MORE}"
    kept = [path.name for path in into.iterdir() if not path.name.startswith("states-")]
    assert sorted(kept) == ["config.json", "lanes.parquet", "records.parquet"]
    same(fl.Table.load(into), longer, lanes)
    same(extend(problem, grid, out, lanes), longer, lanes)  # only read
    with pytest.raises(InputError, match=r"already holds a different sweep \(other lanes\)"):
        extend(problem, grid, out, [3])
    same(extend(problem, grid, out, [3], into=out.parent / "three"), longer, [3])


def test_an_extension_is_extended(problem, grid, longer, out):
    """By the rows of its own table; its lanes keep the numbers that they had."""
    extend(problem, grid, out, [1, 4, 7, 9], 10)
    table = extend(problem, grid, out / f"extended-{STEPS + 10}", [0, 2, 3], MORE - 10)
    assert table.config["extended"] == {"from": STEPS + 10, "lanes": [1, 7, 9]}
    for row, lane in enumerate([1, 7, 9]):
        assert table.trace(row).digest() == longer.trace(lane).digest()
        assert table.lanes["seed"][row] == longer.lanes["seed"][lane]
    with pytest.raises(InputError, match="lanes must be some of 0 to 3, got 4"):
        extend(problem, grid, out / f"extended-{STEPS + 10}", [4])


def test_a_merged_sweep_is_extended(problem, grid, tmp_path):
    """The last states lie with the shards, three of whose lanes run side by side."""
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        sweep(problem, grid, out, shard=shard)
    fl.merge(out)
    same(extend(problem, grid, out, [0, 3, 7]), sweep(problem, grid, steps=STEPS + MORE, block_size=3), [0, 3, 7])
    shutil.rmtree(out / "shard-2-of-2")
    with pytest.raises(InputError, match="lacks shard 2/2"):
        extend(problem, grid, out, [1], into=tmp_path / "one")


def test_interrupted_it_goes_on_and_makes_each_step_once(problem, grid, longer, out):
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, 2)
        halfway = extend(problem, grid, out, [1, 2])
        assert set(halfway.lanes["status"]) == {"interrupted"}
        assert set(halfway.records.groupby("lane")["step"].last()) == {STEPS + 2 * 5}
        same(extend(problem, grid, out, [1, 2]), longer, [1, 2])
        assert made == [MORE // 5]


def test_a_sweep_that_was_stopped_keeps_the_last_states_too(problem, grid, longer, tmp_path):
    """Four lanes of the part of six are done, and two have begun in their slots."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, STEPS // 5 + 2)
        sweep(problem, grid, out)
    assert [path.name[:13] for path in out.glob("*.safetensors")] == ["part-00000000"]
    sweep(problem, grid, out)
    same(extend(problem, grid, out, [0, 4, 9]), longer, [0, 4, 9])


def test_finished_lanes_of_a_stopped_sweep_keep_theirs_where_the_rest_is_cut_anew(problem, grid, longer, tmp_path):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, STEPS // 5 + 2)
        sweep(problem, grid, out)
    sweep(problem, grid, out, block_size=2)
    table = extend(problem, grid, out, [0, 10])
    for row, lane in enumerate([0, 10]):
        np.testing.assert_allclose(table.trace(row).value, longer.trace(lane).value, rtol=1e-12)


def test_states_that_are_too_large_are_not_kept(problem, grid, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "MOST_STATES", 1000)
    sweep(problem, grid, tmp_path, progress=True)
    assert "last states are not kept (0.0 GB, 1e-06 GB at most): fl.extend cannot go on" in capsys.readouterr().err
    with pytest.raises(InputError, match="keeps no last state of lane 3: sweep anew with more steps"):
        extend(problem, grid, tmp_path, [3])


def test_lanes_that_ended_early_stay_as_they_are(problem, grid, tmp_path):
    sweep(problem, fl.grid(grid.hparams[0], gamma=fl.times([1, 1e9])), tmp_path / "a", rel_gap=0.9)
    for lane, why in {0: "reached its target", 3: "diverged"}.items():
        with pytest.raises(InputError, match=f"lane {lane} of .* {why} at step .*: with more steps it would end there"):
            extend(problem, grid, tmp_path / "a", [lane])
    sweep(problem, fl.grid(grid.hparams[0]), tmp_path / "b", budget={"rounds": 3})
    with pytest.raises(InputError, match=r"lane 1 of .* spent its budget at step 5:"):
        extend(problem, grid, tmp_path / "b", [1])
    sweep(problem, fl.grid(grid.hparams[0]), tmp_path / "m", measure={"m": lambda problem, hp, state: state.w[0]})
    with pytest.raises(InputError, match=r"has metrics that are functions \(value, m\): give measure="):
        extend(problem, fl.grid(grid.hparams[0]), tmp_path / "m", [1])


def test_what_cannot_go_on(problem, grid, out, tmp_path):
    before = contents(out)
    refusals = {
        r"lanes must be some of 0 to 11, got 3, 12": {"lanes": [3, 12]},
        r"lanes must be some of 0 to 11, got none": {"lanes": []},
        r"lanes must be a list of lanes' numbers, got \['x'\]": {"lanes": ["x"]},
        r"already holds a different sweep \(other hyperparameters\)": {"grid": fl.grid(grid.hparams[0])},
        r"already holds a different sweep \(other problem\)": {"problem": problem.replace(x0=problem.x0 + 1)},
        r"does not say how its problem was made: give problem=": {"problem": None},
        r"steps must be a whole number >= every = 5": {"steps": 2},
        r"on_chunk is for a run": {"on_chunk": print},
        r"already holds a different sweep \(other metrics, problem\)": {"measure": ["distance"]},
        r"already holds .* another function m": {"measure": {"m": lambda problem, hp, state: 0.0}},
    }
    for line, wrong in refusals.items():
        with pytest.raises(InputError, match=f"^.*{line}.*$"):
            extend(**{"problem": problem, "grid": grid, "out": out, "lanes": [3]} | wrong)
    with pytest.raises(InputError, match="holds a sweep: say which of its lanes go on"):
        fl.extend(out, MORE)
    with pytest.raises(InputError, match="holds no sweep that is done"):
        fl.extend(tmp_path / "none", MORE, lanes=[1])
    assert contents(out) == before
    config = json.loads((out / "config.json").read_text())
    for name in ("steps", "budget", "seeds", "every"):
        for edit in ({name: "x"}, {name: [7]}, {name: None}, {}):
            kept = {key: fact for key, fact in config["identity"].items() if key != name}
            (out / "config.json").write_text(json.dumps(config | {"identity": kept | edit}))
            with pytest.raises(InputError, match=r"^[^\n]* (is damaged|is of another sweep)[^\n]*$"):
                extend(problem, grid, out, [3])
    (out / "config.json").write_text(json.dumps(config))
    for path in out.glob("states-*"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"keeps no last state of lane 3 \(states-.* cannot be used, it is damaged"):
        extend(problem, grid, out, [3])


# --- the command line ---

SWEEP = ["gd", "--clients", "3", "--steps", "20", "--every", "5", "--seeds", "2", "--quiet"]
SWEEP += ["--grid", "gamma=theory*0.1, 0.5, 1"]


def test_the_best_lanes_on_the_command_line(tmp_path, capsys, refused, monkeypatch):
    drawn = []
    monkeypatch.setattr(fl.plot, "best", lambda *terms, path: drawn.append(path))
    assert main(["sweep", *SWEEP, "--out", str(tmp_path / "whole"), "--steps", "30"]) == 0
    assert main(["sweep", *SWEEP, "--out", str(tmp_path / "out")]) == 0
    out, whole = tmp_path / "out" / "gd", fl.Table.load(tmp_path / "whole")
    chosen = ["--lanes", "3, 1", "--into", str(tmp_path / "new")]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 1)
        capsys.readouterr()
        assert main(["extend", str(out), "--steps", "10", "--quiet", *chosen, "--checkpoint-every", "0"]) == 130
        assert f"interrupted with 0 of 2 lanes done; {tmp_path}/new keeps them" in capsys.readouterr().err
    for words, lanes, into in (
        (["--best", "2"], [4, 5], out / "extended-30"),
        (chosen, [1, 3], tmp_path / "new"),
    ):
        assert main(["extend", str(out), "--steps", "10", "--quiet", *words]) == 0
        assert f"lanes {lanes[0]}, {lanes[1]} of {out}" in capsys.readouterr().out
        table = fl.Table.load(into)
        assert [table.trace(row).digest() for row in (0, 1)] == [whole.trace(lane).digest() for lane in lanes]
        assert drawn[-1] == into / "plot.png"
    before = contents(tmp_path)
    assert refused("extend", out, "--steps", 10).endswith("say which of its lanes go on, by --best 5 or --lanes 3,17")
    assert refused("extend", out, "--steps", 10, "--best", 9).endswith("only 6 made all their steps")
    assert refused("extend", out, "--steps", 10, "--lanes", "3;4").endswith("as in 3,17, got '3;4'")
    assert refused("extend", out, "--steps", 10, "--lanes", "6").endswith("lanes must be some of 0 to 5, got 6")
    assert "out/locodl" in refused("extend", tmp_path / "out", "--steps", 10, "--best", 1)
    (out / "sweep.toml").unlink()
    assert refused("extend", out, "--steps", 10, "--best", 1).endswith("that Python began: extend it by fl.extend")
    assert {path for path in before if path.name != "sweep.toml"} <= contents(tmp_path).keys()
