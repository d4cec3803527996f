"""The command line of sweeps: that it does what Python does, that files say what flags say, and each error line."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedjax_lc as fl
from experiments.kit.recipe import make_problem
from fedjax_lc import data
from fedjax_lc.cli import axes, main, toml
from fedjax_lc.cli.config import RunConfig, SweepConfig, check_folder
from fedjax_lc.plot import curves
from fedjax_lc.sweeping.blocks import Block
from tests.test_plot import geometric

WORDS = ["--grid", "gamma=theory*0.5, 1, 400", "--grid", "compressor=rand_k:2; natural", "--seeds", "3"]  # 400 diverges
TOML = """
methods = ["gd", "diana"]
data = {data}
clients = 4
kappa = 300
steps = 200
rel-gap = 1e-3
seeds = 2
quiet = true
budget = {{ bits_up = 1e5, rounds = 150 }}
measure = ["distance"]
[grid]
gamma = "theory*0.5, 1, 2"
diana.compressor = ["natural", "identity"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small data set: 40 rows of 5 features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5))
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, features=features, targets=np.sign(features[:, 0] + rng.normal(size=40)))
    return path


@pytest.fixture(scope="module")
def quick(file):
    """Options of every sweep here: a tiny problem, few steps."""
    return ["--data", str(file), "--clients", "4", "--kappa", "300", "--steps", "200", "--quiet"]


@pytest.fixture(scope="module")
def problem(file):
    return make_problem(data.load(str(file)), 4, kappa=300)


@pytest.fixture(scope="module")
def swept(quick, tmp_path_factory):
    """Two methods' sweeps, by flags: their folder, and what was printed."""
    folder, out, err = tmp_path_factory.mktemp("sweep") / "out", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["sweep", "diana", "gd", *quick, *WORDS, "--out", str(folder)]) == 0
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(swept):
    return swept[0]


def plain(table):
    """Lanes and records without the columns of wall time."""
    return table.lanes.drop(columns="seconds"), table.records.drop(columns="seconds")


def assert_same(one, other):
    for left, right in zip(plain(one), plain(other), strict=True):
        pd.testing.assert_frame_equal(left, right)


# --- sweeps ---


def test_a_sweep_is_the_one_of_python(folder, problem):
    for method, more in (("gd", {}), ("diana", {"compressor": ["rand_k:2", "natural"]})):
        theory = functools.partial(fl.algorithms.get(method).theory, problem)
        points = fl.grid(theory, gamma=fl.times([0.5, 1, 400]), **more)
        expected = fl.sweep(method, problem, points, seeds=3, steps=200, progress=False)
        assert_same(fl.Table.load(folder / method), expected)


