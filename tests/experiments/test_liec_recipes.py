"""Recipes of error feedback: found by name, well formed, a tiny one of each kind runs, and verdicts follow figures."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from experiments import _networks
from experiments.kit import catalogue, feedback
from experiments.kit.claim import Claim
from experiments.kit.contender import WAYS
from experiments.kit.training import Training
from experiments.liec import _convex, _images
from fedjax_lc import algorithms
from tests.experiments.test_network_recipes import builds, images

INF = {"mean": None, "error": None}


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def small(monkeypatch):
    for module in (_networks, _images):
        monkeypatch.setattr(module, "load", images)


def of(mean, error=0.0):
    return {"mean": mean, "error": error}


@pytest.mark.parametrize("place", range(10))
def test_methods_take_the_compressor_everywhere(place, problem):
    recipe = _convex.feedback("", True, False, "sign", 2, steps=10, seeds=2, floor_of="gap")
    curve = (*recipe.curves, *recipe.with_period)[place]
    hp = curve.hparams(problem)
    algorithms.get(curve.method).check(problem, hp)
    assert hp.batch_size == 2
    spelled = {str(getattr(hp, way)) for way in WAYS if hasattr(hp, way)}
    assert spelled == ({"fcc(sign):2"} if curve.method == "neolithic" else {"sign"} if curve.method != "sgd" else set())
    assert hasattr(hp, "period") == (curve.method in ("cser", "liec_sgd"))
    assert getattr(hp, "period", 8) == (32 if curve.label == "LIEC(32)" else 8)


def test_slopes_are_those_of_the_smallest_steps():
    assert feedback.slope([INF, *(of(c**2) for c in feedback.FACTORS[1:])]) == pytest.approx(2)
    assert np.isnan(feedback.slope([of(1.0), INF]))


def test_claims_about_exponents_and_periods(problem):
    recipe = _convex.feedback("", True, False, "sign", 2, steps=10, seeds=2, floor_of="gap")
    of_c = lambda power: [of(c**power) for c in feedback.FACTORS]
    facts = {
        "floors": {"a": of_c(2.1), "b": of_c(1), "c": [INF] * 6},
        "periods": {"a": [of(float(p)) for p in feedback.PERIODS], "b": [of(float(p % 32)) for p in feedback.PERIODS]},
        "errors": {"a": of(1.0, 0.1)},
        "tuned": {"a": of(1.0), "b": INF},
    }
    numbers = recipe.statistics(facts)
    assert feedback.squared("", "a").verdict(numbers) == "holds"
    assert feedback.squared("", "a", "b").verdict(numbers) == "does not hold"
    assert feedback.squared("", "c").verdict(numbers) == "does not hold"
    assert feedback.rises("", "a").verdict(numbers) == "holds"
    assert feedback.rises("", "b").verdict(numbers) == "does not hold"
    assert numbers["floors"]["a"].mean == feedback.SHOWN**2.1
    assert (numbers["errors"]["a"].error, numbers["tuned"]["b"].mean) == (0.1, np.inf)


def test_clients_are_alike_or_not():
    jax.config.update("jax_enable_x64", True)
    spread = {}
    for is_alike in (True, False):
        problem = _convex.convex(alike=is_alike, logistic=False)
        assert (problem.n, problem.dim) == (8, 100)
        spread[is_alike] = float(np.linalg.norm(np.asarray(problem.grads(problem.x_star)), axis=1).mean())
    assert spread[False] > 3 * spread[True]


def test_a_tiny_figure(problem, tmp_path, monkeypatch):
    for name, value in (("FACTORS", (0.2, 0.05)), ("PERIODS", (1, 4)), ("TRIED_STEPS", (0.3, 0.1)), ("BIN", 2)):
        monkeypatch.setattr(feedback, name, value)
    monkeypatch.setattr(feedback, "TRIED_PERIODS", (2, 4))
    whole = _convex.feedback("tiny", True, False, "sign", 2, steps=40, seeds=2, floor_of="gap")
    mem, liec = (next(c for c in whole.curves if c.label == label) for label in ("MEM-SGD", "LIEC(8)"))
    recipe = dataclasses.replace(
        whole, problem=lambda: problem, curves=(mem, liec), with_period=whole.with_period[:1], bits=5e3,
        claims=[Claim("mem first", ("MEM-SGD",), ("LIEC(8)",))], said="Nothing.",
    )  # fmt: skip
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".png"}
    assert "mem first" in text
    unit = 1 / float(problem.smooth.max())
    found = recipe.over_steps(mem, problem, unit, False)
    table = recipe._sweep(mem, problem, {"gamma": [0.2 * unit, 0.05 * unit]}, 40, 2, False)
    ends = table.gap.reshape(2, 2, -1)[..., -10:].mean(axis=2)
    np.testing.assert_allclose([one.mean for one in found["floors"]], ends.mean(axis=1))
    np.testing.assert_allclose([one.error for one in found["floors"]], ends.std(axis=1, ddof=1) / 2**0.5)
    assert recipe.affordable(mem, problem) == int(5e3 / (37 + 160))
    spent = (table.records["bits_up"] + table.records["bits_down"]).to_numpy().reshape(4, -1)[0]
    place = int((spent <= 3000).sum()) - 1
    np.testing.assert_allclose(feedback.at_budget(table, 3000), table.gap.reshape(4, -1)[:, place])


def test_networks_build_in_the_setting_of_the_authors(small):
    recipe = catalogue.get("liec/mnist")
    assert isinstance(recipe, Training)
    problem = recipe.problem()
    assert (problem.n, problem.dim) == (8, 21_840)
    for run in recipe.curves:
        hp = run.hparams(problem)
        algorithms.get(run.method).check(problem, hp)
        assert (hp.gamma, hp.weight_decay, hp.momentum, hp.batch_size) == (0.1, 5e-4, None, 128)
    liec = next(run for run in recipe.curves if run.label.startswith("LIEC(32)"))
    before, after = builds(dataclasses.replace(liec, changes={**liec.changes, "batch_size": 8}), problem)
    assert before == after
    periods = {run.label: run.hparams(problem).period for run in recipe.curves if run.method in ("liec_sgd", "cser")}
    assert all(f"({period})" in label for label, period in periods.items())


def test_the_full_configuration_is_that_of_the_authors():
    recipe = catalogue.get("liec/gpu/cifar10-resnet18")
    assert (recipe.rounds, recipe.every) == (20 * 49, 49)
    assert [run.label for run in recipe.curves] == ["P-SGD", "DoubleSqueeze, blocks", "LIEC(32), blocks"]
    for run in recipe.curves:
        assert {name: value for name, value in run.changes.items() if name not in WAYS} == {
            "gamma": 0.1,
            "weight_decay": 5e-4,
            "batch_size": 128,
            "gamma_schedule": "steps:3920,0.1",
        }
        assert {str(run.changes[name]) for name in WAYS & {*run.changes}} <= {"block_sign:1310720"}
