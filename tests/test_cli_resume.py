"""The command line's runs: they go on with the same command, begin anew beside the old folder, and are extended."""

from __future__ import annotations

import json
import os
import signal

import pytest

import fedjax_lc as fl
from fedjax_lc.cli import main
from fedjax_lc.running import loop, signals
from tests.test_checkpoints import DONE, contents, same, visible

RUN = [
    "run",
    "gd",
    "--data",
    "iris",
    "--labels",
    "setosa",
    "--clients",
    "3",
    "--kappa",
    "50",
    "--every",
    "5",
    "--quiet",
]
RESULTS = sorted([*DONE, "plot.png"])


def run(out, *more, steps=40):
    return main([*RUN, "--steps", str(steps), "--out", str(out), *more])


@pytest.fixture
def signalled(monkeypatch):
    """Of the next runs: send this process a signal before the given chunk, of two records each."""

    def send(number, chunk):
        from fedjax_lc.running.run import Run

        advance, count = Run._advance, iter(range(1, 100))

        def counted(*arguments):
            if next(count) == chunk:
                signal.raise_signal(number)
            return advance(*arguments)

        monkeypatch.setattr(Run, "_advance", counted)

    monkeypatch.setattr(loop, "next_count", lambda *_: 2)
    return send


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run(out) == 0
    return fl.Trace.load(out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_same_command_goes_on(whole, tmp_path, signalled, number, code, capsys):
    out = tmp_path / "out"
    signalled(number, 3)
    assert run(out) == code
    assert capsys.readouterr().err == f"interrupted at step 25 of 40: {out} keeps it, and the same call goes on\n"
    assert visible(out) == ["checkpoint-000000000025.safetensors", "config.json", "trace.parquet"]
    assert run(out) == 0
    assert visible(out) == RESULTS
    same(fl.Trace.load(out), whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signals_elsewhere(monkeypatch, capsys, signalled):
    """Without a folder, and before anything runs."""
    from fedjax_lc.running.run import Run

    signalled(signal.SIGTERM, 2)
    assert main([*RUN, "--steps", "40"]) == 143
    assert capsys.readouterr().err == "terminated at step 15 of 40: nothing is kept of a run without out\n"
    monkeypatch.setattr(Run, "_compiled", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main([*RUN, "--steps", "40"]) == 143
    assert capsys.readouterr().err == "fedjax-lc: terminated\n"


def test_a_second_sigterm_acts_at_once():
    with pytest.raises(signals.Terminated), signals.raising(), signals.interruptible():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError


def test_another_process_is_refused(tmp_path, refused):
    from fedjax_lc.core.lock import locked

    with locked(tmp_path):
        assert f"{tmp_path} is in use by process {os.getpid()}" in refused(*RUN, "--steps", "40", "--out", tmp_path)


def test_restart_keeps_the_old_folder(whole, tmp_path, capsys, refused):
    out = tmp_path / "out"
    assert run(out, steps=20) == 0
    before = contents(out)
    capsys.readouterr()
    assert refused(*RUN, "--steps", 40, "--out", out) == (
        f"{out} already holds a different run (other steps): choose another --out"
    )
    assert refused(*RUN, "--steps", 40, "--out", out, "--restart", "--gamma", "-1").startswith("gd needs gamma > 0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert run(out, "--restart") == 0
    assert capsys.readouterr().err == f"kept what {out} held as {out}.1\n"
    same(fl.Trace.load(out), whole)
    assert contents(tmp_path / "out.1") == before
    assert run(out, "--restart", steps=20) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.1", "out.2"]


def test_extend(whole, tmp_path, signalled, capsys):
    out = tmp_path / "out"
    assert run(out, steps=20) == 0
    signalled(signal.SIGTERM, 1)
    assert main(["extend", str(out), "--steps", "20", "--quiet"]) == 143
    capsys.readouterr()
    assert main(["extend", str(out), "--steps", "20", "--quiet"]) == 0
    assert "GD" in capsys.readouterr().out
    assert visible(out) == RESULTS
    same(fl.Trace.load(out), whole)
    assert run(out) == 0  # the folder is that of 40 steps
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert settings["steps"] == 40
    same(fl.extend(out, 5, progress=False), fl.extend(whole.folder, 5, progress=False))  # what the command line began


def test_what_extend_refuses(problem, tmp_path, refused, capsys):
    assert refused("extend", tmp_path / "none", "--steps", 5) == (
        f"{tmp_path}/none holds no run: expected the --out of a run that is done"
    )
    fl.run("gd", problem, steps=10, out=tmp_path / "python", progress=False)
    assert refused("extend", tmp_path / "python", "--steps", 5) == (
        f"{tmp_path}/python holds a run that Python began: extend it by fl.extend"
    )
    out = tmp_path / "out"
    run(out, steps=20)
    capsys.readouterr()
    config = json.loads((out / "config.json").read_text())
    for settings in ("x", {"method": "gd", "nosuch": 3}, {}, {"method": ["gd"]}, 5):
        (out / "config.json").write_text(json.dumps(config | {"settings": settings}))
        refused("extend", out, "--steps", 5)


def test_results_are_saved_before_anything_is_printed(tmp_path, monkeypatch):
    from fedjax_lc.cli import run as command

    def die(*_):
        raise AssertionError("too costly")

    monkeypatch.setattr(command, "_print_outcome", die)
    with pytest.raises(AssertionError, match="too costly"):
        run(tmp_path)
    assert visible(tmp_path) == RESULTS


def test_a_disk_that_is_full_in_the_end(tmp_path, monkeypatch, capsys):
    """The results are printed, what is missing is one line, and the exit code tells it."""
    from fedjax_lc.running.run import Run
    from tests.test_checkpoints import full

    keep = Run._keep
    monkeypatch.setattr(Run, "_keep", lambda *block: monkeypatch.setattr(os, "fsync", full) or keep(*block))
    assert run(tmp_path) == 2
    out, err = capsys.readouterr()
    assert "GD" in out
    assert "wrote" not in out
    assert (
        err
        == f"note: cannot write {tmp_path}/trace.parquet: No space left on device; make room, and repeat the command\n"
    )