def test_the_comparison(swept):
    folder, out, err = swept
    table = fl.Table.load(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["diana", "gd", "plot.png"]
    assert (folder / "plot.png").stat().st_size > 10_000
    assert err.splitlines()[1:] == ["note: no compressor in gd: swept without it"]  # the first is of the data
    lines = out.splitlines()
    gap = finest_decade(table)
    assert f"target: relative gap {gap:g}, the finest decade that every best configuration reaches" in lines
    diana, gd = table.best("bits_up", rel_gap=gap).to_dict("records")
    for row, words, lanes in (
        (diana, f"gamma/theory={diana['gamma/theory']:g}, compressor={diana['compressor']}", 18),
        (gd, f"gamma/theory={gd['gamma/theory']:g}", 9),
    ):
        (line,) = (line for line in lines if line.startswith(f"{row['method']} "))
        lost = (table.lanes[table.lanes["method"] == row["method"]]["status"] == "diverged").sum()
        numbers = [f"{row[name]:.3e}" for name in ("median", "low", "high")]
        cells = [
            row["method"],
            words,
            numbers[0],
            f"{numbers[1]} .. {numbers[2]}",
            "3 of 3",
            f"{lost} of {lanes} lanes",
        ]
        assert re.split(r"  +", line.strip()) == cells
    lost = table.diverged()
    assert f"diverged: {len(lost)} of 27 lanes, in {len(lost) // 3} configurations" in lines
    assert "  gd: gamma/theory=400 (seeds 0, 1, 2)" in lines


def finest_decade(table):
    """By brute force over single lanes."""
    reached = []
    for exponent in range(1, 16):
        gap = float(f"1e-{exponent}")
        hits = [table.trace(lane).reach(gap) is not None for lane in range(len(table))]
        groups = table.lanes.assign(hit=hits).groupby(["method", "config"])["hit"].sum()
        if (groups.groupby("method").max() >= 2).all():
            reached.append(gap)
    assert 0 < len(reached) < 15
    return reached[-1]


def test_no_target_below_what_the_numbers_resolve(quick, capsys):
    """In float32, F(x) - f_star is 0 to rounding long before 1e-15."""
    assert main(["sweep", "gd", *quick, "--dtype", "float32", "--kappa", "10"]) == 0
    told = float(re.search(r"target: relative gap (\S+),", capsys.readouterr().out)[1])
    assert np.finfo(np.float32).eps < told < 1e-4


def test_the_best_at_the_edge_of_its_grid_is_told(quick, capsys):
    assert main(["sweep", "gd", *quick, "--grid", "gamma=theory*0.25, 0.5, 1", "--seeds", "3"]) == 0
    assert "note: gd's best gamma/theory, 1, is the greatest of its grid" in capsys.readouterr().out


def test_without_out_nothing_is_written(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "gd", *quick, "--rel-gap", "1e-2"]) == 0
    assert list(tmp_path.iterdir()) == []
    out, err = capsys.readouterr()
    assert "target: relative gap 0.01\n" in out
    assert re.search(r"gd +theory ", out)
    assert err.startswith("note: d.npz: ")
    assert err.count("\n") == 1


def test_samples(quick, tmp_path, capsys):
    words = ["--grid", "gamma=theory*loguniform:0.5:2", "--sample", "9", "--sample-method", "sobol"]
    assert main(["sweep", "gd", *quick, *words, "--out", str(tmp_path)]) == 0
    found = fl.Table.load(tmp_path).lanes["gamma/theory"]
    assert len(set(found)) == 9
    assert found.between(0.5, 2).all()
    capsys.readouterr()


def test_index_bits_memory_and_budget(quick, tmp_path, capsys):
    words = ["--grid", "compressor=rand_k:2", "--index-bits", "none", "--memory", "1GB", "--block-size", "1"]
    assert main(["sweep", "diana", *quick, *words, "--budget", "bits_up=3000", "--out", str(tmp_path)]) == 0
    table = fl.Table.load(tmp_path)
    bits = table.records["bits_up"].to_numpy()
    assert bits[-1] / table.records["rounds"].iloc[-1] == 2 * 32
    assert bits[-2] < 3000 <= bits[-1]
    capsys.readouterr()


def test_axes_of_all_methods_and_of_one():
    methods = [fl.algorithms.get(name) for name in ("gd", "diana", "locodl")]
    given = {"gd.gamma": "1", "gamma": "2", "compressor.k": [1, 2], "p": "balanced", "diana.alpha": "0.5"}
    found, notes = axes.shares(given, methods)
    assert found == {
        "gd": {"gamma": "1"},
        "diana": {"gamma": "2", "compressor.k": [1, 2], "alpha": "0.5"},
        "locodl": {"gamma": "2", "compressor.k": [1, 2], "p": "balanced"},
    }
    assert notes == ["no compressor.k in gd: swept without it", "no p in gd, diana: swept without it"]


# --- files ---


