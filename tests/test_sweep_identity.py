"""No stale table and no mixed one: what other code, functions or versions computed is refused, and named."""

import dataclasses
import textwrap

import numpy as np
import optax
import pandas as pd
import pytest

import fedjax_lc as fl
from fedjax_lc.algorithms.frames import base
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import provenance
from fedjax_lc.sweeping.store import Store

METHOD = """
    from typing import NamedTuple
    import jax
    from fedjax_lc.algorithms.frames.base import Cost, register
    from fedjax_lc.core import pytree

    SHRINK = 1.0

    @pytree.dataclass
    class Hparams:
        gamma: float

    class State(NamedTuple):
        x: jax.Array

    def slow(x):
        return {factor} * x

    def init(problem, hp, key):
        return State(problem.x0)

    def step(problem, hp, state, key):
        return State(state.x - SHRINK * slow(hp.gamma * problem.grads(state.x).mean(0))), Cost(64, 64, 1, 1)

    def point(problem, hp, state):
        return state.x

    def theory(problem):
        return Hparams(1 / float(problem.smooth_mean))

    register("mine", paper="none", Hparams=Hparams, init=init, step=step, point=point, theory=theory)
"""


@pytest.fixture
def mine(tmp_path):
    """A function that writes the file of a method with a changed text, and runs it."""
    path = tmp_path / "mine.py"

    def load(before="", after="", factor="1.0"):
        text = textwrap.dedent(METHOD).format(factor=factor)
        assert before in text
        path.write_text(text.replace(before, after) if before else text)
        base.load(path)
        return fl.algorithms.get("mine")

    yield load
    del base._REGISTRY["mine"]


def sweep(problem, method, hparams, out, **options):
    """Two lanes in parts of one."""
    options = {"steps": 20, "every": 10, "block_size": 1, "progress": False} | options
    return fl.sweep(method, problem, hparams, out=out, **options)


def stop_after(monkeypatch, parts):
    """Until the context ends, a sweep stops before it saves its part of that number."""
    add = Store.add

    def fail(store, part):
        if len(store.ended) >= parts:
            raise KeyboardInterrupt
        add(store, part)

    monkeypatch.setattr(Store, "add", fail)


@pytest.fixture
def partial(monkeypatch):
    """Begin a sweep and stop it before its second part."""

    def begin(*arguments, **options):
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            with pytest.raises(KeyboardInterrupt):
                sweep(*arguments, **options)

    return begin


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        sweep(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def grid(problem, mine):
    return fl.grid(mine.theory(problem), gamma=fl.times([0.5, 0.6, 0.7, 0.8, 0.9]))


@pytest.mark.parametrize(
    "change",
    [("1.0 * x", "0.5 * x"), ("SHRINK = 1.0", "SHRINK = 0.5"), (".mean(0)", ".sum(0)"), ("Cost(64", "Cost(32")],
    ids=["helper", "constant", "step", "cost"],
)
@pytest.mark.parametrize("when", ["unfinished", pytest.param("finished", marks=pytest.mark.slow)])
def test_a_changed_method_is_refused(problem, mine, partial, tmp_path, change, when):
    """Also where what is changed is a helper or a constant of its file; its old results stay as they are."""
    out, alg = tmp_path / "out", mine()
    (sweep if when == "finished" else partial)(problem, alg, grid(problem, alg), out)
    kept = {path: path.read_bytes() for path in out.iterdir()}
    alg = mine(*change)
    assert refusal(problem, alg, grid(problem, alg), out) == (
        f"{out} already holds this sweep as computed with other code of the method: choose another folder, or keep "
        "what it holds by --other-code (other_code=True)"
    )
    assert kept == {path: path.read_bytes() for path in out.iterdir()}


def test_a_comment_or_another_place_is_no_change(problem, mine, tmp_path):
    out, alg = tmp_path / "out", mine()
    sweep(problem, alg, grid(problem, alg), out)
    alg = mine("SHRINK = 1.0", "# as in the paper\n\nSHRINK = 1.0  # (3)")
    sweep(problem, alg, grid(problem, alg), out)


def test_old_code_is_kept_when_asked_for(problem, mine, partial, tmp_path, capfd):
    """Then the lanes that are there are the old ones, the others are new, and a line says so."""
    out, alg = tmp_path / "out", mine()
    old = sweep(problem, alg, grid(problem, alg), None)
    partial(problem, alg, grid(problem, alg), out)
    alg = mine(factor="0.5")
    new = sweep(problem, alg, grid(problem, alg), None)
    both = sweep(problem, alg, grid(problem, alg), out, other_code=True, progress=True)
    said = capfd.readouterr().err
    assert f"note: {out} holds this sweep as computed with other code of the method\n" in said
    for lane in range(5):
        expected = (old if lane < 4 else new).trace(lane).value
        np.testing.assert_array_equal(both.trace(lane).value, expected)


def schedule(alg, problem, function):
    return [dataclasses.replace(alg.theory(problem), client_schedule=function)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optax.cosine_decay_schedule(1.0, 100), optax.cosine_decay_schedule(1.0, 5)),
        (lambda t: 1 / (t + 1), lambda t: 1 / (t + 2)),
    ],
    ids=["optax", "lambda"],
)
def test_another_schedule_is_refused(problem, tmp_path, one, other):
    alg = fl.algorithms.get("fedavg")
    sweep(problem, alg, schedule(alg, problem, one), tmp_path)
    line = refusal(problem, alg, schedule(alg, problem, other), tmp_path)
    assert line.startswith(f"{tmp_path} already holds this sweep as computed with another function client_schedule: ")
    line = refusal(problem, alg, schedule(alg, problem, "cosine:5"), tmp_path)
    assert "already holds a different sweep (other hyperparameters" in line


