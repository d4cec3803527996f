"""Input that nobody can use is refused in one printable line; nothing of a user's is touched and nothing is left."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedjax_lc as fl
from fedjax_lc import cli
from fedjax_lc.cli.run import _read
from fedjax_lc.core.errors import InputError, one_line, unknown
from fedjax_lc.core.hyperparameters import Range

BEYOND, LONG = "18446744073709551616", "x" * 300
TINY = ["--data", "synthetic_logistic:num_clients=2,rows=5,dim=3", "--steps", "20", "--quiet", "--no-cache"]
FOREIGN = ("{}", "[]", "null", '{"a": 1}', "", "\0")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["run", "gd", "--seed", BEYOND], f"argument --seed: must be a whole number (64 bits at most), got '{BEYOND}'"),
        (["run", "gd", "--steps", BEYOND], "argument --steps: must be whole and in 1..4294967295"),
        (["run", "gd", "--clients", "1e3"], "argument --clients: must be whole and >= 1, got '1e3'"),
        (["run", "gd", "--split-seed=-1"], "argument --split-seed: must be whole and >= 0, got '-1'"),
        (["run", "gd", "--gamma", "9" * 400], "gd needs gamma > 0, got inf"),
        (["run", "sgd", "--batch-size", BEYOND], "sgd needs batch_size whole and >= 1, got 1.84467e+19"),
        (["run", "locodl", "--compressor", f"rand_k:{'9' * 400}"], "rand_k needs 1 <= k <= d = 30, got k = inf"),
        (["run", "fedavg", "--client-weights", "1"], "unknown client_weights '1': did you mean"),
        (["run", "fedavg", "--selection", "3"], "unknown selection '3': did you mean"),
        (["run", "gd", "--test-share", "nan"], "argument --test-share: must be in (0, 1), got 'nan'"),
        (["run", "gd", "--test-share", "0.5"], "--test-share is for networks: add --model, or leave it out"),
        (["run", "gd", "--precision", "high"], "--precision is for networks: add --model, or leave it out"),
        (["run", "gd", "--data-dir", "/nosuch"], "--data-dir /nosuch: no such folder"),
        (["run", "gd", "--data", "synthetic_logistic", "--data-dir", "/nosuch"], "--data-dir /nosuch: no such folder"),
        (["run", "gd", "--gamma=--"], "argument --gamma: expected a value, got '--'"),
        (["run", "gd", "--out", ""], "argument --out: must be a path, which must not be empty"),
        (["run", "gd", "--out", "a\0b"], "argument --out: must be a path, which must not be empty, nor hold a zero"),
        (["run", "gd", "--out", LONG], "argument --out: must be a path, which must not be empty, nor hold a zero byte"),
        (["best", LONG], "argument DIR: must be a path, which must not be empty, nor hold a zero byte"),
        (["plot", LONG], "argument DIR: must be a path, which must not be empty, nor hold a zero byte"),
        (["best", "d", "--rel-gap", "nan"], "argument --rel-gap: must be > 0, got 'nan'"),
        (["merge", "d", "--rel-gap=-1"], "argument --rel-gap: must be > 0, got '-1'"),
        (["plot", "d", "--out", ""], "argument --out: must be a path"),
        (["run", "gd", "--data", "~nosuchuser/x"], "~nosuchuser/x: not a path that can be read"),
        (["run", "gd", "--data", LONG], f"{LONG}: not a path that can be read (File name too long)"),
        (["run", "gd", "--partition", "clusters:~nosuchuser/x"], "clusters: ~nosuchuser/x: not a path"),
        (["run", "gd", "--data", "synthetic_logistic:dim=100000000000"], "synthetic data: holding 10 x 100 x 1000000"),
        (["run", "gd", "--data", "synthetic_fedprox:num_clients=1000000000"], "synthetic data: holding 1000000000 x"),
        (["run", "gd", "--data", "iris", "--model", f"mlp:hidden={BEYOND}"], "model 'mlp:hidden=18446744073709551616'"),
        (["sweep", "gd", "--seeds", "999999999999"], "seeds must be a number >= 1 or different whole numbers >= 0"),
        (["sweep", "gd", "--memory", "1e999"], "--memory must be a size such as 2GB, 512MiB or 1e9, got '1e999'"),
        (["sweep", "gd", "--budget", "bits_up=1e999"], "--budget bits_up must be a number > 0, got '1e999'"),
        (["sweep", "gd", "--grid", "gamma=linear:0.1:1:1000000000"], "axis linear:0.1:1:1000000000 needs a whole"),
        (["sweep", "gd", "--sample", "1000000000", "--grid", "gamma=uniform:0:1"], "sample needs a whole number of"),
        (["run", "locodl", "--compressor", "|".join(["natural"] * 2000)], "compressor 'natural|natural|natural"),
        (["run", "locodl", "--compressor", "induced(" * 2000], "compressor 'induced(induced("),
        (["run", "fedavg", "--client-schedule", "(" * 50], "schedule '(((((((((((((((((((((((((("),
        (["run", "\x1b[31mgd\n"], r"unknown method '\x1b[31mgd\n': did you mean"),
        (["run", "gd", "--x", "\x1b]0;title\x07"], "unknown x axis"),
        (["run", "gd", "\x1b[2J"], r"unrecognized arguments: \x1b[2J (see fedjax-lc run --help)"),
        (
            ["run", "fedavg", "--client_lr", "1"],
            "unrecognized arguments: --client_lr 1; did you mean --client-lr? (see fedjax-lc run --help)",
        ),
        *(
            (
                [command, "gd", "locodl", "--batch-size", "3"],
                "unrecognized arguments: --batch-size 3; a hyperparameter of locodl is an axis here: "
                f"--grid 'batch_size=...' (see fedjax-lc {command} --help)",
            )
            for command in ("sweep", "tune")
        ),
        (["run", "x" * 10**6], "unknown method 'xxxxxxxxx"),
        (["figure", "--jobs", "0", "locodl"], "argument --jobs: must be whole and in 1..1000, got '0'"),
    ],
    ids=lambda part: " ".join(part)[:40].encode("unicode_escape").decode() if isinstance(part, list) else "",
)  # fmt: skip
def test_a_refusal_is_one_line(refused, line, message):
    said = refused(*line)
    assert said.startswith(message), said
    assert said.isprintable()
    assert len(said) < 1100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = " + "[" * 2000 + "]" * 2000, "{path} nests lists or tables too deeply"),
        ("[grid" + ".a" * 3000 + "]\nx = 1", "{path}: a nests tables too deeply: at most 20 in each other"),
        ("l2 = []", "{path}: l2 must be a number, got []"),
        ("data = ['a']", "{path}: data must be a word, got ['a']"),
        ("seeds = 1e400", "{path}: seeds must be whole and >= 1, got 'inf'"),
        (f"seeds = {'9' * 400}", "{path}: seeds must be whole and >= 1 (64 bits at most), got '999"),
        ("rel-gap = inf", "{path}: rel-gap must be > 0, got 'inf'"),
        (f"budget = {{ rounds = {'9' * 400} }}", "--budget rounds must be a number > 0, got 999"),
        ("grid = { gamma = [[1]] }", "axis gamma takes finite numbers, got [1]"),
        (f"grid = {{ gamma = {'9' * 400} }}", "axis gamma takes finite numbers, got 999"),
        ("grid = { gamma = 1979-05-27 }", "axis gamma takes a list of values"),
        ('out = ""', "{path}: out must be a path, which must not be empty"),
        (r'"\u001b[31m" = 3', r"unknown key in {path} '\x1b[31m': did you mean"),
    ],
    ids=lambda part: part[:20].encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_file_that_cannot_be_is_one_line(refused, tmp_path, text, message):
    path = tmp_path / "s.toml"
    path.write_text(f"methods = 'gd'\n{text}\n")
    assert refused("sweep", path).startswith(message.format(path=path))


def test_a_grid_of_too_many_points(refused):
    assert refused("sweep", "locodl", "--grid", "gamma=linear:0.1:1:10000", "--grid", "p=linear:0.1:1:10000") == (
        "a grid has at most 1,000,000 points, got 100,000,000: draw a sample of them"
    )


def test_whole_numbers_may_be_spelled_with_an_exponent():
    """A batch above a client's rows is all of them, so 3e10 is one, and is a whole number."""
    (size,) = {_read(text, fl.algorithms.get("sgd").options["batch_size"]) for text in ("3e10", "30000000000")}
    assert (size, type(size)) == (30_000_000_000, int)