@pytest.fixture
def toml_file(file, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(TOML.format(data=json.dumps(str(file))))
    return str(path)


def test_a_file_says_what_flags_say(quick, toml_file, tmp_path, capsys):
    assert main(["sweep", toml_file, "--out", str(tmp_path / "file")]) == 0
    words = ["--rel-gap", "1e-3", "--seeds", "2", "--budget", "bits_up=1e5", "--budget", "rounds=150"]
    words += [
        "--grid",
        "gamma=theory*0.5, 1, 2",
        "--grid",
        "diana.compressor=natural; identity",
        "--measure",
        "distance",
    ]
    assert main(["sweep", "gd", "diana", *quick, *words, "--out", str(tmp_path / "flags")]) == 0
    by_file, by_flags = fl.Table.load(tmp_path / "file"), fl.Table.load(tmp_path / "flags")
    assert_same(by_file, by_flags)
    assert by_file.metrics == ["distance"]
    assert by_file.config["budget"] == {"bits_up": 1e5, "rounds": 150}
    capsys.readouterr()


def test_the_command_line_overrides_the_file(toml_file, tmp_path, capsys):
    words = ["--steps", "50", "--budget", "rounds=20", "--grid", "gamma=0.1", "--measure", "grad_norm", "--seeds", "1"]
    assert main(["sweep", toml_file, "gd", *words, "--out", str(tmp_path)]) == 0
    table = fl.Table.load(tmp_path)
    assert table.config["steps"] == 50
    assert table.config["rel_gap"] == 1e-3
    assert table.config["budget"] == {"bits_up": 1e5, "rounds": 20}
    assert table.metrics == ["grad_norm"]
    assert table.lanes[["method", "gamma"]].to_numpy().tolist() == [["gd", 0.1]]
    capsys.readouterr()


def test_a_folder_says_how_it_was_made(folder, tmp_path, capsys):
    said = tomllib.loads((folder / "diana" / "sweep.toml").read_text())
    assert said["methods"] == ["diana"]
    assert said["grid"] == {"gamma": "theory*0.5, 1, 400", "compressor": "rand_k:2; natural"}
    assert main(["sweep", str(folder / "diana" / "sweep.toml"), "--quiet", "--out", str(tmp_path)]) == 0
    assert_same(fl.Table.load(tmp_path / "diana"), fl.Table.load(folder / "diana"))
    capsys.readouterr()


def test_kept_settings_are_the_configuration(folder, tmp_path):
    """A file of every setting reads back; what decides no number is not kept."""
    config = SweepConfig(**SweepConfig.read(str(folder / "diana" / "sweep.toml")))
    assert (config.seeds, config.steps, config.dtype, config.kappa) == (3, 200, "float64", 300.0)
    changes = {"labels": ["a", 'b "c"'], "kappa": None, "l2": 0.01, "measure": ["distance"], "budget": {"rounds": 9.0}}
    other = dataclasses.replace(config, **changes)
    (tmp_path / "s.toml").write_text(toml.spell(other.settings()))
    assert SweepConfig(**SweepConfig.read(str(tmp_path / "s.toml"))) == other
    check_folder(
        tmp_path, "sweep", other.settings(), dataclasses.replace(other, out=tmp_path, quiet=True, memory="1GB")
    )
    with pytest.raises(fl.InputError, match=r"other budget, kappa, l2, labels, measure\)"):
        check_folder(tmp_path, "sweep", config.settings(), other)


def test_a_hyperparameter_called_as_an_option_is_told_from_it(tmp_path):
    one, other = (RunConfig(method="own", seed=3, hyperparameters={"seed": text, "p": text}) for text in ("1", "2"))
    check_folder(tmp_path, "run", one.settings(), one)
    with pytest.raises(fl.InputError, match=r"other hp-seed, p\)"):
        check_folder(tmp_path, "run", one.settings(), other)


def test_spelled_settings_read_back():
    settings = {
        "steps": 3,
        "rel-gap": 1e-16,
        "labels": ["a b", 'q"'],
        "budget": {"bits_up": 1e300},
        "grid": {"a.b": [1]},
    }
    assert tomllib.loads(toml.spell(settings | {"l2": None})) == settings


# --- bad input ---


def test_axes_that_cannot_be(refused, quick):
    sweep_gd = ["sweep", "gd", "diana", *quick]
    assert refused(*sweep_gd, "--grid", "compressor=top_k:2").startswith("diana: compressor top_k:2 is biased")
    assert refused(*sweep_gd, "--grid", "gamma") == (
        "--grid must be NAME=VALUE, as in 'gamma=log:0.01:1:5', got 'gamma'"
    )
    assert refused(*sweep_gd, "--grid", "gamma=1", "--grid", "gamma=2") == (
        "--grid gamma is given twice ('1' and '2'): keep one"
    )
    assert refused(*sweep_gd, "--grid", "gama=1") == (
        "unknown hyperparameter of gd and diana 'gama': did you mean 'gamma'? (known: aggregation, alpha, "
        "average_every, batch_size, cohort_size, compressor, convention, decay, gamma, gamma_schedule, memories, "
        "momentum, participation, replacement, schedule, selection, smart, weight_decay)"
    )
    assert refused(*sweep_gd, "--grid", "gd.alpha=1").startswith("unknown hyperparameter of gd 'alpha': did you mean")
    assert refused(*sweep_gd, "--grid", "ef21.gamma=1") == (
        "--grid ef21.gamma: ef21 is not swept here (swept: gd, diana)"
    )
    assert "lo < hi" in refused(*sweep_gd, "--grid", "gamma=log:1:0.1:3")
    assert refused(*sweep_gd, "--grid", "gamma=-1, 1") == "gd needs gamma > 0, got -1"
    assert refused("sweep", "locodl", *quick, "--grid", "p=0.5, 2") == "locodl needs p in (0, 1], got 2"
    assert refused("sweep", "diana", *quick, "--grid", "compressor=rand_k:6") == (
        "diana: rand_k needs 1 <= k <= d = 5, got k = 6"
    )
    assert refused(*sweep_gd, "--sample", "5") == (
        "--sample draws from axes, and there is none: add --grid, as in 'gamma=loguniform:0.01:1'"
    )
    assert refused(*sweep_gd, "--grid", "gamma=uniform:1:2", "--sample", "5", "--sample-method", "sobl").startswith(
        "unknown sampling method 'sobl': did you mean 'sobol'?"
    )


def test_options_that_cannot_be(refused, quick):
    sweep_gd = ["sweep", "gd", *quick]
    assert refused("sweep", "gdd", *quick).startswith("unknown method 'gdd': did you mean 'gd'?")
    assert refused(*sweep_gd, "--budget", "bits=1").startswith("unknown budget 'bits': did you mean 'bits_up'?")
    assert refused(*sweep_gd, "--budget", "rounds=many") == "--budget rounds must be a number > 0, got 'many'"
    assert refused(*sweep_gd, "--memory", "2 boxes") == (
        "--memory must be a size such as 2GB, 512MiB or 1e9, got '2 boxes'"
    )
    assert refused(*sweep_gd, "--measure", "distanc").startswith("unknown metric 'distanc': did you mean 'distance'?")
    assert refused(*sweep_gd, "--steps", "many") == (
        "argument --steps: must be whole and in 1..4294967295, got 'many' (see fedjax-lc sweep --help)"
    )
    assert "seeds" in refused(*sweep_gd, "--seeds", "0")
    assert "steps" in refused(*sweep_gd, "--steps", "0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3\n", "unknown key in {path} 'stepz': did you mean 'steps'? ("),
        ("steps = \n", "{path} is not a TOML file: Invalid value (at line 1, column 9)"),
        ("steps = 3\n", '{path} names no methods: add methods = ["locodl"], or give them before it'),
        ("steps = [3, 4]\n", "{path}: steps must be whole and in 1..4294967295, got [3, 4]"),
        ("steps = 'many'\n", "{path}: steps must be whole and in 1..4294967295, got 'many'"),
        ("quiet = 'yes'\n", "{path}: quiet must be true or false, got 'yes'"),
        ("weights = 'rows'\n", "{path}: weights must be equal or size, got 'rows'"),
        ("scale = true\n", "{path}: scale must be a word, got True"),
        ("grid = 'gamma=1'\n", "{path}: grid must be a table of names and values, as in [grid], got 'gamma=1'"),
        (
            "methods = 'gd'\n[grid]\ngama = 1\n",
            "unknown hyperparameter of gd 'gama': did you mean 'gamma'? (known: aggregation, gamma)",
        ),
        ("methods = 'gd'\n[budget]\nrounds = 0\n", "--budget rounds must be a number > 0, got 0"),
    ],
)
def test_files_that_cannot_be(refused, tmp_path, text, message):
    path = tmp_path / "s.toml"
    path.write_text(text)
    assert refused("sweep", path).startswith(message.format(path=path))


