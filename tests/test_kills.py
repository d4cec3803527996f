"""Runs in processes of their own, killed by all three signals at any moment: what goes on is the run nobody killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fedjax_lc as fl
from tests.test_checkpoints import DONE, same, visible

ROOT = Path(__file__).parents[1]

# Forks a process for each run, so that the package is imported once. Its arguments: the folder; how often to kill by
# each of the three signals; for each process after that, the number of the file that is half written when it kills
# itself; the steps of the run.
SCRIPT = """
import itertools, json, os, pathlib, random, signal, sys, time, traceback
import numpy as np
import pandas, pyarrow.parquet, safetensors.numpy
import fedjax_lc as fl
from fedjax_lc.running import loop, run

home, rounds, files = pathlib.Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
steps = int(sys.argv[4])
out, delays = home / "out", random.Random(rounds)

def dying(moment):
    replace, calls = os.replace, itertools.count(1)
    def instead(old, new):
        if next(calls) == moment:
            os.truncate(old, os.path.getsize(old) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(old, new)
    return instead

def one(folder, pause, moment):
    advance = run.Run._advance
    run.Run._advance = lambda *arguments: time.sleep(pause) or advance(*arguments)
    os.replace, loop.next_count = dying(moment), lambda *_: 2
    rng = np.random.default_rng(0)
    clients = [(rng.normal(size=(4, 3)), rng.choice([-1.0, 1.0], size=4)) for _ in range(3)]
    problem = fl.problems.logistic_regression(clients, kappa=30)
    options = {"steps": steps, "every": 3, "checkpoint_every": 0, "measure": ["grad_norm"], "progress": False}
    return {"finished": 0, "interrupted": 130}[fl.run("diana", problem, out=folder, **options).status]

def start(folder, pause=0.0, moment=0):
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.dup2(os.open(home / "errors", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        code = one(folder, pause, moment)
    except BaseException:
        traceback.print_exc()
    os._exit(code)

def end(process):
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return [code, (home / "errors").read_text(), last()]

def last():
    return max((path.name for path in out.glob("checkpoint-*")), default="")

ends = []
for number in [signal.SIGINT, signal.SIGTERM, signal.SIGKILL] * rounds:
    had, process, deadline = last(), start(out, pause=0.03), time.monotonic() + 60
    while last() == had and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delays.uniform(0, 0.1))
    os.kill(process, number)
    ends.append([number, *end(process)])
for moment in files:
    ends.append([signal.SIGKILL, *end(start(out, moment=moment))])
final = [end(start(folder)) for folder in (out, home / "whole")]
json.dump([ends, final], sys.stdout)
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}


@pytest.mark.parametrize(
    ("rounds", "files", "steps"),
    [(1, [6], 300), pytest.param(8, [*range(1, 14)] * 2, 1500, marks=pytest.mark.slow)],
    ids=["a few times", "fifty times"],
)
def test_killed_by_all_signals_it_is_the_same_run(tmp_path, rounds, files, steps):
    out = tmp_path / "out"
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(rounds), json.dumps(files), str(steps)]
    ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stderr
    ends, final = json.loads(ran.stdout)
    assert len(ends) == 3 * rounds + len(files)
    for number, code, errors, _ in ends:
        assert code == CODES[number], errors
        if number == signal.SIGKILL:
            assert errors == ""
        else:
            assert errors.startswith("interrupted at step ")
            assert errors.endswith(f" of {steps}: {out} keeps it, and the same call goes on\n")
    reached = [checkpoint for *_, checkpoint in ends]
    assert reached == sorted(reached)  # what is done stays done
    assert reached[0]
    assert final == [[0, "", ""]] * 2
    assert visible(out) == visible(tmp_path / "whole") == DONE  # without the half files of killed processes
    same(fl.Trace.load(out), fl.Trace.load(tmp_path / "whole"))