def test_the_same_schedule_written_again_is_the_same_sweep(problem, tmp_path):
    alg = fl.algorithms.get("fedavg")
    make = lambda rounds: schedule(alg, problem, optax.cosine_decay_schedule(1.0, rounds))
    first = sweep(problem, alg, make(100), tmp_path)
    again = sweep(problem, alg, make(100), tmp_path)
    pd.testing.assert_frame_equal(first.records, again.records)


def test_another_metric_of_the_same_name_is_refused(problem, tmp_path):
    make = lambda scale: {"m": lambda problem, hp, state: scale * state.x[0]}
    hp = fl.algorithms.get("gd").theory(problem)
    sweep(problem, "gd", hp, tmp_path, measure=make(1.0))
    assert "(" not in (line := refusal(problem, "gd", hp, tmp_path, measure=make(2.0))).partition(": ")[0]
    assert "as computed with another function m:" in line
    sweep(problem, "gd", hp, tmp_path, measure=make(1.0))


@pytest.mark.parametrize("when", ["unfinished", "finished"])
def test_other_versions(problem, partial, tmp_path, monkeypatch, capfd, when):
    """A finished table is what it says it is; an unfinished one would mix the last bits of two versions."""
    hp = fl.grid(fl.algorithms.get("gd").theory(problem), gamma=fl.times([0.5, 0.6, 0.7, 0.8, 0.9]))
    (sweep if when == "finished" else partial)(problem, "gd", hp, tmp_path)
    version = provenance._versions()["jax"]
    monkeypatch.setattr(provenance, "_versions", lambda: {"jax": "0.99", "jaxlib": provenance.jax.lib.__version__})
    differs = f"{tmp_path} {'holds' if when == 'finished' else 'already holds'} this sweep as computed with jax "
    differs += f"{version} instead of 0.99"
    if when == "finished":
        sweep(problem, "gd", hp, tmp_path, progress=True)
        assert f"note: {differs}\n" in capfd.readouterr().err
    else:
        assert refusal(problem, "gd", hp, tmp_path).startswith(f"{differs}: choose another folder, or keep ")
        assert len(sweep(problem, "gd", hp, tmp_path, other_code=True)) == 5


def test_other_source_of_the_package_is_refused(problem, tmp_path, monkeypatch):
    hp = fl.algorithms.get("gd").theory(problem)
    sweep(problem, "gd", hp, tmp_path)
    monkeypatch.setattr(provenance, "of_package", lambda names: "0" * 16)
    assert "as computed with other source of fedjax_lc:" in refusal(problem, "gd", hp, tmp_path)


def test_a_folder_in_use_is_refused(problem, tmp_path):
    from fedjax_lc.core.lock import locked

    hp = fl.algorithms.get("gd").theory(problem)
    with locked(tmp_path):
        assert f"{tmp_path} is in use by process " in refusal(problem, "gd", hp, tmp_path)