def test_files_that_are_not_there(refused, tmp_path):
    assert refused("sweep", tmp_path / "s.toml") == f"{tmp_path}/s.toml: no such file or directory"
    assert refused("sweep", "a.toml", "b.toml") == "one .toml file at a time, got a.toml and b.toml"
    for command in ("best", "plot"):
        assert refused(command, tmp_path).startswith(f"{tmp_path} and its subfolders hold no table: ")


def test_nothing_is_left_of_a_refused_sweep(refused, quick, tmp_path):
    refused("sweep", "gd", "locodl", *quick, "--grid", "p=2", "--out", tmp_path / "out")
    refused("sweep", "gd", *quick, "--rel-gap", "1e-30", "--out", tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_another_sweep_in_the_folder(refused, quick, folder):
    words = ["--grid", "gamma=theory*0.5, 1, 400", "--seeds", "3", "--out", folder]
    assert refused("sweep", "gd", *quick, *words, "--every", "5", "--split-seed", "1") == (
        f"{folder}/diana already holds a different sweep (other every, split-seed): choose another --out"
    )
    assert refused("sweep", "gd", *quick, *words, "--grid", "gd.gamma=1") == (
        f"{folder}/gd already holds a different sweep (other grid): choose another --out"
    )


# --- best and plot ---


def test_best(folder, tmp_path, capsys):
    csv = tmp_path / "best.csv"
    words = ["--metric", "rounds", "--rel-gap", "1e-2", "--by", "method,compressor", "--csv", str(csv)]
    assert main(["best", str(folder), *words]) == 0
    expected = fl.Table.load(folder).best("rounds", rel_gap=1e-2, by=["method", "compressor"])
    pd.testing.assert_frame_equal(pd.read_csv(csv), expected.fillna(np.nan), check_dtype=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "target: relative gap 0.01"
    for line, (_, row) in zip(lines[3:], expected.iterrows(), strict=False):
        compressor = "-" if row["method"] == "gd" else row["compressor"]
        median = f"{row['median']:.3e}" if np.isfinite(row["median"]) else "-"
        assert re.split(r"  +", line)[:2] == [row["method"], compressor]
        assert re.split(r"  +", line)[3] == median
    assert len(lines) == 3 + len(expected) + 1


def test_best_errors(folder, refused):
    assert refused("best", folder, "--metric", "bits").startswith("unknown metric 'bits': did you mean 'bits_up'?")
    assert refused("best", folder, "--by", "gama").startswith("unknown ")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "plot.png"),
        (["--x", "rounds", "--rel-gap", "1e-2"], "plot.png"),
        (["--kind", "heatmap", "--x", "gamma/theory", "--y", "compressor", "--method", "diana"], "heatmap.png"),
        (["--kind", "heatmap", "--method", "diana"], "heatmap.png"),
        (["--kind", "sensitivity", "--x", "gamma/theory", "--metric", "rounds"], "sensitivity.png"),
    ],
)
@pytest.mark.slow
def test_plots(folder, tmp_path, words, name, capsys):
    before = (folder / "plot.png").read_bytes()
    assert main(["plot", str(folder), *words, "--out", str(tmp_path / "p.svg")]) == 0
    assert "</svg>" in (tmp_path / "p.svg").read_text()
    assert main(["plot", str(folder), *words]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {folder / name}\n")
    assert (folder / name).stat().st_size > 10_000
    assert ((folder / "plot.png").read_bytes() == before) == (words == [] or name != "plot.png")
    (folder / "plot.png").write_bytes(before)


def test_plot_of_a_run(tmp_path, quick, capsys, refused):
    assert main(["run", "gd", *quick, "--out", str(tmp_path)]) == 0
    picture = (tmp_path / "plot.png").read_bytes()
    assert main(["plot", str(tmp_path), "--x", "rounds"]) == 0
    assert (tmp_path / "plot.png").read_bytes() != picture
    capsys.readouterr()
    assert refused("plot", tmp_path, "--kind", "heatmap") == (
        "runs have curves alone, and --kind and --method are for one sweep: leave them out"
    )


def test_plot_of_runs(tmp_path, folder, refused, monkeypatch, capsys):
    """Those that differ in their key alone are the seeds of one curve."""
    monkeypatch.chdir(tmp_path)
    runs = {"a": ("locodl", 0, 3), "b": ("locodl", 1, 3), "c": ("gd", 0, 3), "d": ("gd", 0, 4)}
    for name, (method, key, clients) in runs.items():
        facts = {"method": method, "hyperparameters": {}, "problem": {"clients": clients}, "key": [0, key]}
        trace = geometric(records=40, status="finished")
        dataclasses.replace(trace, method=method, config=trace.config | facts).save(tmp_path / name)
    drawn = []
    monkeypatch.setattr(fl.plot, "curves", lambda traces, **given: drawn.append(traces) or curves(traces, **given))
    assert main(["plot", "a", "b", "c", "--x", "rounds"]) == 0
    assert capsys.readouterr().out == "wrote plot.png\n"
    assert {label: len(seeds) for label, seeds in drawn[0].items()} == {"LoCoDL": 2, "GD": 1}
    assert Path("plot.png").stat().st_size > 10_000
    assert refused("plot", "a", "d") == "these runs are of 2 problems: plot those of one, or see fedjax-lc report"
    assert refused("plot", "a", folder) == (
        "plot draws runs together, or one sweep: give folders of runs, or see fedjax-lc report"
    )


def test_plot_errors(folder, refused):
    assert refused("plot", folder, "--kind", "heat").startswith(
        "unknown kind of picture 'heat': did you mean 'heatmap'?"
    )
    assert refused("plot", folder, "--kind", "sensitivity") == (
        "sensitivity needs --x: choose from compressor, gamma/theory"
    )
    assert refused("plot", folder, "--kind", "sensitivity", "--x", "gama").startswith(
        "unknown axis 'gama': did you mean"
    )
    assert refused("plot", folder, "--out", "p.gif").startswith("unknown picture format 'gif'")


# --- Ctrl-C ---


@pytest.mark.parametrize(("methods", "code"), [(["gd", "diana"], 130), (["gd"], 0)])
def test_ctrl_c_at_the_end_of_a_method_is_not_lost(methods, code, quick, monkeypatch, capsys):
    """It keeps the next method from starting; a sweep that is whole is told as usual."""

    def press(block, *arguments, run=Block.run):
        found = run(block, *arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(Block, "run", press)
    assert main(["sweep", *methods, *quick, "--rel-gap", "1e-2", "--seeds", "2"]) == code
    out, err = capsys.readouterr()
    assert ("best configuration" in out) == (code == 0)
    assert err.endswith("interrupted with 2 of 4 lanes done; nothing is kept without --out\n") == (code != 0)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(quick, tmp_path, number, code):
    """GD is done, and DIANA's steps are too small to ever be; its lanes under way are kept."""
    words = ["--rel-gap", "1e-2", "--grid", "diana.gamma=1e-9", "--seeds", "2", "--out", str(tmp_path)]
    endless = [word for word in quick if word != "--quiet"] + ["--steps", "1000000000"]
    command = [sys.executable, "-m", "fedjax_lc.cli", "sweep", "gd", "diana", *endless, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, *told = (process.stderr.readline() for _ in range(5))  # the data, and the plans
            assert told[0].startswith("GD: 1 configurations x 2 seeds = 2 lanes")
            assert told[2].startswith("DIANA: ")
            time.sleep(1)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (code, "")
    assert len(list(tmp_path.glob("diana/part-00000000-*.safetensors"))) == 1
    assert err.splitlines()[-1] == (
        f"fedjax-lc: interrupted with 2 of 4 lanes done; finished parts and lanes under way are kept in {tmp_path}, "
        "and the same command goes on"
    )
    table = fl.Table.load(tmp_path)
    assert table.lanes[["method", "status"]].to_numpy().tolist() == [["gd", "target"]] * 2
