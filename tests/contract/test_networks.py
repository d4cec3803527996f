"""What every registered method must do on a network without a regulariser: one tiny one, in float64, with theory's
parameters; at length, the command that a user types.

See test_algorithms.py for what is asked of them on a convex problem.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from flax import linen

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.cli import main, run
from fedjax_lc.results import ledger
from tests.contract.test_algorithms import CHUNK, begin, leaf_kinds, theory, walk
from tests.quickly import compile_quickly

NAMES = algorithms.names()
FALLS = 0.75  #: what must be left of F after 3 CHUNK steps at most


class Net(linen.Module):
    """Two layers, one of them with dropout when training."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.tanh(linen.Dense(3)(x))
        return linen.Dense(3)(linen.Dropout(0.1, deterministic=not train)(x))


def make(sizes=(6, 9, 5, 7), dtype="float64", l2=0.02, **options):
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(3, 4))
    rows = lambda m: (lambda b: (centres[b] + rng.normal(size=(m, 4)), b))(rng.integers(0, 3, m))
    clients = [rows(m) for m in sizes]
    return fl.problems.neural(Net(), clients, rows(20), l2=l2, dtype=dtype, usual_batch=4, **options)


@pytest.fixture(scope="module")
def network():
    return make(l2=0.0).solved()  # NaN for x_star: some methods' Lyapunov functions ask for one


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NAMES)
def test_trains(name, network):
    """State scans, costs are counted, F falls from its start, and the same keys give the same run."""
    algorithm, hp = algorithms.get(name), theory(name, network)
    algorithm.check(network, hp)
    state = begin(name, network, hp)
    np.testing.assert_array_equal(algorithm.point(network, hp, state), network.x0)
    first = float(network.value(network.x0))
    steps = 3 * CHUNK
    end, _, values, costs, _ = walk(name, network, hp, steps)
    assert leaf_kinds(end) == leaf_kinds(state)
    assert {(part.shape, part.dtype) for part in costs} == {((steps,), np.dtype("float32"))}
    assert np.all(np.isfinite(values))
    assert values[-1] < FALLS * first
    assert np.all(costs.grads >= 0)
    np.testing.assert_array_equal(costs.bits_up > 0, costs.rounds > 0)
    np.testing.assert_array_equal(costs.bits_down > 0, costs.rounds > 0)
    if name == "scaffold":  # its control variates stay the clients' mean
        np.testing.assert_allclose(end.c, np.mean(end.c_i, axis=0), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def images():
    return fl.problem("digits", model="cnn")


STEPS = {"two_direction": 300}  #: of the command, where its default of 100 is few


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_command_trains_without_a_flag(name, images, tmp_path, capsys, monkeypatch):
    """`fedjax-lc run METHOD --data digits --model cnn`: the accuracy rises from a tenth to more than a third, and one
    line says what step sizes rest on."""
    compile_quickly(monkeypatch)
    if name != "locodl":  # one makes the problem that all share
        monkeypatch.setattr(run, "make_problem", lambda config, **_: (images, lambda: None))
    more = ["--every", "20", "--steps", str(STEPS.get(name, 100)), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["run", name, "--data", "digits", "--model", "cnn", *more]) == 0
    trace = fl.Trace.load(tmp_path / "out")
    assert trace.status == "finished"
    accuracy = trace.metrics["test_accuracy"]
    assert accuracy[-1] > 1 / 3
    assert accuracy[-1] > accuracy[0] or accuracy[-1] > 0.9
    assert trace.value[-1] < 0.85 * trace.initial["value"]
    rule = trace.config["working_rule"]
    assert (rule is None) == (name in ("local_adam", "savic"))  # numbers of their own, which depend on no L
    assert rule is None or rule in capsys.readouterr().out.splitlines()


TOGETHER = ("locodl", "savic")


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_a_lane_is_its_single_run(name, network, monkeypatch):
    """Two step sizes and two seeds side by side give what they give alone."""
    compile_quickly(monkeypatch)
    hp = algorithms.get(name).theory(network)
    field = "client_lr" if hasattr(hp, "client_lr") else "gamma"
    chosen = [dataclasses.replace(hp, **{field: factor * getattr(hp, field)}) for factor in (1.0, 0.7)]
    table = fl.sweep(name, network, chosen, seeds=2, steps=20, every=10, progress=False)
    for lane, (config, seed) in enumerate((c, s) for c in range(2) for s in range(2)):
        alone = fl.run(name, network, chosen[config], seed, steps=20, every=10, progress=False)
        ours = table.trace(lane)
        for cost in ledger.COSTS:
            np.testing.assert_allclose(getattr(ours, cost), getattr(alone, cost), rtol=1e-6)
        np.testing.assert_allclose(ours.value, alone.value, rtol=1e-10)
        np.testing.assert_allclose(ours.metrics["test_accuracy"], alone.metrics["test_accuracy"], rtol=0, atol=1e-12)
