"""Hostile words: whatever the command line, the small language, TOML and saved settings hold, a command ends with code
0, with 130, or with 2, one printable line and nothing written; never with a traceback, and never not at all."""

import contextlib
import dataclasses
import importlib
import io
import json
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjax_lc import data, models
from fedjax_lc.algorithms.frames import schedules
from fedjax_lc.cli import main
from fedjax_lc.compressors import parse
from fedjax_lc.core.errors import InputError
from fedjax_lc.pages.figures import Figure
from fedjax_lc.pages.page import embedded
from fedjax_lc.running.options import Options, task
from fedjax_lc.sweeping.axes import parse_axis
from tests.fuzz import words

LONGEST = 60  #: seconds of a case, after which it hangs


def times(count):
    """So many cases, the same at each call."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)


class Begun(BaseException):
    """A command has come as far as the run itself."""


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch, tmp_path):
    """A run and a sweep end when their options have been checked, and an empty folder is the current one."""

    def begun(algorithm, problem, hp, *_, **options):
        for each in getattr(hp, "hparams", [hp]):
            algorithm.check(problem, each)
        task("run", algorithm, problem, {name: options[name] for name in Options.__annotations__ if name in options})
        raise Begun

    for module, name in (("fedjax_lc.running.run", "run"), ("fedjax_lc.sweeping.sweep", "sweep")):
        monkeypatch.setattr(importlib.import_module(module), name, begun)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def check(line, folder=None):
    """Call the command line, and check how it ends; its exit code."""
    folder = folder or Path.cwd()
    before = held(folder)
    out, err = io.StringIO(), io.StringIO()
    code = 0
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"no end: {line}"))
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(line)
    except Begun:
        pass
    except SystemExit as stop:  # --help
        code = stop.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert code in (0, 2, 130), (code, err.getvalue())
    if code == 2:
        *notes, refusal = err.getvalue().splitlines()
        assert all(note.startswith("note: ") for note in notes), err.getvalue()
        assert refusal.startswith("fedjax-lc: ")
        assert refusal.isprintable()
        assert 10 < len(refusal) < 1100
        assert not refusal.endswith((":", ": "))
        assert held(folder) == before
        assert out.getvalue() == "" or "--report" in line  # the split is shown before a method is checked
    return code


def held(folder):
    """Every file and folder in a folder."""
    return sorted(str(path) for path in folder.rglob("*"))


@given(line=words.command_lines())
@times(60)
def test_words_of_a_command_line(line):
    check(line)


@pytest.mark.slow
@given(line=words.command_lines())
@times(2000)
def test_words_of_a_command_line_at_length(line):
    check(line)


def sweep_file(text):
    path = Path.cwd().parent / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    check(["sweep", str(path)])


@given(text=words.toml_texts())
@times(30)
def test_toml(text):
    sweep_file(text)


@pytest.mark.slow
@given(text=words.toml_texts())
@times(2000)
def test_toml_at_length(text):
    sweep_file(text)


@given(text=words.BAD, known=st.sampled_from(("compressor", "schedule", "partition", "model", "axis", "data")))
@times(200)
def test_the_small_language(text, known):
    spelled(text, known)


@pytest.mark.slow
@given(text=words.BAD, known=st.sampled_from(("compressor", "schedule", "partition", "model", "axis", "data")))
@times(10_000)
def test_the_small_language_at_length(text, known):
    spelled(text, known)


READERS = {
    "compressor": parse,
    "schedule": lambda text: schedules.parse(text)(3),
    "partition": lambda text: data.parse(text)(20, 2),
    "model": lambda text: models.get(text, classes=2),
    "axis": parse_axis,
    "data": lambda text: data.load(text, download=False),
}


def spelled(text, known):
    """A text is read, or refused in a line."""
    with contextlib.suppress(InputError):
        read = READERS[known](text)
        assert known != "compressor" or str(parse(str(read))) == str(read)


# --- saved settings ---


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folders of a run and of a sweep."""
    folder = tmp_path_factory.mktemp("saved")
    tiny = ["--data", "synthetic_logistic:num_clients=2,rows=5,dim=3", "--steps", "40", "--quiet", "--no-cache"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["run", "gd", *tiny, "--out", str(folder / "run")]) == 0
        assert main(["sweep", "gd", *tiny, "--grid", "gamma=theory*0.5,1", "--out", str(folder / "sweep")]) == 0
    return folder


def read_again(saved, draw):
    """One of the commands that read a folder, on a folder whose config.json was edited."""
    commands = {"run": ("plot", "run", "extend", "report"), "sweep": ("best", "plot", "report")}
    kind, command = draw(st.sampled_from([(kind, command) for kind, each in commands.items() for command in each]))
    folder = Path.cwd().parent / "edited"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved / kind, folder)
    config = folder / "config.json" if kind == "run" else folder / "gd" / "config.json"
    config.write_text(draw(words.edited(config.read_text())))
    before = config.read_bytes()
    rest = {"extend": ["--steps", "10"], "run": ["gd", "--steps", "40"]}.get(command, [])
    rest = ["--out", str(folder / "report.html")] if command == "report" else rest
    line = [command, *rest, "--out", str(folder)] if command == "run" else [command, str(folder), *rest]
    if check(line, folder) == 2:
        assert config.read_bytes() == before  # never deleted or written over


@pytest.mark.slow
@given(case=st.data())
@times(20)
def test_saved_settings(saved, case):
    read_again(saved, case.draw)


@pytest.mark.slow
@given(case=st.data())
@times(200)
def test_saved_settings_at_length(saved, case):
    read_again(saved, case.draw)


# --- figures ---

FIGURE = {
    "title": "T", "clients": 2, "said": "words", "claims": {"A < B": "holds", "C": {"paper": 1, "here": "undecided"}},
    "curves": {"A": {"hyperparameters": {"gamma": 0.5}, "bits_up": 7.5, "accuracy": {"mean": 1.0, "error": None}}},
    "floors": {"A": [{"factor": 1.0, "floor": 0.25}], "B": [{"factor": 2.0, "floor": None}]}, "ratios": [1, 2],
    "bits": {"A": {"0.1": 3.0, "1": 4.0}}, "sent": {"A": [0.5, 0.25]}, "versions": {"jax": "0"}, "command": "x",
}  # fmt: skip


def figure_read(text):
    """An edited figure is shown, or refused in a line; the page's JSON is one."""
    path = Path.cwd().parent / "figure.json"
    path.write_text(text)
    with contextlib.suppress(InputError):
        embedded(dataclasses.asdict(Figure.read(path)))


@given(text=words.edited(json.dumps(FIGURE)))
@times(40)
def test_figures(text):
    figure_read(text)


@pytest.mark.slow
@given(text=words.edited(json.dumps(FIGURE)))
@times(3000)
def test_figures_at_length(text):
    figure_read(text)
