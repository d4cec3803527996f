"""The command line: what it prints and writes, and that bad input is one line and exit code 2 before any work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.kit import catalogue
from fedjax_lc import algorithms, data
from fedjax_lc.cli import main

QUICK = ["--steps", "200", "--quiet"]
METHODS = Path(algorithms.__file__).parent


def fedjax_lc(*arguments, **environment):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "fedjax_lc.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | environment
    )


# --- what it does ---


def test_run_writes_its_results(tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["run", "locodl", *QUICK, "--compressor", "rand_k:2|natural", "--out", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "plot.png",
        "state.safetensors",
        "trace.parquet",
    ]
    trace = fl.Trace.load(folder)
    assert trace.config["hyperparameters"]["compressor"] == "rand_k:2|natural"
    out = capsys.readouterr().out
    assert "effective kappa" in out
    assert "LoCoDL, rand_k:2|natural" in out
    problem = fl.problems.logistic_regression(
        data.clients(breast := data.load("breast_cancer", scale="standard"), data.partition(breast, 10, "iid")),
        kappa=1e4,
    )
    expected = fl.run("locodl", problem, fl.algorithms.get("locodl").theory(problem, "rand_k:2|natural"), steps=200)
    np.testing.assert_array_equal(trace.value, expected.value)


def test_numbers_that_are_given_are_asked_of_no_theorem(capsys):
    """Without strong convexity a line says what theory's p rests on; given p there is nothing to say."""
    arguments = ["run", "locodl", "--l2", "0", "--steps", "20", "--quiet"]
    assert main(arguments) == 0
    assert "no theorem covers F without strong convexity: p from mu = L/25" in capsys.readouterr().out.splitlines()
    assert main([*arguments, "--gamma", "0.1", "--p", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "p=0.2" in out
    assert "theorem" not in out
    assert main(["sweep", "locodl", "--l2", "0", "--steps", "20", "--grid", "gamma=0.1, 0.2"]) == 0
    assert "note: LoCoDL: no theorem covers F without strong convexity: p from mu = L/25" in capsys.readouterr().err


def test_the_same_run_may_be_repeated_and_another_may_not(tmp_path, capsys, refused):
    folder = str(tmp_path / "out")
    assert main(["run", "gd", *QUICK, "--out", folder]) == 0
    assert main(["run", "gd", *QUICK, "--out", folder]) == 0
    capsys.readouterr()
    assert refused("run", "gd", *QUICK, "--seed", "1", "--gamma", "0.1", "--out", folder) == (
        f"{folder} already holds a different run (other gamma, seed): choose another --out"
    )


def test_hyperparameters_and_choices_of_theory_are_options(capsys):
    assert main(["run", "locodl", *QUICK, "--gamma", "0.05", "--p", "balanced", "--rho", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "gamma=0.05" in out
    assert "rho=0.5" in out


def test_index_convention(tmp_path, capsys):
    bits = {}
    for index in ("log2", "none"):
        folder = tmp_path / index
        main(["run", "locodl", *QUICK, "--compressor", "rand_k:2", "--index-bits", index, "--out", str(folder)])
        bits[index] = fl.Trace.load(folder).bits_up[-1] / fl.Trace.load(folder).rounds[-1]
    assert "compressor=rand_k:2,index=none" in capsys.readouterr().out
    assert bits == {"log2": 2 * (32 + 5), "none": 2 * 32}


def test_a_diverging_step_size_is_reported(capsys):
    assert main(["run", "gd", "--data", "synthetic_least_squares", "--gamma", "1e3", "--every", "1", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "diverged: the last finite gap is" in out


def test_one_constant_column_is_a_note(tmp_path, capsys):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    features[:, 1] = 7
    np.savez(tmp_path / "d.npz", features=features, targets=rng.choice([-1, 1], size=40))
    assert main(["run", "gd", *QUICK, "--data", str(tmp_path / "d.npz")]) == 0
    assert capsys.readouterr().err == (
        "note: d.npz: read as arrays, 40 rows, 3 features, 2 classes (-1, 1)\n"
        "note: column 2 (counted from 1) is constant: 7 in every row\n"
    )


def test_a_one_class_client_is_fine(capsys):
    assert main(["run", "gd", *QUICK, "--partition", "sorted"]) == 0
    capsys.readouterr()


def test_weights_and_the_report_of_a_partition(tmp_path, capsys):
    split = ["--partition", "dirichlet:0.3", "--weights", "size", "--report", "--out", str(tmp_path)]
    assert main(["run", "gd", *QUICK, *split]) == 0
    assert (tmp_path / "clients.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "client" in out
    problem = fl.Trace.load(tmp_path).config["settings"]
    assert (problem["weights"], problem["partition"]) == ("size", "dirichlet:0.3")


@pytest.mark.parametrize("task", ["iris", "diabetes_regression"])
def test_other_tasks_run_too(task, capsys):
    assert main(["run", "gd", *QUICK, "--data", task]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("what", ["methods", "compressors", "data", "partitions", "figures"])
def test_list(what, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert len({len(line.rstrip()) for line in lines[1:2]}) == 1


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["run", "locodl", "--help"], ["figure", "--help"]]
)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "usage: fedjax-lc" in out
    if "locodl" in arguments:
        assert "--gamma VALUE" in out
        assert "step size, below 2/L (> 0)" in " ".join(out.split())


# --- bad input ---


def test_unknown_names(refused):
    assert refused("run", "locdl").startswith("unknown method 'locdl': did you mean 'locodl'? (")
    assert refused("run", "locodl", "--compressor", "randk:3").startswith(
        "unknown compressor 'randk': did you mean 'rand_k'? (known: "
    )
    assert refused("run", "gd", "--data", "a55a").startswith("unknown data set 'a55a': did you mean 'a5a'? (")
    assert refused("run", "gd", "--partition", "dirichle:1").startswith(
        "unknown partition 'dirichle': did you mean 'dirichlet'? (known: "
    )
    assert refused("figure", "locodl/a5a").startswith("unknown figure 'locodl/a5a': did you mean 'locodl/a5a-")
    assert refused("list", "method").startswith("unknown list 'method': did you mean 'methods'? (known: ")


def test_k_out_of_range(refused):
    for k in (0, -1, 31):
        message = refused("run", "locodl", "--compressor", f"rand_k:{k}")
        assert message == f"rand_k needs 1 <= k <= d = 30, got k = {k}"


def test_p_out_of_range(refused):
    for p in ("0", "1.5", "-0.25"):
        assert refused("run", "locodl", f"--p={p}") == f"locodl needs p in (0, 1], got {float(p):g}"


def test_options_that_do_not_parse(refused):
    assert refused("run", "gd", "--steps", "many") == (
        "argument --steps: must be whole and in 1..4294967295, got 'many' (see fedjax-lc run --help)"
    )
    assert refused("run", "gd", "--omega", "1") == "unrecognized arguments: --omega 1 (see fedjax-lc run --help)"
    assert refused("run", "gd", "--kappa", "0.5") == "kappa must be greater than 1, got 0.5"
    assert refused("run", "gd", "--kappa", "10", "--l2", "1") == (
        "give one of l2 and kappa: l2=0.01 sets mu itself, kappa=1e4 the condition number"
    )


def test_the_bound_of_a_theorem_is_drawn_where_there_is_one(tmp_path, refused, capsys):
    folder = tmp_path / "out"
    assert main(["run", "gd", *QUICK, "--theory", "--out", str(folder)]) == 0
    assert "lyapunov" in fl.Trace.load(folder).metrics
    assert main(["plot", str(folder), "--theory", "--out", str(tmp_path / "bound.svg")]) == 0
    assert 'id="theory"' in (tmp_path / "bound.svg").read_text()
    capsys.readouterr()
    assert refused("run", "fedavg", *QUICK, "--theory").startswith("--theory: no theorem gives fedavg a rate here")
    for wrong in (("--gamma", "1e3"), ("--momentum", "0.5")):
        message = refused("run", "diana", *QUICK, "--theory", *wrong)
        assert message.startswith("--theory: the theorem of diana says nothing of this problem with these")


def test_words_where_numbers_belong(refused):
    assert refused("run", "gd", "--gamma", "fast") == "gd needs gamma as a number, got the word 'fast'"
    assert refused("run", "locodl", "--p", "none").startswith("unknown p 'none'")
    assert refused("run", "sgd", "--replacement", "no") == "sgd needs replacement true or false, got 'no'"
    assert refused("run", "sgd", "--batch-size", "all") == "sgd needs batch_size whole and >= 1, got 'all'"
    assert refused("run", "ef21_sgdm", "--eta", "0") == "ef21_sgdm needs eta in (0, 1], got 0"
    assert refused("run", "cser", "--period", "often").startswith("the theory of cser does not take period=often: ")
    assert refused("run", "gd", "--gamma", "inf") == "gd needs gamma > 0, got inf"
    assert refused("run", "gd", "--x", "accuracy").startswith("unknown x axis 'accuracy'")


def test_none_is_none_where_that_may_be(capsys):
    """The theory of a network has batches; without, a round goes through all rows of a client."""
    words = ["--data", "digits", "--model", "linear", "--steps", "1", "--quiet", "--local-steps", "1", "--batch-size"]
    printed = []
    for size in ("none", "1000"):
        assert main(["run", "fedavg", *words, size, "--replacement", "false", "--measure", "train_accuracy_worst"]) == 0
        printed.append(capsys.readouterr().out.splitlines())
    header, row = printed[0][-3], printed[0][-1]
    assert row == printed[1][-1]
    assert header.split()[-4:-1] == ["train", "accuracy", "worst"]
    assert row.split()[-2].endswith("%")


def test_the_report_is_that_of_the_rows_trained_on(capsys):
    words = ["--data", "digits", "--model", "linear", "--steps", "1", "--quiet", "--partition", "dirichlet:0.1"]
    assert main(["run", "fedavg", *words, "--report"]) == 0
    out = capsys.readouterr().out
    assert "1,438 rows, tested on 359" in out
    (whole,) = (line for line in out.splitlines() if line.split()[:1] == ["all"])
    assert whole.split()[1].replace(",", "") == "1438"


def test_more_clients_than_rows(refused):
    assert refused("run", "gd", "--clients", "1000") == (
        "1000 clients for 569 rows: every client needs a row; use fewer clients"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (np.where(np.arange(len(X))[:, None] == 3, np.nan, X), y),
         "feature in row 4, column 1 (counted from 1) is nan; features must be finite numbers"),
        (lambda X, y: (np.ones_like(X), y),
         "all 3 feature columns are constant, so there is nothing to learn from"),
        (lambda X, y: (X, np.ones_like(y)),
         "all 40 targets are 1, but classification needs two classes; labels='regression' takes targets as numbers"),
    ],
    ids=["non-finite", "constant", "one class"],
)  # fmt: skip
def test_data_that_cannot_be_used(tmp_path, refused, change, message):
    rng = np.random.default_rng(0)
    features, targets = change(rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40))
    np.savez(tmp_path / "d.npz", features=features, targets=targets)
    assert refused("run", "gd", "--data", tmp_path / "d.npz") == f"d.npz: {message}"


def test_files_that_cannot_be_read(tmp_path, refused):
    assert refused("run", "gd", "--data", "none.csv") == "none.csv: no such file"
    (tmp_path / "cut.bz2").write_bytes(b"BZh91AY&SY\x00")
    assert refused("run", "gd", "--data", tmp_path / "cut.bz2") == (
        f"{tmp_path}/cut.bz2: the .bz2 file is truncated or corrupt; copy or download it again"
    )
    (tmp_path / "bad.txt").write_text("+1 1:0.5\n-1 1:x\n")
    assert (
        refused("run", "gd", "--data", tmp_path / "bad.txt") == f"{tmp_path}/bad.txt, line 2: '1:x' is not index:value"
    )
    (tmp_path / "a5a").write_text("+1 1:1\n-1 2:1\n")
    assert refused("run", "gd", "--data", "a5a", "--data-dir", tmp_path) == (
        f"{tmp_path}/a5a: wrong checksum for 'a5a' (expected sha256 f3e650050be2..., got 3af50bec2792...); "
        "delete the file to fetch it again, or give its path to load it as your own data"
    )


def test_an_output_folder_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "out"
    message = refused("run", "gd", "--out", folder)
    assert message.startswith(f"cannot write {folder}/config.json: ")
    assert message.endswith("; choose a folder you may write to")


def test_a_damaged_output_folder(tmp_path, refused):
    (tmp_path / "config.json").write_text("{")
    assert refused("run", "gd", "--out", tmp_path) == (
        f"{tmp_path} holds something else than a run: choose another folder"
    )


def test_a_target_below_float32(refused):
    message = refused("run", "gd", "--dtype", "float32", "--rel-gap", "1e-12")
    assert message.startswith("rel_gap 1e-12 is below what float32 resolves here: use float64 (")


def test_nothing_is_left_half_written(tmp_path, refused):
    refused("run", "gd", "--rel-gap", "1e-30", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- a new method is one file ---

ROOT = Path(__file__).parents[1]
README, METHOD_PAGE, COMPRESSOR_PAGE = (
    (ROOT / name).read_text() for name in ("README.md", "docs/guide/new_method.md", "docs/guide/new_compressor.md")
)


def block(page, word):
    """The first block of Python of a page that contains a word."""
    return next(each for each in re.findall(r"```python\n(.*?)```", page, flags=re.S) if word in each)


@pytest.fixture
def toy(tmp_path):
    """The guide's new method, as the only file of a folder of one's own."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "dcgd.py").write_text(block(METHOD_PAGE, "register("))
    return {"FEDJAX_LC_METHODS": str(tmp_path / "methods")}


@pytest.mark.slow
def test_a_method_in_one_file_runs(toy, tmp_path):
    out = fedjax_lc("run", "dcgd", "--steps", "2000", "--gamma", "0.5", "--out", str(tmp_path / "out"), **toy)
    assert out.returncode == 0, out.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["method"], config["hyperparameters"]["gamma"]) == ("dcgd", 0.5)


@pytest.mark.slow
def test_a_method_in_one_file_passes_the_contract_suite(toy):
    command = [sys.executable, "-m", "pytest", "tests/contract/test_algorithms.py", "-k", "dcgd", "-x"]
    root = str(catalogue.FOLDER.parent)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=os.environ | toy)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout or "100%" in done.stdout


def test_the_readmes_program_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(block(README, "plot.svg"), {})
    assert capsys.readouterr().out.startswith("target {")
    assert (tmp_path / "plot.svg").exists()


def test_the_guides_compressor_works():
    """Its class, registered, parses, composes and keeps what it certifies."""
    space = {"__name__": "stochastic"}
    exec(block(COMPRESSOR_PAGE, "class Stochastic"), space)
    compressor = space["Stochastic"](0.25)
    X = jax.vmap(lambda key: compressor(key, jnp.arange(1.0, 9.0)).value)(jax.random.split(jax.random.key(0), 4000))
    x = np.arange(1.0, 9.0)
    assert np.linalg.norm(X.mean(0) - x) <= 4 * np.sqrt(compressor.omega(8) * (x @ x) / 4000)
    assert np.mean(np.sum((np.asarray(X) - x) ** 2, axis=1)) == pytest.approx(compressor.omega(8) * (x @ x), rel=0.05)
    assert str(compressor | fl.compressors.parse("natural")) == "stochastic:0.25|natural"


def test_a_broken_method_file_is_one_line(tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_like_this\n")
    done = fedjax_lc("list", FEDJAX_LC_METHODS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"fedjax-lc: {tmp_path}/bad.py: No module named 'nothing_like_this'\n"


def test_the_table_of_methods_in_the_readme_is_that_of_the_registry(capsys):
    own = [name for name in algorithms.names() if Path(algorithms.get(name).file).parent == METHODS]
    assert main(["list", "methods", "--long", "--markdown"]) == 0
    rows = [
        row for row in capsys.readouterr().out.splitlines() if not row.startswith("| `") or row.split("`")[1] in own
    ]
    written = README.partition("<!-- methods -->")[2].partition("<!-- end of methods -->")[0]
    cells = lambda lines: [[cell.strip(" -") for cell in line.split("|")] for line in lines if line.strip()]
    assert cells(written.splitlines()) == cells(rows)
    assert len(own) == len(rows) - 2 > 45


@pytest.mark.parametrize("name", algorithms.names())
def test_every_method_says_what_travels(name):
    method = algorithms.get(name)
    if Path(method.file).parent == METHODS:
        assert method.up
        assert method.down


def test_other_lists_have_no_long_form(refused):
    assert refused("list", "data", "--long") == "--long is for the list of methods, got data"
