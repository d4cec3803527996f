"""Data that drift: the generators, and that runs follow the phases as slow NumPy does."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.data import drift
from tests.conftest import make_clients
from tests.quickly import compile_quickly
from tests.reference import problems as reference

PHASES, EVERY = 3, 4


def rows(sizes=(6, 9, 4), dim=5):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(m, dim)), rng.integers(0, 3, m)) for m in sizes]


# --- generators ---


def test_labels_move_on_by_one_class_and_stay_there():
    phases = drift([(np.zeros((4000, 2)), np.arange(4000) % 3)], "labels", PHASES, amount=0.8)
    classes = [targets for ((_, targets),) in phases]
    np.testing.assert_array_equal(classes[0], np.arange(4000) % 3)
    moved = [(after - classes[0]) % 3 for after in classes]
    assert {*np.concatenate(moved)} == {0, 1}
    assert np.all(np.diff(moved, axis=0) >= 0)
    np.testing.assert_allclose(np.mean(moved, axis=1), [0, 0.4, 0.8], atol=0.03)


def test_features_turn_by_right_angles_and_keep_their_lengths():
    clients = [(np.random.default_rng(i).normal(size=(7, 2, 3)), np.arange(7)) for i in range(2)]
    phases = drift(clients, "features", PHASES, amount=2.0)
    for (first, _), (half, _), (last, targets) in zip(*phases, strict=True):
        np.testing.assert_allclose(last, -first, atol=1e-12)  # two right angles
        np.testing.assert_allclose(np.sum(half * first, axis=(1, 2)), 0, atol=1e-12)  # one
        np.testing.assert_allclose(np.sum(half**2, axis=(1, 2)), np.sum(first**2, axis=(1, 2)))
        np.testing.assert_array_equal(targets, np.arange(7))
    alone = drift(clients[:1], "features", PHASES, amount=2.0)  # a test set turns in the same planes
    np.testing.assert_array_equal(alone[1][0][0], phases[1][0][0])
    pixels = drift([(np.full((2, 3, 3), 200, np.uint8), np.zeros(2, int))], "features", 2)
    assert {features.dtype for ((features, _),) in pixels} == {np.dtype(np.float32)}


def test_clients_drift_at_speeds_of_their_own():
    clients = [(np.zeros((3000, 2)), np.zeros(3000, int))] * 4
    same, apart = (drift(clients, "labels", 2, amount=0.5, spread=s, classes=2)[1] for s in (0.0, 1.0))
    shares = [[np.mean(targets) for _, targets in of] for of in (same, apart)]
    assert np.ptp(shares[0]) < 0.05
    assert np.ptp(shares[1]) > 0.2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": "label"}, "unknown kind of drift 'label'.*labels"),
        ({"kind": "labels", "phases": 1}, "phases must be whole and 2 or more, got 1"),
        ({"kind": "labels", "amount": 1.5}, "amount must be from 0 to 1, a share of the rows, got 1.5"),
        ({"kind": "features", "amount": float("inf")}, "amount must be 0 or more right angles"),
        ({"kind": "features", "spread": -0.1}, "spread must be from 0 to 1, got -0.1"),
    ],
)
def test_what_cannot_drift_is_refused(how, said):
    with pytest.raises(fl.InputError, match=said):
        drift(rows(), **how)


def test_targets_and_features_that_cannot_shift_are_refused():
    with pytest.raises(fl.InputError, match=r"must be classes 0\.\.C-1, as whole numbers: use kind='features'"):
        drift([(np.zeros((2, 2)), np.array([1.0, -1.0]))], "labels")
    with pytest.raises(fl.InputError, match="must be two or more, got 1"):
        drift([(np.zeros((2, 1)), np.zeros(2, int))], "features")


# --- problems ---


def least_squares(**options):
    clients = make_clients(sizes=(6, 9, 4), dim=5, seed=1)
    phases = drift(clients, "features", PHASES, amount=1.5, spread=0.5)
    problems = [fl.problems.least_squares(of_phase, l2=0.1, dtype="float64") for of_phase in phases]
    return fl.problems.drifting(problems, EVERY, **options), phases


def test_gradient_descent_follows_the_phases_as_numpy_does(tmp_path):
    """Points and values at every record, whatever the chunks; the last phase lasts; saved and loaded."""
    problem, phases = least_squares()
    slow = [reference.LeastSquares(of_phase, 0.1) for of_phase in phases]
    steps, gamma = EVERY * PHASES + 5, 0.5 / float(problem.smooth_mean)
    hp = fl.algorithms.get("gd").Hparams(gamma=gamma)
    trace = fl.run("gd", problem, hp, steps=steps, every=1, progress=False, out=tmp_path / "out")
    x, values = np.zeros(5), []
    for t in range(steps):
        now = slow[min(t // EVERY, PHASES - 1)]
        x = x - gamma * now.full_grad(x)
        values.append(now.value(x))
    np.testing.assert_allclose(trace.value, values, rtol=1e-10)
    np.testing.assert_allclose(trace.x, x, rtol=1e-10)
    np.testing.assert_allclose(trace.initial["value"], slow[0].value(np.zeros(5)))
    assert np.isnan(trace.f_star)
    np.testing.assert_array_equal(fl.Trace.load(tmp_path / "out").value, trace.value)
    coarse = fl.run("gd", problem, hp, steps=steps - 2, every=5, progress=False)
    np.testing.assert_array_equal(coarse.value, trace.value[4::5])


def test_theory_takes_the_largest_constants_and_says_so():
    problem, phases = least_squares()
    each = [fl.problems.least_squares(of_phase, l2=0.1, dtype="float64") for of_phase in phases]
    np.testing.assert_array_equal(problem.smooth, np.max([one.smooth for one in each], axis=0))
    gd = fl.algorithms.get("gd")
    assert gd.theory(problem).gamma < 2 / float(jnp.max(problem.smooth))
    assert "no theorem covers this problem: gamma" in gd.working_rule(problem)
    assert "distance" not in problem.metrics
    with pytest.raises(fl.InputError, match="needs a known optimum"):
        fl.run("gd", problem, steps=1, every=1, rel_gap=0.1)


@pytest.mark.slow
def test_lanes_of_a_network_that_drifts_are_single_runs(monkeypatch):
    """Cohorts and batches too; what phases have in common is kept once; accuracy is of the phase's test rows."""
    compile_quickly(monkeypatch)
    phases, tests = drift(rows(), "labels", 2, classes=3), drift(rows((8,)), "labels", 2, classes=3)
    networks = [
        fl.problems.neural("linear", clients, test, usual_batch=4)
        for clients, (test,) in zip(phases, tests, strict=True)
    ]
    problem = fl.problems.drifting(networks, 6)
    assert sum(moves is not None for moves in problem.moving) == 2  # targets of clients and of the test set
    hp = dataclasses.replace(fl.algorithms.get("fedavg").theory(problem), cohort_size=2)
    table = fl.sweep("fedavg", problem, hp, seeds=2, steps=12, every=6, progress=False)
    for seed in range(2):
        alone = fl.run("fedavg", problem, hp, seed, steps=12, every=6, progress=False)
        np.testing.assert_allclose(table.trace(seed).value, alone.value, rtol=1e-6)
        np.testing.assert_array_equal(table.trace(seed).metrics["test_accuracy"], alone.metrics["test_accuracy"])
    assert alone.metrics["test_accuracy"][-1] == float(
        networks[1].measure(jnp.asarray(alone.x, jnp.float32), ("test_accuracy",))["test_accuracy"]
    )


def test_phases_of_other_shapes_are_refused():
    make = lambda sizes: fl.problems.softmax_regression(rows(sizes), l2=0.1)
    with pytest.raises(fl.InputError, match="phase 1 has others: give all the same clients"):
        fl.problems.drifting([make((6, 9)), make((6, 8, 4))], 5)
    with pytest.raises(fl.InputError, match="two phases or more, got 1"):
        fl.problems.drifting([make((6, 9))], 5)
    with pytest.raises(fl.InputError, match="every must be a whole number of steps, 1 or more, got 0"):
        fl.problems.drifting([make((6, 9))] * 2, 0)