def test_ranges_hold_whole_numbers_of_64_bits_alone():
    assert Range.parse("whole [1, inf)").holds(2**63 - 1, 1)
    assert not Range.parse("whole [1, inf)").holds(2**63, 1)
    assert not Range.parse("whole [1, inf)").holds(10**400, 1)


def test_unknown_takes_what_is_no_word():
    assert str(unknown("thing", 3, ["a", "b"])).startswith("unknown thing 3: did you mean ")
    assert str(unknown("thing", None, [1, "b"])).startswith("unknown thing None: did you mean ")


def test_a_message_is_one_printable_line():
    assert str(InputError("a\nb\x1b[31m\udcff\u2028")) == r"a\nb\x1b[31m\udcff\u2028"
    assert len(one_line("x" * 10**6)) < 1100
    assert one_line("é, 数") == "é, 数"


# --- folders ---


def test_a_refused_command_leaves_no_folder(refused, tmp_path):
    refused("run", "gd", "--kappa", "0.5", "--out", tmp_path / "a" / "b")
    refused("run", "gd", "--kappa", "0.5", "--report", "--partition", "nosuch", "--out", tmp_path / "a")
    refused("sweep", "gd", "--kappa", "0.5", "--out", tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("command", ["run", "sweep", "best", "plot", "report", "extend"])
def test_a_foreign_config_is_neither_taken_nor_touched(refused, tmp_path, command, text):
    at = tmp_path / "gd" if command == "sweep" else tmp_path
    at.mkdir(exist_ok=True)
    (at / "config.json").write_text(text)
    line = {"run": ["gd", *TINY, "--out"], "sweep": ["gd", *TINY, "--out"], "extend": ["--steps", "10"]}.get(
        command, []
    )
    line = ["--out", tmp_path / "report.html"] if command == "report" else line
    refused(command, *line, tmp_path)
    assert (at / "config.json").read_text() == text
    assert [path.name for path in at.iterdir()] == ["config.json"]


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_picture_of_somebody_else_is_kept(refused, tmp_path, command):
    (tmp_path / "plot.png").write_text("mine")
    assert refused(command, "gd", *TINY, "--out", tmp_path).startswith(f"{tmp_path} holds a plot.png and no ")
    assert (tmp_path / "plot.png").read_text() == "mine"


# --- whoever listens ---


class Gone(io.StringIO):
    """The output of `| head` once it has ended."""

    def write(self, text):
        raise BrokenPipeError


def test_files_are_written_where_nobody_reads_on(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Gone())
        status = cli.main(["run", "gd", *TINY, "--report", "--out", str(tmp_path / "out")])
    assert status == 141
    assert json.loads((tmp_path / "out" / "config.json").read_text())["status"] == "finished"
    assert {"clients.png", "plot.png", "trace.parquet"} < {path.name for path in (tmp_path / "out").iterdir()}


def test_names_are_spelled_out_on_the_output(tmp_path, capsys):
    assert cli.main(["run", "gd", *TINY, "--out", str(tmp_path / "red\x1b[31m")]) == 0
    out = capsys.readouterr().out
    assert r"red\x1b[31m/config.json" in out
    assert "\x1b" not in out


def test_ctrl_c_while_importing_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    search = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(fl.__file__))])
    command = [sys.executable, "-m", "fedjax_lc.cli", "run", "gd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": search})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fedjax-lc: interrupted\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 3 TiB"), "this needs more memory than there is: Unable to allocate 3 TiB"),
        (OSError(28, "No space left on device", "out/x"), "out/x: No space left on device"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "the device ran out of memory: ask for less"),
    ],
)
def test_what_this_machine_cannot_do_is_one_line(refused, monkeypatch, error, said):
    def fails(_):
        raise error

    monkeypatch.setattr(cli, "_parser", fails)
    assert refused("list") == said


def test_help_and_readme_say_that_methods_are_code(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    for text in (capsys.readouterr().out, (Path(__file__).parents[1] / "README.md").read_text()):
        assert re.search(r"FEDJAX_LC_METHODS.*trust", text, flags=re.S)
